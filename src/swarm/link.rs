//! A node's stream to one seed: says what this node wants and has, takes in what the seed tells.
//!
//! After a break it dials again with a growing pause and says everything anew. What to say is compared with
//! what was said, so nothing is queued but at most 64 reports and events.

use super::failure::text_of;
use super::neighbours::Neighbours;
use super::recent::Recent;
use super::remote::RemoteSeed;
use super::v1::{self, to_node, to_seed};
use super::wire;
use super::wishes::Wishes;
use crate::backoff::Delays;
use crate::model::{FileKey, Pin, Token};
use crate::store::{CacheFile, StoreError};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A connection lost for less than this may come back before anyone else is asked.
pub const GRACE: Duration = Duration::from_secs(3);
const WELCOME: Duration = Duration::from_secs(10);
const COUNTS: Duration = Duration::from_secs(5);

/// The node id of a seed where it copies from others.
pub fn seed_node(name: &str) -> String {
    format!("seed/{name}")
}

/// Whether a node id is that of a copying seed.
pub fn is_seed_node(node: &str) -> bool {
    node.starts_with("seed/")
}

/// What a link works with.
pub struct LinkParts {
    pub index: usize,
    pub hello: v1::Hello,
    pub wishes: Arc<Wishes>,
    pub files: Arc<Recent>,
    pub neighbours: Arc<Neighbours>,
    /// The seeds that are connected, by the names they give themselves, and the index of each; shared by all links.
    pub reach: Arc<watch::Sender<Reached>>,
}

pub type Reached = BTreeMap<String, usize>;

pub struct SeedLink {
    pub seed: RemoteSeed,
    parts: LinkParts,
    state: Mutex<LinkState>,
    news: mpsc::Sender<to_seed::Message>,
    told: Mutex<Option<mpsc::Receiver<to_seed::Message>>>,
}

struct LinkState {
    piece_addr: Option<String>,
    /// What the seed calls itself.
    name: Option<String>,
    is_self: bool,
    since: Instant,
}

/// What the seed knows of this node.
#[derive(Default)]
struct Said {
    /// Where each file is read, and with which token.
    interests: HashMap<FileKey, (Arc<Pin>, Option<Token>)>,
    counts: HashMap<FileKey, u32>,
    reach: Reached,
}

impl SeedLink {
    pub fn new(seed: RemoteSeed, parts: LinkParts) -> SeedLink {
        let (news, told) = mpsc::channel(64);
        SeedLink {
            seed,
            parts,
            state: Mutex::new(LinkState {
                piece_addr: None,
                name: None,
                is_self: false,
                since: Instant::now(),
            }),
            news,
            told: Mutex::new(Some(told)),
        }
    }

