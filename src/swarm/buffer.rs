//! Buffers of one piece on its way between a socket, a hash and a file: used again, warm, never zeroed twice.
//!
//! An allocator that maps each anew (musl's does) costs 256 page faults a piece. Bound: 16 are kept.

use crate::model::PIECE_BYTES;
use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// 16 MiB: four runs of four pieces.
const KEPT_MAX: usize = 16;

static KEPT: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// The first `len` bytes of a piece's room; what they hold is left from before.
pub struct Buffer {
    room: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// Of at most a piece.
    pub fn new(len: usize) -> Buffer {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let room = kept.unwrap_or_else(|| vec![0; PIECE_BYTES as usize].into());
        let len = len.min(room.len());
        Buffer { room, len }
    }

    /// Comes back when the last handle is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(std::mem::take(&mut self.room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_at_most_a_piece_and_few_are_kept() {
        assert_eq!(Buffer::new(usize::MAX).len(), PIECE_BYTES as usize);
        let many: Vec<_> = (0..2 * KEPT_MAX)
            .map(|_| Buffer::new(10).freeze())
            .collect();
        assert!(many.iter().all(|bytes| bytes.len() == 10));
        drop(many);
        assert!(KEPT.lock().expect("a lock").len() <= KEPT_MAX);
    }
}
