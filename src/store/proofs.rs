//! Which repository has shown that it holds which file.
//!
//! A listing's digest is a claim: digests of gated models are public, and anyone may state them. The cache is
//! keyed by digest, so bytes that came through one repository reach readers of another only after the hub
//! has confirmed that this one holds them too. Confirmed once, it is noted here for good; a lost note costs
//! one more question. A file whose key names its origin needs no proof: nobody else can state that key.

use super::{Store, StoreError};
use crate::model::{Digest, FileKey, Reference};

const TABLE: &str = "proofs";
/// About 100 MB of index; the oldest go.
const PROOFS_MAX: usize = 1_000_000;

impl Store {
    /// Whether a repository may be given this file's bytes. A note that cannot be read is none.
    pub fn is_proven(&self, repository: &Reference, key: FileKey, digest: &Digest) -> bool {
        matches!(digest, Digest::Version(_))
            || matches!(
                self.index().record(TABLE, &name(repository, key)),
                Ok(Some(_))
            )
    }

    /// Notes that a repository holds this file. Not synced.
    pub fn prove(&self, repository: &Reference, key: FileKey) -> Result<(), StoreError> {
        self.index()
            .note(TABLE, &name(repository, key), "", PROOFS_MAX)?;
        self.stir();
        Ok(())
    }
}

fn name(repository: &Reference, key: FileKey) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("model-p2p 2026 proof");
    // The key has a fixed length, so no two pairs spell the same bytes.
    hasher
        .update(&key.0)
        .update(repository.to_string().as_bytes());
    hasher.finalize().to_hex().to_string()
}
