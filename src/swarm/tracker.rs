//! The tracker: who wants and who has which file, on the seed that owns it.
//!
//! Sessions tell what their nodes want and hold; what changes is noted as a dirty key in each session
//! concerned, and the session's own task ([`super::session`]) tells its node the present state: nothing is
//! queued, so a slow node costs one key set. Everything here is in memory; after a restart nodes tell it again.
//!
//! Bounds: 10,000 sessions; 16,384 interests and 100,000 counts a session. What goes beyond is ignored and
//! logged. A file somebody is interested in is open in the seed's store, and so not evicted as a whole.

mod testimony;

use super::ledger::Ledger;
use super::v1;
use super::vicinity::{self, Place};
use super::wire;
use crate::model::{Bitfield, FileKey};
use crate::source::FileRef;
use crate::store::{CacheFile, Store, StoreError};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

const SESSIONS_MAX: usize = 10_000;
const INTERESTS_MAX: usize = 16_384;
const COUNTS_MAX: usize = 100_000;
/// News of a file is told at most this often.
pub const DEBOUNCE: Duration = Duration::from_millis(20);

/// A seed's view of its nodes.
pub struct Tracker {
    name: String,
    zone: OnceLock<String>,
    piece_addr: OnceLock<SocketAddr>,
    store: Store,
    ledger: Arc<Ledger>,
    inventories: watch::Sender<u64>,
    state: Mutex<State>,
}

/// What one node should know of a file.
pub(super) struct View {
    pub cache: Arc<CacheFile>,
    /// Whom the node may ask, where that has changed.
    pub crowd: Option<Crowd>,
    pub owner: Option<String>,
    /// The file is this seed's among several, and it does not know what the node holds.
    pub asks: bool,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Arc<Session>>,
    files: HashMap<FileKey, Track>,
    /// Nodes that hold pieces, whether they are interested or not.
    holders: HashMap<FileKey, BTreeSet<String>>,
    /// Counts sessions and changes of crowds: no number comes twice.
    count: u64,
}

struct Track {
    cache: Arc<CacheFile>,
    interested: HashMap<String, FileRef>,
    /// Changes with those who want or hold the file.
    crowd: u64,
    newest: FileRef,
    /// The seed that reads it, by name, where there are several.
    owner: Option<String>,
    /// What nodes hold, where this seed has asked them.
    held: HashMap<String, Bitfield>,
    _watch: AbortOnDropHandle<()>,
}

/// Whom a node may ask for a file, while those who want or hold it are the same.
pub(super) struct Crowd {
    pub id: u64,
    pub set: v1::PeerSet,
}

/// One node's stream.
pub struct Session {
    pub node: String,
    /// Of its piece server.
    pub addr: String,
    is_seed: bool,
    /// The seeds that the node is connected with.
    reach: Mutex<BTreeSet<String>>,
    zone: String,
    rack: String,
    rank: u64,
    id: u64,
    dirty: Mutex<BTreeSet<FileKey>>,
    wake: Notify,
}

impl Session {
    fn place(&self) -> Place<'_> {
        Place {
            rank: self.rank,
            zone: &self.zone,
            rack: &self.rack,
        }
    }

    fn touch(&self, key: FileKey) {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        self.wake.notify_one();
    }

    /// The keys that changed, once there are any.
    pub async fn changed(&self) -> BTreeSet<FileKey> {
        loop {
            let dirty =
                std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
            if !dirty.is_empty() {
                return dirty;
            }
            self.wake.notified().await;
        }
    }
}

