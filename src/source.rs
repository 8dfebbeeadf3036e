//! The contracts between rooms: where pieces come from, where revisions are looked up.
//!
//! `fetch` knows only [`Source`] and so cannot tell a peer from a seed. A source puts what it brings into
//! the store itself, verified; it hands bytes over only where the store has no room. All calls are
//! cancel-safe: a dropped future gives its claims back.

use crate::model::{
    Bitfield, Credential, Digest, Entry, Failure, FileKey, Geometry, Listing, News, Pin, PodRef,
    Reference, Token, Verified,
};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One file of one pin as somebody wants it: its name everywhere, and where the hub has it.
#[derive(Clone, Debug)]
pub struct FileRef {
    pub key: FileKey,
    pub size: u64,
    pub digest: Digest,
    /// Where a seed can read it.
    pub pin: Arc<Pin>,
    pub path: Arc<str>,
    /// The credential of the one who asks; it travels to seeds and hubs only.
    pub token: Credential,
}

impl FileRef {
    pub fn new(pin: &Arc<Pin>, entry: &Entry, token: impl Into<Credential>) -> FileRef {
        FileRef {
            key: entry.key,
            size: entry.size,
            digest: entry.digest,
            pin: pin.clone(),
            path: entry.path.as_str().into(),
            token: token.into(),
        }
    }

    pub fn geometry(&self) -> Geometry {
        Geometry { size: self.size }
    }
}

/// What a source brought.
#[derive(Debug)]
pub enum Arrival {
    /// These pieces are in the store now (some may have been before).
    Kept(Range<u32>),
    /// The store has no room: these bytes are for the waiting readers alone.
    Passing(Vec<Verified>),
}

/// How many seeds a source goes to, and how many of them it has. Its own seed has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub seeds: usize,
    pub connected: usize,
}

/// Somewhere pieces come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// A file that is not final here is about to be read: the source may say so to whom it concerns, and
    /// asks for the verdict on one that is whole. Returns at once.
    fn opened(&self, file: &FileRef) {
        let _ = file;
    }

    /// Who can be asked at this moment, from memory.
    fn reach(&self) -> Reach {
        Reach::default()
    }

    /// How long a piece under way in the background may take before a reader that waits for it asks for it
    /// too. A source that reads the hub never asks twice.
    fn patience(&self) -> Duration {
        Duration::from_secs(u32::MAX.into())
    }

    /// Asks whether the file's repository holds what its listing states, before a byte that is here through
    /// any other reaches its readers. Fails with `Denied` or `Integrity` when it does not.
    async fn admit(&self, file: &FileRef) -> Result<(), Failure> {
        let _ = file;
        Ok(())
    }

    /// Brings exactly piece `index`, which a reader waits for, as fast as it can. Waits, retries and goes to
    /// other providers by itself; fails when nobody can give it ([`Failure`]), for the caller to ask again.
    async fn piece(&self, file: &FileRef, index: u32) -> Result<Arrival, Failure>;

    /// Brings some run of what `need` lists, whichever serves the readers and the cluster best, and claims
    /// it in `need` while it is under way. Returns after one arrival, or `Kept(0..0)` when nothing is
    /// needed any more.
    async fn some(&self, file: &FileRef, need: &Arc<Need>) -> Result<Arrival, Failure>;
}

/// The seed's way to the hub: makes pieces present in the seed's own store.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Returns when piece `index` is in the store. A piece inside a request in flight is waited for; any
    /// other is read at once, alone.
    async fn demand(&self, file: &FileRef, index: u32) -> Result<(), Failure>;

    /// Says what readers will want: it is read in long runs while somebody waits in [`Origin::any`].
    fn announce(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure>;

    /// Returns when the store holds at least one of `need`. What is missing of it is read in long runs.
    async fn any(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure>;

    /// Checks a file that is whole but was never finished, as a killed process leaves it.
    async fn settle(&self, file: &FileRef);

    /// Makes sure that the file's repository holds what its listing states, by the hub's word. Costs no
    /// request that reading the file would not have cost.
    async fn prove(&self, file: &FileRef) -> Result<(), Failure> {
        let _ = file;
        Ok(())
    }

    /// Reads a piece without keeping it, for a store that has no room.
    async fn read_through(&self, file: &FileRef, index: u32) -> Result<Verified, Failure>;

    /// Whether this process reads the file from its hub, and so may be asked by other seeds.
    fn owns(&self, key: FileKey) -> bool {
        let _ = key;
        true
    }

    /// Before pieces are given away: whoever may have to go on with this file has their hashes.
    async fn vouch(&self, file: &FileRef, run: &Range<u32>) {
        let _ = (file, run);
    }
}

/// Where revisions are looked up: a seed, near or far.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// Pins a reference. With `volume`, the first answer for that volume id is kept for the whole cluster
    /// and given again, whatever the branch does.
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure>;

    /// The files of a pin, after the hub has let this token read it. Content of named small files that the
    /// seed already holds may come along into the store.
    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure>;

    /// Whether anybody would answer now; no hub is asked. Who is its own seed always does.
    async fn reach(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether the pin is known to be readable without a token.
    fn is_public(&self, pin: &Pin) -> bool {
        let _ = pin;
        false
    }

    /// The pin kept for a volume here; `pin` is kept if there is none.
    async fn volume(&self, volume: &str, pin: Option<&Pin>) -> Result<Option<Pin>, Failure> {
        let _ = volume;
        Ok(pin.cloned())
    }

    /// Forgets the pin kept for a volume that is gone for good. Best effort.
    async fn forget(&self, volume: &str) {
        let _ = volume;
    }
}

/// Whoever brings a pod's news to its owner.
pub trait Observer: Send + Sync + 'static {
    /// Returns at once. What is told too often, or cannot be passed on, is dropped.
    fn observe(&self, pod: &PodRef, news: News, text: String);
}

