//! One piece that a reader waits for: from a neighbour that has it, else from the seed, at once.
//!
//! A neighbour that takes longer than 95 of 100 pieces did lately gets a rival: another holder or the seed
//! is asked too, the first to bring the piece wins and the other is dropped. A busy, absent or lying giver costs
//! one more round, not the read. After [`PATIENCE`] the last cause is the failure; what cannot get better by waiting (a refused token, a missing file) fails at once.

use super::client::{AnyAsk, TransferError};
use super::node::{PATIENCE, Swarm};
use super::planner::{self, Standing};
use super::slots::Class;
use super::wishes::Wish;
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind};
use crate::source::{Arrival, FileRef};
use crate::store::{CacheFile, State};
use futures::future::{Either, select};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Before a seed that is not connected is tried again.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Demand<'a> {
    pub swarm: &'a Swarm,
    pub file: &'a FileRef,
    pub cache: Arc<CacheFile>,
    pub index: u32,
}

impl Demand<'_> {
    pub async fn run(self) -> Result<Arrival, Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut tried = false;
        loop {
            if self.cache.state() == State::Revoked {
                return Err(revoked(self.file));
            }
            if self.cache.has(self.index) {
                return Ok(Arrival::Kept(self.index..self.index + 1));
            }
            // Opened again: another seed may have to be told by now.
            let (_, wish) = self.swarm.open(self.file)?;
            let outcome = match self.neighbour(&wish, None) {
                Some(addr) => self.ask(&wish, &addr).await,
                None => self.ask_seed(&wish, &mut tried).await,
            };
            match outcome {
                Ok(arrival) => {
                    wish.progress.arrived();
                    return Ok(arrival);
                }
                Err(again) if again.is_last() || Instant::now() > deadline => {
                    count("failed");
                    return Err(again.failure);
                }
                Err(again) => sleep(again.after).await,
            }
        }
    }

    /// The neighbour to ask, other than `except`.
    fn neighbour(&self, wish: &Wish, except: Option<&Arc<str>>) -> Option<Arc<str>> {
        self.cache.hash(self.index)?;
        self.swarm.availability.with(self.file.key, |holdings| {
            let mut givers = self.swarm.givers(wish, holdings);
            givers.retain(|giver| Some(giver.id) != except);
            planner::giver_of(self.index, &givers).cloned()
        })
    }

    /// Asks a neighbour, and somebody else too when that takes unusually long.
    async fn ask(&self, wish: &Wish, addr: &Arc<str>) -> Result<Arrival, Again> {
        let started = Instant::now();
        let mut first = std::pin::pin!(self.ask_peer(addr));
        if let Ok(outcome) = timeout(self.swarm.peers.unusual(), &mut first).await {
            return outcome;
        }
        count("hedged");
        let second = std::pin::pin!(self.ask_another(wish, addr));
        match select(first, second).await {
            Either::Left((Err(_), other)) => other.await,
            Either::Right((Err(_), other)) => other.await,
            Either::Left((brought, _)) => brought,
            Either::Right((brought, _)) => {
                self.swarm.peers.overtaken(addr, started);
                brought
            }
        }
    }

    async fn ask_another(&self, wish: &Wish, slow: &Arc<str>) -> Result<Arrival, Again> {
        match self.neighbour(wish, Some(slow)) {
            Some(addr) => self.ask_peer(&addr).await,
            None => self
                .ask_for_it(wish, true)
                .await
                .map_err(|error| again(self.file, error)),
        }
    }

    async fn ask_peer(&self, addr: &Arc<str>) -> Result<Arrival, Again> {
        let flight = self.swarm.peers.start(addr);
        let run = self.index..self.index + 1;
        let client = &self.swarm.client;
        match client
            .pieces(addr, &self.cache, run.clone(), Class::Demand)
            .await
        {
            Ok(arrival) => {
                flight.brought(1);
                count("peer");
                Ok(arrival)
            }
            Err(error) => {
                self.swarm.blame(addr, self.file.key, run, &error);
                Err(again(self.file, error).unless_busy())
            }
        }
    }

    async fn ask_seed(&self, wish: &Wish, tried: &mut bool) -> Result<Arrival, Again> {
        match self.ask_for_it(wish, *tried).await {
            Err(TransferError::Holder(holder)) => {
                *tried = true;
                self.ask_holder(holder.as_str().into()).await
            }
            Err(error) if error.is_refusal() && wish.is_news() => Err(Again {
                after: PAUSE,
                ..again(self.file, error)
            }),
            outcome => outcome.map_err(|error| again(self.file, error)),
        }
    }

    /// Asks the seed for this piece.
    async fn ask_for_it(&self, wish: &Wish, tried: bool) -> Result<Arrival, TransferError> {
        let link = &self.swarm.links[wish.seed];
        let addr = link.piece_addr();
        let addr =
            addr.ok_or_else(|| TransferError::Failed(not_connected(&link.seed.name).failure))?;
        let ask = AnyAsk {
            wanted: Some(self.index),
            tried,
            run_max: 1,
            need: &[],
        };
        let client = &self.swarm.client;
        client
            .any(&addr, &self.cache, ask, |run| Some(((), run)))
            .await
            .inspect(|_| count("seed"))
    }

    /// A holder that cannot help has the piece on its way: somebody will tell of it. Only when that takes
    /// unusually long we come back to the seed, which then gives the piece itself.
    async fn ask_holder(&self, holder: Arc<str>) -> Result<Arrival, Again> {
        let is_out = self.swarm.peers.standing(&holder) == Standing::Out;
        let is_usable = self.cache.hash(self.index).is_some() && !is_out;
        let outcome = match is_usable {
            true => self.ask_peer(&holder).await,
            false => Err(not_connected(&holder)),
        };
        if outcome.is_err() {
            let _ = timeout(self.swarm.peers.unusual(), self.told_of()).await;
        }
        outcome.map_err(|again| Again {
            after: Duration::ZERO,
            ..again
        })
    }

    /// Returns when a neighbour tells of the piece, or it is here.
    async fn told_of(&self) {
        let mut news = self.swarm.availability.changes();
        let mut arrivals = self.cache.changes();
        let is_told = || {
            let availability = &self.swarm.availability;
            availability.with(self.file.key, |holdings| holdings.count(self.index) > 0)
        };
        while !is_told() && !self.cache.has(self.index) {
            tokio::select! {
                _ = news.changed() => {}
                _ = arrivals.changed() => {}
            }
        }
    }
}