impl Tracker {
    /// `name` tells seeds apart.
    pub fn new(name: &str, store: Store) -> Arc<Tracker> {
        Arc::new(Tracker {
            name: name.to_owned(),
            zone: OnceLock::new(),
            piece_addr: OnceLock::new(),
            store,
            ledger: Arc::default(),
            inventories: watch::Sender::new(0),
            state: Mutex::default(),
        })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Where nodes reach this seed's piece server; before any session. An unspecified host (`0.0.0.0`)
    /// stands for the host they reach the control port at.
    pub fn set_piece_addr(&self, addr: SocketAddr) {
        let _ = self.piece_addr.set(addr);
    }

    /// Where this seed is; before any session. Without it a seed is in the zone of those that have none.
    pub fn set_zone(&self, zone: &str) {
        let _ = self.zone.set(zone.to_owned());
    }

    fn zone(&self) -> &str {
        self.zone.get().map_or("", String::as_str)
    }

    pub fn welcome(&self) -> v1::Welcome {
        v1::Welcome {
            seed: self.name.clone(),
            piece_addr: self
                .piece_addr
                .get()
                .map(ToString::to_string)
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a node's session; an earlier one of the same node ends. `None` when there are too many.
    pub fn join(&self, hello: &v1::Hello, from: Option<IpAddr>) -> Option<Arc<Session>> {
        let mut state = self.lock();
        if state.sessions.len() >= SESSIONS_MAX && !state.sessions.contains_key(&hello.node) {
            return None;
        }
        state.count += 1;
        let session = Arc::new(Session {
            node: hello.node.clone(),
            addr: super::reachable(&hello.piece_addr, from),
            is_seed: hello.is_seed,
            reach: Mutex::default(),
            zone: hello.zone.clone(),
            rack: hello.rack.clone(),
            rank: vicinity::rank_of(&hello.node),
            id: state.count,
            dirty: Mutex::default(),
            wake: Notify::new(),
        });
        state.sessions.insert(hello.node.clone(), session.clone());
        Some(session)
    }

    /// Ends a session, unless the node has a newer one already.
    pub fn leave(&self, session: &Session) {
        let mut state = self.lock();
        if !state.is_current(session) {
            return;
        }
        state.sessions.remove(&session.node);
        for holders in state.holders.values_mut() {
            holders.remove(&session.node);
        }
        state.holders.retain(|_, nodes| !nodes.is_empty());
        let keys: Vec<_> = state.files.keys().copied().collect();
        for key in keys {
            state.lose_interest(key, &session.node, &self.ledger);
        }
    }

    /// A node wants a file. `Err`: this seed's store cannot hold it.
    pub fn interest(
        self: &Arc<Tracker>,
        session: &Session,
        file: FileRef,
    ) -> Result<(), StoreError> {
        let cache = self.store.file(file.key, file.size)?;
        let mut state = self.lock();
        let known = state.files.len() < INTERESTS_MAX || state.files.contains_key(&file.key);
        if !known || !state.is_current(session) {
            tracing::warn!(node = %session.node, file = %file.key, "interest ignored");
            return Ok(());
        }
        let track = state.files.entry(file.key).or_insert_with(|| Track {
            _watch: AbortOnDropHandle::new(tokio::spawn(watch(
                Arc::downgrade(self),
                cache.clone(),
            ))),
            interested: HashMap::new(),
            crowd: 0,
            newest: file.clone(),
            owner: None,
            held: HashMap::new(),
            cache,
        });
        track.newest = file.clone();
        let key = file.key;
        track.interested.insert(session.node.clone(), file);
        state.crowd_changed(key);
        Ok(())
    }

    pub fn no_interest(&self, session: &Session, key: FileKey) {
        let mut state = self.lock();
        if state.is_current(session) {
            state.lose_interest(key, &session.node, &self.ledger);
        }
    }

    /// A node tells how many pieces it holds.
    pub fn counts(&self, session: &Session, counts: &v1::Counts) {
        let mut state = self.lock();
        for count in counts.counts.iter().take(COUNTS_MAX) {
            let Some(key) = wire::key_of(&count.key) else {
                continue;
            };
            let holders = state.holders.entry(key).or_default();
            let changed = match count.pieces {
                0 => holders.remove(&session.node),
                _ => holders.insert(session.node.clone()),
            };
            if changed {
                state.crowd_changed(key);
            }
        }
    }

    /// A file as `node` wants it, or as anybody does.
    pub fn file(&self, key: FileKey, node: &str) -> Option<FileRef> {
        let state = self.lock();
        let track = state.files.get(&key)?;
        Some(track.interested.get(node).unwrap_or(&track.newest).clone())
    }

    /// Where a node's piece server is.
    pub fn addr_of(&self, node: &str) -> Option<String> {
        self.lock()
            .sessions
            .get(node)
            .map(|session| session.addr.clone())
    }

    /// What this session's node should know of a file, if it is interested in it; whom it may ask only where the
    /// crowd is another than `crowd`. Looking through a crowd of thousands takes a while.
    pub(super) fn view(&self, session: &Session, key: FileKey, crowd: u64) -> Option<View> {
        let state = self.lock();
        let track = state.files.get(&key)?;
        track.interested.get(&session.node)?;
        let is_news = track.crowd != crowd;
        let crowd = is_news.then(|| Crowd {
            id: track.crowd,
            set: state.peer_set(key, session, self.zone()),
        });
        let is_known = track.held.contains_key(&session.node);
        Some(View {
            cache: track.cache.clone(),
            crowd,
            owner: track.owner.clone(),
            asks: !is_known && !session.is_seed && track.owner.as_ref() == Some(&self.name),
        })
    }
}

impl State {
    fn is_current(&self, session: &Session) -> bool {
        self.sessions
            .get(&session.node)
            .is_some_and(|current| current.id == session.id)
    }

    fn crowd_changed(&mut self, key: FileKey) {
        self.count += 1;
        if let Some(track) = self.files.get_mut(&key) {
            track.crowd = self.count;
            self.touch(key);
        }
    }

    fn touch(&self, key: FileKey) {
        let interested = self
            .files
            .get(&key)
            .into_iter()
            .flat_map(|track| track.interested.keys());
        interested
            .filter_map(|node| self.sessions.get(node))
            .for_each(|session| session.touch(key));
    }

    fn lose_interest(&mut self, key: FileKey, node: &str, ledger: &Ledger) {
        let Some(track) = self.files.get_mut(&key) else {
            return;
        };
        track.held.remove(node);
        // Its session forgets what it was told: it may come back for this file.
        if let Some(session) = self.sessions.get(node) {
            session.touch(key);
        }
        if track.interested.remove(node).is_none() {
            return;
        }
        ledger.forget(key, node);
        match track.interested.is_empty() {
            true => {
                self.files.remove(&key);
            }
            false => self.crowd_changed(key),
        }
    }

    fn peer_set(&self, key: FileKey, session: &Session, seed_zone: &str) -> v1::PeerSet {
        let neighbour = |other: &Session| v1::Neighbour {
            node: other.node.clone(),
            addr: other.addr.clone(),
            zone: other.zone.clone(),
            rack: other.rack.clone(),
        };
        let others = vicinity::neighbours(session.place(), self.others(key, session), |other| {
            other.place()
        });
        let [lanes, lanes_second] = self.lanes(key, session, seed_zone);
        v1::PeerSet {
            key: key.0.to_vec(),
            peers: others.into_iter().map(neighbour).collect(),
            zone: seed_zone.to_owned(),
            lanes,
            lanes_second,
        }
    }

    /// The other nodes that want or hold a file.
    fn others<'a>(&'a self, key: FileKey, session: &Session) -> impl Iterator<Item = &'a Session> {
        let nodes: BTreeSet<&String> = self.wanting(key).chain(self.holding(key)).collect();
        let sessions = nodes.into_iter().filter_map(|node| self.sessions.get(node));
        let own = session.node.clone();
        sessions
            .map(Arc::as_ref)
            .filter(move |other| other.node != own && !other.is_seed)
    }

    fn wanting(&self, key: FileKey) -> impl Iterator<Item = &String> {
        let track = self.files.get(&key).into_iter();
        track.flat_map(|track| track.interested.keys())
    }

    fn holding(&self, key: FileKey) -> impl Iterator<Item = &String> {
        self.holders.get(&key).into_iter().flatten()
    }

    /// The lanes of a file for which this session's node is its zone's gateway, and its second; none where
    /// everybody is in one zone.
    fn lanes(&self, key: FileKey, session: &Session, seed_zone: &str) -> [u64; 2] {
        let nodes = || self.wanting(key).filter_map(|node| self.sessions.get(node));
        let sessions = || nodes().filter(|other| !other.is_seed);
        let is_one_zone = sessions().all(|other| other.zone == seed_zone);
        if is_one_zone {
            return [0; 2];
        }
        let of_zone = sessions().filter(|other| other.zone == session.zone);
        let ranks: Vec<u64> = of_zone.map(|other| other.rank).collect();
        let mut lanes = [0; 2];
        for lane in 0..vicinity::LANES {
            let gateways = vicinity::gateways(&key.0, lane, &ranks);
            for (lanes, gateway) in lanes.iter_mut().zip(gateways) {
                *lanes |= u64::from(gateway == Some(session.rank)) << lane;
            }
        }
        lanes
    }
}

/// Tells interested sessions when a file of the seed's store changes. Ends with the last interest.
async fn watch(tracker: Weak<Tracker>, cache: Arc<CacheFile>) {
    let mut changes = cache.changes();
    while changes.changed().await.is_ok() {
        let Some(tracker) = tracker.upgrade() else {
            return;
        };
        tracker.lock().touch(cache.key());
        drop(tracker);
        tokio::time::sleep(DEBOUNCE).await;
    }
}
