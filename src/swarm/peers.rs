//! What this node knows about those it asks: how fast, how busy, how trustworthy.
//!
//! One corrupt piece bans a peer for 60 s; a busy one is left alone for as long as it said; a slow one is
//! merely expected to take longer. Bounds: 1,024 addresses, the longest unused goes first; the last 128
//! piece times, which say when a wait is unusual.

use super::planner::{Pace, STRANGER_SECONDS, Standing};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const BAN: Duration = Duration::from_secs(60);
/// A peer that could not be reached or broke off.
const REST: Duration = Duration::from_secs(2);
const PEERS_MAX: usize = 1024;
/// Requests to one neighbour at a time: its own upload slots.
const IN_FLIGHT_MAX: u32 = 4;
const DOUBLINGS_MAX: u32 = 5;
/// Piece times remembered. A smaller number would make the 95th percentile one slow piece.
const TIMES_MAX: usize = 128;
const TIMES_MIN: usize = 20;
const UNUSUAL_AT_FIRST: Duration = Duration::from_secs(1);
/// Below this it is the scheduler that is late, not the peer.
const UNUSUAL_MIN: Duration = Duration::from_millis(20);
const UNUSUAL_MAX: Duration = Duration::from_secs(5);

/// The standing of everyone asked, by a clock that the caller reads.
pub struct Standings<Id> {
    known: HashMap<Id, Known>,
    times: Times,
}

#[derive(Clone)]
struct Known {
    in_flight: u32,
    not_before: Instant,
    used: Instant,
    /// Moving average over transfers.
    piece_seconds: Option<f64>,
    /// Refusals since it last gave something.
    refusals: u32,
}

/// The last piece times, in a ring.
#[derive(Default)]
struct Times {
    seconds: Vec<f64>,
    at: usize,
}

impl<Id> Default for Standings<Id> {
    fn default() -> Standings<Id> {
        Standings {
            known: HashMap::new(),
            times: Times::default(),
        }
    }
}

impl<Id: Clone + Eq + Hash> Standings<Id> {
    pub fn of(&self, id: &Id, now: Instant) -> Standing {
        self.known
            .get(id)
            .map_or(Standing::STRANGER, |known| known.standing(now))
    }

    pub fn started(&mut self, id: &Id, now: Instant) {
        self.change(id, now, |known| known.in_flight += 1);
    }

    pub fn ended(&mut self, id: &Id, now: Instant) {
        self.change(id, now, |known| {
            known.in_flight = known.in_flight.saturating_sub(1)
        });
    }

    /// A request brought `pieces` after `took`: that counts for a quarter of the average.
    pub fn brought(&mut self, id: &Id, pieces: u32, took: Duration, now: Instant) {
        self.took(id, took.as_secs_f64() / f64::from(pieces.max(1)), now);
        self.change(id, now, |known| known.refusals = 0);
    }

    /// Somebody else was faster with a piece that this one had not given after `took`.
    pub fn overtaken(&mut self, id: &Id, took: Duration, now: Instant) {
        self.took(id, took.as_secs_f64(), now);
    }

    fn took(&mut self, id: &Id, sample: f64, now: Instant) {
        self.change(id, now, |known| {
            let before = known.piece_seconds.unwrap_or(sample);
            known.piece_seconds = Some(0.75 * before + 0.25 * sample);
        });
    }

    /// It has no free slot and asks to be left alone for `after`: twice as long each time, up to 32 times.
    /// With a thousand nodes that is 2,900 refusals a second at the seed instead of 36,000.
    pub fn refused(&mut self, id: &Id, after: Duration, now: Instant) {
        self.change(id, now, |known| {
            let after = after * (1 << known.refusals.min(DOUBLINGS_MAX));
            known.refusals += 1;
            known.not_before = known.not_before.max(now + after);
        });
    }

    pub fn not_before(&mut self, id: &Id, after: Duration, now: Instant) {
        self.change(id, now, |known| {
            known.not_before = known.not_before.max(now + after)
        });
    }

