//! The node daemon: CSI node service, mounts, cache, peer.

use super::control::{self, ControlService};
use super::engine::{Engine, open_seed_store, open_store};
use super::status::StatusSource;
use super::{mount, ops, signal};
use crate::config::NodeConfig;
use crate::csi;
use crate::model::{Failure, FailureKind};
use crate::mount::{Mounts, MountsConfig};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs until a signal. Calls under way end first; the mounts die with the process, and the next one shows
/// them again.
pub async fn node(config: NodeConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = match &config.peer {
        Some(_) => open_store(&config.cache)?,
        None => open_seed_store(&config.cache)?,
    };
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
    let endpoint: csi::Endpoint = config.csi_endpoint.parse().map_err(socket_failure)?;
    let ready = ops::Ready::of_csi(endpoint.path());
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
    let node = node_service(&config, &engine, &mounts)?;
    let registration = config.registration_dir.as_deref();
    let registration = registration
        .map(|dir| csi::Registration::bind(dir, &endpoint))
        .transpose()
        .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    let http = ops::serve(config.http, status, ready.clone(), shutdown.clone()).await?;
    tracing::info!(node = config.node_id, csi = config.csi_endpoint, %http, "node is up");
    // No call before what an earlier process left is out of the way.
    let cleaned = clean(&node, &mounts).await;
    let restoring = restore(node.clone(), cleaned, readiness.clone(), ready);
    let restoring = tokio::spawn(shutdown.clone().run_until_cancelled_owned(restoring));
    let services = services(&config, &engine, node, readiness);
    let csi = csi::serve(
        csi::Config::default(),
        services,
        socket,
        shutdown.clone().cancelled_owned(),
    );
    let served = serve_both(csi, registration, shutdown).await;
    drop((held, restoring));
    served
}

/// Serves CSI and kubelet's registration; the end of one is the end of both.
async fn serve_both(
    csi: impl Future<Output = Result<(), csi::server::ServeError>>,
    registration: Option<csi::Registration>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let failed = |error: String| Failure::new(FailureKind::Internal, error);
    let registered = async {
        let Some(registration) = registration else {
            return Ok(());
        };
        let end = registration.serve(shutdown.clone()).await;
        shutdown.cancel();
        end.map_err(|error| failed(error.to_string()))
    };
    let served = async {
        let end = csi.await;
        shutdown.cancel();
        end.map_err(|error| failed(error.to_string()))
    };
    let (served, registered) = tokio::join!(served, registered);
    served.and(registered)
}

type Recorded = Vec<(String, PathBuf)>;

/// Takes down what an earlier process left; what was published then is to be shown again.
async fn clean(node: &csi::Node, mounts: &Arc<Mounts>) -> Result<Recorded, Failure> {
    let failed = |error: csi::RecordError| Failure::new(FailureKind::Internal, error.to_string());
    let recorded = node.recorded().await.map_err(failed)?;
    let targets = recorded.iter().map(|(_, target)| target.clone());
    for target in mounts.recover(targets.collect()).await? {
        tracing::warn!(target = %target.display(), "took down a mount of an earlier process");
    }
    Ok(recorded)
}

/// Says that the node is ready once its volumes are back, or that it never will be.
async fn restore(
    node: csi::Node,
    cleaned: Result<Recorded, Failure>,
    readiness: csi::Readiness,
    ready: ops::Ready,
) {
    match cleaned {
        Ok(recorded) => {
            node.restore(recorded).await;
            readiness.set(true);
            ready.set();
        }
        Err(failure) => {
            tracing::error!(%failure, "cannot recover from the process before");
            readiness.fail(failure);
        }
    }
}

fn node_service(
    config: &NodeConfig,
    engine: &Engine,
    mounts: &Arc<Mounts>,
) -> Result<csi::Node, Failure> {
    let publisher = Arc::new(csi::MountPublisher {
        mounts: mounts.clone(),
        fetcher: engine.fetcher.clone(),
    });
    let records = csi::IndexRecords::new(engine.store.clone(), "node-volumes");
    let (catalog, records) = (engine.catalog.clone(), Arc::new(records));
    csi::Node::new(catalog, publisher, records, &config.node_id)
        .map(|node| node.with_observer(engine.observer.clone()))
        .map_err(|error| Failure::new(FailureKind::BadReference, error.to_string()))
}

fn services(
    config: &NodeConfig,
    engine: &Engine,
    node: csi::Node,
    readiness: csi::Readiness,
) -> csi::Services {
    let services = csi::Services::new(readiness).with_node(node);
    if !config.all_in_one {
        return services;
    }
    let records = csi::IndexRecords::new(engine.store.clone(), "controller-volumes");
    services.with_controller(csi::Controller::new(
        engine.catalog.clone(),
        Arc::new(records),
        None,
    ))
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
