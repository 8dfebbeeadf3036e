//! Pieces: the unit of hash, of the bitfield and of a sparse read.
//!
//! A file is cut into pieces of 1 MiB, the last one shorter. A piece's hash is the BLAKE3 subtree chaining
//! value at its place in the file, so the hashes of all pieces merge into the file's ordinary BLAKE3 root
//! without reading the file again. The merge does not bind the size: a piece is valid only with its exact
//! length, which [`Verified`] checks.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;
use std::ops::Range;

/// 1 MiB = 1,024 BLAKE3 chunks, a whole subtree: 130 GB is 124k pieces and 4 MB of hashes.
pub const PIECE_BYTES: u64 = 1 << 20;

/// The largest file: 16 TiB, so that a piece index fits 24 bits and a bitfield 2 MiB. Hubs cap files at 200 GB.
pub const FILE_BYTES_MAX: u64 = PIECE_BYTES << 24;

/// 32 bytes: a subtree chaining value, or the file's root hash where the file is one piece or less.
pub type PieceHash = [u8; 32];

/// How a file of `size` bytes falls into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub size: u64,
}

impl Geometry {
    /// The number of pieces; an empty file has none.
    pub fn pieces(self) -> u32 {
        self.size.div_ceil(PIECE_BYTES) as u32
    }

    /// The bytes of piece `index`, empty when there is no such piece.
    pub fn bytes(self, index: u32) -> Range<u64> {
        let start = (u64::from(index) * PIECE_BYTES).min(self.size);
        start..(start + PIECE_BYTES).min(self.size)
    }

    /// The length of piece `index` in bytes.
    pub fn len(self, index: u32) -> usize {
        let bytes = self.bytes(index);
        (bytes.end - bytes.start) as usize
    }

    /// The pieces that hold the bytes `offset..offset + len`, cut at the end of the file.
    pub fn covering(self, offset: u64, len: u64) -> Range<u32> {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return 0..0;
        }
        (offset / PIECE_BYTES) as u32..end.div_ceil(PIECE_BYTES) as u32
    }

    /// Hashes piece `index`. A fresh hasher each time: `reset` would keep the input offset.
    pub fn hash(self, index: u32, bytes: &[u8]) -> PieceHash {
        if self.pieces() <= 1 {
            return *blake3::hash(bytes).as_bytes();
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(u64::from(index) * PIECE_BYTES);
        hasher.update(bytes).finalize_non_root()
    }

    /// Merges the hashes of all pieces to the file's BLAKE3 root. `None` when their number is wrong.
    pub fn root(self, hashes: &[PieceHash]) -> Option<[u8; 32]> {
        if hashes.len() != self.pieces() as usize {
            return None;
        }
        Some(match hashes {
            [] => *blake3::hash(b"").as_bytes(),
            [only] => *only,
            many => {
                let (left, right) = many.split_at(left_len(many.len()));
                *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
            }
        })
    }
}

/// BLAKE3's left subtree: the largest power of two below the number of pieces.
fn left_len(pieces: usize) -> usize {
    pieces.next_power_of_two() / 2
}

fn subtree(hashes: &[PieceHash]) -> ChainingValue {
    match hashes {
        [only] => *only,
        many => {
            let (left, right) = many.split_at(left_len(many.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// A piece's bytes that have the right length and hash: all that is ever kept, read or served.
#[derive(Clone, Debug)]
pub struct Verified {
    index: u32,
    bytes: Bytes,
    hash: PieceHash,
}

impl Verified {
    /// Accepts bytes only if they are piece `index` as `expected` says. Costs one hash (5 GB/s a core).
    pub fn check(
        geometry: Geometry,
        index: u32,
        bytes: Bytes,
        expected: &PieceHash,
    ) -> Option<Verified> {
        let piece = Verified::of_origin(geometry, index, bytes)?;
        (piece.hash == *expected).then_some(piece)
    }

    /// Takes bytes as the hub gave them: their hash is not known before. Only a seed may, for it alone
    /// reads the origin and checks the whole file against the hub's digest afterwards.
    pub fn of_origin(geometry: Geometry, index: u32, bytes: Bytes) -> Option<Verified> {
        if index >= geometry.pieces() || bytes.len() != geometry.len(index) {
            return None;
        }
        let hash = geometry.hash(index, &bytes);
        Some(Verified { index, bytes, hash })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn hash(&self) -> &PieceHash {
        &self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size)
            .map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect()
    }

    fn hashes(geometry: Geometry, content: &[u8]) -> Vec<PieceHash> {
        let piece = |i| &content[geometry.bytes(i).start as usize..geometry.bytes(i).end as usize];
        (0..geometry.pieces())
            .map(|i| geometry.hash(i, piece(i)))
            .collect()
    }

    /// Sizes at the seams: empty, one byte, around one chunk, one piece, a power of two of pieces, an odd number.
    #[test]
    fn piece_hashes_merge_to_the_files_blake3() {
        let mib = PIECE_BYTES as usize;
        for size in [
            0,
            1,
            1024,
            1025,
            mib - 1,
            mib,
            mib + 1,
            2 * mib,
            3 * mib + 7,
            4 * mib,
            5 * mib - 1,
            9 * mib + 1,
        ] {
            let content = content(size);
            let geometry = Geometry { size: size as u64 };
            let root = geometry
                .root(&hashes(geometry, &content))
                .expect("all hashes");
            assert_eq!(root, *blake3::hash(&content).as_bytes(), "size {size}");
        }
    }

    #[test]
    fn a_piece_is_valid_only_with_its_exact_length_place_and_bytes() {
        let geometry = Geometry {
            size: 2 * PIECE_BYTES + 5,
        };
        let content = Bytes::from(content(geometry.size as usize));
        let all = hashes(geometry, &content);
        let last = content.slice(2 * PIECE_BYTES as usize..);
        assert!(Verified::check(geometry, 2, last.clone(), &all[2]).is_some());
        assert!(Verified::check(geometry, 2, last.slice(..4), &all[2]).is_none());
        assert!(
            Verified::check(geometry, 1, content.slice(..PIECE_BYTES as usize), &all[0]).is_none()
        );
        assert!(Verified::of_origin(geometry, 3, Bytes::new()).is_none());
        assert!(geometry.root(&all[..2]).is_none());
    }

    proptest! {
        #[test]
        fn covering_is_exactly_the_touched_pieces(size in 0u64..5 * PIECE_BYTES, offset in 0u64..6 * PIECE_BYTES, len in 0u64..6 * PIECE_BYTES) {
            let geometry = Geometry { size };
            let touched: Vec<u32> = (0..geometry.pieces())
                .filter(|i| { let b = geometry.bytes(*i); len > 0 && b.start < (offset + len).min(size) && offset < b.end })
                .collect();
            prop_assert_eq!(geometry.covering(offset, len).collect::<Vec<_>>(), touched);
            prop_assert_eq!((0..geometry.pieces()).map(|i| geometry.len(i) as u64).sum::<u64>(), size);
        }
    }
}
