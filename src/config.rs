//! What each role needs to know to start: plain values, complete and checked before anything is bound.

use crate::model::{HubUrl, Reference, Token, View};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub dir: PathBuf,
    pub limit_bytes: Option<u64>,
}

/// Which hubs a process that reads them itself knows.
#[derive(Clone, Debug)]
pub struct HubsConfig {
    pub huggingface: String,
    pub ca_file: Option<PathBuf>,
    /// Further hubs that references may name.
    pub allowed: Vec<HubUrl>,
    pub offline: bool,
}

/// How a process takes part in a swarm.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// HOST:PORT of each seed's control service.
    pub seeds: Vec<String>,
    pub listen: SocketAddr,
    pub advertise: Option<SocketAddr>,
    /// Where it is; empty where all are in one place.
    pub zone: String,
    pub rack: String,
    /// Certificates; without them everything is in the clear.
    pub tls_dir: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct GetConfig {
    pub reference: Reference,
    pub view: View,
    pub dir: PathBuf,
    pub token: Option<Token>,
    pub hubs: HubsConfig,
    pub peer: Option<PeerConfig>,
    pub http: Option<SocketAddr>,
    pub cache: CacheConfig,
    pub json: bool,
}

#[derive(Clone, Debug)]
pub struct MountConfig {
    pub shown: GetConfig,
    pub foreground: bool,
    pub prefetch: String,
}

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub csi_endpoint: String,
    pub mount_dir: Option<PathBuf>,
    /// Where kubelet looks for plugins; `None` leaves the registration to somebody else.
    pub registration_dir: Option<PathBuf>,
    pub node_id: String,
    pub all_in_one: bool,
    pub http: SocketAddr,
    pub read_timeout: Duration,
    pub peer: Option<PeerConfig>,
    pub hubs: HubsConfig,
    pub cache: CacheConfig,
}

#[derive(Clone, Debug)]
pub struct SeedConfig {
    pub name: String,
    pub zone: String,
    pub control: SocketAddr,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub tls_dir: Option<PathBuf>,
    /// HOST:PORT of every seed's control service; an own one among them does no harm.
    pub peers: Vec<String>,
    pub hubs: HubsConfig,
    /// How long a hub's permission counts while the hub cannot be asked.
    pub auth_grace: Duration,
    pub cache: CacheConfig,
}

#[derive(Clone, Debug)]
pub struct ControllerConfig {
    pub csi_endpoint: String,
    pub seeds: Vec<String>,
    pub tls_dir: Option<PathBuf>,
    pub http: SocketAddr,
    pub kubeconfig: Option<PathBuf>,
    /// Where volumes are remembered beside the cluster; else in memory.
    pub cache: Option<CacheConfig>,
}

/// Where the cluster's certificates are kept.
#[derive(Clone, Debug)]
pub enum BootstrapConfig {
    Secrets { namespace: String, prefix: String },
    Folder(PathBuf),
}
