//! The origin of one seed among several: files that it owns are read from their hub, others copied from their
//! owner, and what a lost owner had read is taken from the nodes that hold it.
//!
//! A piece whose hash is known and that is not here (an *orphan*) was read by an owner that is gone, or has
//! rotted on disk. Nodes that hold it give it back. One that nobody holds is read again: for a reader after a second, in which nodes tell
//! what they have; in bulk after a minute, in which the lost seed may come back with it.

use super::answers::Answers;
use super::ingest::{Ingest, WHOLE_BYTES_MAX};
use super::owner::{Owner, Owners};
use crate::model::{Bitfield, Failure, FailureKind, FileKey, Verified};
use crate::source::{Arrival, FileRef, Origin, Source};
use crate::store::CacheFile;
use crate::swarm::client::TransferError;
use crate::swarm::{Swarm, Tracker};
use async_trait::async_trait;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// In which nodes that have lost an owner turn to the next one and say what they hold.
const INVENTORY: Duration = Duration::from_secs(1);
/// In which a lost seed may come back with what it alone has read.
const BULK_GRACE: Duration = Duration::from_secs(60);
/// Holders that are busy for longer keep a reader no longer from the hub.
const RESCUE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at what nodes hold, without news from them.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Pieces being copied: what a piece server's requests can ask for, twice.
const COPIES_MAX: usize = 512;

/// Cheap to clone.
#[derive(Clone)]
pub struct OwnedOrigin {
    shared: Arc<Shared>,
}

struct Shared {
    ingest: Ingest,
    owners: Arc<Owners>,
    tracker: Arc<Tracker>,
    /// This seed as a peer of the others.
    peer: Arc<Swarm>,
    rescued: Mutex<HashSet<FileKey>>,
    copies: Answers<(FileKey, u32), Option<Verified>>,
}

impl OwnedOrigin {
    pub fn new(
        ingest: Ingest,
        owners: Arc<Owners>,
        tracker: Arc<Tracker>,
        peer: Arc<Swarm>,
    ) -> OwnedOrigin {
        let rescued = Mutex::default();
        let shared = Shared {
            ingest,
            owners,
            tracker,
            peer,
            rescued,
            // Nothing is believed for any time: whoever comes next looks again.
            copies: Answers::new(Duration::ZERO, COPIES_MAX),
        };
        OwnedOrigin {
            shared: Arc::new(shared),
        }
    }

    /// Finds the owner, and lets the nodes that want the file know.
    pub async fn owner(&self, key: FileKey) -> Result<Owner, Failure> {
        let Shared {
            owners, tracker, ..
        } = &*self.shared;
        let owner = owners.owner(key).await?;
        if !owners.fellows.is_alone() {
            tracker.set_owner(
                key,
                match &owner {
                    Owner::Me => &owners.fellows.me,
                    Owner::Fellow(name) => name,
                },
            );
        }
        Ok(owner)
    }

    /// How long this seed has owned a file; for ever if there is no other seed.
    fn owned_for(&self, key: FileKey) -> Duration {
        let since = self.shared.owners.claimed_at(key);
        since.map_or(Duration::MAX, |since| since.elapsed())
    }

    /// Takes an orphan from a node that holds it. False when it is to be read from the hub.
    async fn rescue(&self, cache: &Arc<CacheFile>, index: u32) -> bool {
        let Shared { tracker, peer, .. } = &*self.shared;
        let key = cache.key();
        let (mut news, started) = (tracker.inventories(), Instant::now());
        let is_open = || !cache.has(index) && cache.hash(index).is_some();
        while is_open() && started.elapsed() < RESCUE_MAX {
            match tracker.holder(key, index, "") {
                Some((node, addr)) => match peer.take(&addr, cache, index).await {
                    // If it is not here now, there is no room for it.
                    Ok(()) => return cache.has(index),
                    Err(TransferError::Busy { after }) => sleep(after).await,
                    Err(error) => {
                        tracing::debug!(%node, piece = index, %error, "an orphan was not given");
                        tracker.lacks(key, index, &node);
                    }
                },
                None if self.owned_for(key) > INVENTORY => return false,
                None => drop(timeout(LOOK_AGAIN, news.changed()).await),
            }
        }
        cache.has(index)
    }

