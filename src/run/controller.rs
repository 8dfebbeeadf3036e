//! The controller daemon: the CSI controller service, which only resolves.

use super::engine::{open_store, tls};
use super::{node, signal};
use crate::config::ControllerConfig;
use crate::csi;
use crate::model::{Failure, FailureKind};
use crate::swarm::RemoteCatalog;
use std::sync::Arc;

/// Runs until a signal.
pub async fn controller(config: ControllerConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_store(&config.cache)?;
    let records = Arc::new(csi::IndexRecords::new(store, "controller-volumes"));
    let tls = tls(config.tls_dir.as_deref())?;
    let catalog = Arc::new(RemoteCatalog::new(&config.seeds, tls.as_ref())?);
    let socket = node::socket(&config.csi_endpoint)?;
    let readiness = csi::Readiness::default();
    let services = csi::Services::new(readiness.clone())
        .with_controller(csi::Controller::new(catalog, records));
    tracing::info!(csi = config.csi_endpoint, seeds = ?config.seeds, "controller is up");
    readiness.set(true);
    let served = csi::serve(
        csi::Config::default(),
        services,
        socket,
        shutdown.cancelled_owned(),
    )
    .await;
    served.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}
