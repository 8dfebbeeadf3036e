//! The seed daemon: origin reader, tracker, piece server.

use super::control::{self, ControlService};
use super::engine::{Engine, bind, hubs, open_store, tls};
use super::status::StatusSource;
use super::{ops, signal};
use crate::config::SeedConfig;
use crate::model::Failure;
use crate::seed::{Ingest, LocalCatalog, SeedServer};
use std::sync::Arc;

/// Runs until a signal.
pub async fn seed(config: SeedConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_store(&config.cache)?;
    let tls = tls(config.tls_dir.as_deref())?;
    let hubs = hubs(&config.hubs)?;
    let origin = Arc::new(Ingest::new(store.clone(), hubs.clone()));
    let catalog = Arc::new(LocalCatalog::new(store.clone(), hubs, config.auth_grace));
    let (control, pieces) = (bind(config.control).await?, bind(config.listen).await?);
    let ready = ops::Ready::default();
    let status = StatusSource {
        role: "seed",
        store: Some(store.clone()),
        mounts: None,
    };
    let http = ops::serve(config.http, status.clone(), ready.clone(), shutdown.clone()).await?;
    let engine = Engine::local(
        store.clone(),
        &config.hubs,
        std::time::Duration::from_secs(600),
    )?;
    control::serve(
        store.dir(),
        ControlService {
            engine,
            status,
            mounts: None,
        },
        shutdown.clone(),
    )?;
    tracing::info!(name = config.name, control = %config.control, pieces = %config.listen, %http, "seed is up");
    ready.set();
    SeedServer::new(config.name, store, origin, catalog)
        .in_zone(&config.zone)
        .run(control, tls, pieces, shutdown)
        .await
}
