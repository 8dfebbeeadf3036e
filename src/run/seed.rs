//! The seed daemon: origin reader, tracker, piece server.

use super::control::{self, ControlService};
use super::engine::{Engine, bind, hubs, open_seed_store, tls};
use super::status::StatusSource;
use super::{ops, signal};
use crate::config::SeedConfig;
use crate::model::Failure;
use crate::seed::{Fellows, Ingest, Lead, LocalCatalog, OwnedOrigin, Owners, SeedServer};
use crate::store::Store;
use crate::swarm::{Swarm, SwarmConfig, Tracker, link};
use crate::tls::TlsDir;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until a signal.
pub async fn seed(config: SeedConfig) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let store = open_seed_store(&config.cache)?;
    let tls = tls(config.tls_dir.as_deref())?;
    let hubs = hubs(&config.hubs)?;
    let ingest = Ingest::new(store.clone(), hubs.clone());
    let catalog = LocalCatalog::new(store.clone(), hubs, config.auth_grace);
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
    let among = Among {
        store,
        ingest,
        catalog,
    };
    let server = among.server(&config, tls.as_ref(), &shutdown)?;
    server.run(control, tls, pieces, shutdown).await
}

/// What a seed among others is built from.
struct Among {
    store: Store,
    ingest: Ingest,
    catalog: LocalCatalog,
}

impl Among {
    fn server(
        self,
        config: &SeedConfig,
        tls: Option<&Arc<TlsDir>>,
        shutdown: &CancellationToken,
    ) -> Result<SeedServer, Failure> {
        let fellows = Arc::new(Fellows::new(&config.name, &config.peers, tls)?);
        let tracker = Tracker::new(&config.name, self.store.clone());
        let owners = Arc::new(Owners::new(fellows.clone(), tracker.clone()));
        self.ingest
            .set_lead(Lead::new(tracker.ledger().clone(), fellows.clone()));
        let peer = SwarmConfig {
            tls: tls.cloned(),
            is_seed: true,
            ..SwarmConfig::new(
                link::seed_node(&config.name),
                config.peers.clone(),
                config.listen,
            )
        };
        let peer = Swarm::join(peer, self.store, shutdown.clone())?;
        let origin = OwnedOrigin::new(self.ingest, owners.clone(), tracker.clone(), peer);
        let catalog = Arc::new(self.catalog.with_fellows(fellows));
        Ok(SeedServer::among(owners, tracker, origin, catalog).in_zone(&config.zone))
    }
}
