//! What each neighbour has of each file, as its HAVE stream tells.
//!
//! Bounds: the files this node watches (16,384) and 30 neighbours each; a bitmap a pair and two bytes a
//! piece. A neighbour whose stream ends is forgotten at once.

use crate::model::{Bitfield, FileKey, Geometry};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Who has what of one file, and how many have each piece.
#[derive(Clone, Debug)]
pub struct Holdings<Id> {
    of: BTreeMap<Id, Bitfield>,
    counts: Vec<u16>,
}

impl<Id> Default for Holdings<Id> {
    fn default() -> Holdings<Id> {
        Holdings {
            of: BTreeMap::new(),
            counts: Vec::new(),
        }
    }
}

impl<Id: Ord + Clone> Holdings<Id> {
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Neighbours in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Bitfield)> {
        self.of.iter()
    }

    /// How many neighbours have a piece.
    pub fn count(&self, index: u32) -> u32 {
        self.counts.get(index as usize).copied().unwrap_or(0).into()
    }

    /// This neighbour has exactly these pieces.
    pub fn replace(&mut self, id: &Id, has: Bitfield) {
        self.remove(id);
        self.counts.resize(has.len() as usize, 0);
        has.iter()
            .for_each(|index| self.counts[index as usize] += 1);
        self.of.insert(id.clone(), has);
    }

    /// This neighbour has these pieces too, of `pieces` in all.
    pub fn add(&mut self, id: &Id, run: Range<u32>, pieces: u32) {
        if !self.of.contains_key(id) {
            self.replace(id, Bitfield::new(pieces));
        }
        run.for_each(|index| self.set(id, index, true));
    }

    /// This neighbour does not have the piece after all.
    pub fn lacks(&mut self, id: &Id, index: u32) {
        self.set(id, index, false);
    }

    pub fn remove(&mut self, id: &Id) {
        if let Some(had) = self.of.remove(id) {
            had.iter()
                .for_each(|index| self.counts[index as usize] -= 1);
        }
    }

    fn set(&mut self, id: &Id, index: u32, value: bool) {
        let Some(bits) = self.of.get_mut(id) else {
            return;
        };
        if bits.get(index) == value || index >= bits.len() {
            return;
        }
        bits.set(index, value);
        let count = &mut self.counts[index as usize];
        *count = if value { *count + 1 } else { *count - 1 };
    }
}

#[derive(Default)]
pub struct Availability {
    files: Mutex<HashMap<FileKey, Holdings<Arc<str>>>>,
    changes: watch::Sender<u64>,
}

/// News of one file from one neighbour.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Exactly these pieces; ignored from a bitmap of a wrong length.
    All(Vec<u8>),
    /// These too, as (first, count).
    More(Vec<(u32, u32)>),
}

impl Availability {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, Holdings<Arc<str>>>> {
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
                    holdings.replace(addr, bits);
                }
            }
            News::More(runs) => {
                for (first, count) in runs {
                    let end = first.saturating_add(count).min(pieces);
                    holdings.add(addr, first..end, pieces);
                }
            }
        }
        drop(files);
        self.changed();
    }

    /// The neighbour does not have this piece after all.
    pub fn lacks(&self, addr: &Arc<str>, key: FileKey, index: u32) {
        if let Some(holdings) = self.lock().get_mut(&key) {
            holdings.lacks(addr, index);
        }
    }

    /// The neighbour is gone.
    pub fn forget(&self, addr: &Arc<str>) {
        let mut files = self.lock();
        for holdings in files.values_mut() {
            holdings.remove(addr);
        }
        files.retain(|_, holdings| !holdings.is_empty());
        drop(files);
        self.changed();
    }

    /// Looks at what the neighbours have of a file. `look` must be short: others wait.
    pub fn with<T>(&self, key: FileKey, look: impl FnOnce(&Holdings<Arc<str>>) -> T) -> T {
        match self.lock().get(&key) {
            Some(holdings) => look(holdings),
            None => look(&Holdings::default()),
        }
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
    use proptest::prelude::*;

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
                let mut of_addr = has.iter().filter(|(id, _)| **id == addr);
                of_addr
                    .next()
                    .map(|(_, bits)| bits.iter().collect::<Vec<_>>())
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

    #[derive(Clone, Debug)]
    enum Step {
        Replace(u8, Vec<u32>),
        Add(u8, Range<u32>),
        Lacks(u8, u32),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let pieces = prop::collection::vec(0u32..40, 0..20);
        prop_oneof![
            (0u8..5, pieces).prop_map(|(id, pieces)| Step::Replace(id, pieces)),
            (0u8..5, 0u32..60, 0u32..6).prop_map(|(id, at, len)| Step::Add(id, at..at + len)),
            (0u8..5, 0u32..60).prop_map(|(id, index)| Step::Lacks(id, index)),
            (0u8..5).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn counts_are_what_counting_gives(steps in prop::collection::vec(step(), 0..60)) {
            let mut holdings = Holdings::default();
            for step in steps {
                match step {
                    Step::Replace(id, pieces) => {
                        let mut bits = Bitfield::new(40);
                        pieces.into_iter().for_each(|index| bits.set(index, true));
                        holdings.replace(&id, bits);
                    }
                    Step::Add(id, run) => holdings.add(&id, run, 40),
                    Step::Lacks(id, index) => holdings.lacks(&id, index),
                    Step::Remove(id) => holdings.remove(&id),
                }
                for index in 0..60 {
                    let counted = holdings.iter().filter(|(_, has)| has.get(index)).count();
                    prop_assert_eq!(holdings.count(index), counted as u32);
                }
            }
        }
    }
}
