//! One file of the cache: its sparse data, its map, and the rules by which it becomes final.
//!
//! Bytes go in through [`CacheFile::put`] as [`Verified`] pieces only. They come out through
//! [`CacheFile::read`], which hashes each piece once per process before it believes the map, or through
//! [`CacheFile::data`] for the kernel once the state is [`State::Final`]. A piece that fails its hash is
//! dropped, counted and reported missing, so that it is fetched again.

use super::StoreError;
use super::evict::Budget;
use super::map::{self, PieceMap};
use super::verify::Stamp;
use crate::metrics::METRICS;
use crate::model::{Bitfield, FileKey, Geometry, PieceHash, Verified};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Pieces are missing.
    Partial,
    /// Every piece is here; its root is not announced, or not every piece has been hashed in this boot.
    Whole,
    /// Every piece is here, hashed, and merges to the announced root: the kernel may serve it.
    Final,
    /// The content failed its digest: nothing of it is read any more.
    Revoked,
}

/// What a read found.
#[derive(Debug)]
pub enum ReadOutcome {
    Bytes(Bytes),
    /// This piece is not here, or was corrupt and has been dropped.
    Missing(u32),
}

/// A file of the cache, shared by all who use it.
pub struct CacheFile {
    key: FileKey,
    path: PathBuf,
    geometry: Geometry,
    data: Arc<File>,
    pieces: Mutex<Pieces>,
    /// One write at a time: the kernel's lock on the inode would make a second one spin.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
    /// The whole store's, see [`super::Store::news`].
    news: watch::Sender<u64>,
    budget: Arc<Budget>,
}

struct Pieces {
    map: PieceMap,
    /// Hashed by this process, or vouched for by a stamp of this boot.
    checked: Bitfield,
    count: u32,
    is_final: bool,
}

