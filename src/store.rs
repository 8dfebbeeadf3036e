//! The piece store: one sparse file per file key, and what survives beside it.
pub mod data;
pub mod index;
pub use data::{CacheFile, ReadOutcome, State};
pub use index::Index;

use crate::model::FileKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub dir: PathBuf,
    /// Bytes the cache may use; `None` = 0.9 of free plus own bytes. 20 % of the filesystem always stay free.
    pub limit_bytes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cache {dir}: another process owns it")]
    Owned { dir: PathBuf },
    #[error(
        "cache {dir}: no room for {bytes} bytes: free space, raise --cache-size or evict models"
    )]
    NoRoom { dir: PathBuf, bytes: u64 },
    #[error("cache {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cache index: {0}")]
    Index(#[from] sled::Error),
}

#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates a cache directory and takes its lock.
    pub fn open(_config: &StoreConfig) -> Result<Store, StoreError> {
        todo!()
    }
    /// The file of a key, made when it is not here yet. One shared handle per key and process.
    pub fn file(&self, _key: FileKey, _size: u64) -> Result<Arc<CacheFile>, StoreError> {
        todo!()
    }
    /// The file of a key if this cache has it.
    pub fn get(&self, _key: FileKey) -> Option<Arc<CacheFile>> {
        todo!()
    }
    pub fn index(&self) -> &Index {
        todo!()
    }
    pub fn dir(&self) -> &Path {
        todo!()
    }
}
