//! The mapped file beside a data file: which pieces are here, what each hashes to, and the file's root.
//!
//! Layout, little endian: 8 bytes magic, 8 bytes size, 8 bytes flags, 8 bytes reserved, 32 bytes root,
//! 64 bytes stamp, then one bit a piece *here*, one bit a piece *hash known*, then 32 bytes a piece. For
//! 130 GB that is 4 MB. Writes go to the page cache and survive the process, not the machine: after a
//! reboot nothing in here is believed before the data has been hashed again.

use super::StoreError;
use super::verify::Stamp;
use crate::model::{Bitfield, FileKey, Geometry, PieceHash};
use memmap2::MmapMut;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"mp2pmap1";
const FLAG_ROOT: u8 = 1;
const FLAG_FINAL: u8 = 2;
const FLAG_REVOKED: u8 = 4;
const ROOT_AT: usize = 32;
const STAMP_AT: usize = ROOT_AT + 32;
const STAMP_BYTES: usize = 64;
const BITS_AT: usize = STAMP_AT + STAMP_BYTES;

/// The data file's path: 256 folders, so that none holds more than some thousand files.
pub fn data_path(dir: &Path, key: FileKey) -> PathBuf {
    let name = key.to_string();
    dir.join("files").join(&name[..2]).join(name)
}

/// The map's path, beside the data.
pub fn path(dir: &Path, key: FileKey) -> PathBuf {
    data_path(dir, key).with_extension("map")
}

/// The state of one file's pieces, mapped.
pub struct PieceMap {
    bytes: MmapMut,
    geometry: Geometry,
}

impl PieceMap {
    /// Opens the map of a file of `size` bytes; one that is absent, or is not such a map, starts empty.
    pub fn open(path: &Path, size: u64) -> Result<PieceMap, StoreError> {
        let geometry = Geometry { size };
        PieceMap::try_open(path, geometry).map_err(StoreError::io(path))
    }

    fn try_open(path: &Path, geometry: Geometry) -> io::Result<PieceMap> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let len = layout(geometry).end as u64;
        if PieceMap::size_on_disk(path) != Some(geometry.size) || file.metadata()?.len() != len {
            file.set_len(0)?;
            file.set_len(len)?;
        }
        // SAFETY: the cache directory is locked by this process, which neither truncates nor writes the
        // file but through this map.
        #[allow(unsafe_code)]
        let mut bytes = unsafe { MmapMut::map_mut(&file)? };
        bytes[8..16].copy_from_slice(&geometry.size.to_le_bytes());
        bytes[..8].copy_from_slice(MAGIC);
        Ok(PieceMap { bytes, geometry })
    }

    /// The file size that a map on disk is for; `None` when it is not a map.
    pub fn size_on_disk(path: &Path) -> Option<u64> {
        let mut head = [0; 16];
        std::fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut head))
            .ok()?;
        let size = head[8..].try_into().ok().map(u64::from_le_bytes)?;
        (&head[..8] == MAGIC).then_some(size)
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub fn have(&self) -> Bitfield {
        self.field(layout(self.geometry).have)
    }

    /// The pieces whose hash is known.
    pub fn known(&self) -> Bitfield {
        self.field(layout(self.geometry).known)
    }

    fn field(&self, at: usize) -> Bitfield {
        let pieces = self.geometry.pieces();
        Bitfield::from_bytes(self.bytes[at..at + bits(self.geometry)].to_vec(), pieces)
            .unwrap_or_else(|| Bitfield::new(pieces))
    }

    pub fn has(&self, index: u32) -> bool {
        self.bit(layout(self.geometry).have, index)
    }

    pub fn set_here(&mut self, index: u32, here: bool) {
        self.set_bit(layout(self.geometry).have, index, here);
    }

    pub fn hash(&self, index: u32) -> Option<PieceHash> {
        let at = layout(self.geometry);
        if !self.bit(at.known, index) {
            return None;
        }
        let start = at.hashes + index as usize * 32;
        self.bytes[start..start + 32].try_into().ok()
    }

    pub fn set_hash(&mut self, index: u32, hash: &PieceHash) {
        let at = layout(self.geometry);
        if index < self.geometry.pieces() {
            let start = at.hashes + index as usize * 32;
            self.bytes[start..start + 32].copy_from_slice(hash);
            self.set_bit(at.known, index, true);
        }
    }

    /// All hashes, if every one is known.
    pub fn hashes(&self) -> Option<Vec<PieceHash>> {
        (0..self.geometry.pieces())
            .map(|index| self.hash(index))
            .collect()
    }

    pub fn root(&self) -> Option<[u8; 32]> {
        self.flag(FLAG_ROOT)
            .then(|| self.bytes[ROOT_AT..STAMP_AT].try_into().ok())?
    }

    pub fn set_root(&mut self, root: &[u8; 32]) {
        self.bytes[ROOT_AT..STAMP_AT].copy_from_slice(root);
        self.set_flag(FLAG_ROOT, true);
    }

    pub fn is_revoked(&self) -> bool {
        self.flag(FLAG_REVOKED)
    }

    pub fn set_revoked(&mut self, revoked: bool) {
        self.set_flag(FLAG_REVOKED, revoked);
    }

    /// Whether the file was final when this stamp was true of its data file.
    pub fn is_final(&self, stamp: &Stamp) -> bool {
        self.flag(FLAG_FINAL) && self.bytes[STAMP_AT..BITS_AT] == stamp.to_bytes()
    }

    pub fn set_final(&mut self, stamp: &Stamp) {
        self.bytes[STAMP_AT..BITS_AT].copy_from_slice(&stamp.to_bytes());
        self.set_flag(FLAG_FINAL, true);
    }

    /// Forgets everything but the size.
    pub fn clear(&mut self) {
        self.bytes[16..].fill(0);
    }

    fn flag(&self, flag: u8) -> bool {
        self.bytes[16] & flag != 0
    }

    fn set_flag(&mut self, flag: u8, value: bool) {
        if value {
            self.bytes[16] |= flag
        } else {
            self.bytes[16] &= !flag
        }
    }

    fn bit(&self, at: usize, index: u32) -> bool {
        index < self.geometry.pieces()
            && self.bytes[at + index as usize / 8] & (1 << (index % 8)) != 0
    }

    fn set_bit(&mut self, at: usize, index: u32, value: bool) {
        if index < self.geometry.pieces() {
            let byte = &mut self.bytes[at + index as usize / 8];
            let bit = 1 << (index % 8);
            if value { *byte |= bit } else { *byte &= !bit }
        }
    }
}

struct Layout {
    have: usize,
    known: usize,
    hashes: usize,
    end: usize,
}

fn bits(geometry: Geometry) -> usize {
    geometry.pieces().div_ceil(8) as usize
}

fn layout(geometry: Geometry) -> Layout {
    let known = BITS_AT + bits(geometry);
    let hashes = known + bits(geometry);
    Layout {
        have: BITS_AT,
        known,
        hashes,
        end: hashes + geometry.pieces() as usize * 32,
    }
}
