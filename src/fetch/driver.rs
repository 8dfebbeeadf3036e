//! Brings what readers will want, in the background, within the process's slots.

use super::admission::Admission;
use crate::backoff::Delays;
use crate::model::Failure;
use crate::source::{Arrival, FileRef, Need, Source};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// One file's background fetching. Dropping it ends the work.
pub struct Driver {
    wake: Arc<Notify>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Driver {
    pub fn new(
        source: Arc<dyn Source>,
        file: FileRef,
        admission: Arc<Admission>,
        need: Arc<Need>,
        slots: Arc<Semaphore>,
    ) -> Driver {
        let wake = Arc::new(Notify::new());
        let work = Work {
            source,
            file,
            admission,
            need,
            slots,
        };
        let task = tokio::spawn(work.run(wake.clone()));
        Driver {
            wake,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// The wishes have changed.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

#[derive(Clone)]
struct Work {
    source: Arc<dyn Source>,
    file: FileRef,
    admission: Arc<Admission>,
    need: Arc<Need>,
    slots: Arc<Semaphore>,
}

impl Work {
    /// Starts a run for each free slot while anything is wanted; sleeps until woken otherwise.
    async fn run(self, wake: Arc<Notify>) {
        let mut runs = JoinSet::new();
        loop {
            if self.need.open().is_empty() && runs.is_empty() {
                wake.notified().await;
                continue;
            }
            tokio::select! {
                Some(_) = runs.join_next(), if !runs.is_empty() => {}
                slot = self.slots.clone().acquire_owned(), if !self.need.open().is_empty() => {
                    let work = self.clone();
                    runs.spawn(async move {
                        work.one_run().await;
                        drop(slot);
                    });
                }
                () = wake.notified() => {}
            }
        }
    }

    async fn some(&self) -> Result<Arrival, Failure> {
        self.admission.ask().await?;
        self.source.some(&self.file, &self.need).await
    }

    /// One arrival, or one failure and its pause: the slot stays taken meanwhile, which is the back-off.
    async fn one_run(&self) {
        match self.some().await {
            Ok(Arrival::Kept(run)) => self.need.arrived(run),
            // No room: what nobody waits for is not worth bringing.
            Ok(Arrival::Passing(_)) => self.need.want(Vec::new(), Default::default()),
            Err(failure) => {
                tracing::debug!(file = %self.file.key, %failure, "background run failed");
                if !failure.kind.is_transient() {
                    self.need.want(Vec::new(), Default::default());
                }
                tokio::time::sleep(Delays::default().next_delay()).await;
            }
        }
    }
}
