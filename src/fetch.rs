//! Reads: from the store if the bytes are here, else through a source, and a window ahead of each reader.
//!
//! [`OpenFile::read_now`] answers at once or says that something is missing; [`OpenFile::read`] brings what
//! is missing, each piece once however many readers wait for it, and returns exactly the bytes asked for
//! or an error. Readers' moves set what is wanted next ([`plan`]); [`driver`] brings that in the background
//! within the process's slots. This room cannot tell a peer from a seed and never talks to a network.

mod admission;
mod driver;
mod error;
mod flight;
mod plan;
mod reader;
mod trouble;

use crate::metrics::METRICS;
use crate::model::{Credential, Failure, FailureKind, FileKey, Reference, Token, Verified};
use crate::source::{FileRef, Need, Reach, Source};
use crate::store::{CacheFile, ReadOutcome, State, Store, StoreError};
use admission::Admission;
use bytes::{Bytes, BytesMut};
use driver::Driver;
pub use error::ReadError;
use flight::Flights;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plan::Readers;
pub use reader::Reader;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
pub use trouble::Trouble;
use trouble::Troubles;

/// Pieces that background runs may have under way at once in a process: 4 runs of up to 4 MiB.
pub const BULK_SLOTS: usize = 4;
/// Demanded pieces under way at once in a process; more wait in line. 32 MiB.
pub const DEMAND_SLOTS: usize = 32;

/// How reads behave.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// How long a read may wait while its file makes no progress, where its mount does not say.
    pub read_timeout: Duration,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            read_timeout: Duration::from_secs(600),
        }
    }
}

/// The process's fetching: one store, one source, shared slots.
pub struct Fetcher {
    store: Store,
    source: Arc<dyn Source>,
    config: FetchConfig,
    /// By repository too: each is admitted by itself, and reads with its own path and credential.
    files: Mutex<HashMap<(FileKey, Reference), Weak<OpenFile>>>,
    credentials: Mutex<HashMap<Reference, Credential>>,
    demand: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// Files are opened by the kernel's threads, which have no runtime of their own.
    runtime: tokio::runtime::Handle,
}

impl Fetcher {
    /// Must be called within a tokio runtime, which does the work from then on.
    pub fn new(store: Store, source: Arc<dyn Source>, config: FetchConfig) -> Arc<Fetcher> {
        Arc::new(Fetcher {
            store,
            source,
            config,
            files: Mutex::default(),
            credentials: Mutex::default(),
            demand: Arc::new(Semaphore::new(DEMAND_SLOTS)),
            bulk: Arc::new(Semaphore::new(BULK_SLOTS)),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How long a read waits where nobody says otherwise.
    pub fn read_timeout(&self) -> Duration {
        self.config.read_timeout
    }

    /// How this process's source stands, from memory.
    pub fn reach(&self) -> Reach {
        self.source.reach()
    }

    /// What readers of a repository's open files suffer from at this moment, from memory.
    pub fn troubles(&self, repository: &Reference) -> HashMap<FileKey, Trouble> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = files.iter().filter(|((_, of), _)| of == repository);
        let open: Vec<_> = of_it.filter_map(|(_, file)| file.upgrade()).collect();
        // Before any of them goes: it may be the last to hold one, whose end is no work for a lock.
        drop(files);
        let trouble = |file: &Arc<OpenFile>| Some((file.file.key, file.troubles.now()?));
        open.iter().filter_map(trouble).collect()
    }

    /// The credential of a repository in this process: always the one that was let in last, also for files
    /// that an earlier one opened.
    pub fn credential(&self, repository: &Reference, token: Option<Token>) -> Credential {
        let mut credentials = self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        credentials.retain(|_, credential| credential.is_shared());
        let credential = credentials.entry(repository.clone()).or_default();
        credential.set(token);
        credential.clone()
    }

    /// A file to read. All opens of a repository's file in a process share one state: single flight and readers.
    pub fn open(self: &Arc<Fetcher>, file: FileRef) -> Result<Arc<OpenFile>, ReadError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (file.key, file.pin.repository.clone());
        if let Some(open) = files.get(&name).and_then(Weak::upgrade) {
            return Ok(open);
        }
        files.retain(|_, file| file.strong_count() > 0);
        let cached = self.store.file(file.key, file.size);
        let cached = cached.map_err(|source| ReadError::Store {
            path: file.path.to_string(),
            source,
        })?;
        let _runtime = self.runtime.enter();
        let open = OpenFile::new(self.clone(), file, cached);
        files.insert(name, Arc::downgrade(&open));
        Ok(open)
    }
}

/// An open file of the cache that fills itself as it is read. Stateless towards the kernel.
pub struct OpenFile {
    fetcher: Arc<Fetcher>,
    file: FileRef,
    cached: Arc<CacheFile>,
    admission: Arc<Admission>,
    readers: Mutex<Readers>,
    need: Arc<Need>,
    flights: Arc<Flights>,
    troubles: Arc<Troubles>,
    driver: Driver,
    run_ahead: AtomicBool,
}

impl OpenFile {
    fn new(fetcher: Arc<Fetcher>, file: FileRef, cached: Arc<CacheFile>) -> Arc<OpenFile> {
        let need = Arc::new(Need::default());
        let source = fetcher.source.clone();
        let store = fetcher.store.clone();
        let troubles = Troubles::new(store.clone(), file.path.clone());
        let admission = Admission::new(source.clone(), store, file.clone(), troubles.clone());
        let driver = Driver::new(
            source,
            file.clone(),
            admission.clone(),
            need.clone(),
            fetcher.bulk.clone(),
        );
        let flights = Flights::new(&fetcher, &file, &cached, &need, &troubles);
        let readers = Mutex::new(Readers::new(file.geometry()));
        let open = OpenFile {
            fetcher,
            file,
            cached,
            admission,
            readers,
            need,
            flights,
            troubles,
            driver,
            run_ahead: AtomicBool::new(false),
        };
        open.scrub_if_whole();
        if open.cached.state() != State::Final {
            open.fetcher.source.opened(&open.file);
        }
        Arc::new(open)
    }

