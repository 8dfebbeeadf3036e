//! Runs that nobody waits for yet: from neighbours as [`choose`] says, else what the seed chooses.
//!
//! The seed is asked only for pieces that no neighbour tells of, so that it gives each piece about once;
//! after [`STARVED`] without anything it is asked for the others too. While a file is young and has
//! neighbours, one such request is out at a time: the rest comes from them.

use super::choose::{Candidate, choose};
use super::client::{AnyAsk, TransferError};
use super::demand::{Again, again, count, not_connected, revoked};
use super::link::SeedLink;
use super::node::{PATIENCE, Swarm};
use super::slots::Class;
use crate::model::{Bitfield, Failure};
use crate::source::{Arrival, FileRef, Need};
use crate::store::{CacheFile, State};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

/// Neighbours that had their chance: the seed's uplink would be idle otherwise.
const STARVED: Duration = Duration::from_millis(500);
/// Without news, look again: a busy neighbour may be free.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Background<'a> {
    pub swarm: &'a Swarm,
    pub file: &'a FileRef,
    pub cache: Arc<CacheFile>,
    pub need: &'a Arc<Need>,
}

impl Background<'_> {
    pub async fn run(self) -> Result<Arrival, Failure> {
        let started = Instant::now();
        let mut news = self.swarm.availability.changes();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            if self.cache.state() == State::Revoked {
                return Err(revoked(self.file));
            }
            news.borrow_and_update();
            let open = self.open_pieces();
            if open.is_empty() {
                return Ok(Arrival::Kept(0..0));
            }
            match self.once(&open, started.elapsed() > STARVED).await {
                Some(Ok(arrival)) => return Ok(self.arrived(arrival)),
                Some(Err(again)) if again.is_last() => return Err(again.failure),
                Some(Err(again)) => {
                    sleep(again.after).await;
                    last = Some(again.failure);
                }
                None => drop(timeout(LOOK_AGAIN, news.changed()).await),
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

    fn arrived(&self, arrival: Arrival) -> Arrival {
        if let Arrival::Kept(run) = &arrival {
            self.need.arrived(run.clone());
        }
        arrival
    }

    /// One request; `None` when there is nobody to ask now.
    async fn once(&self, open: &[u32], is_starved: bool) -> Option<Result<Arrival, Again>> {
        if let Some((addr, run)) = self.choose(open) {
            return Some(self.ask(&addr, run).await);
        }
        let need = self.seed_need(is_starved);
        if need.is_empty() {
            return None;
        }
        let (_, wish) = match self.swarm.open(self.file) {
            Ok(opened) => opened,
            Err(failure) => return Some(Err(Again::never(failure))),
        };
        let _one: Option<SemaphorePermit<'_>> = match wish.is_young() && self.has_neighbours() {
            true => Some(wish.asking.try_acquire().ok()?),
            false => None,
        };
        let link = &self.swarm.links[wish.seed];
        Some(self.ask_seed(link, &need).await)
    }

    fn choose(&self, open: &[u32]) -> Option<(Arc<str>, Range<u32>)> {
        self.swarm.availability.with(self.file.key, |holdings| {
            let free = holdings.iter().filter_map(|(addr, has)| {
                let seconds = self.swarm.peers.expected_seconds(addr)?;
                Some(Candidate {
                    id: addr.clone(),
                    has,
                    seconds,
                })
            });
            let free: Vec<_> = free.collect();
            choose(
                open,
                &free,
                |index| self.cache.hash(index).is_some(),
                rand::random(),
            )
        })
    }

    fn has_neighbours(&self) -> bool {
        self.swarm
            .availability
            .with(self.file.key, |holdings| !holdings.is_empty())
    }

    /// What the seed may give: what no neighbour in good standing has, or everything.
    fn seed_need(&self, is_starved: bool) -> Bitfield {
        let need = self
            .need
            .bitmap(self.cache.geometry().pieces())
            .minus(&self.cache.have());
        if is_starved {
            return need;
        }
        self.swarm.availability.with(self.file.key, |holdings| {
            let good = holdings
                .iter()
                .filter(|(addr, _)| !self.swarm.peers.is_out(addr));
            good.fold(need, |need, (_, has)| need.minus(has))
        })
    }

    async fn ask(&self, addr: &Arc<str>, run: Range<u32>) -> Result<Arrival, Again> {
        let claim = self.need.claim(run.start, run.len() as u32);
        let claim = claim.ok_or_else(|| again(self.file, TransferError::Unwanted))?;
        let flight = self.swarm.peers.start(addr);
        match self
            .swarm
            .client
            .pieces(addr, &self.cache, claim.run(), Class::Window)
            .await
        {
            Ok(arrival) => {
                flight.brought(claim.run().len() as u32);
                count("peer");
                // While the claim is held: nobody may find these pieces open again.
                Ok(self.arrived(arrival))
            }
            Err(error) => {
                self.swarm.blame(addr, self.file.key, claim.run(), &error);
                Err(again(self.file, error))
            }
        }
    }

    async fn ask_seed(&self, link: &SeedLink, need: &Bitfield) -> Result<Arrival, Again> {
        let Some(addr) = link.piece_addr() else {
            return Err(not_connected(&link.seed.name));
        };
        let ask = AnyAsk {
            wanted: None,
            tried: false,
            need: need.as_bytes(),
        };
        let arrival = self
            .swarm
            .client
            .any(&addr, &self.cache, ask, |run| self.claim(run))
            .await;
        arrival
            .inspect(|_| count("seed"))
            .map_err(|error| again(self.file, error))
    }

    /// Claims what is still open of a run that the seed chose.
    fn claim(&self, run: Range<u32>) -> Option<(crate::source::Claim, Range<u32>)> {
        let claim = run
            .clone()
            .find_map(|first| self.need.claim(first, run.end - first))?;
        let kept = claim.run();
        Some((claim, kept))
    }
}
