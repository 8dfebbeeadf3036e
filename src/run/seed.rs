//! The seed daemon: origin reader, tracker, piece server.

use super::control::{self, ControlService};
use super::engine::{Engine, bind, hubs, open_store};
use super::status::StatusSource;
use super::{ops, signal};
use crate::config::SeedConfig;
use crate::model::{Failure, FailureKind};
use crate::seed::server::SeedService;
use crate::seed::{Ingest, LocalCatalog};
use crate::swarm::{PieceServer, SeedProvider, Slots, Tracker};
use std::sync::Arc;
use tokio_stream::wrappers::TcpListenerStream;

/// Runs until a signal.
pub async fn seed(config: SeedConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_store(&config.cache)?;
    let hubs = hubs(&config.hubs)?;
    let origin = Arc::new(Ingest::new(store.clone(), hubs.clone()));
    let catalog = Arc::new(LocalCatalog::new(store.clone(), hubs));
    let (control, pieces) = (bind(config.control).await?, bind(config.listen).await?);
    let ready = ops::Ready::default();
    let status = StatusSource { role: "seed", store: store.clone(), mounts: None };
    let http = ops::serve(config.http, status.clone(), ready.clone(), shutdown.clone()).await?;
    let engine = Engine::local(store.clone(), &config.hubs, std::time::Duration::from_secs(600))?;
    control::serve(store.dir(), ControlService { engine, status, mounts: None }, shutdown.clone())?;
    tracing::info!(name = config.name, control = %config.control, pieces = %config.listen, %http, "seed is up");
    ready.set();
    let tracker = Tracker::new(&config.name, &config.listen.to_string(), store);
    let provider = Arc::new(SeedProvider::new(tracker.clone(), origin));
    let (server, _grpc) = PieceServer::new(provider, Slots::of_seed());
    let pieces = tokio::spawn(server.run(pieces, shutdown.clone()));
    let service = SeedService::new(tracker, catalog).into_service();
    let incoming = TcpListenerStream::new(control);
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned())
        .await;
    shutdown.cancel();
    let _ = pieces.await;
    served.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}