    /// A peer gave `pieces` in this time; a seed's waits for the hub tell nothing about peers.
    pub fn timed(&mut self, pieces: u32, took: Duration) {
        self.times
            .push(took.as_secs_f64() / f64::from(pieces.max(1)));
    }

    /// How long a piece may take before its wait is unusual: the 95th percentile of the last ones.
    pub fn unusual(&self) -> Duration {
        let usual = self.times.percentile_95();
        let usual = usual.map_or(UNUSUAL_AT_FIRST, Duration::from_secs_f64);
        usual.clamp(UNUSUAL_MIN, UNUSUAL_MAX)
    }

    fn change(&mut self, id: &Id, now: Instant, change: impl FnOnce(&mut Known)) {
        if self.known.len() >= PEERS_MAX && !self.known.contains_key(id) {
            self.forget_one();
        }
        let known = self.known.entry(id.clone()).or_insert(Known {
            in_flight: 0,
            not_before: now,
            used: now,
            piece_seconds: None,
            refusals: 0,
        });
        known.used = now;
        change(known);
    }

    fn forget_one(&mut self) {
        let idle = self.known.iter().filter(|(_, known)| known.in_flight == 0);
        let oldest = idle
            .min_by_key(|(_, known)| known.used)
            .map(|(id, _)| id.clone());
        if let Some(id) = oldest {
            self.known.remove(&id);
        }
    }
}

impl Known {
    fn standing(&self, now: Instant) -> Standing {
        // Banned or at rest is worse than busy.
        if self.not_before > now + Duration::from_secs(1) {
            return Standing::Out;
        }
        if self.in_flight >= IN_FLIGHT_MAX || self.not_before > now {
            return Standing::Busy;
        }
        let one = self.piece_seconds.unwrap_or(STRANGER_SECONDS);
        Standing::Free(Pace {
            seconds: f64::from(self.in_flight + 1) * one,
            piece_seconds: self.piece_seconds,
        })
    }
}

impl Times {
    fn push(&mut self, seconds: f64) {
        match self.seconds.len() < TIMES_MAX {
            true => self.seconds.push(seconds),
            false => self.seconds[self.at] = seconds,
        }
        self.at = (self.at + 1) % TIMES_MAX;
    }

    fn percentile_95(&self) -> Option<f64> {
        if self.seconds.len() < TIMES_MIN {
            return None;
        }
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 95 / 100).copied()
    }
}

/// The standings of a node's peers, by address, on the clock.
#[derive(Default)]
pub struct Peers {
    standings: Mutex<Standings<Arc<str>>>,
}

/// A request under way; dropping it ends it.
pub struct Flight<'a> {
    peers: &'a Peers,
    addr: Arc<str>,
    started: Instant,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, Standings<Arc<str>>> {
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn standing(&self, addr: &Arc<str>) -> Standing {
        self.lock().of(addr, Instant::now())
    }

    /// Notes the start of a request.
    pub fn start(&self, addr: &Arc<str>) -> Flight<'_> {
        let now = Instant::now();
        self.lock().started(addr, now);
        Flight {
            peers: self,
            addr: addr.clone(),
            started: now,
        }
    }

    /// How long a piece may take before its wait is unusual.
    pub fn unusual(&self) -> Duration {
        self.lock().unusual()
    }

    /// A request that began at `started` is given up, for somebody else was faster.
    pub fn overtaken(&self, addr: &Arc<str>, started: Instant) {
        let now = Instant::now();
        self.lock().overtaken(addr, now - started, now);
    }

    pub fn refused(&self, addr: &Arc<str>, after: Duration) {
        self.lock().refused(addr, after, Instant::now());
    }

    pub fn rest(&self, addr: &Arc<str>) {
        self.lock().not_before(addr, REST, Instant::now());
    }

    pub fn ban(&self, addr: &Arc<str>) {
        self.lock().not_before(addr, BAN, Instant::now());
    }
}

