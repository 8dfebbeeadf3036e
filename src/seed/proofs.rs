//! A stated digest is a claim: before bytes that are here through one repository are given to readers of
//! another, its hub must show that this one holds them too.
//!
//! A small file that is not here is read whole from that very repository and checked, which is the proof. Of
//! any other the hub is asked for the digest it states; a hub that states none is read at three places, which
//! must hold what is here. What is proven is noted in the store; a refusal is believed for half a minute.

use super::body::Taken;
use super::ingest::{Ingest, WHOLE_BYTES_MAX, entry_of, mismatch, store_failure};
use crate::model::{Failure, FailureKind, FileKey, Reference, Token};
use crate::source::{FileRef, Origin};
use crate::store::ReadOutcome;
use std::sync::Arc;

/// Read at each place where a silent hub is compared.
const SAMPLE_BYTES: u64 = 4096;
const SAMPLES: usize = 3;

/// Who claims what: repository, file, path and the asker's fingerprint.
pub type Claim = (Reference, FileKey, Arc<str>, Option<[u8; 32]>);

impl Ingest {
    pub(super) fn is_proven(&self, file: &FileRef) -> bool {
        self.store()
            .is_proven(&file.pin.repository, file.key, &file.digest)
    }

    /// The repository has shown that it holds the file.
    pub(super) fn note_proof(&self, file: &FileRef) -> Result<(), Failure> {
        let noted = self.store().prove(&file.pin.repository, file.key);
        noted.map_err(store_failure)
    }

    pub(super) async fn prove_claim(&self, file: &FileRef) -> Result<(), Failure> {
        if file.size == 0 || self.is_proven(file) {
            return Ok(());
        }
        let asker = file.token.get().as_ref().map(Token::fingerprint);
        let claim = (
            file.pin.repository.clone(),
            file.key,
            file.path.clone(),
            asker,
        );
        self.claims().get(claim, || self.ask_for_proof(file)).await
    }

    async fn ask_for_proof(&self, file: &FileRef) -> Result<(), Failure> {
        if file.size <= WHOLE_BYTES_MAX && !self.cached(file)?.have().is_full() {
            // Another repository's request may be under way and fail: that says nothing about this one.
            let read = self.demand(file, 0).await;
            if self.is_proven(file) {
                return Ok(());
            }
            read.or_else(|failure| match failure.kind.is_transient() {
                true => Err(failure),
                false => Ok(()),
            })?;
        }
        let (hub, entry, token) = (self.hub(file)?, entry_of(file), file.token.get());
        let stated = hub.states(&file.pin, &entry, token.as_ref());
        if !stated.await.map_err(Failure::from).map_err(refused)? {
            self.compare(file).await?;
        }
        self.note_proof(file)
    }

    /// Compares what is here with what the repository gives, at places it cannot know before.
    async fn compare(&self, file: &FileRef) -> Result<(), Failure> {
        for _ in 0..SAMPLES {
            let last = file.size.saturating_sub(SAMPLE_BYTES);
            let start = rand::random_range(0..=last);
            let len = SAMPLE_BYTES.min(file.size - start);
            for index in file.geometry().covering(start, len) {
                self.demand(file, index).await?;
            }
            let mut body = self.open(file, start..start + len).await?;
            let theirs = Taken::default().exactly(&mut body, len as usize).await?;
            match self.cached(file)?.read(start, len as usize) {
                Ok(ReadOutcome::Bytes(ours)) if ours == theirs => {}
                Ok(_) => return Err(mismatch(file)),
                Err(error) => return Err(store_failure(error)),
            }
        }
        Ok(())
    }
}

/// A file that is not there for this token is not this repository's to show.
fn refused(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::NotFound => Failure::new(FailureKind::Denied, failure.message),
        _ => failure,
    }
}