/// Why an attempt failed, and when the next may start.
pub(super) struct Again {
    pub after: Duration,
    is_busy: bool,
    pub failure: Failure,
}

impl Again {
    pub fn never(failure: Failure) -> Again {
        Again {
            after: Duration::MAX,
            is_busy: false,
            failure,
        }
    }

    pub fn is_last(&self) -> bool {
        self.after == Duration::MAX
    }

    /// Who was found busy is left alone; there are others.
    pub fn unless_busy(self) -> Again {
        match self.is_busy {
            true => Again {
                after: Duration::ZERO,
                ..self
            },
            false => self,
        }
    }
}

/// What a failed request to anyone means for the next attempt.
pub(super) fn again(file: &FileRef, error: TransferError) -> Again {
    let is_busy = matches!(error, TransferError::Busy { .. });
    if is_busy {
        count("busy");
    }
    let after = match &error {
        TransferError::Busy { after } => after.mul_f64(0.5 + rand::random::<f64>()),
        TransferError::Failed(failure) if !failure.kind.is_transient() => {
            return Again::never(failure.clone());
        }
        TransferError::Store(error) => {
            return Again::never(Failure::new(FailureKind::Internal, error.to_string()));
        }
        TransferError::Failed(_) => PAUSE,
        TransferError::NoInterest | TransferError::NoHash { .. } => Duration::from_millis(20),
        TransferError::Corrupt { .. } | TransferError::Io(_) => Duration::from_millis(10),
        TransferError::NotHere | TransferError::Holder(_) | TransferError::Unwanted => {
            Duration::from_millis(5)
        }
    };
    let failure = match error {
        TransferError::Failed(failure) => failure,
        error => Failure::new(
            FailureKind::Unavailable,
            format!("{} of {}: {error}", file.path, file.pin),
        ),
    };
    Again {
        after,
        is_busy,
        failure,
    }
}

pub(super) fn not_connected(name: &str) -> Again {
    let message = format!("{name} is not connected: check that it runs and can be reached");
    Again {
        after: PAUSE,
        is_busy: false,
        failure: Failure::new(FailureKind::Unavailable, message),
    }
}

pub(super) fn revoked(file: &FileRef) -> Failure {
    Failure::new(
        FailureKind::Integrity,
        format!("{} of {}: content failed its digest", file.path, file.pin),
    )
}

pub(super) fn count(outcome: &str) {
    METRICS.piece_requests.with_label_values(&[outcome]).inc();
}
