//! Runs that nobody waits for yet: what the planner says next, until something has come.
//!
//! A busy neighbour costs one round trip, for the next one is asked at once. When nobody is to be asked,
//! news from a neighbour or [`LOOK_AGAIN`] starts another look.

use super::client::{AnyAsk, TransferError};
use super::demand::{Again, again, count, not_connected, revoked};
use super::node::{PATIENCE, Swarm};
use super::planner::{self, Distance, Next, Seed, Standing, View};
use super::slots::Class;
use super::wishes::Wish;
use crate::model::{Bitfield, Failure};
use crate::source::{Arrival, Claim, FileRef, Need};
use crate::store::{CacheFile, State};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

/// When nothing has come for this long, neighbours have had their chance: the seed's uplink would be idle
/// otherwise.
pub const STARVED: Duration = Duration::from_millis(500);
/// Without news, look again: a busy neighbour may be free.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Background<'a> {
    pub swarm: &'a Swarm,
    pub file: &'a FileRef,
    pub cache: Arc<CacheFile>,
    pub need: &'a Arc<Need>,
    pub started: Instant,
}

type Turn<'a> = SemaphorePermit<'a>;

impl Background<'_> {
    pub async fn run(self) -> Result<Arrival, Failure> {
        let mut news = self.swarm.availability.changes();
        let mut last = None;
        let (_, wish) = self.swarm.open(self.file)?;
        wish.progress.resumed(PATIENCE);
        while self.started.elapsed() < PATIENCE {
            if self.cache.state() == State::Revoked {
                return Err(revoked(self.file));
            }
            // Opened again: another seed may have to be told by now.
            let (_, wish) = self.swarm.open(self.file)?;
            match self.once(&wish, &mut news).await {
                Some(Ok(arrival)) => return Ok(arrival),
                Some(Err(again)) if again.is_last() => return Err(again.failure),
                Some(Err(again)) => {
                    sleep(again.after).await;
                    last = Some(again.failure);
                }
                None => {}
            }
        }
        Err(last.unwrap_or_else(|| not_connected("every giver").failure))
    }

    /// Wanted, not under way and not here.
    fn open_pieces(&self) -> Vec<u32> {
        let (here, open): (Vec<_>, Vec<_>) = self
            .need
            .open()
            .into_iter()
            .partition(|index| self.cache.has(*index));
        here.into_iter()
            .for_each(|index| self.need.arrived(index..index + 1));
        open
    }

    /// One request; `None` when nobody was to be asked and there was news since, or should have been.
    async fn once(
        &self,
        wish: &Wish,
        news: &mut watch::Receiver<u64>,
    ) -> Option<Result<Arrival, Again>> {
        let turn = wish.progress.turn.acquire().await.ok()?;
        news.borrow_and_update();
        let ahead = self.open_pieces();
        if ahead.is_empty() {
            return Some(Ok(Arrival::Kept(0..0)));
        }
        match self.plan(wish, &ahead) {
            Next::Peer { id, run } => Some(self.ask(wish, &id, run, turn).await),
            Next::Seed { need, run_max } => Some(self.ask_seed(wish, &need, run_max, turn).await),
            Next::Wait => {
                let _ = timeout(LOOK_AGAIN, news.changed()).await;
                None
            }
        }
    }

    fn plan(&self, wish: &Wish, ahead: &[u32]) -> Next<Arc<str>> {
        let pieces = self.cache.geometry().pieces();
        let open = self.need.bitmap(pieces).minus(&self.cache.have());
        let silence = wish.progress.silence().min(self.started.elapsed());
        let crossing = wish
            .surroundings
            .crossing(pieces, wish.progress.silence_near());
        let seed = Seed {
            standing: self.seed_standing(wish),
            is_far: wish.surroundings.is_seed_far,
            asked: wish.progress.asked(),
        };
        let known = self.cache.known();
        self.swarm.availability.with(self.file.key, |holdings| {
            let givers = self.swarm.givers(wish, holdings);
            let view = View {
                window: ahead,
                open: &open,
                givers: &givers,
                seed,
                crossing: &crossing,
                is_starved: silence > STARVED,
                salt: rand::random(),
            };
            planner::next(
                &view,
                |index| known.get(index),
                |index| holdings.count(index),
            )
        })
    }

    fn seed_standing(&self, wish: &Wish) -> Standing {
        let addr = self.swarm.links[wish.seed].piece_addr();
        // One that is not connected is asked too: the failure is what this call then reports.
        addr.map_or(Standing::STRANGER, |addr| {
            self.swarm.peers.standing(&addr.into())
        })
    }

    async fn ask(
        &self,
        wish: &Wish,
        addr: &Arc<str>,
        run: Range<u32>,
        turn: Turn<'_>,
    ) -> Result<Arrival, Again> {
        let claim = self.need.claim(run.start, run.len() as u32);
        let claim = claim.ok_or_else(|| again(self.file, TransferError::Unwanted))?;
        let flight = self.swarm.peers.start(addr);
        drop(turn);
        let client = &self.swarm.client;
        match client
            .pieces(addr, &self.cache, claim.run(), Class::Window)
            .await
        {
            Ok(arrival) => {
                flight.brought(claim.run().len() as u32);
                count("peer");
                // While the claim is held: nobody may find these pieces open again.
                let is_near = wish.surroundings.distance(addr) < Distance::Far;
                Ok(self.arrived(wish, arrival, is_near))
            }
            Err(error) => {
                self.swarm.blame(addr, self.file.key, claim.run(), &error);
                Err(again(self.file, error).unless_busy())
            }
        }
    }

    async fn ask_seed(
        &self,
        wish: &Wish,
        need: &Bitfield,
        run_max: u32,
        turn: Turn<'_>,
    ) -> Result<Arrival, Again> {
        let link = &self.swarm.links[wish.seed];
        let Some(addr) = link.piece_addr() else {
            return Err(not_connected(&link.seed.name));
        };
        let _asking = wish.progress.ask();
        let addr: Arc<str> = addr.into();
        let flight = self.swarm.peers.start(&addr);
        drop(turn);
        let ask = AnyAsk {
            wanted: None,
            tried: false,
            run_max,
            need: need.as_bytes(),
        };
        match self
            .swarm
            .client
            .any(&addr, &self.cache, ask, |run| self.claim(run))
            .await
        {
            Ok(arrival) => {
                if let Arrival::Kept(run) = &arrival {
                    flight.waited(run.len() as u32);
                }
                count("seed");
                Ok(self.arrived(wish, arrival, !wish.surroundings.is_seed_far))
            }
            Err(error) => {
                if let TransferError::Busy { after } = &error {
                    self.swarm.peers.refused(&addr, *after);
                }
                Err(again(self.file, error).unless_busy())
            }
        }
    }

    /// `is_near`: it came from the own zone.
    fn arrived(&self, wish: &Wish, arrival: Arrival, is_near: bool) -> Arrival {
        wish.progress.arrived();
        if let Arrival::Kept(run) = &arrival {
            // A gateway that fetches what is its own to fetch leaves the other ways as they are.
            if is_near || wish.surroundings.is_own_way(run.start) {
                wish.progress.arrived_near();
            }
            self.need.arrived(run.clone());
        }
        arrival
    }

    /// Claims what is still open of a run that the seed chose.
    fn claim(&self, run: Range<u32>) -> Option<(Claim, Range<u32>)> {
        let claim = run
            .clone()
            .find_map(|first| self.need.claim(first, run.end - first))?;
        let kept = claim.run();
        Some((claim, kept))
    }
}
