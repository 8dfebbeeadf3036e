//! What each neighbour has of each file, as its HAVE stream tells.
//!
//! Bounds: the files this node watches (16,384) and 30 neighbours each; a bitmap a pair. A neighbour whose
//! stream ends is forgotten at once.

use crate::model::{Bitfield, FileKey, Geometry};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

type Holdings = HashMap<Arc<str>, Bitfield>;

#[derive(Default)]
pub struct Availability {
    files: Mutex<HashMap<FileKey, Holdings>>,
    changes: watch::Sender<u64>,
}

/// News of one file from one neighbour.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Exactly these pieces; `None` from a bitmap of a wrong length.
    All(Vec<u8>),
    /// These too, as (first, count).
    More(Vec<(u32, u32)>),
}

impl Availability {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, Holdings>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes news from the neighbour at `addr`. What does not fit the file's geometry is ignored.
    pub fn learn(&self, addr: &Arc<str>, key: FileKey, geometry: Geometry, news: News) {
        let pieces = geometry.pieces();
        let mut files = self.lock();
        let holdings = files.entry(key).or_default();
        match news {
            News::All(bits) => {
                if let Some(bits) = Bitfield::from_bytes(bits, pieces) {
                    holdings.insert(addr.clone(), bits);
                }
            }
            News::More(runs) => {
                let bits = holdings
                    .entry(addr.clone())
                    .or_insert_with(|| Bitfield::new(pieces));
                for (first, count) in runs {
                    let end = first.saturating_add(count).min(pieces);
                    (first..end).for_each(|index| bits.set(index, true));
                }
            }
        }
        drop(files);
        self.changed();
    }

    /// The neighbour does not have this piece after all.
    pub fn lacks(&self, addr: &str, key: FileKey, index: u32) {
        if let Some(bits) = self
            .lock()
            .get_mut(&key)
            .and_then(|holdings| holdings.get_mut(addr))
        {
            bits.set(index, false);
        }
    }

    /// The neighbour is gone.
    pub fn forget(&self, addr: &str) {
        let mut files = self.lock();
        for holdings in files.values_mut() {
            holdings.remove(addr);
        }
        files.retain(|_, holdings| !holdings.is_empty());
        drop(files);
        self.changed();
    }

    /// Looks at what the neighbours have of a file. `look` must be short: others wait.
    pub fn with<T>(&self, key: FileKey, look: impl FnOnce(&Holdings) -> T) -> T {
        static NONE: std::sync::LazyLock<Holdings> = std::sync::LazyLock::new(HashMap::new);
        look(self.lock().get(&key).unwrap_or(&NONE))
    }

    /// Counts up with every piece of news.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_replace_runs_add_and_nonsense_is_ignored() {
        let (all, key, geometry) = (
            Availability::default(),
            FileKey([1; 32]),
            Geometry { size: 10 << 20 },
        );
        let addr: Arc<str> = "10.0.0.1:7".into();
        let held = || {
            all.with(key, |has| {
                has.get(&addr).map(|bits| bits.iter().collect::<Vec<_>>())
            })
        };
        all.learn(&addr, key, geometry, News::All(vec![0b101, 0]));
        all.learn(
            &addr,
            key,
            geometry,
            News::More(vec![(8, 9), (u32::MAX, u32::MAX)]),
        );
        assert_eq!(held(), Some(vec![0, 2, 8, 9]));
        all.learn(&addr, key, geometry, News::All(vec![1, 2, 3]));
        all.lacks(&addr, key, 2);
        assert_eq!(held(), Some(vec![0, 8, 9]));
        all.learn(&addr, key, geometry, News::All(vec![1, 0]));
        assert_eq!(held(), Some(vec![0]));
        all.forget(&addr);
        assert_eq!(held(), None);
    }
}
