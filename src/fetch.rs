//! Reads, from the store if the bytes are here, else through a source.
use crate::source::{FileRef, Source};
use crate::store::{State, Store};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// How long a read may wait without any progress on its file.
    pub read_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("piece {piece} of {path}: no progress for {seconds} s: {cause}")]
    Timeout {
        path: String,
        piece: u32,
        seconds: u64,
        cause: String,
    },
    #[error("{path}: content failed its digest and was revoked")]
    Revoked { path: String },
    #[error("{path}: this credential may not read it: {cause}")]
    Denied { path: String, cause: String },
    #[error("{path}: {source}")]
    Store {
        path: String,
        #[source]
        source: crate::store::StoreError,
    },
}

/// One per process.
pub struct Fetcher {}

impl Fetcher {
    pub fn new(_store: Store, _source: Arc<dyn Source>, _config: FetchConfig) -> Arc<Fetcher> {
        todo!()
    }
    pub fn store(&self) -> &Store {
        todo!()
    }
    /// A file to read. All opens of one key in a process share one state (single flight, readers).
    pub fn open(&self, _file: FileRef) -> Result<Arc<OpenFile>, ReadError> {
        todo!()
    }
}

/// An open file of the cache that fills itself as it is read. Cheap to clone by Arc; stateless for the kernel.
pub struct OpenFile {}

impl OpenFile {
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Reads if all bytes are here; `None` when something must be fetched. Never waits for the network. Also moves the reader's window.
    pub fn read_now(&self, _offset: u64, _len: usize) -> Option<Result<Bytes, ReadError>> {
        todo!()
    }
    /// Reads, fetching what is missing. Exactly `min(len, size - offset)` bytes, or an error.
    pub async fn read(&self, _offset: u64, _len: usize) -> Result<Bytes, ReadError> {
        todo!()
    }
    pub fn state(&self) -> State {
        todo!()
    }
    /// The data file to hand to the kernel, only when `State::Final`.
    pub fn backing(&self) -> Option<Arc<std::fs::File>> {
        todo!()
    }
    /// Resolves once the file is Final (at once if it is). Never resolves for a revoked file.
    pub async fn finished(&self) {
        todo!()
    }
    /// Fetches the rest of the file in the background, in order.
    pub fn fetch_all(&self) {
        todo!()
    }
}
