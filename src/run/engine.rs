//! What every role that reads models is built of: a store, a catalog, a source, and the fetching between.

use crate::config::{CacheConfig, HubsConfig, PeerConfig};
use crate::fetch::{FetchConfig, Fetcher};
use crate::hub::{Hubs, HubsConfig as HubClients};
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind};
use crate::seed::{Ingest, LocalCatalog, LocalSource};
use crate::source::{Catalog, Observer, Source};
use crate::store::{Store, StoreConfig, StoreError};
use crate::swarm::{Swarm, SwarmConfig};
use crate::tls::TlsDir;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The reading half of a process.
#[derive(Clone)]
pub struct Engine {
    pub store: Store,
    pub catalog: Arc<dyn Catalog>,
    pub fetcher: Arc<Fetcher>,
    /// Where pods' news go; only seeds take them.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Opens a cache; another process's is told apart by [`StoreError::Owned`].
pub fn open_store(cache: &CacheConfig) -> Result<Store, StoreError> {
    Store::open_or_renew(&store_config(cache))
}

/// Opens the cache of a process that keeps volumes' pins for others.
pub fn open_seed_store(cache: &CacheConfig) -> Result<Store, StoreError> {
    Store::open(&store_config(cache))
}

fn store_config(cache: &CacheConfig) -> StoreConfig {
    StoreConfig {
        dir: cache.dir.clone(),
        limit_bytes: cache.limit_bytes,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let kind = match &error {
            StoreError::NoRoom { .. } => FailureKind::NoRoom,
            StoreError::Owned { .. } => FailureKind::Unavailable,
            StoreError::Io { .. }
            | StoreError::NotWritable { .. }
            | StoreError::Damaged { .. }
            | StoreError::Index(_) => FailureKind::Internal,
        };
        Failure::new(kind, error.to_string())
    }
}

/// Makes the hub clients of a process that reads hubs itself.
pub fn hubs(config: &HubsConfig) -> Result<Arc<Hubs>, Failure> {
    let clients = HubClients {
        huggingface: config.huggingface.clone(),
        ca_file: config.ca_file.clone(),
        allowed: config.allowed.clone(),
        offline: config.offline,
    };
    Ok(Arc::new(Hubs::new(clients)?))
}

impl Engine {
    /// A process that is its own seed.
    pub fn local(
        store: Store,
        config: &HubsConfig,
        read_timeout: Duration,
    ) -> Result<Engine, Failure> {
        let hubs = hubs(config)?;
        let origin = Ingest::new(store.clone(), hubs.clone());
        let source = Arc::new(LocalSource::new(Arc::new(origin)));
        let catalog = Arc::new(LocalCatalog::new(store.clone(), hubs, Duration::ZERO));
        Ok(Engine::new(store, catalog, source, read_timeout))
    }

    /// A process that reads through seeds and peers, and gives to peers.
    pub async fn peer(
        store: Store,
        config: &PeerConfig,
        node_id: String,
        read_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Result<Engine, Failure> {
        let tls = tls(config.tls_dir.as_deref())?;
        let listener = bind(config.listen).await?;
        let bound = listener
            .local_addr()
            .map_err(|error| address_failure(config.listen, &error))?;
        let advertised = config.advertise.unwrap_or_else(|| advertised(bound));
        tracing::info!(listen = %bound, %advertised, seeds = ?config.seeds, "joining the swarm");
        let seeds = config.seeds.clone();
        let config = SwarmConfig {
            tls,
            zone: config.zone.clone(),
            rack: config.rack.clone(),
            ..SwarmConfig::new(node_id, seeds, advertised)
        };
        let swarm = Swarm::start(config, store.clone(), listener, shutdown)?;
        Ok(Engine {
            observer: Some(swarm.clone()),
            ..Engine::new(store, swarm.clone(), swarm, read_timeout)
        })
    }

    fn new(
        store: Store,
        catalog: Arc<dyn Catalog>,
        source: Arc<dyn Source>,
        read_timeout: Duration,
    ) -> Engine {
        let fetcher = Fetcher::new(store.clone(), source, FetchConfig { read_timeout });
        Engine {
            store,
            catalog,
            fetcher,
            observer: None,
        }
    }
}

/// The certificates of a process; without them it says that everything is in the clear.
pub fn tls(dir: Option<&Path>) -> Result<Option<Arc<TlsDir>>, Failure> {
    METRICS.insecure.set(dir.is_none().into());
    let Some(dir) = dir else {
        tracing::warn!(
            "--insecure: control and pieces travel in the clear, keep their ports inside a trusted network"
        );
        return Ok(None);
    };
    let tls = TlsDir::open(dir)?;
    tracing::info!(dir = %dir.display(), "control and pieces are TLS");
    Ok(Some(tls))
}

/// Binds an address, or says which and what to do.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| address_failure(addr, &error))
}

fn address_failure(addr: SocketAddr, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => ": another process listens there, choose another port",
        _ => "",
    };
    Failure::new(
        FailureKind::Internal,
        format!("cannot listen on {addr}: {error}{remedy}"),
    )
}

/// What peers are told when nothing is configured: the address bound, or this host's own where that is
/// the wildcard.
fn advertised(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // A datagram socket "connected" anywhere sends nothing and shows the address that would be used.
    let probe = std::net::UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    let ip = probe.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |addr| addr.ip());
    SocketAddr::new(ip, bound.port())
}
