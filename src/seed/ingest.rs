//! Reads the origin for a reason, and nothing of it twice.
//!
//! A demanded piece that is here is served; one inside a request in flight is waited for; any other gets
//! one request for exactly that piece at once. What readers want in bulk is read in long runs, while
//! somebody asks. Small files are read whole and checked before a byte of them is kept. When the last piece
//! of a file is here its hub's digest decides: the file becomes final, or is revoked everywhere.

use super::answers::Answers;
use super::body::Taken;
use super::digest;
use super::origins::{Lead, Origins, Reading, Waiting};
use super::proofs::Claim;
use crate::hub::{ByteStream, Hub, HubError, Hubs};
use crate::metrics::METRICS;
use crate::model::{
    Bitfield, Entry, Failure, FailureKind, FileKey, PIECE_BYTES, Reference, Verified,
};
use crate::source::{FileRef, Origin};
use crate::store::{CacheFile, State, Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Connections kept for pieces that readers wait for.
const DEMAND_REQUESTS: usize = 16;
/// Bulk requests under way at once, over all files.
const BULK_REQUESTS: usize = 8;
/// Files up to this size are read whole and checked before they are kept: configurations, tokenizers, code.
pub const WHOLE_BYTES_MAX: u64 = PIECE_BYTES;

/// A proof is noted in the store at once; this only holds back those who ask meanwhile, and refusals.
const CLAIMS_TTL: Duration = Duration::from_secs(60);
const CLAIMS_MAX: usize = 10_000;

/// Finds the client of a reference's hub.
pub trait HubSet: Send + Sync + 'static {
    fn hub(&self, reference: &Reference) -> Result<Arc<dyn Hub>, HubError>;
}

impl HubSet for Hubs {
    fn hub(&self, reference: &Reference) -> Result<Arc<dyn Hub>, HubError> {
        self.for_reference(reference)
    }
}

/// The origin reader of a process. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    hubs: Arc<dyn HubSet>,
    files: Mutex<HashMap<FileKey, Arc<Origins>>>,
    claims: Answers<Claim, ()>,
    demand: Semaphore,
    bulk: Semaphore,
    lead: OnceLock<Lead>,
}

impl Ingest {
    pub fn new(store: Store, hubs: Arc<dyn HubSet>) -> Ingest {
        let shared = Shared {
            store,
            hubs,
            files: Mutex::default(),
            claims: Answers::new(CLAIMS_TTL, CLAIMS_MAX),
            demand: Semaphore::new(DEMAND_REQUESTS),
            bulk: Semaphore::new(BULK_REQUESTS),
            lead: OnceLock::new(),
        };
        Ingest {
            shared: Arc::new(shared),
        }
    }

    /// Bounds how far bulk reading runs ahead of what was passed on; before any reading.
    pub fn set_lead(&self, lead: Lead) {
        let _ = self.shared.lead.set(lead);
    }

    pub(super) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(super) fn claims(&self) -> &Answers<Claim, ()> {
        &self.shared.claims
    }

    pub(super) fn hub(&self, file: &FileRef) -> Result<Arc<dyn Hub>, Failure> {
        Ok(self.shared.hubs.hub(&file.pin.repository)?)
    }

    pub(super) fn cached(&self, file: &FileRef) -> Result<Arc<CacheFile>, Failure> {
        self.store()
            .file(file.key, file.size)
            .map_err(store_failure)
    }

    /// The reading of one file. Those that nobody reads are forgotten here.
    fn origins(&self, file: &FileRef) -> Result<Arc<Origins>, Failure> {
        let mut files = self
            .shared
            .files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(origins) = files.get(&file.key) {
            return Ok(origins.clone());
        }
        files.retain(|_, origins| {
            Arc::strong_count(origins) > 1 || !origins.lock().intake.is_idle()
        });
        let cached = self.cached(file)?;
        let origins = Arc::new(Origins::new(file.clone(), cached));
        files.insert(file.key, origins.clone());
        Ok(origins)
    }
}

