//! The piece store: one sparse file per file key, and what survives beside it.
//!
//! A model file's pieces lie in one sparse file laid out as the model file itself, so that the kernel can
//! serve it when it is complete. A small mapped file beside it says which pieces are here and what they
//! hash to. Both survive kill -9 without a sync, for the page cache does; a bit is a hint all the same, and
//! every piece is hashed once by each process before it is read or served.
//!
//! One process owns a cache directory ([`StoreError::Owned`] for the second). When there is no room, files
//! that nobody has open go first, oldest use first; then writes fail with [`StoreError::NoRoom`] and
//! readers are served without keeping. The store knows nothing of networks, hubs or mounts.

mod data;
mod evict;
mod index;
mod map;
mod proofs;
mod verify;

pub use data::{CacheFile, ReadOutcome, State};
#[cfg(feature = "testing")]
pub use evict::{bytes_of, keys_on_disk};
pub use index::{Index, now_s, stamp_of, stamped};

use crate::metrics::METRICS;
use crate::model::{FileKey, PIECE_BYTES, Verified};
use evict::Budget;
use map::PieceMap;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::watch;

/// Where the cache lies and how much it may hold.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub dir: PathBuf,
    /// Bytes the cache may use; `None` is 0.9 of free plus own bytes, leaving 20 % of the filesystem.
    pub limit_bytes: Option<u64>,
}

/// What goes wrong with a cache, told apart by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cache {dir}: another process owns it: use its control socket, or another --cache-dir")]
    Owned { dir: PathBuf },
    #[error(
        "cache {dir}: no room for {bytes} bytes: free space, raise --cache-size or evict models"
    )]
    NoRoom { dir: PathBuf, bytes: u64 },
    #[error("cache file {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cache {dir}: {source}: give a directory that this process may write, by --cache-dir")]
    NotWritable {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "cache index {path} is damaged: {cause}: put a copy back, or move it away to begin anew; a seed then pins its inline and static volumes anew, where their branches stand at that time"
    )]
    Damaged { path: PathBuf, cause: String },
    #[error("cache index: {0}: remove the folder `index` in the cache directory to rebuild it")]
    Index(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Names the directory where its filesystem or its owner is the trouble.
    fn not_writable(dir: &Path) -> impl FnOnce(StoreError) -> StoreError + '_ {
        use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        let dir = dir.to_owned();
        move |error| match error {
            StoreError::Io { source, .. }
                if matches!(
                    source.kind(),
                    NotADirectory | PermissionDenied | ReadOnlyFilesystem
                ) =>
            {
                StoreError::NotWritable { dir, source }
            }
            error => error,
        }
    }
}

/// A cache directory, owned. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    index: Index,
    budget: Arc<Budget>,
    open: Mutex<HashMap<FileKey, Weak<CacheFile>>>,
    is_full: AtomicBool,
    news: watch::Sender<u64>,
    _lock: nix::fcntl::Flock<std::fs::File>,
}

impl Store {
    /// Opens or creates a cache directory and takes its lock. A damaged index is an error: for a seed, whose
    /// pins nobody else has.
    pub fn open(config: &StoreConfig) -> Result<Store, StoreError> {
        Store::begin(config, Index::open)
    }

