//! Single flight: a piece that readers wait for is brought once, whoever and however many wait.
//!
//! A flight goes on while somebody waits for it and asks again after transient failures. A piece that a
//! background run already has under way is waited for, not fetched twice.

use super::Fetcher;
use super::trouble::Troubles;
use crate::backoff::Delays;
use crate::metrics::METRICS;
use crate::model::{Failure, Verified};
use crate::source::{Arrival, FileRef, Need, Source};
use crate::store::CacheFile;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// The flights of one file.
pub struct Flights {
    source: Arc<dyn Source>,
    slots: Arc<Semaphore>,
    file: FileRef,
    cached: Arc<CacheFile>,
    need: Arc<Need>,
    /// Weak: a flight ends when the last reader that waits for it has gone.
    under_way: Mutex<HashMap<u32, Weak<watch::Receiver<Progress>>>>,
    troubles: Arc<Troubles>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    landing: Option<Landing>,
    /// Why the last try failed, for the message of a reader that gives up.
    failure: Option<Failure>,
}

/// How a flight ended: the piece is in the store (`None`), or had no room there, or nobody can bring it.
type Landing = Result<Option<Verified>, Failure>;

/// One reader's wait for one piece.
pub struct Flight {
    progress: watch::Receiver<Progress>,
    _shared: Arc<watch::Receiver<Progress>>,
}

impl Flight {
    /// Resolves when the piece is here or cannot be had. Cancel-safe.
    pub async fn landed(&mut self) -> Landing {
        match self
            .progress
            .wait_for(|progress| progress.landing.is_some())
            .await
        {
            Ok(progress) => progress.landing.clone().unwrap_or(Ok(None)),
            // The runtime is going down; the caller looks at the store again.
            Err(_) => Ok(None),
        }
    }

    pub fn last_failure(&self) -> String {
        let progress = self.progress.borrow();
        progress
            .failure
            .as_ref()
            .map_or_else(|| "nobody answered".into(), ToString::to_string)
    }
}

impl Flights {
    pub fn new(
        fetcher: &Fetcher,
        file: &FileRef,
        cached: &Arc<CacheFile>,
        need: &Arc<Need>,
        troubles: &Arc<Troubles>,
    ) -> Arc<Flights> {
        Arc::new(Flights {
            source: fetcher.source.clone(),
            slots: fetcher.demand.clone(),
            file: file.clone(),
            cached: cached.clone(),
            need: need.clone(),
            under_way: Mutex::default(),
            troubles: troubles.clone(),
        })
    }

    fn note(&self, landing: &Landing) {
        match landing {
            Ok(None) => self.troubles.over(),
            Ok(Some(_)) => self.troubles.no_room(),
            Err(failure) => self.troubles.failed(failure),
        }
    }

    /// Joins the flight of a piece, or starts it.
    pub fn join(self: &Arc<Flights>, index: u32) -> Flight {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = under_way.get(&index).and_then(Weak::upgrade) {
            METRICS.piece_requests.with_label_values(&["joined"]).inc();
            return Flight {
                progress: shared.as_ref().clone(),
                _shared: shared,
            };
        }
        let (sender, progress) = watch::channel(Progress::default());
        let shared = Arc::new(progress);
        under_way.insert(index, Arc::downgrade(&shared));
        tokio::spawn(self.clone().fly(index, sender));
        Flight {
            progress: shared.as_ref().clone(),
            _shared: shared,
        }
    }

    /// Flies until the piece has landed or nobody waits any more.
    async fn fly(self: Arc<Flights>, index: u32, sender: watch::Sender<Progress>) {
        let landing = tokio::select! {
            landing = self.bring(index, &sender) => landing,
            () = sender.closed() => Ok(None),
        };
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A new flight may have taken the place of an abandoned one.
        if under_way
            .get(&index)
            .is_some_and(|flight| flight.upgrade().is_none() || !sender.is_closed())
        {
            under_way.remove(&index);
        }
        drop(under_way);
        sender.send_modify(|progress| progress.landing = Some(landing));
    }

    async fn bring(&self, index: u32, sender: &watch::Sender<Progress>) -> Landing {
        let mut backoff = Delays::default();
        loop {
            let landing = self.bring_once(index).await;
            self.note(&landing);
            match landing {
                Err(failure) if failure.kind.is_transient() => {
                    tracing::debug!(file = %self.file.key, piece = index, %failure, "asking again");
                    sender.send_modify(|progress| progress.failure = Some(failure));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                landing => return landing,
            }
        }
    }

    async fn bring_once(&self, index: u32) -> Landing {
        let _claim = match self.claim(index).await {
            Claimed::Here => return Ok(None),
            Claimed::Ours(claim) => Some(claim),
            Claimed::Late => None,
        };
        let _slot = self.slots.acquire().await;
        let arrival = self.source.piece(&self.file, index).await?;
        self.need.arrived(index..index + 1);
        Ok(match arrival {
            Arrival::Kept(_) => None,
            Arrival::Passing(pieces) => pieces.into_iter().find(|piece| piece.index() == index),
        })
    }

    /// Claims the piece, waiting for a background run that has it under way, but not for a slow one.
    async fn claim(&self, index: u32) -> Claimed {
        let late = Instant::now() + self.source.patience();
        loop {
            let mut changed = std::pin::pin!(self.need.changed());
            changed.as_mut().enable();
            if self.cached.has(index) {
                return Claimed::Here;
            }
            if let Some(claim) = self.need.claim_demand(index) {
                return Claimed::Ours(claim);
            }
            if timeout_at(late, changed).await.is_err() {
                METRICS.piece_requests.with_label_values(&["hedged"]).inc();
                return Claimed::Late;
            }
        }
    }
}

/// Who brings a piece.
enum Claimed {
    Here,
    Ours(crate::source::Claim),
    /// A background run that takes unusually long: its piece is asked for once more.
    Late,
}
