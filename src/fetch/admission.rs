//! May this repository's readers have the file's bytes, which may be here through another repository?
//!
//! Asked of the source once a repository and file, remembered by the store. Until it is answered the file
//! reads as if nothing of it were here. A reader waits for the answer as for a missing piece: troubles that
//! pass are asked again until its deadline, a refusal is its error.

use super::trouble::Troubles;
use crate::backoff::Delays;
use crate::model::{Failure, FailureKind};
use crate::source::{FileRef, Source};
use crate::store::Store;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

pub struct Admission {
    source: Arc<dyn Source>,
    store: Store,
    file: FileRef,
    troubles: Arc<Troubles>,
    passed: watch::Sender<bool>,
    /// Held while one caller asks; the others then find its answer.
    asking: Mutex<()>,
    /// Whether readers' trouble is that nobody has answered.
    told: std::sync::Mutex<bool>,
}

impl Admission {
    pub fn new(
        source: Arc<dyn Source>,
        store: Store,
        file: FileRef,
        troubles: Arc<Troubles>,
    ) -> Arc<Admission> {
        // Nobody learns anything from an empty file.
        let proven = || store.is_proven(&file.pin.repository, file.key, &file.digest);
        let passed = watch::Sender::new(file.size == 0 || proven());
        Arc::new(Admission {
            source,
            store,
            file,
            troubles,
            passed,
            asking: Mutex::default(),
            told: Default::default(),
        })
    }

    pub fn has_passed(&self) -> bool {
        *self.passed.borrow()
    }

    /// Resolves once it has passed; asks nobody.
    pub async fn passed(&self) {
        let _ = self.passed.subscribe().wait_for(|passed| *passed).await;
    }

    /// Asks once, unless it has passed. Cancel-safe.
    pub async fn ask(&self) -> Result<(), Failure> {
        let _asking = self.asking.lock().await;
        if self.has_passed() {
            return Ok(());
        }
        self.source.admit(&self.file).await?;
        let noted = self.store.prove(&self.file.pin.repository, self.file.key);
        noted.map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        self.passed.send_replace(true);
        if std::mem::take(&mut *self.told()) {
            self.troubles.over();
        }
        Ok(())
    }

    fn told(&self) -> MutexGuard<'_, bool> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells why readers wait, unless the answer has come to another one meanwhile.
    fn tell(&self, failure: &Failure) {
        let mut told = self.told();
        if !self.has_passed() {
            self.troubles.failed(failure);
            *told = true;
        }
    }

    /// Asks until there is an answer. Past the time `most`, fails with the last passing trouble.
    pub async fn wait(&self, most: Duration) -> Result<(), Failure> {
        let (deadline, mut delays) = (Instant::now() + most, Delays::default());
        let mut last = Failure::new(FailureKind::Unavailable, "nobody answered");
        while !self.has_passed() {
            match timeout_at(deadline, self.ask()).await {
                Ok(Err(failure)) if failure.kind.is_transient() && Instant::now() < deadline => {
                    self.tell(&failure);
                    last = failure;
                }
                Ok(answer) => return answer,
                Err(_) => return Err(last),
            }
            sleep_until(deadline.min(Instant::now() + delays.next_delay())).await;
        }
        Ok(())
    }
}