    /// The same, but a damaged index is set aside: for those that can ask a seed or hub for all that was in it.
    pub fn open_or_renew(config: &StoreConfig) -> Result<Store, StoreError> {
        Store::begin(config, |path| match Index::open(path) {
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "set aside as index.damaged, the cache goes on with a new one");
                Index::renew(path)
            }
            opened => opened,
        })
    }

    fn begin(
        config: &StoreConfig,
        open_index: impl FnOnce(&Path) -> Result<Index, StoreError>,
    ) -> Result<Store, StoreError> {
        let dir = &config.dir;
        let lock = claim(dir).map_err(StoreError::not_writable(dir))?;
        let budget = Budget::open(dir, config.limit_bytes)?;
        METRICS.cache_limit_bytes.set(budget.limit() as i64);
        let index = open_index(&dir.join("index")).map_err(StoreError::not_writable(dir))?;
        let open = Mutex::default();
        let shared = Shared {
            dir: dir.clone(),
            index,
            budget,
            open,
            is_full: AtomicBool::new(false),
            news: watch::Sender::new(0),
            _lock: lock,
        };
        Ok(Store {
            shared: Arc::new(shared),
        })
    }

    /// The file of a key, made when it is not here yet. One shared handle per key and process.
    pub fn file(&self, key: FileKey, size: u64) -> Result<Arc<CacheFile>, StoreError> {
        let mut open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(file);
        }
        open.retain(|_, file| file.strong_count() > 0);
        self.shared.index.touch(key)?;
        let (budget, news) = (self.shared.budget.clone(), self.shared.news.clone());
        let file = Arc::new(CacheFile::open(&self.shared.dir, key, size, budget, news)?);
        open.insert(key, Arc::downgrade(&file));
        Ok(file)
    }

    /// The file of a key if this cache has it.
    pub fn get(&self, key: FileKey) -> Option<Arc<CacheFile>> {
        let size = PieceMap::size_on_disk(&map::path(&self.shared.dir, key))?;
        self.file(key, size).ok()
    }

    /// Keeps a piece, making room for it if need be; false when it was here already. Blocks on the disk.
    pub fn keep(&self, file: &CacheFile, piece: &Verified) -> Result<bool, StoreError> {
        let kept = match file.put(piece) {
            Err(StoreError::NoRoom { .. }) if self.make_room(piece.bytes().len() as u64) => {
                file.put(piece)
            }
            kept => kept,
        };
        let is_full = matches!(kept, Err(StoreError::NoRoom { .. }));
        self.shared.is_full.store(is_full, Ordering::Relaxed);
        kept
    }

    /// Whether the last piece found no room and there is none still.
    pub fn is_full(&self) -> bool {
        let has_room = self.used_bytes() + PIECE_BYTES <= self.limit_bytes();
        self.shared.is_full.load(Ordering::Relaxed) && !has_room
    }

    /// Counts up when a file becomes final, when a repository is shown to hold one, and when somebody
    /// [stirs](Store::stir): whoever waits for a whole volume looks again.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.shared.news.subscribe()
    }

    pub fn stir(&self) {
        self.shared.news.send_modify(|count| *count += 1);
    }

    /// Makes room for `bytes` more by removing files nobody has open; true when there is room now.
    fn make_room(&self, bytes: u64) -> bool {
        let open = self
            .shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let in_use = |key: &FileKey| open.get(key).is_some_and(|file| file.strong_count() > 0);
        self.shared
            .budget
            .make_room(&self.shared.dir, &self.shared.index, bytes, in_use)
    }

    /// Listings, pins, volume records and last use.
    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Bytes of pieces on disk.
    pub fn used_bytes(&self) -> u64 {
        self.shared.budget.used()
    }

    /// Bytes the cache may use.
    pub fn limit_bytes(&self) -> u64 {
        self.shared.budget.limit()
    }

    /// How many bytes of a file are on disk; asks the map, opens nothing.
    pub fn bytes_here(&self, key: FileKey) -> u64 {
        evict::bytes_of(&self.shared.dir, key)
    }

    /// Every file on disk, whether open or not.
    pub fn keys(&self) -> Vec<FileKey> {
        evict::keys_on_disk(&self.shared.dir)
    }
}

/// Makes the directory and takes it.
fn claim(dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, StoreError> {
    let files = dir.join("files");
    std::fs::create_dir_all(&files).map_err(StoreError::io(&files))?;
    // What a token opened is not for every user of the machine.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, private).map_err(StoreError::io(dir))?;
    lock(dir)
}

/// Takes the directory's lock, which ends with the process however it ends.
fn lock(dir: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, StoreError> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(StoreError::io(&path))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(
        |(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => StoreError::Owned {
                dir: dir.to_owned(),
            },
            errno => StoreError::Io {
                path,
                source: errno.into(),
            },
        },
    )
}

#[cfg(test)]
mod tests;
