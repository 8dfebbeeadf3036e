//! What the cache remembers beside content: listings, pins, volume records, last use.
//!
//! All but the pins can be rebuilt from a seed or a hub. Nothing secret is kept here.

use super::StoreError;
use crate::model::{Digest, FileKey, Listing, Pin};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The embedded database of a cache directory. The only file that knows sled.
pub struct Index {
    db: sled::Db,
}

/// A record in the database, and a file beside it, of one that was begun.
const BEGUN: &str = "begun";

/// A listing has some 100 bytes a file; most have tens of files.
const LISTINGS_MAX: usize = 10_000;

/// A listing row as stored: path, size, digest.
type Row = (String, u64, String);

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> StoreError {
        StoreError::Index(Box::new(error))
    }
}

impl Index {
    /// Opens, or begins where nothing is. One that was begun and has lost its content is `Damaged`: the
    /// library itself takes some damage for an empty database.
    pub(super) fn open(path: &Path) -> Result<Index, StoreError> {
        let damaged = |cause: String| StoreError::Damaged {
            path: path.to_owned(),
            cause,
        };
        // At other damage it panics.
        let opened = std::panic::catch_unwind(|| Index::read(path));
        let (db, is_known) = match opened {
            Err(_) => return Err(damaged("it cannot be read".into())),
            Ok(Err(sled::Error::Io(error))) if error.raw_os_error().is_some() => {
                return Err(StoreError::io(path)(error));
            }
            Ok(Err(error)) => return Err(damaged(error.to_string())),
            Ok(Ok(read)) => read,
        };
        let mark = path.join(BEGUN);
        match (is_known, mark.exists()) {
            (false, true) => return Err(damaged("its content is lost".into())),
            (false, false) => {
                db.insert(BEGUN, b"")?;
                db.flush()?;
            }
            (true, _) => {}
        }
        // Only when its twin is on disk.
        std::fs::write(&mark, b"").map_err(StoreError::io(&mark))?;
        Ok(Index { db })
    }

    /// The database, and whether it was begun earlier.
    fn read(path: &Path) -> Result<(sled::Db, bool), sled::Error> {
        // 16 MiB: the index holds names, not content; sled's default is a gigabyte.
        let config = sled::Config::new().path(path).cache_capacity(16 << 20);
        let db = config.open()?;
        let is_known = db.contains_key(BEGUN)?;
        Ok((db, is_known))
    }