/// The pieces of one file that are wanted, in the order readers will touch them, and which of them are
/// under way. `fetch` replaces the wishes as readers move; sources claim from it.
#[derive(Debug, Default)]
pub struct Need {
    state: Mutex<NeedState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct NeedState {
    /// Ahead of the readers, most urgent first; never holds a piece twice.
    window: Vec<u32>,
    /// Wanted some time, after the window.
    rest: Bitfield,
    /// A few dozen at most: what the slots of all callers can hold.
    claimed: Vec<u32>,
}

/// [`Need::open`] lists no more than this: enough to choose from, cheap to look through.
const OPEN_MAX: usize = 1024;

impl NeedState {
    fn is_open(&self, index: u32) -> bool {
        (self.window.contains(&index) || self.rest.get(index)) && !self.claimed.contains(&index)
    }
}

impl Need {
    fn lock(&self) -> std::sync::MutexGuard<'_, NeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the wishes: what readers will touch next, in order, and what is wanted after that. Claims stay.
    pub fn want(&self, window: Vec<u32>, rest: Bitfield) {
        let mut state = self.lock();
        state.window = window;
        state.rest = rest;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The first thousand wanted pieces that are not under way, most urgent first.
    pub fn open(&self) -> Vec<u32> {
        let state = self.lock();
        let rest = state
            .rest
            .iter()
            .filter(|index| !state.window.contains(index));
        let all = state.window.iter().copied().chain(rest);
        all.filter(|index| !state.claimed.contains(index))
            .take(OPEN_MAX)
            .collect()
    }

    /// All of what is wanted and not under way, as a set over `pieces` pieces, for the wire.
    pub fn bitmap(&self, pieces: u32) -> Bitfield {
        let state = self.lock();
        let mut bits = if state.rest.len() == pieces {
            state.rest.clone()
        } else {
            Bitfield::new(pieces)
        };
        state.window.iter().for_each(|index| bits.set(*index, true));
        state
            .claimed
            .iter()
            .for_each(|index| bits.set(*index, false));
        bits
    }

    /// Claims `first` and up to `most - 1` open pieces right behind it. `None` if `first` is not open.
    pub fn claim(self: &Arc<Need>, first: u32, most: u32) -> Option<Claim> {
        let mut state = self.lock();
        let limit = first.saturating_add(most);
        let run = first
            ..(first..limit)
                .find(|index| !state.is_open(*index))
                .unwrap_or(limit);
        if run.is_empty() {
            return None;
        }
        state.claimed.extend(run.clone());
        Some(Claim {
            need: self.clone(),
            run,
        })
    }

    /// Claims a piece whether it is wanted here or not: a reader's demand. `None` if it is under way.
    pub fn claim_demand(self: &Arc<Need>, index: u32) -> Option<Claim> {
        let mut state = self.lock();
        if state.claimed.contains(&index) {
            return None;
        }
        state.claimed.push(index);
        Some(Claim {
            need: self.clone(),
            run: index..index + 1,
        })
    }

    /// Whether the piece is under way.
    pub fn is_claimed(&self, index: u32) -> bool {
        self.lock().claimed.contains(&index)
    }

    /// Takes pieces off the list: they have arrived.
    pub fn arrived(&self, run: Range<u32>) {
        let mut state = self.lock();
        state.window.retain(|index| !run.contains(index));
        run.for_each(|index| state.rest.set(index, false));
    }

    /// Resolves at the next change of the wishes or end of a claim. Enable it before looking, so that no
    /// change falls between.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// Pieces under way for one caller; dropping it opens them again to others.
#[derive(Debug)]
pub struct Claim {
    need: Arc<Need>,
    run: Range<u32>,
}

impl Claim {
    pub fn run(&self) -> Range<u32> {
        self.run.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.need
            .lock()
            .claimed
            .retain(|index| !self.run.contains(index));
        self.need.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that waited for a piece under way elsewhere slept for ever when that had just arrived.
    #[tokio::test]
    async fn the_end_of_a_claim_wakes_who_waits_for_it() {
        let need = Arc::new(Need::default());
        let claim = need.claim_demand(3).expect("free");
        let mut changed = std::pin::pin!(need.changed());
        assert!(!changed.as_mut().enable(), "nothing has changed yet");
        drop(claim);
        changed.await;
    }

    #[test]
    fn claims_exclude_each_other_and_end_with_their_owner() {
        let need = Arc::new(Need::default());
        let mut rest = Bitfield::new(12);
        [2, 9, 6]
            .into_iter()
            .for_each(|index| rest.set(index, true));
        need.want(vec![5, 6, 7], rest);
        let run = need.claim(5, 4).expect("5 is open");
        assert_eq!(run.run(), 5..8);
        assert_eq!(need.open(), [2, 9]);
        assert!(need.claim(6, 1).is_none());
        assert!(need.claim(8, 1).is_none(), "nobody wants 8");
        let demand = need.claim_demand(8).expect("a demand needs no wish");
        assert!(need.claim_demand(8).is_none());
        drop((run, demand));
        need.arrived(5..7);
        assert_eq!(need.open(), [7, 2, 9]);
        assert_eq!(need.bitmap(12).iter().collect::<Vec<_>>(), [2, 7, 9]);
    }
}
