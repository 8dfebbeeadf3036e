//! The controller daemon: the CSI controller service, which only resolves.

use super::engine::open_store;
use super::signal;
use crate::config::ControllerConfig;
use crate::csi;
use crate::model::{Failure, FailureKind};
use crate::swarm::RemoteCatalog;
use std::sync::Arc;

/// Runs until a signal.
pub async fn controller(config: ControllerConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown().map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    let store = open_store(&config.cache)?;
    let parts = csi::Parts {
        node: None,
        controller: true,
        catalog: Arc::new(RemoteCatalog::new(config.seeds.clone())),
        records: Arc::new(csi::StoreRecords::new(store)),
    };
    tracing::info!(csi = config.csi_endpoint, seeds = ?config.seeds, "controller is up");
    csi::serve(&config.csi_endpoint, parts, shutdown).await
}
