//! Checks content against what the hub says it hashes to.

use crate::model::Digest;
use crate::store::{CacheFile, ReadOutcome, StoreError};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Read at once while hashing: large enough to be sequential, small enough to stay in the CPU's cache.
const STEP_BYTES: u64 = 1 << 20;

enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
    /// The hub states no digest; there is nothing to check.
    None,
}

impl Hasher {
    fn new(digest: &Digest, size: u64) -> Hasher {
        match digest {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::GitSha1(_) => {
                Hasher::GitSha1(Sha1::new_with_prefix(format!("blob {size}\0").as_bytes()))
            }
            Digest::Version(_) => Hasher::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::GitSha1(hasher) => hasher.update(bytes),
            Hasher::None => {}
        }
    }

    fn matches(self, digest: &Digest) -> bool {
        match (self, digest) {
            (Hasher::Sha256(hasher), Digest::Sha256(expected)) => {
                hasher.finalize()[..] == expected[..]
            }
            (Hasher::GitSha1(hasher), Digest::GitSha1(expected)) => {
                hasher.finalize()[..] == expected[..]
            }
            (Hasher::None, Digest::Version(_)) => true,
            _ => false,
        }
    }
}

/// Whether these bytes are the whole content that `digest` names.
pub fn matches(digest: &Digest, content: &[u8]) -> bool {
    let mut hasher = Hasher::new(digest, content.len() as u64);
    hasher.update(content);
    hasher.matches(digest)
}

/// Whether a file that is all here has the hub's digest; `None` if a piece went missing meanwhile. Blocks:
/// sha256 runs at about 1.2 GB/s.
pub fn file_matches(digest: &Digest, file: &CacheFile) -> Result<Option<bool>, StoreError> {
    if let Digest::Version(_) = digest {
        return Ok(Some(true));
    }
    let size = file.geometry().size;
    let mut hasher = Hasher::new(digest, size);
    for at in (0..size).step_by(STEP_BYTES as usize) {
        match file.read(at, STEP_BYTES as usize)? {
            ReadOutcome::Bytes(bytes) => hasher.update(&bytes),
            ReadOutcome::Missing(_) => return Ok(None),
        }
    }
    Ok(Some(hasher.matches(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_hashed_as_hubs_hash_it() {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            &mut sha256,
        )
        .expect("hex");
        let mut git = [0; 20];
        hex::decode_to_slice("ce013625030ba8dba906f756967f9e9ca394464a", &mut git).expect("hex");
        assert!(matches(&Digest::Sha256(sha256), b""));
        assert!(
            matches(&Digest::GitSha1(git), b"hello\n"),
            "git hash-object of `hello`"
        );
        assert!(!matches(&Digest::GitSha1(git), b"hello"));
    }
}
