//! A node in the swarm: pieces from neighbours first, then from the file's seed.
//!
//! [`Swarm::start`] begins the piece server, the neighbours' HAVE service on the same port and a stream to
//! each seed; all of it ends with `shutdown`. As a [`Source`] it brings a demanded piece from whoever has
//! it, and runs in the background from neighbours, or from what the seed chooses among the pieces that no
//! neighbour has. It retries for [`PATIENCE`] and then fails with the last cause.

use super::availability::{Availability, Holdings};
use super::client::{PieceClient, TransferError};
use super::have::PeerService;
use super::link::{GRACE, LinkParts, Reached, SeedLink};
use super::neighbours::Neighbours;
use super::observer::Told;
use super::peers::Peers;
use super::planner::Giver;
use super::provider::NodeProvider;
use super::recent::Recent;
use super::remote::{RemoteSeed, no_seed, rank};
use super::request::RUN_PIECES_MAX;
use super::server::PieceServer;
use super::slots::{Class, Slots};
use super::v1::{self, peer_server::PeerServer, to_seed::Message};
use super::wishes::{Wish, Wishes};
use crate::model::{Bitfield, Failure, FailureKind, FileKey, Token};
use crate::source::{Arrival, FileRef, Need, Reach, Source};
use crate::store::{CacheFile, Store};
use crate::tls::TlsDir;
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// How long one call tries before it fails: the caller asks again while its reader waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct SwarmConfig {
    /// Unique in the cluster and stable over restarts.
    pub node_id: String,
    /// `host:port` of each seed's control port. The text is the seed's name: the same on every node.
    pub seeds: Vec<String>,
    /// Where others reach `listener`; an unspecified IP stands for the one a seed sees this node at.
    pub piece_addr: SocketAddr,
    pub slots: Slots,
    /// Where the node is: between zones a piece travels once, a rack's own nodes are preferred. Empty is one
    /// zone, no rack.
    pub zone: String,
    pub rack: String,
    /// Certificates; without them everything is in the clear.
    pub tls: Option<Arc<TlsDir>>,
    /// A seed that copies what others own: it serves its pieces itself.
    pub is_seed: bool,
}

impl SwarmConfig {
    /// With a node's 4 and 1 upload slots, and in the clear.
    pub fn new(node_id: String, seeds: Vec<String>, piece_addr: SocketAddr) -> SwarmConfig {
        SwarmConfig {
            node_id,
            seeds,
            piece_addr,
            slots: Slots::of_node(),
            zone: String::new(),
            rack: String::new(),
            tls: None,
            is_seed: false,
        }
    }
}

/// A running node.
pub struct Swarm {
    pub(super) files: Arc<Recent>,
    pub(super) wishes: Arc<Wishes>,
    pub(super) availability: Arc<Availability>,
    pub(super) peers: Peers,
    pub(super) client: PieceClient,
    pub(super) store: Store,
    pub(super) links: Vec<Arc<SeedLink>>,
    pub(super) told: Told,
    reach: Arc<watch::Sender<Reached>>,
    is_seed: bool,
}