impl CacheFile {
    pub(super) fn open(
        dir: &Path,
        key: FileKey,
        size: u64,
        budget: Arc<Budget>,
        news: watch::Sender<u64>,
    ) -> Result<CacheFile, StoreError> {
        let path = map::data_path(dir, key);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
        }
        let data = open_data(&path, size).map_err(StoreError::io(&path))?;
        let map = PieceMap::open(&map::path(dir, key), size)?;
        let pieces = Pieces::open(map, &Stamp::of(&data).map_err(StoreError::io(&path))?);
        let file = CacheFile {
            key,
            geometry: Geometry { size },
            data: Arc::new(data),
            pieces: Mutex::new(pieces),
            writing: Mutex::new(()),
            changes: watch::Sender::new(0),
            news,
            budget,
            path,
        };
        Ok(file)
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn key(&self) -> FileKey {
        self.key
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether piece `index` is here.
    pub fn has(&self, index: u32) -> bool {
        self.lock().map.has(index)
    }

    /// The pieces that are here now.
    pub fn have(&self) -> Bitfield {
        self.lock().map.have()
    }

    /// The pieces whose hash is known.
    pub fn known(&self) -> Bitfield {
        self.lock().map.known()
    }

    /// The pieces whose hash is known and that are not here: somebody else has read them, or they rotted here.
    pub fn orphans(&self) -> Bitfield {
        let pieces = self.lock();
        pieces.map.known().minus(&pieces.map.have())
    }

    /// The number of pieces here.
    pub fn count(&self) -> u32 {
        self.lock().count
    }

    /// The hash of a piece, once a seed has told it or the piece has been here.
    pub fn hash(&self, index: u32) -> Option<PieceHash> {
        self.lock().map.hash(index)
    }

    /// All piece hashes, if every one is known.
    pub fn hashes(&self) -> Option<Vec<PieceHash>> {
        self.lock().map.hashes()
    }

    /// Takes hashes from a seed for the pieces from `first` on. The hash of a piece that is here stays.
    pub fn learn(&self, first: u32, hashes: &[PieceHash]) {
        let mut pieces = self.lock();
        for (index, hash) in (first..).zip(hashes) {
            if !pieces.map.has(index) {
                pieces.map.set_hash(index, hash);
            }
        }
        drop(pieces);
        self.changed();
    }

    /// Keeps a piece; false when it was here already. Finishes the file if it was the last one missing.
    pub fn put(&self, piece: &Verified) -> Result<bool, StoreError> {
        let index = piece.index();
        if self.has(index) || self.state() == State::Revoked {
            return Ok(false);
        }
        let len = piece.bytes().len() as u64;
        self.budget.take(len)?;
        if let Err(error) = self.write(index, piece.bytes()) {
            self.budget.give(len);
            return Err(error);
        }
        if !self.lock().keep(piece) {
            self.budget.give(len);
            return Ok(false);
        }
        self.changed();
        self.try_finish()?;
        Ok(true)
    }

    fn write(&self, index: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.geometry.bytes(index).start;
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.data
            .write_all_at(bytes, at)
            .map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    self.budget.full(&self.path, bytes.len() as u64)
                }
                _ => StoreError::Io {
                    path: self.path.clone(),
                    source,
                },
            })
    }

    /// Reads up to `len` bytes at `offset`, cut at the end of the file. Blocks on the disk, and for the
    /// hashing of pieces that this process has not checked yet.
    pub fn read(&self, offset: u64, len: usize) -> Result<ReadOutcome, StoreError> {
        for index in self.geometry.covering(offset, len as u64) {
            if !self.check(index)? {
                return Ok(ReadOutcome::Missing(index));
            }
        }
        let len = self.geometry.size.saturating_sub(offset).min(len as u64);
        self.read_raw(offset, len as usize).map(ReadOutcome::Bytes)
    }

    fn read_raw(&self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; len];
        self.data
            .read_exact_at(&mut bytes, offset)
            .map_err(StoreError::io(&self.path))?;
        Ok(bytes.into())
    }

    /// Whether piece `index` is here and intact; hashes it if this process has not done so. Blocks.
    pub fn check(&self, index: u32) -> Result<bool, StoreError> {
        let expected = {
            let pieces = self.lock();
            match pieces.map.has(index) && !pieces.map.is_revoked() {
                false => return Ok(false),
                true if pieces.checked.get(index) => return Ok(true),
                true => pieces.map.hash(index),
            }
        };
        let at = self.geometry.bytes(index).start;
        let bytes = self.read_raw(at, self.geometry.len(index))?;
        if expected.is_some_and(|expected| self.geometry.hash(index, &bytes) == expected) {
            self.lock().checked.set(index, true);
            return Ok(true);
        }
        self.drop_piece(index);
        Ok(false)
    }

    /// Whether `check` would have to hash the piece first.
    pub fn is_checked(&self, index: u32) -> bool {
        self.lock().checked.get(index)
    }

    fn drop_piece(&self, index: u32) {
        if !self.lock().forget_unchecked(index) {
            return;
        }
        tracing::warn!(file = %self.key, piece = index, "piece is corrupt on disk, dropped");
        METRICS.pieces_rejected.with_label_values(&["disk"]).inc();
        self.budget.give(self.geometry.len(index) as u64);
        self.changed();
    }

    /// The data file, laid out as the model file itself.
    pub fn data(&self) -> Arc<File> {
        self.data.clone()
    }

    /// Counts up with every piece, hash and state that changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn state(&self) -> State {
        self.lock().state(self.geometry)
    }

    pub fn root(&self) -> Option<[u8; 32]> {
        self.lock().map.root()
    }

    /// Takes the root that a seed announced. True when the file is final now; false while pieces are
    /// missing: the root is kept and applied with the last one. A whole file that does not merge to it is
    /// revoked.
    pub fn finish(&self, root: [u8; 32]) -> Result<bool, StoreError> {
        self.lock().map.set_root(&root);
        self.try_finish()?;
        self.changed();
        Ok(self.state() == State::Final)
    }

    /// Hashes every piece that is not checked, then finishes if the root is known: what a file of an
    /// earlier boot needs before the kernel may serve it. Blocks for seconds; corrupt pieces are dropped.
    pub fn scrub(&self) -> Result<(), StoreError> {
        for index in 0..self.geometry.pieces() {
            self.check(index)?;
        }
        self.try_finish()
    }

    fn try_finish(&self) -> Result<(), StoreError> {
        let (root, hashes) = {
            let pieces = self.lock();
            if !pieces.is_ready(self.geometry) {
                return Ok(());
            }
            (pieces.map.root(), pieces.map.hashes())
        };
        if self.geometry.root(&hashes.unwrap_or_default()) != root {
            return self.revoke();
        }
        self.data.sync_all().map_err(StoreError::io(&self.path))?;
        let stamp = Stamp::of(&self.data).map_err(StoreError::io(&self.path))?;
        let mut pieces = self.lock();
        pieces.map.set_final(&stamp);
        pieces.is_final = true;
        drop(pieces);
        self.changed();
        self.news.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Drops the content for good: its digest was wrong. Readers get errors until the file is made anew.
    pub fn revoke(&self) -> Result<(), StoreError> {
        tracing::error!(file = %self.key, "content does not match the hub's digest, revoked");
        let freed = self.lock().revoke();
        self.budget.give(freed);
        self.changed();
        let size = self.geometry.size;
        self.data
            .set_len(0)
            .and_then(|()| self.data.set_len(size))
            .map_err(StoreError::io(&self.path))
    }

    /// Lets a revoked file be fetched once more, from nothing.
    pub fn renew(&self) {
        self.lock().map.set_revoked(false);
        self.changed();
    }
}