    /// A whole file of an earlier boot, or one that was touched, is hashed before the kernel may serve it.
    fn scrub_if_whole(&self) {
        if self.cached.state() == State::Whole && self.cached.root().is_some() {
            let cached = self.cached.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = cached.scrub() {
                    tracing::warn!(%error, "cannot check a file of an earlier boot");
                }
            });
        }
    }

    pub fn size(&self) -> u64 {
        self.file.size
    }

    /// Reads if all bytes are here; `None` when something must be fetched. Never waits for the network.
    pub fn read_now(&self, offset: u64, len: usize) -> Option<Result<Bytes, ReadError>> {
        self.moved(offset, len);
        match self.admission.has_passed() {
            true => self.stored(offset, len).transpose(),
            false => None,
        }
    }

    fn stored(&self, offset: u64, len: usize) -> Result<Option<Bytes>, ReadError> {
        if self.cached.state() == State::Revoked {
            return Err(ReadError::Revoked { path: self.path() });
        }
        match self
            .cached
            .read(offset, len)
            .map_err(|error| self.store_error(error))?
        {
            ReadOutcome::Bytes(bytes) => {
                METRICS
                    .read_bytes
                    .with_label_values(&["cached"])
                    .inc_by(bytes.len() as u64);
                Ok(Some(bytes))
            }
            ReadOutcome::Missing(_) => Ok(None),
        }
    }

    /// Reads, fetching what is missing: exactly `min(len, size - offset)` bytes, or an error, at the latest
    /// when the file has made no progress for `timeout`.
    pub async fn read(
        &self,
        offset: u64,
        len: usize,
        timeout: Duration,
    ) -> Result<Bytes, ReadError> {
        let started = Instant::now();
        self.moved(offset, len);
        self.admitted(timeout).await?;
        loop {
            if let Some(bytes) = self.stored(offset, len)? {
                METRICS
                    .read_wait_seconds
                    .observe(started.elapsed().as_secs_f64());
                return Ok(bytes);
            }
            let passing = self.bring(offset, len, timeout).await?;
            if !passing.is_empty() {
                return self.assemble(offset, len, &passing, timeout).await;
            }
        }
    }

    async fn admitted(&self, timeout: Duration) -> Result<(), ReadError> {
        let answer = self.admission.wait(timeout).await;
        answer.map_err(|failure| match failure.kind.is_transient() {
            true => ReadError::Timeout {
                path: self.path(),
                piece: 0,
                seconds: timeout.as_secs(),
                cause: failure.message,
            },
            false => self.failed(failure),
        })
    }

    /// Brings every piece of a range that is missing, all at once. Returns those the store had no room for.
    async fn bring(
        &self,
        offset: u64,
        len: usize,
        timeout: Duration,
    ) -> Result<Vec<Verified>, ReadError> {
        let pieces = self.file.geometry().covering(offset, len as u64);
        let missing = pieces.filter(|index| !self.cached.has(*index));
        let mut waits: FuturesUnordered<_> = missing
            .map(|index| self.wait_for(index, timeout, Duration::ZERO))
            .collect();
        let mut passing = Vec::new();
        while let Some(arrived) = waits.next().await {
            passing.extend(arrived?);
        }
        Ok(passing)
    }

    /// Waits for one piece as long as its file makes progress or the read's deadline is not over; of its time,
    /// `waited` has passed already.
    async fn wait_for(
        &self,
        index: u32,
        timeout: Duration,
        waited: Duration,
    ) -> Result<Option<Verified>, ReadError> {
        let mut flight = self.flights.join(index);
        let mut changes = self.cached.changes();
        let mut deadline = Instant::now() + timeout - waited;
        loop {
            tokio::select! {
                landed = flight.landed() => return landed.map_err(|failure| self.failed(failure)),
                Ok(()) = changes.changed() => deadline = Instant::now() + timeout,
                () = tokio::time::sleep_until(deadline) => return Err(ReadError::Timeout {
                    path: self.path(),
                    piece: index,
                    seconds: timeout.as_secs(),
                    cause: flight.last_failure(),
                }),
            }
        }
    }

    /// Puts a read together from pieces that passed through and pieces that are here.
    async fn assemble(
        &self,
        offset: u64,
        len: usize,
        passing: &[Verified],
        timeout: Duration,
    ) -> Result<Bytes, ReadError> {
        let geometry = self.file.geometry();
        let end = (offset + len as u64).min(self.file.size);
        let mut out = BytesMut::with_capacity((end - offset) as usize);
        for index in geometry.covering(offset, len as u64) {
            let piece = geometry.bytes(index);
            let (from, to) = (offset.max(piece.start), end.min(piece.end));
            match passing.iter().find(|passed| passed.index() == index) {
                Some(passed) => {
                    let within = (from - piece.start) as usize..(to - piece.start) as usize;
                    out.extend_from_slice(&passed.bytes()[within]);
                }
                None => out.extend_from_slice(
                    &Box::pin(self.read(from, (to - from) as usize, timeout)).await?,
                ),
            }
        }
        Ok(out.freeze())
    }

    /// Tells the plan where a reader is, and the driver if that changed what is wanted.
    fn moved(&self, offset: u64, len: usize) {
        let pieces = self.file.geometry().covering(offset, len as u64);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.moved(pieces) && self.run_ahead.load(Ordering::Relaxed) {
            let have = self.cached.have();
            let wishes = readers.wishes(&have);
            drop(readers);
            self.need.want(wishes.window, wishes.rest);
            self.driver.wake();
        }
    }

    /// From now on what lies ahead of readers is brought; before, only what they touch.
    pub fn run_ahead(&self) {
        self.run_ahead.store(true, Ordering::Relaxed);
    }

    /// Fetches the rest of the file in the background.
    pub fn fetch_all(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.want_all();
        let wishes = readers.wishes(&self.cached.have());
        drop(readers);
        self.need.want(wishes.window, wishes.rest);
        self.driver.wake();
    }

    /// What this repository's readers may know: nothing is here before it is admitted.
    pub fn state(&self) -> State {
        match self.admission.has_passed() {
            true => self.cached.state(),
            false => State::Partial,
        }
    }

    /// How many bytes of the file are here.
    pub fn present_bytes(&self) -> u64 {
        let geometry = self.file.geometry();
        self.cached
            .have()
            .iter()
            .map(|index| geometry.len(index) as u64)
            .sum()
    }

    /// The data file to hand to the kernel, only when the file is final.
    pub fn backing(&self) -> Option<Arc<std::fs::File>> {
        (self.state() == State::Final).then(|| self.cached.data())
    }

    /// Resolves once the file is final, at once if it is. Never for a revoked file.
    pub async fn finished(&self) {
        self.admission.passed().await;
        let mut changes = self.cached.changes();
        while self.state() != State::Final {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn path(&self) -> String {
        self.file.path.to_string()
    }

    fn store_error(&self, source: StoreError) -> ReadError {
        ReadError::Store {
            path: self.path(),
            source,
        }
    }

    fn failed(&self, failure: Failure) -> ReadError {
        let (path, cause) = (self.path(), failure.message);
        match failure.kind {
            FailureKind::Unauthenticated | FailureKind::Denied => ReadError::Denied { path, cause },
            FailureKind::Integrity => ReadError::Revoked { path },
            kind => ReadError::Failed { path, kind, cause },
        }
    }
}

#[cfg(test)]
mod tests;
