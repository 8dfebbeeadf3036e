//! How much the cache may hold, and what goes when there is no room.

use super::StoreError;
use super::index::Index;
use super::map::{self, PieceMap};
use crate::metrics::METRICS;
use crate::model::FileKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of pieces on disk against a limit.
pub struct Budget {
    dir: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// Adds up what earlier processes left and settles the limit.
    pub fn open(dir: &Path, limit: Option<u64>) -> Result<Arc<Budget>, StoreError> {
        let used = keys_on_disk(dir)
            .into_iter()
            .map(|key| bytes_of(dir, key))
            .sum();
        let limit = match limit {
            Some(limit) => limit,
            None => default_limit(dir, used)?,
        };
        Ok(Arc::new(Budget {
            dir: dir.to_owned(),
            limit,
            used: AtomicU64::new(used),
        }))
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Reserves bytes about to be written.
    pub fn take(&self, bytes: u64) -> Result<(), StoreError> {
        let fits = |used: u64| Some(used + bytes).filter(|total| *total <= self.limit);
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(self.full(&self.dir, bytes)),
        }
    }

    /// Gives back bytes that were not written, or were dropped.
    pub fn give(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    pub fn full(&self, path: &Path, bytes: u64) -> StoreError {
        StoreError::NoRoom {
            dir: path.to_owned(),
            bytes,
        }
    }

    /// Removes files that nobody uses, oldest use first, until `bytes` fit.
    pub fn make_room(
        &self,
        dir: &Path,
        index: &Index,
        bytes: u64,
        in_use: impl Fn(&FileKey) -> bool,
    ) -> bool {
        let mut idle: Vec<_> = keys_on_disk(dir)
            .into_iter()
            .filter(|key| !in_use(key))
            .collect();
        idle.sort_by_key(|key| index.last_use(*key));
        for key in idle {
            if self.used() + bytes <= self.limit {
                break;
            }
            self.remove(dir, key);
        }
        self.used() + bytes <= self.limit
    }

    /// The map goes first: data without a map is nothing, a map without data would be a lie.
    fn remove(&self, dir: &Path, key: FileKey) {
        let bytes = bytes_of(dir, key);
        for path in [map::path(dir, key), map::data_path(dir, key)] {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot evict");
                return;
            }
        }
        self.give(bytes);
        METRICS.evicted_bytes.inc_by(bytes);
        tracing::info!(file = %key, bytes, "evicted");
    }
}

/// 0.9 of what is free or ours, and never into the last fifth of the filesystem: kubelet calls a node with
/// less than 15 % free DiskPressure and evicts its pods.
fn default_limit(dir: &Path, own: u64) -> Result<u64, StoreError> {
    let stat = nix::sys::statvfs::statvfs(dir).map_err(|errno| StoreError::Io {
        path: dir.to_owned(),
        source: errno.into(),
    })?;
    let free = stat.blocks_available() * stat.fragment_size();
    let total = stat.blocks() * stat.fragment_size();
    let ours = free + own;
    Ok((ours / 10 * 9).min(ours.saturating_sub(total / 5)))
}

/// Every key that has a map in the cache.
pub fn keys_on_disk(dir: &Path) -> Vec<FileKey> {
    let folders = std::fs::read_dir(dir.join("files"))
        .into_iter()
        .flatten()
        .flatten();
    let files = folders.flat_map(|folder| {
        std::fs::read_dir(folder.path())
            .into_iter()
            .flatten()
            .flatten()
    });
    files
        .filter_map(|file| FileKey::from_hex(file.file_name().to_str()?.strip_suffix(".map")?))
        .collect()
}

/// The bytes of the pieces that a file's map says are here.
pub fn bytes_of(dir: &Path, key: FileKey) -> u64 {
    let path = map::path(dir, key);
    let map = PieceMap::size_on_disk(&path).and_then(|size| PieceMap::open(&path, size).ok());
    map.map_or(0, |map| {
        map.have()
            .iter()
            .map(|index| map.geometry().len(index) as u64)
            .sum()
    })
}
