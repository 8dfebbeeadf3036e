//! The controller daemon: the CSI controller service, which only resolves.

use super::engine::{Engine, open_store};
use super::{node, signal};
use crate::config::{ControllerConfig, PeerConfig};
use crate::csi;
use crate::model::{Failure, FailureKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A controller reads no content; the bound is for the engine it is built of.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs until a signal.
pub async fn controller(config: ControllerConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_store(&config.cache)?;
    let records = Arc::new(csi::IndexRecords::new(store.clone(), "controller-volumes"));
    // A peer that has nothing and wants nothing: it only asks the seeds' catalogs.
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let peer = PeerConfig { seeds: config.seeds.clone(), listen, advertise: None };
    let engine = Engine::peer(store, &peer, node::unique_id(), TIMEOUT, shutdown.clone()).await?;
    let socket = node::socket(&config.csi_endpoint)?;
    let readiness = csi::Readiness::default();
    let services = csi::Services::new(readiness.clone()).with_controller(csi::Controller::new(engine.catalog, records));
    tracing::info!(csi = config.csi_endpoint, seeds = ?config.seeds, "controller is up");
    readiness.set(true);
    let served = csi::serve(csi::Config::default(), services, socket, shutdown.cancelled_owned()).await;
    served.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}
