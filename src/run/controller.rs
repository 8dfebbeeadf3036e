//! The controller daemon: the CSI controller service, which only resolves, and the writer of pods' events.

use super::engine::{open_store, tls};
use super::status::StatusSource;
use super::{node, ops, signal};
use crate::config::ControllerConfig;
use crate::csi::{self, Claims, Records};
use crate::kubernetes::{self, ClusterClaims};
use crate::model::{Failure, FailureKind, PodEvent};
use crate::swarm::{RemoteCatalog, events};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Volumes remembered in memory, of about 1 KiB each: those whose PersistentVolume is not made yet.
const RECORDS_MAX: usize = 10_000;

/// Runs until a signal.
pub async fn controller(config: ControllerConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let claims = claims(&config).await?;
    let tls = tls(config.tls_dir.as_deref())?;
    let catalog = Arc::new(RemoteCatalog::new(&config.seeds, tls.as_ref())?);
    if let Some(claims) = claims.clone() {
        let events = events::follow(&config.seeds, tls.as_ref(), shutdown.clone())?;
        tokio::spawn(write_events(events, claims));
    }
    let controller = csi::Controller::new(catalog, records(&config)?, claims);
    let socket = node::socket(&config.csi_endpoint)?;
    let status = StatusSource {
        role: "controller",
        store: None,
        mounts: None,
    };
    let ready = ops::Ready::default();
    let http = ops::serve(config.http, status, ready.clone(), shutdown.clone()).await?;
    let readiness = csi::Readiness::default();
    let services = csi::Services::new(readiness.clone()).with_controller(controller);
    tracing::info!(csi = config.csi_endpoint, %http, seeds = ?config.seeds, "controller is up");
    readiness.set(true);
    ready.set();
    let shutdown = shutdown.cancelled_owned();
    let served = csi::serve(csi::Config::default(), services, socket, shutdown).await;
    served.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}

/// The cluster, if this process is in one or was given one.
async fn claims(config: &ControllerConfig) -> Result<Option<Arc<dyn Claims>>, Failure> {
    let client = kubernetes::client(config.kubeconfig.as_deref()).await;
    let client =
        client.map_err(|error| Failure::new(FailureKind::BadReference, error.to_string()))?;
    if client.is_none() {
        tracing::warn!(
            "no cluster: claims' annotations are not read and no events are written; give --kubeconfig"
        );
    }
    Ok(client.map(|client| Arc::new(ClusterClaims::new(client)) as Arc<dyn Claims>))
}

fn records(config: &ControllerConfig) -> Result<Arc<dyn Records>, Failure> {
    let Some(cache) = &config.cache else {
        return Ok(csi::MemoryRecords::new(RECORDS_MAX));
    };
    let store = open_store(cache)?;
    Ok(Arc::new(csi::IndexRecords::new(
        store,
        "controller-volumes",
    )))
}

/// One after the other: while the API is slow, what waits is bounded and the rest is dropped by the seeds.
async fn write_events(mut events: mpsc::Receiver<PodEvent>, claims: Arc<dyn Claims>) {
    while let Some(event) = events.recv().await {
        if let Err(error) = claims.record(&event.into()).await {
            tracing::warn!(%error, "event not written");
        }
    }
}