pub fn store_failure(error: StoreError) -> Failure {
    let kind = match error {
        StoreError::NoRoom { .. } => FailureKind::NoRoom,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}

#[async_trait]
impl Origin for Ingest {
    async fn demand(&self, file: &FileRef, index: u32) -> Result<(), Failure> {
        let origins = self.origins(file)?;
        origins.check_revoked()?;
        if origins.start_piece(index) {
            let (ingest, origins, file) = (self.clone(), origins.clone(), file.clone());
            // On its own: a reader that goes away does not abort a request, which others may wait for.
            tokio::spawn(async move { ingest.read_piece(&origins, &file, index).await });
        }
        let pending = |reading: &Reading| reading.intake.is_in_flight(index);
        origins
            .wait(|origins| origins.cached.has(index), pending)
            .await
    }

    fn announce(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure> {
        let origins = self.origins(file)?;
        origins.check_revoked()?;
        self.want(&origins, file, need);
        Ok(())
    }

    async fn any(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure> {
        let origins = self.origins(file)?;
        origins.check_revoked()?;
        let _waiting = Waiting::new(&origins);
        self.want(&origins, file, need);
        let here = |origins: &Origins| !origins.cached.have().and(need).is_empty();
        origins.wait(here, |reading| reading.bulk_running).await
    }

    async fn settle(&self, file: &FileRef) {
        match self.origins(file) {
            Ok(origins) => self.finish_if_whole(&origins).await,
            Err(failure) => tracing::warn!(%failure, "cannot settle a file"),
        }
    }

    async fn prove(&self, file: &FileRef) -> Result<(), Failure> {
        self.prove_claim(file).await
    }

    async fn read_through(&self, file: &FileRef, index: u32) -> Result<Verified, Failure> {
        let _slot = self.shared.demand.acquire().await;
        let bytes = file.geometry().bytes(index);
        let len = file.geometry().len(index);
        let mut body = self.open(file, bytes).await?;
        let content = Taken::default().exactly(&mut body, len).await?;
        METRICS
            .fetched_bytes
            .with_label_values(&["origin"])
            .inc_by(len as u64);
        check(file, index, content)
    }
}

impl Ingest {
    fn want(&self, origins: &Arc<Origins>, file: &FileRef, need: &Bitfield) {
        let mut reading = origins.lock();
        reading.asker = file.clone();
        reading.intake.want(need);
        reading.asked_at = Instant::now();
        if !reading.bulk_running {
            reading.bulk_running = true;
            tokio::spawn(self.clone().bulk(origins.clone()));
        }
    }

    async fn read_piece(&self, origins: &Arc<Origins>, file: &FileRef, index: u32) {
        let slot = self.shared.demand.acquire().await;
        let run = index..index + 1;
        let (_, result) = self.read_run(origins, file, &run).await;
        drop(slot);
        origins.end(|reading| reading.intake.end_piece(index), result);
        self.finish_if_whole(origins).await;
    }

    /// Reads runs while somebody wants what is not here.
    async fn bulk(self, origins: Arc<Origins>) {
        let mut runs = tokio::task::JoinSet::new();
        loop {
            let lead = self.shared.lead.get();
            let next = origins.next_run(lead);
            if let Some((file, run)) = next {
                runs.spawn(self.clone().bulk_run(origins.clone(), file, run));
                continue;
            }
            match (runs.is_empty(), lead) {
                (true, _) if origins.stop_bulk() => return,
                (true, Some(lead)) => origins.pause(lead).await,
                (false, Some(lead)) => tokio::select! {
                    _ = runs.join_next() => {}
                    () = origins.pause(lead) => {}
                },
                _ => drop(runs.join_next().await),
            }
        }
    }

    async fn bulk_run(self, origins: Arc<Origins>, file: FileRef, run: Range<u32>) {
        let slot = self.shared.bulk.acquire().await;
        let started = Instant::now();
        let (pieces, result) = self.read_run(&origins, &file, &run).await;
        drop(slot);
        let failed = result.is_err();
        let took = started.elapsed();
        origins.end(
            |reading| {
                reading.intake.end_run(&run, pieces, took);
                if failed {
                    reading.intake.want_nothing();
                }
            },
            result,
        );
        self.finish_if_whole(&origins).await;
    }

    /// Reads the pieces of a run in order and keeps each as it arrives; says how many came.
    async fn read_run(
        &self,
        origins: &Origins,
        file: &FileRef,
        run: &Range<u32>,
    ) -> (u32, Result<(), Failure>) {
        let mut pieces = 0;
        let result = self.try_read_run(origins, file, run, &mut pieces).await;
        if let Err(failure) = &result {
            tracing::warn!(path = %file.path, pin = %file.pin, ?run, %failure, "origin read failed");
        }
        (pieces, result)
    }

    async fn try_read_run(
        &self,
        origins: &Origins,
        file: &FileRef,
        run: &Range<u32>,
        pieces: &mut u32,
    ) -> Result<(), Failure> {
        let bytes = origins.lock().intake.bytes(run);
        let mut body = self.open(file, bytes).await?;
        let mut taken = Taken::default();
        for index in run.clone() {
            let content = taken.exactly(&mut body, file.geometry().len(index)).await?;
            self.keep(origins, file, index, content).await?;
            origins.lock().read.set(index, true);
            *pieces += 1;
        }
        Ok(())
    }

    pub(super) async fn open(
        &self,
        file: &FileRef,
        bytes: Range<u64>,
    ) -> Result<ByteStream, Failure> {
        let (hub, entry, token) = (self.hub(file)?, entry_of(file), file.token.get());
        let body = hub.read(&file.pin, &entry, bytes, token.as_ref());
        Ok(body.await?)
    }

    /// Hashes, checks small files whole, and writes, off the async threads.
    async fn keep(
        &self,
        origins: &Origins,
        file: &FileRef,
        index: u32,
        content: Bytes,
    ) -> Result<(), Failure> {
        let (ingest, cached, file) = (self.clone(), origins.cached.clone(), file.clone());
        let len = content.len() as u64;
        let kept = tokio::task::spawn_blocking(move || {
            let piece = check(&file, index, content)?;
            if file.size <= WHOLE_BYTES_MAX {
                // Read whole from this very repository. Noted before the piece is seen: who waited for it asks
                // for the proof next, and asked the hub again when that came first.
                ingest.note_proof(&file)?;
            }
            let kept = ingest.store().keep(&cached, &piece);
            kept.map_err(store_failure)
        });
        kept.await
            .unwrap_or_else(|error| Err(Failure::new(FailureKind::Internal, error.to_string())))?;
        METRICS
            .fetched_bytes
            .with_label_values(&["origin"])
            .inc_by(len);
        origins.changed.notify_waiters();
        Ok(())
    }

    /// The hub's digest decides once every piece is here.
    async fn finish_if_whole(&self, origins: &Arc<Origins>) {
        if origins.cached.state() != State::Whole {
            return;
        }
        let (cached, file) = (origins.cached.clone(), origins.file.clone());
        let done = tokio::task::spawn_blocking(move || finish(&cached, &file)).await;
        if let Ok(Err(error)) = done {
            tracing::error!(file = %origins.file.path, %error, "cannot finish a file");
        }
        origins.changed.notify_waiters();
    }
}

/// What the hub gave, checked as far as it can be now: its length, and its digest where it is the whole file.
fn check(file: &FileRef, index: u32, content: Bytes) -> Result<Verified, Failure> {
    if file.size <= WHOLE_BYTES_MAX && !digest::matches(&file.digest, &content) {
        METRICS.pieces_rejected.with_label_values(&["origin"]).inc();
        return Err(mismatch(file));
    }
    Verified::of_origin(file.geometry(), index, content)
        .ok_or_else(|| Failure::new(FailureKind::Internal, "a piece of the wrong length"))
}

pub fn entry_of(file: &FileRef) -> Entry {
    Entry {
        path: file.path.to_string(),
        size: file.size,
        digest: file.digest,
        key: file.key,
    }
}

pub fn mismatch(file: &FileRef) -> Failure {
    let message = format!(
        "{} of {}: content does not match the hub's {}: nothing of it is served; tell the repository's owner",
        file.path, file.pin, file.digest
    );
    Failure::new(FailureKind::Integrity, message)
}

fn finish(cached: &CacheFile, file: &FileRef) -> Result<(), StoreError> {
    match digest::file_matches(&file.digest, cached)? {
        Some(true) => {
            let root = cached
                .hashes()
                .and_then(|hashes| file.geometry().root(&hashes));
            root.map_or(Ok(false), |root| cached.finish(root))
                .map(|_| ())
        }
        Some(false) => {
            METRICS.pieces_rejected.with_label_values(&["origin"]).inc();
            tracing::error!(file = %file.path, pin = %file.pin, digest = %file.digest, "content does not match the hub's digest, revoked");
            cached.revoke()
        }
        None => Ok(()),
    }
}