impl Flight<'_> {
    /// A peer gave `pieces`.
    pub fn brought(&self, pieces: u32) {
        self.peers.lock().timed(pieces, self.started.elapsed());
        self.waited(pieces);
    }

    /// A seed gave `pieces`, perhaps after it had waited for the hub.
    pub fn waited(&self, pieces: u32) {
        let now = Instant::now();
        let took = now - self.started;
        self.peers.lock().brought(&self.addr, pieces, took, now);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.peers.lock().ended(&self.addr, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(peers: &Peers, addr: &Arc<str>) -> bool {
        matches!(peers.standing(addr), Standing::Free(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_asked_when_it_is_free_and_in_good_standing() {
        let (peers, addr): (_, Arc<str>) = (Peers::default(), "p".into());
        let flights: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| peers.start(&addr)).collect();
        assert_eq!(
            peers.standing(&addr),
            Standing::Busy,
            "we fill all its slots"
        );
        drop(flights);
        assert!(is_free(&peers, &addr));
        peers.refused(&addr, Duration::from_millis(20));
        assert_eq!(peers.standing(&addr), Standing::Busy);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert!(is_free(&peers, &addr));
        peers.ban(&addr);
        peers.refused(&addr, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(58)).await;
        assert_eq!(peers.standing(&addr), Standing::Out);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(is_free(&peers, &addr));
    }

    #[test]
    fn who_refuses_again_and_again_is_asked_less_and_less() {
        let (mut standings, start) = (Standings::default(), Instant::now());
        let mut now = start;
        for _ in 0..10 {
            standings.refused(&1, Duration::from_millis(20), now);
            while standings.of(&1, now) == Standing::Busy {
                now += Duration::from_millis(20);
            }
        }
        // 20 to 640 ms in six refusals, then 640 ms each.
        assert_eq!((now - start).as_millis(), 1260 + 4 * 640);
        standings.brought(&1, 1, Duration::from_millis(1), now);
        standings.refused(&1, Duration::from_millis(20), now);
        assert_ne!(
            standings.of(&1, now + Duration::from_millis(20)),
            Standing::Busy
        );
    }

    #[test]
    fn the_pace_is_measured_and_sets_the_run() {
        let (mut standings, now) = (Standings::default(), Instant::now());
        let pace = |standings: &Standings<u32>, id| match standings.of(&id, now) {
            Standing::Free(pace) => pace,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            pace(&standings, 1).run_max(),
            1,
            "a stranger's link may be thin"
        );
        standings.brought(&1, 4, Duration::from_millis(8), now);
        standings.brought(&2, 1, Duration::from_millis(9), now);
        standings.brought(&3, 1, Duration::from_millis(400), now);
        let runs = [1, 2, 3].map(|id| pace(&standings, id).run_max());
        assert_eq!(runs, [4, 2, 1]);
        standings.started(&1, now);
        assert!(
            (pace(&standings, 1).seconds - 0.004).abs() < 1e-9,
            "the second of two"
        );
        assert!(pace(&standings, 3).seconds > pace(&standings, 2).seconds);
    }

    #[test]
    fn an_unusual_wait_is_one_of_twenty_of_the_last_128() {
        let mut standings = Standings::<u32>::default();
        let mut bring = |count: u32, millis: u64| {
            (0..count).for_each(|_| standings.timed(2, Duration::from_millis(2 * millis)));
            assert!(standings.times.seconds.len() <= TIMES_MAX);
            standings.unusual().as_millis()
        };
        assert_eq!(bring(19, 40), 1000, "too few to say");
        assert_eq!(bring(1, 500), 500);
        assert_eq!(bring(20, 40), 40);
        assert_eq!(bring(128, 30), 30);
        assert_eq!(bring(128, 1), 20);
        assert_eq!(bring(128, 9000), 5000);
    }
}