impl Swarm {
    /// Starts a node on a bound socket, within a tokio runtime. Fails when a seed's name is no `host:port`.
    pub fn start(
        config: SwarmConfig,
        store: Store,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<Arc<Swarm>, Failure> {
        let (slots, tls) = (config.slots.clone(), config.tls.clone());
        let swarm = Swarm::join(config, store, shutdown.clone())?;
        swarm.serve(slots, tls, listener, shutdown);
        Ok(swarm)
    }

    /// The same without a piece server: for who has one.
    pub fn join(
        config: SwarmConfig,
        store: Store,
        shutdown: CancellationToken,
    ) -> Result<Arc<Swarm>, Failure> {
        let files = Arc::new(Recent::new(store.clone()));
        let (wishes, availability) = (
            Arc::new(Wishes::new(hello(&config))),
            Arc::new(Availability::default()),
        );
        let known = wishes.clone();
        let geometries = Arc::new(move |key| known.geometry(key));
        let neighbours = Arc::new(Neighbours::new(
            availability.clone(),
            geometries,
            config.tls.clone(),
        ));
        let reach = Arc::new(watch::Sender::default());
        let links = config.seeds.iter().enumerate().map(|(index, name)| {
            let parts = LinkParts {
                index,
                hello: hello(&config),
                wishes: wishes.clone(),
                files: files.clone(),
                neighbours: neighbours.clone(),
                reach: reach.clone(),
            };
            Ok(Arc::new(SeedLink::new(
                RemoteSeed::new(name, config.tls.as_ref())?,
                parts,
            )))
        });
        let swarm = Arc::new(Swarm {
            links: links.collect::<Result<_, Failure>>()?,
            is_seed: config.is_seed,
            client: PieceClient::new(store.clone(), config.node_id, config.tls.clone()),
            files,
            wishes,
            availability,
            peers: Peers::default(),
            told: Told::default(),
            store,
            reach: reach.clone(),
        });
        for link in &swarm.links {
            tokio::spawn(link.clone().run(shutdown.clone()));
        }
        tokio::spawn(shutdown.run_until_cancelled_owned(rehome(Arc::downgrade(&swarm))));
        Ok(swarm)
    }

    fn serve(
        &self,
        slots: Slots,
        tls: Option<Arc<TlsDir>>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) {
        let provider = Arc::new(NodeProvider {
            files: self.files.clone(),
        });
        let (server, grpc) = PieceServer::new(provider, slots, tls);
        let have = PeerServer::new(PeerService {
            files: self.files.clone(),
        });
        let control = tonic::transport::Server::builder().add_service(have);
        tokio::spawn(control.serve_with_incoming_shutdown(
            ReceiverStream::new(grpc),
            shutdown.clone().cancelled_owned(),
        ));
        tokio::spawn(server.run(listener, shutdown));
    }

    /// The seed for a key: the first in the key's own order that is up, or the first of all.
    pub(super) fn link_for(
        &self,
        key: &[u8; 32],
        token: Option<&Token>,
    ) -> Result<(usize, &Arc<SeedLink>), Failure> {
        let ranked = rank(&self.links, key, |link| &link.seed.name);
        let up = ranked.iter().find(|(_, link)| link.is_likely_up());
        let (index, link) = *up.or(ranked.first()).ok_or_else(no_seed)?;
        link.seed.check_token(token)?;
        Ok((index, link))
    }

    /// The seed for a file: the one that reads it, as far as this node has heard and reaches it.
    fn link_of(
        &self,
        file: &FileRef,
        owner: Option<&str>,
    ) -> Result<(usize, &Arc<SeedLink>), Failure> {
        let is_owner =
            |link: &&Arc<SeedLink>| owner.is_some() && link.seed_name().as_deref() == owner;
        let found = self
            .links
            .iter()
            .position(|link| is_owner(&link) && link.is_likely_up());
        let token = file.token.get();
        let Some(index) = found else {
            // Seeds that ask each other for what neither owns would ask for ever.
            if self.is_seed {
                return Err(no_seed());
            }
            return self.link_for(&file.key.0, token.as_ref());
        };
        self.links[index].seed.check_token(token.as_ref())?;
        Ok((index, &self.links[index]))
    }

    /// Wants a file from the seed that owns it. Fails when that one is not connected.
    pub fn follow(&self, file: &FileRef, owner: &str) -> Result<(), Failure> {
        let index = self.reach.borrow().get(owner).copied();
        let index = index.ok_or_else(|| super::demand::not_connected(owner).failure)?;
        self.wishes.want(file, index);
        self.wishes.set_owner(file.key, owner, Some(index));
        Ok(())
    }

    /// A piece from somebody who said that he holds it, into the store.
    pub async fn take(
        &self,
        addr: &str,
        cache: &Arc<CacheFile>,
        index: u32,
    ) -> Result<(), TransferError> {
        let run = index..index + 1;
        let taken = self.client.pieces(addr, cache, run, Class::Demand).await;
        taken.map(drop)
    }

    /// Opens a file and tells its seed that it is wanted.
    pub(super) fn open(&self, file: &FileRef) -> Result<(Arc<CacheFile>, Wish), Failure> {
        let owner = self.wishes.owner(file.key);
        let (seed, _) = self.link_of(file, owner.as_deref())?;
        let cache = self.files.file(file.key, file.size);
        let cache =
            cache.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        Ok((cache, self.wishes.want(file, seed)))
    }

    /// The neighbours of a file as the planner sees them.
    pub(super) fn givers<'a>(
        &self,
        wish: &Wish,
        holdings: &'a Holdings<Arc<str>>,
    ) -> Vec<Giver<'a, Arc<str>>> {
        let giver = |(id, has): (&'a Arc<str>, &'a Bitfield)| Giver {
            id,
            has,
            distance: wish.surroundings.distance(id),
            standing: self.peers.standing(id),
        };
        holdings.iter().map(giver).collect()
    }

    /// Draws the consequence of a failed request to a neighbour.
    pub(super) fn blame(
        &self,
        addr: &Arc<str>,
        key: FileKey,
        run: std::ops::Range<u32>,
        error: &TransferError,
    ) {
        tracing::debug!(peer = %addr, file = %key, piece = run.start, %error, "peer gave nothing");
        match error {
            TransferError::Busy { after } => {
                let after = after.mul_f64(0.5 + rand::random::<f64>());
                self.peers.refused(addr, after);
            }
            TransferError::NotHere => {
                run.for_each(|index| self.availability.lacks(addr, key, index))
            }
            TransferError::Corrupt { piece } => self.ban(addr, key, *piece),
            TransferError::NoHash { .. } | TransferError::Store(_) | TransferError::Unwanted => {}
            _ => self.peers.rest(addr),
        }
    }

    fn ban(&self, addr: &Arc<str>, key: FileKey, piece: u32) {
        tracing::warn!(peer = %addr, file = %key, piece, "peer gave a corrupt piece, banned for 60 s");
        self.peers.ban(addr);
        self.client.forget(addr);
        let kind = v1::report::Kind::Corrupt.into();
        let report = v1::Report {
            peer: addr.to_string(),
            key: key.0.to_vec(),
            piece,
            kind,
        };
        self.links
            .iter()
            .for_each(|link| link.tell(Message::Report(report.clone())));
    }
}

