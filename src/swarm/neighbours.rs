//! HAVE, the asking side: one stream to each neighbour for all files shared with it.
//!
//! The seeds' peer sets say who the neighbours for a file are. A stream that breaks is dialled again with a
//! growing pause, and what its neighbour had is forgotten meanwhile. Bound: 128 neighbours.

use super::availability::{Availability, News};
use super::v1::{self, peer_client::PeerClient};
use super::wire;
use crate::backoff::Delays;
use crate::metrics::METRICS;
use crate::model::{FileKey, Geometry};
use crate::tls::{Callee, TlsDir};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const NEIGHBOURS_MAX: usize = 128;
const CONNECT: Duration = Duration::from_secs(3);

/// Finds the geometry of a file that this node wants.
pub type Geometries = Arc<dyn Fn(FileKey) -> Option<Geometry> + Send + Sync>;

pub struct Neighbours {
    availability: Arc<Availability>,
    geometries: Geometries,
    tls: Option<Arc<TlsDir>>,
    links: Mutex<HashMap<Arc<str>, Link>>,
}

struct Link {
    keys: watch::Sender<BTreeSet<FileKey>>,
    _task: AbortOnDropHandle<()>,
}

impl Neighbours {
    pub fn new(
        availability: Arc<Availability>,
        geometries: Geometries,
        tls: Option<Arc<TlsDir>>,
    ) -> Neighbours {
        Neighbours {
            availability,
            geometries,
            tls,
            links: Mutex::default(),
        }
    }

    /// Takes a file's new set of neighbours: streams begin and end accordingly.
    pub fn set(&self, key: FileKey, addrs: impl IntoIterator<Item = Arc<str>>) {
        let addrs: BTreeSet<Arc<str>> = addrs.into_iter().collect();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|addr, link| {
            if !addrs.contains(addr) {
                link.keys.send_if_modified(|keys| keys.remove(&key));
            }
            let is_used = !link.keys.borrow().is_empty();
            if !is_used {
                self.availability.forget(addr);
            }
            is_used
        });
        for addr in addrs {
            if links.len() < NEIGHBOURS_MAX || links.contains_key(&addr) {
                let link = links.entry(addr.clone()).or_insert_with(|| self.link(addr));
                link.keys.send_if_modified(|keys| keys.insert(key));
            }
        }
    }

    fn link(&self, addr: Arc<str>) -> Link {
        let (keys, _) = watch::channel(BTreeSet::new());
        let task = listen(
            addr,
            keys.subscribe(),
            self.availability.clone(),
            self.geometries.clone(),
            self.tls.clone(),
        );
        Link {
            keys,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}

async fn listen(
    addr: Arc<str>,
    keys: watch::Receiver<BTreeSet<FileKey>>,
    availability: Arc<Availability>,
    geometries: Geometries,
    tls: Option<Arc<TlsDir>>,
) {
    let mut backoff = Delays::default();
    loop {
        let ended = match channel(&addr, tls.as_ref()) {
            Ok(channel) => stream(&addr, channel, keys.clone(), &availability, &geometries).await,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        if let Err(status) = ended {
            tracing::debug!(peer = %addr, cause = status.message(), "have stream ended");
        }
        availability.forget(&addr);
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Counts a neighbour while its stream is open.
struct Connected;

impl Connected {
    fn new() -> Connected {
        METRICS.peers.inc();
        Connected
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        METRICS.peers.dec();
    }
}

/// Connects with the first call.
fn channel(addr: &str, tls: Option<&Arc<TlsDir>>) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    Ok(match tls {
        Some(tls) => tls.dial(&endpoint, Callee::Peer),
        None => endpoint.connect_lazy(),
    })
}

async fn stream(
    addr: &Arc<str>,
    channel: Channel,
    keys: watch::Receiver<BTreeSet<FileKey>>,
    availability: &Availability,
    geometries: &Geometries,
) -> Result<(), Status> {
    let mut client = PeerClient::new(channel);
    let watches = WatchStream::new(keys).map(|keys: BTreeSet<FileKey>| v1::Watch {
        keys: keys.iter().map(|key| key.0.to_vec()).collect(),
    });
    let mut batches = client.have(watches).await?.into_inner();
    let _connected = Connected::new();
    while let Some(batch) = batches.message().await? {
        for file in batch.files {
            let Some(key) = wire::key_of(&file.key) else {
                continue;
            };
            let Some(geometry) = geometries(key) else {
                continue;
            };
            availability.learn(addr, key, geometry, news(file));
        }
    }
    Ok(())
}

fn news(file: v1::FileHave) -> News {
    match file.bits {
        Some(bits) => News::All(bits),
        None => News::More(file.runs.iter().map(|run| (run.first, run.count)).collect()),
    }
}
