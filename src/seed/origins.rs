//! One file on its way from the hub: what is under way, who waits, and how the last request ended.

use super::fellows::Fellows;
use super::ingest::mismatch;
use super::intake::Intake;
use crate::model::{Bitfield, Failure, FailureKind};
use crate::source::FileRef;
use crate::store::{CacheFile, State};
use crate::swarm::Ledger;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bulk reading goes on this long after the last request for any of it.
const INTEREST: Duration = Duration::from_secs(2);

/// Where there are other seeds, a bulk run that waits for takers looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What only the owner holds is read twice if it dies: 16 MiB, 0.8 % of a model of 2 GiB.
const LEAD_PIECES: u32 = 16;

/// How far bulk reading may be ahead of what others were given, where another seed may have to go on.
pub struct Lead {
    ledger: Arc<Ledger>,
    fellows: Arc<Fellows>,
}

impl Lead {
    pub fn new(ledger: Arc<Ledger>, fellows: Arc<Fellows>) -> Lead {
        Lead { ledger, fellows }
    }

    /// Pieces that may be started now. Who waits for a piece gets one whatever lies here untaken.
    fn room(&self, origins: &Origins, reading: &Reading) -> u32 {
        if self.fellows.is_alone() || !self.fellows.others().any(|fellow| fellow.is_up()) {
            return u32::MAX;
        }
        // What nodes brought back, or an earlier process has read, is held elsewhere or was given before.
        let fresh = self.ledger.fresh(origins.file.key, reading.read.len());
        let untaken = reading.read.and(&fresh).count();
        let under_way = reading.intake.in_flight();
        let least = u32::from(reading.waiting > 0 && under_way == 0);
        LEAD_PIECES.saturating_sub(untaken + under_way).max(least)
    }
}

/// One file being read from its hub.
pub struct Origins {
    pub file: FileRef,
    pub cached: Arc<CacheFile>,
    pub state: Mutex<Reading>,
    pub changed: Notify,
}

pub struct Reading {
    pub intake: Intake,
    /// Pieces that this process has read from the hub.
    pub read: Bitfield,
    /// Who asked last: their credential reads.
    pub asker: FileRef,
    pub asked_at: Instant,
    /// Callers waiting for any piece.
    pub waiting: usize,
    pub bulk_running: bool,
    /// Why the last request failed, for those who wait; a success clears it.
    pub failure: Option<Failure>,
    /// Counts requests that ended, so that a waiter can tell a new failure from one before its time.
    pub ended: u64,
}

