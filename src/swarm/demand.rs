//! One piece that a reader waits for: from a neighbour that has it, else from the seed, at once.
//!
//! A busy, absent or lying giver costs one more round, not the read. After [`PATIENCE`] the last cause is
//! the failure; what cannot get better by waiting (a refused token, a missing file) fails at once.

use super::client::{AnyAsk, TransferError};
use super::node::{PATIENCE, Swarm};
use super::slots::Class;
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind};
use crate::source::{Arrival, FileRef};
use crate::store::{CacheFile, State};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

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
            let outcome = match self.neighbour() {
                Some(addr) => self.ask(&addr).await,
                None => self.ask_seed(&mut tried).await,
            };
            match outcome {
                Ok(arrival) => return Ok(arrival),
                Err(again) if again.is_last() || Instant::now() > deadline => {
                    count("failed");
                    return Err(again.failure);
                }
                Err(again) => sleep(again.after).await,
            }
        }
    }

    /// The neighbour expected to finish first.
    fn neighbour(&self) -> Option<Arc<str>> {
        self.cache.hash(self.index)?;
        self.swarm.availability.with(self.file.key, |holdings| {
            let holders = holdings.iter().filter(|(_, has)| has.get(self.index));
            let free = holders
                .filter_map(|(addr, _)| Some((self.swarm.peers.expected_seconds(addr)?, addr)));
            free.min_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, addr)| addr.clone())
        })
    }

    async fn ask(&self, addr: &Arc<str>) -> Result<Arrival, Again> {
        let flight = self.swarm.peers.start(addr);
        let run = self.index..self.index + 1;
        match self
            .swarm
            .client
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
                Err(again(self.file, error))
            }
        }
    }

    async fn ask_seed(&self, tried: &mut bool) -> Result<Arrival, Again> {
        // Opened again: another seed may have to be told by now.
        let (_, wish) = self.swarm.open(self.file).map_err(Again::never)?;
        let link = &self.swarm.links[wish.seed];
        let Some(addr) = link.piece_addr() else {
            return Err(not_connected(&link.seed.name));
        };
        let ask = AnyAsk {
            wanted: Some(self.index),
            tried: *tried,
            need: &[],
        };
        match self
            .swarm
            .client
            .any(&addr, &self.cache, ask, |run| Some(((), run)))
            .await
        {
            Ok(arrival) => {
                count("seed");
                Ok(arrival)
            }
            Err(TransferError::Holder(holder)) => {
                *tried = true;
                self.ask_holder(holder.as_str().into()).await
            }
            Err(error) if error.is_refusal() && wish.is_news() => Err(Again {
                after: PAUSE,
                ..again(self.file, error)
            }),
            Err(error) => Err(again(self.file, error)),
        }
    }

    /// A holder that cannot help sends us back to the seed, which then gives the piece itself.
    async fn ask_holder(&self, holder: Arc<str>) -> Result<Arrival, Again> {
        let is_usable = self.cache.hash(self.index).is_some() && !self.swarm.peers.is_out(&holder);
        match is_usable {
            true => self.ask(&holder).await.map_err(|again| Again {
                after: Duration::ZERO,
                ..again
            }),
            false => Err(Again {
                after: Duration::ZERO,
                ..not_connected(&holder)
            }),
        }
    }
}

/// Why an attempt failed, and when the next may start.
pub(super) struct Again {
    pub after: Duration,
    pub failure: Failure,
}

impl Again {
    pub fn never(failure: Failure) -> Again {
        Again {
            after: Duration::MAX,
            failure,
        }
    }

    pub fn is_last(&self) -> bool {
        self.after == Duration::MAX
    }
}

/// What a failed request to anyone means for the next attempt.
pub(super) fn again(file: &FileRef, error: TransferError) -> Again {
    if let TransferError::Busy { .. } = error {
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
    Again { after, failure }
}

pub(super) fn not_connected(name: &str) -> Again {
    let message = format!("{name} is not connected: check that it runs and can be reached");
    Again {
        after: PAUSE,
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
