//! The node daemon: CSI node service, mounts, cache, peer.

use super::control::{self, ControlService};
use super::engine::{Engine, open_store};
use super::status::StatusSource;
use super::{mount, ops, signal};
use crate::config::NodeConfig;
use crate::csi;
use crate::model::{Failure, FailureKind};
use crate::mount::{Mounts, MountsConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs until a signal; mounts are taken down on the way out.
pub async fn node(config: NodeConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_store(&config.cache)?;
    let engine = match &config.peer {
        Some(peer) => {
            let id = config.node_id.clone();
            Engine::peer(
                store.clone(),
                peer,
                id,
                config.read_timeout,
                shutdown.clone(),
            )
            .await?
        }
        None => Engine::local(store.clone(), &config.hubs, config.read_timeout)?,
    };
    let mounts = Mounts::new(
        MountsConfig {
            dir: mount_dir(&config)?,
        },
        engine.fetcher.clone(),
        tokio::runtime::Handle::current(),
    )?;
    for target in mounts.recover(Vec::new()).await? {
        tracing::warn!(target = %target.display(), "took down a mount of an earlier process");
    }
    let ready = ops::Ready::default();
    let status = StatusSource {
        role: "node",
        store: Some(store.clone()),
        mounts: Some(mounts.clone()),
    };
    let (keep, asked) = mpsc::channel(16);
    let service = ControlService {
        engine: engine.clone(),
        status: status.clone(),
        mounts: Some((mounts.clone(), keep)),
    };
    control::serve(store.dir(), service, shutdown.clone())?;
    let held = tokio::spawn(mount::hold_until_ended(asked, shutdown.clone()));
    // Bound before anything says that the node is ready.
    let socket = socket(&config.csi_endpoint)?;
    let readiness = csi::Readiness::default();
    let services = services(&config, &engine, &mounts, readiness.clone())?;
    let http = ops::serve(config.http, status, ready.clone(), shutdown.clone()).await?;
    tracing::info!(node = config.node_id, csi = config.csi_endpoint, %http, "node is up");
    readiness.set(true);
    ready.set();
    let served = csi::serve(
        csi::Config::default(),
        services,
        socket,
        shutdown.cancelled_owned(),
    )
    .await;
    drop(held);
    served.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}

fn services(
    config: &NodeConfig,
    engine: &Engine,
    mounts: &Arc<Mounts>,
    readiness: csi::Readiness,
) -> Result<csi::Services, Failure> {
    let records = |table| Arc::new(csi::IndexRecords::new(engine.store.clone(), table));
    let publisher = Arc::new(csi::MountPublisher(mounts.clone()));
    let node = csi::Node::new(
        engine.catalog.clone(),
        publisher,
        records("node-volumes"),
        &config.node_id,
    )
    .map_err(|error| Failure::new(FailureKind::BadReference, error.to_string()))?
    .with_observer(engine.observer.clone());
    let services = csi::Services::new(readiness).with_node(node);
    Ok(match config.all_in_one {
        true => services.with_controller(csi::Controller::new(
            engine.catalog.clone(),
            records("controller-volumes"),
            None,
        )),
        false => services,
    })
}

/// Binds the CSI socket, or says what is wrong with it.
pub fn socket(endpoint: &str) -> Result<csi::Socket, Failure> {
    let endpoint: csi::Endpoint = endpoint.parse().map_err(socket_failure)?;
    endpoint.bind().map_err(socket_failure)
}

fn socket_failure(error: csi::SocketError) -> Failure {
    let kind = match error {
        csi::SocketError::Endpoint { .. } => FailureKind::BadReference,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

/// Where FUSE mounts live: beside the CSI socket unless told otherwise.
fn mount_dir(config: &NodeConfig) -> Result<PathBuf, Failure> {
    if let Some(dir) = &config.mount_dir {
        return Ok(dir.clone());
    }
    let endpoint: csi::Endpoint = config.csi_endpoint.parse().map_err(socket_failure)?;
    Ok(endpoint
        .path()
        .parent()
        .unwrap_or(Path::new("/"))
        .join("mnt"))
}

/// A peer's name that no other process has: two commands on one host are two peers.
pub fn unique_id() -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    format!(
        "{}-{:08x}",
        host.unwrap_or_else(|| "host".into()),
        rand::random::<u32>()
    )
}
