//! The daemons' own flags, and the configuration each makes of them.

use super::flags::{
    CacheArgs, HubArgs, OperationsArgs, PeerArgs, PlaceArgs, TransportArgs, host_name, usage,
};
use crate::config::{BootstrapConfig, CacheConfig, ControllerConfig, NodeConfig, SeedConfig};
use crate::model::Failure;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Where kubelet finds the CSI service
    #[arg(
        long,
        env = "MODEL_P2P_CSI_ENDPOINT",
        hide_env = true,
        default_value = "unix:///var/lib/kubelet/plugins/csi.model-p2p.dev/csi.sock",
        value_name = "URL"
    )]
    csi_endpoint: String,
    /// Where FUSE mounts live [default: mnt/ beside the CSI socket]
    #[arg(long, env = "MODEL_P2P_MOUNT_DIR", hide_env = true, value_name = "DIR")]
    mount_dir: Option<PathBuf>,
    /// Where kubelet looks for plugins, usually /var/lib/kubelet/plugins_registry [default: not registered]
    #[arg(
        long,
        env = "MODEL_P2P_REGISTRATION_DIR",
        hide_env = true,
        value_name = "DIR"
    )]
    registration_dir: Option<PathBuf>,
    /// This node's name [default: the host name]
    #[arg(long, env = "MODEL_P2P_NODE_ID", hide_env = true, value_name = "NAME")]
    node_id: Option<String>,
    /// Also serve the controller service and be one's own seed: for development and conformance tests
    #[arg(long, env = "MODEL_P2P_ALL_IN_ONE", hide_env = true)]
    all_in_one: bool,
    /// Address for peers to fetch from
    #[arg(
        long,
        env = "MODEL_P2P_LISTEN",
        hide_env = true,
        default_value = "0.0.0.0:7441",
        value_name = "ADDR"
    )]
    listen: SocketAddr,
    /// Address that peers are told, where it is not the one listened on
    #[arg(
        long,
        env = "MODEL_P2P_ADVERTISE",
        hide_env = true,
        value_name = "ADDR"
    )]
    advertise: Option<SocketAddr>,
    #[command(flatten)]
    operations: OperationsArgs,
    /// How long a read may wait without progress, in seconds
    #[arg(
        long,
        env = "MODEL_P2P_READ_TIMEOUT",
        hide_env = true,
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    read_timeout: u64,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// The daemon's own command line
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub struct SeedArgs {
    /// This seed's name among the seeds [default: the host name]
    #[arg(long, env = "MODEL_P2P_NAME", hide_env = true, value_name = "NAME")]
    name: Option<String>,
    /// This seed's zone; without it, it is in none of the nodes' zones that have one
    #[arg(
        long,
        env = "MODEL_P2P_ZONE",
        hide_env = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    zone: String,
    /// Address for nodes and controllers (gRPC)
    #[arg(
        long,
        env = "MODEL_P2P_CONTROL",
        hide_env = true,
        default_value = "0.0.0.0:7440",
        value_name = "ADDR"
    )]
    control: SocketAddr,
    /// Address for pieces (HTTP/1.1)
    #[arg(
        long,
        env = "MODEL_P2P_LISTEN",
        hide_env = true,
        default_value = "0.0.0.0:7441",
        value_name = "ADDR"
    )]
    listen: SocketAddr,
    #[command(flatten)]
    operations: OperationsArgs,
    /// How long a hub's permission counts while the hub cannot be asked; 0: not at all
    #[arg(
        long,
        env = "MODEL_P2P_AUTH_GRACE",
        hide_env = true,
        default_value_t = 0,
        value_name = "SECONDS"
    )]
    auth_grace: u64,
    /// Control address of every seed, where there are several; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_PEERS",
        hide_env = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    peers: Vec<String>,
    #[command(flatten)]
    transport: TransportArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Where the provisioner finds the CSI service
    #[arg(
        long,
        env = "MODEL_P2P_CSI_ENDPOINT",
        hide_env = true,
        default_value = "unix:///csi/csi.sock",
        value_name = "URL"
    )]
    csi_endpoint: String,
    #[command(flatten)]
    operations: OperationsArgs,
    /// Access to a cluster from outside [default: the pod's service account]
    #[arg(
        long,
        env = "MODEL_P2P_KUBECONFIG",
        hide_env = true,
        value_name = "FILE"
    )]
    kubeconfig: Option<PathBuf>,
    /// Where volumes are remembered, beside the cluster [default: in memory]
    #[arg(long, env = "MODEL_P2P_CACHE_DIR", hide_env = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    peer: PeerArgs,
}

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// Keep the certificates in Secrets of this namespace
    #[arg(long, env = "MODEL_P2P_NAMESPACE", hide_env = true, value_name = "NS")]
    namespace: Option<String>,
    /// What the names of the Secrets begin with
    #[arg(
        long,
        env = "MODEL_P2P_PREFIX",
        hide_env = true,
        default_value = "model-p2p",
        value_name = "NAME"
    )]
    prefix: String,
    /// Keep them in DIR/{ca,seed,node,controller,admin} instead, without Kubernetes
    #[arg(
        long,
        env = "MODEL_P2P_OUT",
        hide_env = true,
        value_name = "DIR",
        conflicts_with = "namespace"
    )]
    out: Option<PathBuf>,
}

