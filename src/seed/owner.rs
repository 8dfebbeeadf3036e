//! Who reads a file from its hub: exactly one seed, its owner.
//!
//! Before its first origin byte a seed asks all others. A live claim wins, then who holds most pieces, then an
//! order that hangs on key and name: seeds that got the same answers come to the same owner, without an
//! election. A claim stays until its process ends, or another seed turns out to have it. A seed that does not answer may be the owner: its files are
//! taken over only when it has been silent for three seconds and most nodes have lost it too, or, when a
//! partition lets nobody know better, by both sides: at most one copy a side. Seeds that find each other again
//! ask anew, and one of two owners gives up.

use super::answers::Answers;
use super::fellows::{Bid, Fellows};
use crate::model::{Failure, FailureKind, FileKey};
use crate::store::State;
use crate::swarm::Tracker;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How long another seed's claim is believed without asking it again.
const OWNER_TTL: Duration = Duration::from_secs(2);
const ANSWERS_MAX: usize = 10_000;
/// Longer than a lost seed needs to be given up.
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(200);
/// Claims of a process: as many as a tracker has interests.
const CLAIMS_MAX: usize = 16_384;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Me,
    /// The name of another seed.
    Fellow(String),
}

/// The owner among all who answered; the same at every seed that got the same bids.
pub fn winner(key: FileKey, bids: &[Bid]) -> Option<&Bid> {
    let order = |bid: &Bid| Reverse(*blake3::keyed_hash(&key.0, bid.seed.as_bytes()).as_bytes());
    // Of two claims the pieces do not count: they grow while the seeds ask.
    let pieces = |bid: &Bid| if bid.claimed { 0 } else { bid.pieces };
    bids.iter()
        .max_by_key(|bid| (bid.claimed, pieces(bid), order(bid)))
}

/// Which files this seed owns, and how it finds out about the others.
pub struct Owners {
    pub fellows: Arc<Fellows>,
    tracker: Arc<Tracker>,
    mine: Mutex<HashMap<FileKey, Instant>>,
    answers: Answers<FileKey, Owner>,
    /// Somebody is back who may have claimed the same meanwhile.
    pub doubt: Notify,
}

