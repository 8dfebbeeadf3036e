//! What this node knows about the neighbours it asks: how fast, how busy, how trustworthy.
//!
//! One corrupt piece bans a peer for 60 s; a busy one is left alone for as long as it said; a slow one is
//! merely expected to take longer. Bound: 1,024 addresses, the longest unused goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const BAN: Duration = Duration::from_secs(60);
/// A peer that could not be reached or broke off.
const REST: Duration = Duration::from_secs(2);
const PEERS_MAX: usize = 1024;
/// Requests to one neighbour at a time: its own upload slots.
const IN_FLIGHT_MAX: u32 = 4;

#[derive(Default)]
pub struct Peers {
    known: Mutex<HashMap<Arc<str>, Standing>>,
}

#[derive(Clone)]
struct Standing {
    in_flight: u32,
    not_before: Instant,
    used: Instant,
    /// Moving average over transfers, 1 ms a piece at first so that new ones get tried.
    seconds_per_piece: f64,
}

/// A request under way; dropping it ends it.
pub struct Flight<'a> {
    peers: &'a Peers,
    addr: Arc<str>,
    started: Instant,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Standing>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expected seconds until a piece asked now is here; `None` when the peer must not be asked now.
    pub fn expected_seconds(&self, addr: &str) -> Option<f64> {
        let known = self.lock();
        let Some(standing) = known.get(addr) else {
            return Some(0.001);
        };
        let is_free = standing.in_flight < IN_FLIGHT_MAX && standing.not_before <= Instant::now();
        is_free.then(|| f64::from(standing.in_flight + 1) * standing.seconds_per_piece)
    }

    /// Whether the peer is banned or at rest, which is worse than busy.
    pub fn is_out(&self, addr: &str) -> bool {
        let soon = Instant::now() + Duration::from_secs(1);
        self.lock()
            .get(addr)
            .is_some_and(|standing| standing.not_before > soon)
    }

    /// Notes the start of a request.
    pub fn start(&self, addr: &Arc<str>) -> Flight<'_> {
        self.change(addr, |standing| standing.in_flight += 1);
        Flight {
            peers: self,
            addr: addr.clone(),
            started: Instant::now(),
        }
    }

    pub fn busy(&self, addr: &Arc<str>, after: Duration) {
        self.not_before(addr, after);
    }

    pub fn rest(&self, addr: &Arc<str>) {
        self.not_before(addr, REST);
    }

    pub fn ban(&self, addr: &Arc<str>) {
        self.not_before(addr, BAN);
    }

    fn not_before(&self, addr: &Arc<str>, after: Duration) {
        let until = Instant::now() + after;
        self.change(addr, |standing| {
            standing.not_before = standing.not_before.max(until)
        });
    }

    fn change(&self, addr: &Arc<str>, change: impl FnOnce(&mut Standing)) {
        let mut known = self.lock();
        if known.len() >= PEERS_MAX && !known.contains_key(addr) {
            forget_one(&mut known);
        }
        let now = Instant::now();
        let standing = known.entry(addr.clone()).or_insert(Standing {
            in_flight: 0,
            not_before: now,
            used: now,
            seconds_per_piece: 0.001,
        });
        standing.used = now;
        change(standing);
    }
}

fn forget_one(known: &mut HashMap<Arc<str>, Standing>) {
    let idle = known.iter().filter(|(_, standing)| standing.in_flight == 0);
    let oldest = idle
        .min_by_key(|(_, standing)| standing.used)
        .map(|(addr, _)| addr.clone());
    if let Some(addr) = oldest {
        known.remove(&addr);
    }
}

impl Flight<'_> {
    /// The request brought `pieces`: what that took counts for a quarter of the average.
    pub fn brought(&self, pieces: u32) {
        let sample = self.started.elapsed().as_secs_f64() / f64::from(pieces.max(1));
        self.peers.change(&self.addr, |standing| {
            standing.seconds_per_piece = 0.75 * standing.seconds_per_piece + 0.25 * sample;
        });
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.peers.change(&self.addr, |standing| {
            standing.in_flight = standing.in_flight.saturating_sub(1)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_asked_when_it_is_free_and_in_good_standing() {
        let (peers, addr): (_, Arc<str>) = (Peers::default(), "p".into());
        let flights: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| peers.start(&addr)).collect();
        assert!(
            peers.expected_seconds(&addr).is_none(),
            "all its slots are in use"
        );
        drop(flights);
        assert!(peers.expected_seconds(&addr).is_some());
        peers.busy(&addr, Duration::from_millis(20));
        assert!(peers.expected_seconds(&addr).is_none() && !peers.is_out(&addr));
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(peers.expected_seconds(&addr).is_some());
        peers.ban(&addr);
        peers.busy(&addr, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(58)).await;
        assert!(peers.expected_seconds(&addr).is_none() && peers.is_out("p"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(peers.expected_seconds(&addr).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_expected_to_be_slow() {
        let (peers, slow): (_, Arc<str>) = (Peers::default(), "slow".into());
        let flight = peers.start(&slow);
        tokio::time::advance(Duration::from_secs(2)).await;
        flight.brought(1);
        drop(flight);
        assert!(peers.expected_seconds(&slow) > peers.expected_seconds("new"));
    }
}