impl NodeArgs {
    pub fn config(self) -> Result<NodeConfig, Failure> {
        let peer = self.peer.config(Some(self.listen), self.advertise)?;
        let peer = self.place.place(peer);
        if peer.is_none() && !self.all_in_one {
            return Err(usage(
                "a node needs --seed HOST:PORT, or --all-in-one to be its own seed",
            ));
        }
        Ok(NodeConfig {
            csi_endpoint: self.csi_endpoint,
            mount_dir: self.mount_dir,
            registration_dir: self.registration_dir,
            node_id: self.node_id.unwrap_or_else(host_name),
            all_in_one: self.all_in_one,
            http: self.operations.http,
            read_timeout: std::time::Duration::from_secs(self.read_timeout),
            peer,
            hubs: self.hubs.config()?,
            cache: self.cache.config()?,
        })
    }
}

impl SeedArgs {
    pub fn config(self) -> Result<SeedConfig, Failure> {
        Ok(SeedConfig {
            name: self.name.unwrap_or_else(host_name),
            zone: self.zone,
            control: self.control,
            listen: self.listen,
            http: self.operations.http,
            tls_dir: self.transport.tls_dir()?,
            peers: self.peers,
            auth_grace: std::time::Duration::from_secs(self.auth_grace),
            hubs: self.hubs.config()?,
            cache: self.cache.config()?,
        })
    }
}

impl BootstrapArgs {
    pub fn config(self) -> Result<BootstrapConfig, Failure> {
        match (self.out, self.namespace) {
            (Some(dir), _) => Ok(BootstrapConfig::Folder(dir)),
            (None, Some(namespace)) => Ok(BootstrapConfig::Secrets {
                namespace,
                prefix: self.prefix,
            }),
            (None, None) => Err(usage(
                "give --namespace NS for Secrets, or --out DIR for files",
            )),
        }
    }
}

impl ControllerArgs {
    pub fn config(self) -> Result<ControllerConfig, Failure> {
        let peer = self.peer.config(None, None)?;
        let peer = peer.ok_or_else(|| usage("a controller needs --seed HOST:PORT"))?;
        Ok(ControllerConfig {
            csi_endpoint: self.csi_endpoint,
            seeds: peer.seeds,
            tls_dir: peer.tls_dir,
            http: self.operations.http,
            kubeconfig: self.kubeconfig,
            cache: self.cache_dir.map(|dir| CacheConfig {
                dir,
                limit_bytes: None,
            }),
        })
    }
}