    /// Brings home all orphans of a file that was taken over, so that its digest can be checked.
    fn rescue_all(&self, file: &FileRef, cache: &Arc<CacheFile>) {
        let rescued = || {
            self.shared
                .rescued
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if cache.orphans().is_empty() || !rescued().insert(file.key) {
            return;
        }
        let (origin, file, cache) = (self.clone(), file.clone(), cache.clone());
        tokio::spawn(async move {
            origin.bring_home(&file, &cache).await;
            let mut rescued = origin
                .shared
                .rescued
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            rescued.remove(&file.key);
        });
    }

    async fn bring_home(&self, file: &FileRef, cache: &Arc<CacheFile>) {
        let Shared {
            tracker,
            ingest,
            owners,
            ..
        } = &*self.shared;
        let mut news = tracker.inventories();
        while tracker.is_wanted(file.key) && owners.is_mine(file.key) {
            let orphans = cache.orphans();
            let held = tracker.held(file.key).map(|held| held.and(&orphans));
            let next = held.and_then(|held| held.iter().next());
            let is_late = self.owned_for(file.key) > BULK_GRACE;
            match (next, orphans.iter().next()) {
                (_, None) => return ingest.settle(file).await,
                (Some(index), _) if self.rescue(cache, index).await => {}
                (None, Some(index)) if is_late && ingest.demand(file, index).await.is_ok() => {}
                _ => drop(timeout(Duration::from_secs(1), news.changed()).await),
            }
        }
    }

    /// Copies a piece from its owner, one caller at a time: the others then find it here. What there is no room
    /// for is given to each.
    async fn copy(
        &self,
        file: &FileRef,
        index: u32,
        owner: &str,
    ) -> Result<Option<Verified>, Failure> {
        let shared = &self.shared;
        let copying = || async {
            shared.peer.follow(file, owner)?;
            match shared.peer.piece(file, index).await? {
                Arrival::Kept(_) => Ok(None),
                Arrival::Passing(pieces) => Ok(pieces.into_iter().next()),
            }
        };
        shared.copies.get((file.key, index), copying).await
    }

    /// What of `need` may be read from the hub now, and a piece that a node can give.
    fn split(&self, cache: &CacheFile, need: &Bitfield) -> (Bitfield, Option<u32>) {
        let orphans = cache.orphans().and(need);
        if orphans.is_empty() {
            return (need.clone(), None);
        }
        let held = self.shared.tracker.held(cache.key());
        let held = held.map(|held| held.and(&orphans));
        let index = held.as_ref().and_then(|held| held.iter().next());
        let blocked = match self.owned_for(cache.key()) > BULK_GRACE {
            true => held.unwrap_or_else(|| Bitfield::new(need.len())),
            false => orphans,
        };
        (need.minus(&blocked), index)
    }
}

fn no_room() -> Failure {
    Failure::new(FailureKind::NoRoom, "no room for a copy")
}

#[async_trait]
impl Origin for OwnedOrigin {
    async fn demand(&self, file: &FileRef, index: u32) -> Result<(), Failure> {
        if let Owner::Fellow(name) = self.owner(file.key).await? {
            let passing = self.copy(file, index, &name).await?;
            return passing.map_or(Ok(()), |_| Err(no_room()));
        }
        let cache = self.shared.ingest.cached(file)?;
        self.rescue_all(file, &cache);
        match self.rescue(&cache, index).await {
            true => Ok(()),
            false => self.shared.ingest.demand(file, index).await,
        }
    }

    /// Only what this seed owns already: a wish that may be heard is no reason to ask the others.
    fn announce(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure> {
        let Shared { ingest, owners, .. } = &*self.shared;
        if !owners.is_mine(file.key) {
            return Ok(());
        }
        let (rest, _) = self.split(&*ingest.cached(file)?, need);
        match rest.is_empty() {
            true => Ok(()),
            false => ingest.announce(file, &rest),
        }
    }

    async fn any(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure> {
        let ingest = &self.shared.ingest;
        if let Owner::Fellow(name) = self.owner(file.key).await? {
            // Not all who ask wait for the same piece.
            let at = rand::random_range(0..need.count().max(1));
            let copied = match need.iter().nth(at as usize) {
                Some(index) => self.copy(file, index, &name).await?,
                None => None,
            };
            return copied.map_or(Ok(()), |_| Err(no_room()));
        }
        let cache = ingest.cached(file)?;
        self.rescue_all(file, &cache);
        let started = Instant::now();
        loop {
            let (rest, held) = self.split(&cache, need);
            if held.is_none() && !rest.is_empty() {
                return ingest.any(file, &rest).await;
            }
            if !rest.is_empty() {
                ingest.announce(file, &rest)?;
            }
            if let Some(index) = held
                && self.rescue(&cache, index).await
            {
                return Ok(());
            }
            if started.elapsed() > BULK_GRACE {
                return Err(Failure::new(
                    FailureKind::Unavailable,
                    "nobody gives what a lost seed had read",
                ));
            }
            let mut news = self.shared.tracker.inventories();
            drop(timeout(LOOK_AGAIN, news.changed()).await);
        }
    }

    async fn settle(&self, file: &FileRef) {
        self.shared.ingest.settle(file).await
    }

    /// A small file is proven by reading it whole: that is its owner's, who is asked for a copy first.
    async fn prove(&self, file: &FileRef) -> Result<(), Failure> {
        let ingest = &self.shared.ingest;
        let is_small = file.size <= WHOLE_BYTES_MAX && !ingest.is_proven(file);
        if is_small && self.owner(file.key).await? != Owner::Me {
            self.demand(file, 0).await?;
        }
        ingest.prove(file).await
    }

    fn owns(&self, key: FileKey) -> bool {
        self.shared.owners.is_mine(key) || self.shared.owners.bid(key).claimed
    }

    async fn read_through(&self, file: &FileRef, index: u32) -> Result<Verified, Failure> {
        match self.owner(file.key).await? {
            Owner::Me => self.shared.ingest.read_through(file, index).await,
            Owner::Fellow(name) => self.copy(file, index, &name).await?.ok_or_else(no_room),
        }
    }

    async fn vouch(&self, file: &FileRef, run: &Range<u32>) {
        let Shared { owners, ingest, .. } = &*self.shared;
        if owners.claimed_at(file.key).is_none() {
            return;
        }
        if let Ok(cache) = ingest.cached(file) {
            owners.fellows.keep(&cache, run).await;
        }
    }
}
