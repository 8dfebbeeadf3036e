//! The node daemon: CSI node service, mounts, cache, peer.

use super::control::{self, ControlService};
use super::engine::{Engine, open_store};
use super::status::StatusSource;
use super::{ops, signal};
use crate::config::NodeConfig;
use crate::csi;
use crate::model::{Failure, FailureKind};
use crate::mount::{Mounts, MountsConfig};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs until a signal; mounts are taken down on the way out.
pub async fn node(config: NodeConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown().map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    let store = open_store(&config.cache)?;
    let engine = match &config.peer {
        Some(peer) => {
            let id = config.node_id.clone();
            Engine::peer(store.clone(), peer, id, config.read_timeout, shutdown.clone()).await?
        }
        None => Engine::local(store.clone(), &config.hubs, config.read_timeout)?,
    };
    let mounts = Mounts::new(MountsConfig { dir: mount_dir(&config)? }, engine.fetcher.clone())?;
    mounts.recover().await;
    let ready = ops::Ready::default();
    let status = StatusSource { role: "node", store: store.clone(), mounts: Some(mounts.clone()) };
    let http = ops::serve(config.http, status.clone(), ready.clone(), shutdown.clone()).await?;
    let (keep, mut asked) = mpsc::channel(16);
    let service = ControlService { engine: engine.clone(), status, mounts: Some((mounts.clone(), keep)) };
    control::serve(store.dir(), service, shutdown.clone())?;
    // Mounts asked for over the control socket live as long as the daemon.
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(mounted) = asked.recv().await {
            held.push(mounted);
        }
    });
    tracing::info!(node = config.node_id, csi = config.csi_endpoint, %http, "node is up");
    ready.set();
    let served = serve_csi(&config, &engine, mounts.clone(), shutdown.clone()).await;
    held.abort();
    mounts.end().await;
    served
}

async fn serve_csi(
    config: &NodeConfig,
    engine: &Engine,
    mounts: Arc<Mounts>,
    shutdown: tokio_util::sync::CancellationToken,
) -> Result<(), Failure> {
    let parts = csi::Parts {
        node: Some(csi::NodeParts { node_id: config.node_id.clone(), publisher: mounts }),
        controller: config.all_in_one,
        catalog: engine.catalog.clone(),
        records: Arc::new(csi::StoreRecords::new(engine.store.clone())),
    };
    csi::serve(&config.csi_endpoint, parts, shutdown).await
}

/// Where FUSE mounts live: beside the CSI socket unless told otherwise.
fn mount_dir(config: &NodeConfig) -> Result<PathBuf, Failure> {
    if let Some(dir) = &config.mount_dir {
        return Ok(dir.clone());
    }
    let socket = csi::socket_path(&config.csi_endpoint)?;
    let folder = socket.parent().map(|folder| folder.join("mnt"));
    folder.ok_or_else(|| Failure::new(FailureKind::BadReference, "--csi-endpoint names no folder: give --mount-dir"))
}

/// A peer's name that no other process has: two commands on one host are two peers.
pub fn unique_id() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}-{:08x}", host.unwrap_or_else(|| "host".into()), rand::random::<u32>())
}