    /// Moves a damaged index out of the way, over one that was moved before, and begins anew.
    pub(super) fn renew(path: &Path) -> Result<Index, StoreError> {
        let aside = path.with_extension("damaged");
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(&aside)(error));
            }
            _ => {}
        }
        std::fs::rename(path, &aside).map_err(StoreError::io(path))?;
        Index::open(path)
    }

    /// Keeps a listing: a pin's files never change. Of more than about ten thousand some others go.
    pub fn put_listing(&self, listing: &Listing) -> Result<(), StoreError> {
        let row = |entry: &crate::model::Entry| {
            (entry.path.clone(), entry.size, entry.digest.to_string())
        };
        let rows: Vec<Row> = listing.files().iter().map(row).collect();
        let bytes =
            serde_json::to_vec(&rows).map_err(|error| StoreError::Index(Box::new(error)))?;
        let tree = self.db.open_tree("listings")?;
        // Counting reads the whole tree, so one put in a hundred does it, and makes room for the next hundred.
        if rand::random_range(0..100) == 0 {
            for _ in LISTINGS_MAX..tree.len() {
                tree.pop_min()?;
            }
        }
        self.put_record("listings", &listing.pin().to_string(), &bytes)
    }

    /// Whether the listing of a pin was kept.
    pub fn has_listing(&self, pin: &Pin) -> Result<bool, StoreError> {
        let tree = self.db.open_tree("listings")?;
        Ok(tree.contains_key(pin.to_string())?)
    }

    /// The listing of a pin, if it was kept. One that cannot be read is none: it is fetched again.
    pub fn listing(&self, pin: &Pin) -> Result<Option<Listing>, StoreError> {
        let Some(bytes) = self.record("listings", &pin.to_string())? else {
            return Ok(None);
        };
        Ok(parse_listing(pin, &bytes))
    }

    /// Every pin whose listing is here.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let keys = self.db.open_tree("listings")?.iter().keys().flatten();
        Ok(keys
            .filter_map(|key| std::str::from_utf8(&key).ok()?.parse().ok())
            .collect())
    }

    /// Keeps a small named record; `table` is a fixed word of the program.
    pub fn put_record(&self, table: &str, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let tree = self.db.open_tree(table)?;
        tree.insert(name, value)?;
        tree.flush()?;
        Ok(())
    }

    /// Keeps a record only if there is none of that name; returns the one that is there afterwards.
    pub fn put_record_once(
        &self,
        table: &str,
        name: &str,
        value: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let tree = self.db.open_tree(table)?;
        let swap = tree.compare_and_swap(name, None::<&[u8]>, Some(value))?;
        tree.flush()?;
        let there = swap.err().and_then(|taken| taken.current);
        Ok(there.map_or_else(|| value.to_vec(), |there| there.to_vec()))
    }

    /// Notes a value under a name, with the time, in a table of about `most` notes: the oldest go. Not
    /// synced: losing the last half second of notes must be bearable.
    pub fn note(
        &self,
        table: &str,
        name: &str,
        value: &str,
        most: usize,
    ) -> Result<(), StoreError> {
        self.db
            .open_tree(table)?
            .insert(name, stamped(value).as_bytes())?;
        self.keep_newest(table, most)
    }

    /// Bounds a table of values that are [`stamped`]. One call in a thousand looks.
    pub fn keep_newest(&self, table: &str, most: usize) -> Result<(), StoreError> {
        match rand::random_range(0..1000) {
            0 => self.trim(table, most),
            _ => Ok(()),
        }
    }

    /// A tenth more than must goes, so that this is not needed again at once.
    fn trim(&self, table: &str, most: usize) -> Result<(), StoreError> {
        let tree = self.db.open_tree(table)?;
        if tree.len() <= most {
            return Ok(());
        }
        let mut ages: Vec<_> = tree
            .iter()
            .flatten()
            .map(|(name, value)| (stamp_of(&value), name))
            .collect();
        ages.sort();
        for (_, name) in ages.iter().take(ages.len() - most + most / 10) {
            tree.remove(name)?;
        }
        Ok(())
    }

    pub fn record(&self, table: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .db
            .open_tree(table)?
            .get(name)?
            .map(|value| value.to_vec()))
    }

    pub fn remove_record(&self, table: &str, name: &str) -> Result<(), StoreError> {
        let tree = self.db.open_tree(table)?;
        tree.remove(name)?;
        tree.flush()?;
        Ok(())
    }

    /// All records of a table by name.
    pub fn records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let tree = self.db.open_tree(table)?;
        let pair = |(name, value): (sled::IVec, sled::IVec)| {
            Some((String::from_utf8(name.to_vec()).ok()?, value.to_vec()))
        };
        Ok(tree.iter().flatten().filter_map(pair).collect())
    }

    /// Notes that a file is used now. Not synced: a lost note costs only the order of eviction.
    pub(super) fn touch(&self, key: FileKey) -> Result<(), StoreError> {
        let now = now_s();
        self.db
            .open_tree("last-use")?
            .insert(key.0, &now.to_le_bytes())?;
        Ok(())
    }

    /// Seconds since the epoch at the last use; 0 when unknown.
    pub(super) fn last_use(&self, key: FileKey) -> u64 {
        let stored = self
            .db
            .open_tree("last-use")
            .and_then(|tree| tree.get(key.0));
        let bytes = stored
            .ok()
            .flatten()
            .and_then(|bytes| bytes.as_ref().try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }
}

/// Epoch seconds.
pub fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A value with the present time, in epoch seconds, as its last line.
pub fn stamped(value: &str) -> String {
    format!("{value}\n{}", now_s())
}

/// When a [`stamped`] value was made; 0 for one without a stamp.
pub fn stamp_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok();
    let stamp = text.and_then(|text| text.rsplit_once('\n')?.1.parse().ok());
    stamp.unwrap_or_default()
}

fn parse_listing(pin: &Pin, bytes: &[u8]) -> Option<Listing> {
    let rows: Vec<Row> = serde_json::from_slice(bytes).ok()?;
    let parse = |(path, size, digest): Row| Some((path, size, digest.parse::<Digest>().ok()?));
    let rows: Option<Vec<_>> = rows.into_iter().map(parse).collect();
    Listing::new(pin.clone(), rows?).ok()
}