    /// Where the seed serves pieces, while it is connected.
    pub fn piece_addr(&self) -> Option<String> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .piece_addr
            .clone()
    }

    /// What the seed calls itself, once it was connected.
    pub fn seed_name(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.name.clone()
    }

    /// Connected, or not for long enough to be given up.
    pub fn is_likely_up(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.piece_addr.is_some() || state.since.elapsed() < GRACE
    }

    /// Tells the seed a report or an event; dropped when 64 are waiting already.
    pub fn tell(&self, news: to_seed::Message) {
        let _ = self.news.try_send(news);
    }

    fn welcomed_itself(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_self = true;
    }

    fn is_self(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_self
    }

    fn welcomed(&self, welcome: v1::Welcome) {
        let piece_addr = self.reachable(&welcome.piece_addr);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since = Instant::now();
        state.piece_addr = Some(piece_addr);
        state.name = Some(welcome.seed.clone());
        drop(state);
        let reach = &self.parts.reach;
        reach.send_modify(|reach| {
            reach.insert(welcome.seed, self.parts.index);
        });
    }

    fn lost(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.piece_addr.take().is_none() {
            return;
        }
        state.since = Instant::now();
        let name = state.name.clone().unwrap_or_default();
        drop(state);
        self.parts.reach.send_modify(|reach| {
            reach.remove(&name);
        });
    }

    /// Keeps the stream up until `shutdown`.
    pub async fn run(self: Arc<SeedLink>, shutdown: CancellationToken) {
        let Some(mut news) = self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        let mut backoff = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let ended = shutdown.run_until_cancelled(self.session(&mut news)).await;
            let was_up = self.piece_addr().is_some();
            self.lost();
            match ended {
                None => return,
                Some(Ok(())) => {}
                // Its own address among those of all seeds.
                Some(Err(_)) if self.is_self() => return,
                Some(Err(status)) => {
                    tracing::info!(seed = %self.seed.name, cause = text_of(&status), "seed is not connected")
                }
            }
            if was_up {
                backoff = Delays::new(Duration::from_millis(100), Duration::from_secs(5));
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn session(&self, news: &mut mpsc::Receiver<to_seed::Message>) -> Result<(), Status> {
        let (sender, receiver) = mpsc::channel(16);
        let gone = |_| Status::unavailable("stream closed");
        sender
            .send(message(to_seed::Message::Hello(self.parts.hello.clone())))
            .await
            .map_err(gone)?;
        let mut inbound = timeout(
            WELCOME,
            self.seed.client().session(ReceiverStream::new(receiver)),
        )
        .await
        .map_err(|_| Status::deadline_exceeded("no answer"))??
        .into_inner();
        let welcome = timeout(WELCOME, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no welcome"))??;
        let Some(to_node::Message::Welcome(welcome)) = welcome.and_then(|first| first.message)
        else {
            return Err(Status::failed_precondition(
                "the seed's first message is no welcome",
            ));
        };
        if seed_node(&welcome.seed) == self.parts.hello.node {
            self.welcomed_itself();
            return Err(Status::already_exists("this is the process itself"));
        }
        self.welcomed(welcome);
        let mut saying = std::pin::pin!(self.say(sender, news));
        loop {
            tokio::select! {
                told = inbound.message() => match told? {
                    Some(told) => self.take(told).await,
                    None => return Ok(()),
                },
                () = &mut saying => return Ok(()),
            }
        }
    }

    /// An unspecified host is the one this seed was configured with.
    fn reachable(&self, addr: &str) -> String {
        match (
            addr.parse::<std::net::SocketAddr>(),
            self.seed.name.rsplit_once(':'),
        ) {
            (Ok(told), Some((host, _))) if told.ip().is_unspecified() => {
                format!("{host}:{}", told.port())
            }
            _ => addr.to_owned(),
        }
    }

    async fn say(
        &self,
        stream: mpsc::Sender<v1::ToSeed>,
        news: &mut mpsc::Receiver<to_seed::Message>,
    ) {
        let mut said = Said::default();
        let mut reach = self.parts.reach.subscribe();
        let mut wishes = self.parts.wishes.changes();
        let mut counts = tokio::time::interval(COUNTS);
        loop {
            wishes.borrow_and_update();
            let mut messages = self.new_interests(&mut said);
            messages.extend(new_reach(&mut said, &reach.borrow_and_update()));
            tokio::select! {
                biased;
                () = std::future::ready(()), if !messages.is_empty() => {}
                _ = wishes.changed() => {}
                _ = reach.changed() => {}
                Some(news) = news.recv() => messages.push(news),
                _ = counts.tick() => messages.extend(self.new_counts(&mut said)),
            }
            for one in messages {
                if stream.send(message(one)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn new_interests(&self, said: &mut Said) -> Vec<to_seed::Message> {
        let files = self.parts.wishes.of_seed(self.parts.index);
        let now: HashMap<_, _> = files
            .iter()
            .map(|file| (file.key, (file.pin.clone(), file.token.get())))
            .collect();
        let gone = said.interests.keys().filter(|key| !now.contains_key(key));
        let mut messages: Vec<_> = gone
            .map(|key| {
                to_seed::Message::NoInterest(v1::NoInterest {
                    key: key.0.to_vec(),
                })
            })
            .collect();
        let new = files
            .iter()
            .filter(|file| said.interests.get(&file.key) != now.get(&file.key));
        messages.extend(new.map(|file| to_seed::Message::Interest(wire::interest_of(file))));
        said.interests = now;
        messages
    }

    fn new_counts(&self, said: &mut Said) -> Option<to_seed::Message> {
        self.parts.files.sweep();
        let count = |key: &FileKey| self.parts.files.peek(*key).map_or(0, |file| file.count());
        let now: HashMap<_, _> = said
            .interests
            .keys()
            .map(|key| (*key, count(key)))
            .collect();
        let changed = now
            .iter()
            .filter(|(key, count)| said.counts.get(key) != Some(count));
        let counts: Vec<_> = changed
            .map(|(key, pieces)| v1::Count {
                key: key.0.to_vec(),
                pieces: *pieces,
            })
            .collect();
        said.counts.extend(now);
        (!counts.is_empty()).then_some(to_seed::Message::Counts(v1::Counts { counts }))
    }

    async fn take(&self, told: v1::ToNode) {
        let ended = match told.message {
            Some(to_node::Message::PeerSet(set)) => return self.take_peers(&set),
            Some(to_node::Message::Owner(owner)) => return self.take_owner(&owner),
            Some(to_node::Message::AskInventory(ask)) => return self.tell(self.inventory(&ask)),
            Some(to_node::Message::Hashes(hashes)) => return self.take_hashes(&hashes),
            Some(to_node::Message::Final(last)) => match <[u8; 32]>::try_from(last.root) {
                Ok(root) => {
                    self.change(&last.key, move |file| file.finish(root).map(drop))
                        .await
                }
                Err(_) => return,
            },
            Some(to_node::Message::Revoke(revoke)) => {
                self.change(&revoke.key, |file| file.revoke()).await
            }
            // Of later releases.
            _ => return,
        };
        if let Err(error) = ended {
            tracing::warn!(seed = %self.seed.name, %error, "cannot take what the seed told");
        }
    }

    fn take_peers(&self, set: &v1::PeerSet) {
        if let Some(key) = wire::key_of(&set.key) {
            let others = set
                .peers
                .iter()
                .filter(|peer| peer.node != self.parts.hello.node);
            self.parts.wishes.surround(key, set);
            let addrs = others.map(|peer| Arc::from(peer.addr.as_str()));
            self.parts
                .neighbours
                .set(key, addrs.take(super::vicinity::PEERS_MAX));
        }
    }

    /// Goes to the owner if this node reaches it; else this seed copies from it.
    fn take_owner(&self, owner: &v1::Owner) {
        let index = self.parts.reach.borrow().get(&owner.seed).copied();
        if let Some(key) = wire::key_of(&owner.key) {
            self.parts.wishes.set_owner(key, &owner.seed, index);
        }
    }

    fn inventory(&self, ask: &v1::AskInventory) -> to_seed::Message {
        let keys = ask.keys.iter().filter_map(|key| wire::key_of(key));
        let bitmap = |key: FileKey| {
            let bits = self.parts.files.peek(key)?.have();
            Some(v1::Bitmap {
                key: key.0.to_vec(),
                bits: bits.as_bytes().to_vec(),
            })
        };
        let files = keys.filter_map(bitmap).collect();
        to_seed::Message::Inventory(v1::Inventory { files })
    }

    fn take_hashes(&self, hashes: &v1::Hashes) {
        let Some(file) = self.file(&hashes.key) else {
            return;
        };
        for run in &hashes.runs {
            if let Some(hashes) = wire::hashes_of(file.geometry(), run) {
                file.learn(run.first, &hashes);
            }
        }
    }

    /// Only files that this node wants: a seed cannot fill its store with others.
    fn file(&self, key: &[u8]) -> Option<Arc<CacheFile>> {
        let key = wire::key_of(key)?;
        let size = self.parts.wishes.geometry(key)?.size;
        self.parts.files.file(key, size).ok()
    }

    async fn change(
        &self,
        key: &[u8],
        change: impl FnOnce(&CacheFile) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let Some(file) = self.file(key) else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || change(&file))
            .await
            .unwrap_or(Ok(()))
    }
}

fn new_reach(said: &mut Said, reach: &Reached) -> Option<to_seed::Message> {
    let is_news = said.reach != *reach;
    said.reach.clone_from(reach);
    let seeds = reach.keys().cloned().collect();
    is_news.then_some(to_seed::Message::Reach(v1::Reach { seeds }))
}

fn message(message: to_seed::Message) -> v1::ToSeed {
    v1::ToSeed {
        message: Some(message),
    }
}