impl Owners {
    pub fn new(fellows: Arc<Fellows>, tracker: Arc<Tracker>) -> Owners {
        Owners {
            fellows,
            tracker,
            mine: Mutex::default(),
            answers: Answers::new(OWNER_TTL, ANSWERS_MAX),
            doubt: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, Instant>> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner of a file. Becomes it when nobody else is. Fails while a seed that may be the owner is
    /// silent and not given up.
    pub async fn owner(&self, key: FileKey) -> Result<Owner, Failure> {
        if self.is_mine(key) || self.bid(key).claimed {
            return Ok(Owner::Me);
        }
        self.answers.get(key, || self.ask(key)).await
    }

    /// Whether this seed may read a file from its hub without asking anybody.
    pub fn is_mine(&self, key: FileKey) -> bool {
        self.fellows.is_alone() || self.claimed_at(key).is_some()
    }

    /// Since when this seed owns a file.
    pub fn claimed_at(&self, key: FileKey) -> Option<Instant> {
        self.lock().get(&key).copied()
    }

    /// What this seed says when it is asked.
    pub fn bid(&self, key: FileKey) -> Bid {
        let file = self.tracker.store().get(key);
        let state = file.as_ref().map(|file| file.state());
        Bid {
            seed: self.fellows.me.clone(),
            claimed: state == Some(State::Final) || self.claimed_at(key).is_some(),
            pieces: file.map_or(0, |file| file.count()),
        }
    }

    async fn ask(&self, key: FileKey) -> Result<Owner, Failure> {
        let started = Instant::now();
        loop {
            match self.round(key).await {
                Ok(owner) => return Ok(owner),
                Err(failure) if started.elapsed() > PATIENCE => return Err(failure),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn round(&self, key: FileKey) -> Result<Owner, Failure> {
        let others: Vec<_> = self.fellows.others().cloned().collect();
        let asked = others.iter().map(|fellow| fellow.ownership(Some(key)));
        let answers = futures::future::join_all(asked).await;
        let mut bids: Vec<Bid> = answers.iter().flatten().cloned().collect();
        bids.retain(|bid| bid.seed != self.fellows.me);
        if !bids.iter().any(|bid| bid.claimed) {
            let missing = others
                .iter()
                .zip(&answers)
                .filter(|(_, answer)| answer.is_err());
            for (fellow, _) in missing {
                let name = fellow.name();
                let reached = name
                    .as_deref()
                    .is_some_and(|name| self.tracker.most_reach(name));
                if reached || !self.fellows.is_silent(fellow) {
                    return Err(undecided(&fellow.remote.name));
                }
            }
        }
        bids.push(self.bid(key));
        Ok(match winner(key, &bids) {
            Some(bid) if bid.seed != self.fellows.me => Owner::Fellow(bid.seed.clone()),
            _ => self.claim(key),
        })
    }

    fn claim(&self, key: FileKey) -> Owner {
        let mut mine = self.lock();
        if mine.len() >= CLAIMS_MAX {
            let oldest = mine
                .iter()
                .min_by_key(|(_, since)| **since)
                .map(|(key, _)| *key);
            oldest.and_then(|oldest| mine.remove(&oldest));
        }
        mine.entry(key).or_insert_with(Instant::now);
        tracing::info!(file = %key, "reading this file is ours");
        Owner::Me
    }

    /// Asks about every file anew whenever there is doubt, for ever: of two owners one gives up.
    pub async fn watch(&self) {
        loop {
            self.doubt.notified().await;
            let keys: Vec<_> = self.lock().keys().copied().collect();
            for key in keys {
                if let Ok(Owner::Fellow(seed)) = self.round(key).await {
                    tracing::warn!(file = %key, seed, "two seeds read this file, the other goes on");
                    self.lock().remove(&key);
                    self.tracker.set_owner(key, &seed);
                }
            }
        }
    }
}

fn undecided(seed: &str) -> Failure {
    let message = format!("seed {seed} may own this file and does not answer: check that it runs");
    Failure::new(FailureKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: FileKey = FileKey([5; 32]);

    fn bid(seed: &str, claimed: bool, pieces: u32) -> Bid {
        let seed = seed.to_owned();
        Bid {
            seed,
            claimed,
            pieces,
        }
    }

    #[test]
    fn a_claim_wins_then_pieces_then_an_order() {
        let name = |bids: &[Bid]| winner(KEY, bids).expect("a bid").seed.clone();
        assert_eq!(name(&[bid("a", false, 9), bid("b", true, 1)]), "b");
        assert_eq!(name(&[bid("a", false, 9), bid("b", false, 8)]), "a");
        let (ab, ba) = (
            [bid("a", false, 0), bid("b", false, 0)],
            [bid("b", false, 0), bid("a", false, 0)],
        );
        assert_eq!(name(&ab), name(&ba));
        let both = [bid("a", true, 1), bid("b", true, 7)];
        assert_eq!(name(&both), name(&[bid("b", true, 2), bid("a", true, 9)]));
    }

    #[test]
    fn files_are_spread_over_seeds_that_hold_nothing() {
        let seeds: Vec<_> = (0..3)
            .map(|n| bid(&format!("seed-{n}"), false, 0))
            .collect();
        let of = |n: u8| {
            winner(FileKey([n; 32]), &seeds)
                .expect("a bid")
                .seed
                .clone()
        };
        let first = (0..90).filter(|n| of(*n) == "seed-0").count();
        assert!((15..45).contains(&first), "{first} of 90");
    }

    proptest! {
        /// Whatever the order of the answers, all come to the same owner.
        #[test]
        fn all_seeds_come_to_the_same_owner(claims in prop::collection::vec((any::<bool>(), 0u32..4), 1..5), at in 0usize..5) {
            let mut bids: Vec<_> = claims.iter().enumerate().map(|(n, (claimed, pieces))| bid(&n.to_string(), *claimed, *pieces)).collect();
            let before = winner(KEY, &bids).cloned();
            let len = bids.len();
            bids.rotate_left(at % len);
            prop_assert_eq!(winner(KEY, &bids).cloned(), before);
        }
    }
}
