//! Files kept open for a while after their last use by the network.
//!
//! An open file cannot be evicted, and one that nobody has open forgets which of its pieces were hashed. So
//! what peers ask for stays open for 30 s after the last request; 256 files at most.

use crate::model::FileKey;
use crate::store::{CacheFile, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const KEEP: Duration = Duration::from_secs(30);
const FILES_MAX: usize = 256;

pub struct Recent {
    store: Store,
    open: Mutex<HashMap<FileKey, (Arc<CacheFile>, Instant)>>,
}

impl Recent {
    pub fn new(store: Store) -> Recent {
        Recent {
            store,
            open: Mutex::default(),
        }
    }

    /// The file of a key if this cache has it.
    pub fn get(&self, key: FileKey) -> Option<Arc<CacheFile>> {
        self.find(key)
            .or_else(|| self.store.get(key).inspect(|file| self.keep(file)))
    }

    /// The file of a key without keeping it open any longer.
    pub fn peek(&self, key: FileKey) -> Option<Arc<CacheFile>> {
        self.store.get(key)
    }

    /// The file of a key, made when it is not here yet.
    pub fn file(&self, key: FileKey, size: u64) -> Result<Arc<CacheFile>, StoreError> {
        match self.find(key) {
            Some(file) => Ok(file),
            None => self.store.file(key, size).inspect(|file| self.keep(file)),
        }
    }

    fn find(&self, key: FileKey) -> Option<Arc<CacheFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, used) = open.get_mut(&key)?;
        *used = Instant::now();
        Some(file.clone())
    }

    fn keep(&self, file: &Arc<CacheFile>) {
        self.sweep();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < FILES_MAX {
            open.insert(file.key(), (file.clone(), Instant::now()));
        }
    }

    /// Closes what was not used for a while.
    pub fn sweep(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, used)| used.elapsed() < KEEP);
    }
}