/// Opens the data file and gives it its full, sparse length.
fn open_data(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    if file.metadata()?.len() != size {
        file.set_len(size)?;
    }
    Ok(file)
}

impl Pieces {
    fn open(map: PieceMap, stamp: &Stamp) -> Pieces {
        let count = map.have().count();
        let total = map.geometry().pieces();
        let is_final = map.is_final(stamp) && count == total;
        let checked = if is_final {
            Bitfield::full(total)
        } else {
            Bitfield::new(total)
        };
        Pieces {
            map,
            checked,
            count,
            is_final,
        }
    }

    fn state(&self, geometry: Geometry) -> State {
        match () {
            () if self.map.is_revoked() => State::Revoked,
            () if self.is_final => State::Final,
            () if self.count == geometry.pieces() => State::Whole,
            () => State::Partial,
        }
    }

    /// Everything is here, hashed, and the root is known: time to merge.
    fn is_ready(&self, geometry: Geometry) -> bool {
        self.state(geometry) == State::Whole && self.checked.is_full() && self.map.root().is_some()
    }

    /// The hash before the bit: a crash in between leaves a piece that is merely fetched again.
    fn keep(&mut self, piece: &Verified) -> bool {
        let index = piece.index();
        if self.map.has(index) || self.map.is_revoked() {
            return false;
        }
        self.map.set_hash(index, piece.hash());
        self.map.set_here(index, true);
        self.checked.set(index, true);
        self.count += 1;
        true
    }

    /// False when another thread has dropped the piece meanwhile, or has brought a good one.
    fn forget_unchecked(&mut self, index: u32) -> bool {
        if !self.map.has(index) || self.checked.get(index) {
            return false;
        }
        self.map.set_here(index, false);
        self.count -= 1;
        self.is_final = false;
        true
    }

    /// Returns the bytes that were held.
    fn revoke(&mut self) -> u64 {
        let geometry = self.map.geometry();
        let freed = self
            .map
            .have()
            .iter()
            .map(|index| geometry.len(index) as u64)
            .sum();
        self.map.clear();
        self.map.set_revoked(true);
        self.checked = Bitfield::new(geometry.pieces());
        self.count = 0;
        self.is_final = false;
        freed
    }
}
