//! Values of the program as messages, and back. What comes from the wire is checked here.

use super::v1;
use crate::model::{Digest, FileKey, Geometry, PieceHash, Token};
use crate::source::FileRef;
use std::sync::Arc;

/// A file key from the wire.
pub fn key_of(bytes: &[u8]) -> Option<FileKey> {
    bytes.try_into().ok().map(FileKey)
}

/// What a node says when it wants a file, and asks before it gives anything of it to readers.
pub fn interest_of(file: &FileRef) -> v1::Interest {
    v1::Interest {
        key: file.key.0.to_vec(),
        size: file.size,
        digest: file.digest.to_string(),
        pin: file.pin.to_string(),
        path: file.path.to_string(),
        token: file.token.get().map(|token| token.reveal().to_owned()),
    }
}

/// Reads an interest. `None` when it is malformed or its key is not the key of what it describes: a key
/// that anyone could choose would let one node name another's file.
pub fn file_of(interest: &v1::Interest) -> Option<FileRef> {
    let pin = interest.pin.parse().ok()?;
    let digest: Digest = interest.digest.parse().ok()?;
    let key = key_of(&interest.key)?;
    let derived = FileKey::derive(&pin, &interest.path, interest.size, &digest);
    (key == derived && interest.size <= crate::model::piece::FILE_BYTES_MAX).then(|| FileRef {
        key,
        size: interest.size,
        digest,
        pin: Arc::new(pin),
        path: interest.path.as_str().into(),
        token: interest.token.as_deref().and_then(Token::new).into(),
    })
}

/// Packed hashes for pieces `first..`, as far as they are pieces of the file.
pub fn hashes_of(geometry: Geometry, run: &v1::HashRun) -> Option<Vec<PieceHash>> {
    let (hashes, rest) = run.hashes.as_chunks::<32>();
    let end = u64::from(run.first) + hashes.len() as u64;
    (rest.is_empty() && end <= u64::from(geometry.pieces())).then(|| hashes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Entry, Pin};

    #[test]
    fn an_interest_is_believed_only_with_the_key_of_its_file() {
        let pin: Pin = format!("hf://o/n@{}", "a".repeat(40))
            .parse()
            .expect("a pin");
        let digest = Digest::Sha256([7; 32]);
        let key = FileKey::derive(&pin, "a.bin", 9, &digest);
        let entry = Entry {
            path: "a.bin".into(),
            size: 9,
            digest,
            key,
        };
        let file = FileRef::new(&Arc::new(pin), &entry, Token::new("t"));
        let interest = interest_of(&file);
        let back = file_of(&interest).expect("a file");
        assert_eq!(
            (back.key, back.path, back.token.get()),
            (file.key, file.path, file.token.get())
        );
        let forged = v1::Interest {
            size: 10,
            ..interest
        };
        assert!(file_of(&forged).is_none());
    }

    #[test]
    fn hashes_past_the_end_or_cut_are_refused() {
        let geometry = Geometry { size: 3 << 20 };
        let run = |first, bytes| v1::HashRun {
            first,
            hashes: vec![0; bytes],
        };
        assert_eq!(
            hashes_of(geometry, &run(1, 64)).map(|hashes| hashes.len()),
            Some(2)
        );
        assert!(hashes_of(geometry, &run(2, 64)).is_none());
        assert!(hashes_of(geometry, &run(u32::MAX, 64)).is_none());
        assert!(hashes_of(geometry, &run(0, 33)).is_none());
    }
}
