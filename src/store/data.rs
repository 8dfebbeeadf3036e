use super::StoreError;
use crate::model::{Bitfield, FileKey, Geometry, PieceHash, Verified};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Pieces are missing.
    Partial,
    /// Every piece is here; the seed has not announced the root yet.
    Whole,
    /// Every piece is here and the root is the announced one: may be served by the kernel.
    Final,
    /// The content failed its digest: nothing of it may be read any more.
    Revoked,
}

#[derive(Debug)]
pub enum ReadOutcome {
    Bytes(Bytes),
    /// This piece is not here (or was here, was corrupt, and has been dropped).
    Missing(u32),
}

pub struct CacheFile {}

impl CacheFile {
    pub fn key(&self) -> FileKey {
        todo!()
    }
    pub fn geometry(&self) -> Geometry {
        todo!()
    }
    pub fn has(&self, _index: u32) -> bool {
        todo!()
    }
    /// What is here now.
    pub fn have(&self) -> Bitfield {
        todo!()
    }
    pub fn count(&self) -> u32 {
        todo!()
    }
    /// The hash of a piece, once a seed has told it (or the piece is here).
    pub fn hash(&self, _index: u32) -> Option<PieceHash> {
        todo!()
    }
    /// Takes hashes from a seed, for pieces `first..`. What is known already and differs is ignored unless the piece is missing.
    pub fn learn(&self, _first: u32, _hashes: &[PieceHash]) {
        todo!()
    }
    /// Keeps a piece. Ok(false): it was here. Wakes who watches `changes`.
    pub fn put(&self, _piece: &Verified) -> Result<bool, StoreError> {
        todo!()
    }
    /// Reads up to `len` bytes at `offset`, cut at the end of the file. Pieces that this process has not verified yet are hashed first. Blocking disk I/O.
    pub fn read(&self, _offset: u64, _len: usize) -> Result<ReadOutcome, StoreError> {
        todo!()
    }
    /// Makes sure that piece `index` is here and intact (hashing it once per process if need be), for sendfile. Blocking.
    pub fn check(&self, _index: u32) -> Result<bool, StoreError> {
        todo!()
    }
    /// The data file, laid out as the model file itself.
    pub fn data(&self) -> Arc<std::fs::File> {
        todo!()
    }
    /// Counts up with every put, drop, finish and revoke.
    pub fn changes(&self) -> watch::Receiver<u64> {
        todo!()
    }
    pub fn state(&self) -> State {
        todo!()
    }
    /// The announced root: with every piece here and merging to it the file is fsynced and Final (true); false while pieces are missing; the root is remembered and applied when the last piece comes. A whole file whose hashes do not merge to it is revoked.
    pub fn finish(&self, _root: [u8; 32]) -> Result<bool, StoreError> {
        todo!()
    }
    pub fn root(&self) -> Option<[u8; 32]> {
        todo!()
    }
    pub fn revoke(&self) -> Result<(), StoreError> {
        todo!()
    }
}