impl Origins {
    pub fn new(file: FileRef, cached: Arc<CacheFile>) -> Origins {
        let reading = Reading {
            asker: file.clone(),
            intake: Intake::new(file.geometry()),
            read: Bitfield::new(file.geometry().pieces()),
            asked_at: Instant::now(),
            waiting: 0,
            bulk_running: false,
            failure: None,
            ended: 0,
        };
        Origins {
            file,
            cached,
            state: Mutex::new(reading),
            changed: Notify::new(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Reading> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn check_revoked(&self) -> Result<(), Failure> {
        match self.cached.state() {
            State::Revoked => Err(mismatch(&self.file)),
            _ => Ok(()),
        }
    }

    /// Pieces are kept before their request ends, so what is here is asked after the lock: a piece that is
    /// neither here nor under way has never been read.
    pub fn start_piece(&self, index: u32) -> bool {
        let mut reading = self.lock();
        !self.cached.has(index) && reading.intake.start_piece(index)
    }

    /// The next bulk run, if anybody still asks. `lead`: how many pieces may be under way and not passed on.
    pub fn next_run(&self, lead: Option<&Lead>) -> Option<(FileRef, Range<u32>)> {
        let room = |reading: &Reading| lead.map_or(u32::MAX, |lead| lead.room(self, reading));
        let mut reading = self.lock();
        if reading.intake.is_busy() {
            return None;
        }
        if reading.waiting == 0 && reading.asked_at.elapsed() > INTEREST {
            reading.intake.want_nothing();
        }
        let room = room(&reading);
        let run = reading.intake.start_run(&self.cached.have(), room)?;
        Some((reading.asker.clone(), run))
    }

    /// Ends the bulk task unless new wishes came while it looked.
    pub fn stop_bulk(&self) -> bool {
        let mut reading = self.lock();
        reading.bulk_running = reading.intake.has_work(&self.cached.have());
        !reading.bulk_running
    }

    pub fn end(&self, update: impl FnOnce(&mut Reading), result: Result<(), Failure>) {
        let mut reading = self.lock();
        update(&mut reading);
        reading.ended += 1;
        reading.failure = result.err();
        drop(reading);
        self.changed.notify_waiters();
    }

    /// Waits for whatever may let a run start that could not.
    pub async fn pause(&self, lead: &Lead) {
        let given = lead.ledger.given();
        tokio::select! {
            () = given => {}
            () = self.changed.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }

    /// Waits until `here`; fails with the failure of a request that ended meanwhile, or when nothing is
    /// `pending` that could still bring it.
    pub async fn wait(
        &self,
        here: impl Fn(&Origins) -> bool,
        pending: impl Fn(&Reading) -> bool,
    ) -> Result<(), Failure> {
        let before = self.lock().ended;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let stuck = self.lock().stuck(before, &pending);
            if here(self) {
                return Ok(());
            }
            self.check_revoked()?;
            if let Some(failure) = stuck {
                return Err(failure);
            }
            changed.await;
        }
    }
}

impl Reading {
    pub fn stuck(&self, before: u64, pending: impl Fn(&Reading) -> bool) -> Option<Failure> {
        if self.ended > before && self.failure.is_some() {
            return self.failure.clone();
        }
        let lost = || {
            Failure::new(
                FailureKind::Unavailable,
                "the request ended without the piece",
            )
        };
        (!pending(self)).then(lost)
    }
}

/// Counts a caller of `any` while it waits.
pub struct Waiting<'a>(&'a Origins);

impl Waiting<'_> {
    pub fn new(origins: &Origins) -> Waiting<'_> {
        origins.lock().waiting += 1;
        Waiting(origins)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut reading = self.0.lock();
        reading.waiting -= 1;
        reading.asked_at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Entry, FileKey, PIECE_BYTES, Pin};
    use crate::store::{Store, StoreConfig};

    fn file() -> FileRef {
        let pin: Pin = format!("hf://o/n@{}", "a".repeat(40))
            .parse()
            .expect("a pin");
        let (path, size, digest) = ("w".to_owned(), 64 * PIECE_BYTES, Digest::Sha256([7; 32]));
        let key = FileKey::derive(&pin, &path, size, &digest);
        FileRef::new(
            &Arc::new(pin),
            &Entry {
                path,
                size,
                digest,
                key,
            },
            None,
        )
    }

    #[tokio::test]
    async fn with_another_seed_alive_bulk_stays_sixteen_pieces_ahead_of_what_was_given() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = StoreConfig {
            dir: dir.path().to_owned(),
            limit_bytes: Some(1 << 30),
        };
        let (store, file, ledger) = (
            Store::open(&config).expect("a store"),
            file(),
            Arc::new(Ledger::default()),
        );
        let origins = Origins::new(
            file.clone(),
            store.file(file.key, file.size).expect("a file"),
        );
        let lead = Lead::new(ledger.clone(), Arc::new(Fellows::of_two()));
        let room = || lead.room(&origins, &origins.lock());
        assert_eq!(room(), LEAD_PIECES);
        (0..10).for_each(|index| origins.lock().read.set(index, true));
        assert_eq!(room(), LEAD_PIECES - 10);
        ledger.give(file.key, "node", 0..8, 64).done();
        assert_eq!(room(), LEAD_PIECES - 2);
        (10..40).for_each(|index| origins.lock().read.set(index, true));
        assert_eq!(room(), 0);
        // Who waits for something else gets it.
        origins.lock().waiting = 1;
        assert_eq!(room(), 1);
    }
}