fn hello(config: &SwarmConfig) -> v1::Hello {
    v1::Hello {
        node: config.node_id.clone(),
        piece_addr: config.piece_addr.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zone: config.zone.clone(),
        rack: config.rack.clone(),
        is_seed: config.is_seed,
    }
}

/// Finds other seeds for what a lost one tracked, once it is given up: also what nobody reads now waits for a
/// seed's word on it.
async fn rehome(swarm: Weak<Swarm>) {
    let Some(mut reach) = swarm.upgrade().map(|swarm| swarm.reach.subscribe()) else {
        return;
    };
    while reach.changed().await.is_ok() {
        tokio::time::sleep(GRACE).await;
        let Some(swarm) = swarm.upgrade() else { return };
        let home = |file: &FileRef, owner: Option<&str>| Some(swarm.link_of(file, owner).ok()?.0);
        swarm.wishes.rehome(home);
    }
}

#[async_trait]
impl Source for Swarm {
    fn reach(&self) -> Reach {
        let connected = |link: &&Arc<SeedLink>| link.piece_addr().is_some();
        Reach {
            seeds: self.links.len(),
            connected: self.links.iter().filter(connected).count(),
        }
    }

    /// A run is up to four pieces, and the wanted one may be its last.
    fn patience(&self) -> Duration {
        let run = self.peers.unusual() * RUN_PIECES_MAX;
        run.min(PATIENCE / 2)
    }

    async fn admit(&self, file: &FileRef) -> Result<(), Failure> {
        let owner = self.wishes.owner(file.key);
        let (_, link) = self.link_of(file, owner.as_deref())?;
        link.seed.prove(file).await
    }

    async fn piece(&self, file: &FileRef, index: u32) -> Result<Arrival, Failure> {
        let (cache, _) = self.open(file)?;
        super::demand::Demand {
            swarm: self,
            file,
            cache,
            index,
        }
        .run()
        .await
    }

    async fn some(&self, file: &FileRef, need: &Arc<Need>) -> Result<Arrival, Failure> {
        let (cache, _) = self.open(file)?;
        super::background::Background {
            swarm: self,
            file,
            cache,
            need,
            started: Instant::now(),
        }
        .run()
        .await
    }
}
