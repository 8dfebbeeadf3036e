//! What a seed gave to whom: the choice of what to give next.
//!
//! A seed gives each node other pieces, the least given ones first, so that nodes soon have something to
//! give each other: worth more than any cleverness of theirs (1.1 times the best possible time where
//! letting nodes choose in order takes 3-9 times). Kept in memory only: after a restart a few pieces are
//! given twice. Bound: 2 bytes a piece and 2 bits a piece and interested node; a file's entry ends with
//! its last node.

use super::request::RUN_PIECES_MAX;
use crate::model::{Bitfield, FileKey};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A wanted piece is served by the seed itself to this many nodes before it names a holder.
const WANTED_GIFTS: u16 = 2;

#[derive(Default)]
pub struct Ledger {
    files: Mutex<HashMap<FileKey, Book>>,
    given: Notify,
}

#[derive(Default)]
struct Book {
    times: Vec<u16>,
    nodes: HashMap<String, Page>,
}

struct Page {
    /// Given, or being given.
    given: Bitfield,
    /// Given to the last byte: this node may be named as a holder.
    done: Bitfield,
}

/// Pieces being given to a node. Unless it ends with [`Gift::done`], they count as not given.
pub struct Gift {
    ledger: Arc<Ledger>,
    key: FileKey,
    node: String,
    run: Range<u32>,
    is_done: bool,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, Book>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the piece of `from` least given so far, one that this node was not given before if there is
    /// one, the lowest of equals, and the like pieces behind it up to `run_max`. Notes the gift. `None`:
    /// `from` is empty.
    pub fn choose(
        self: &Arc<Ledger>,
        key: FileKey,
        node: &str,
        from: &Bitfield,
        run_max: u32,
    ) -> Option<Gift> {
        let mut files = self.lock();
        let book = files.entry(key).or_default();
        book.times.resize(from.len() as usize, 0);
        let run = book.best_run(node, from, run_max)?;
        book.start(node, &run);
        drop(files);
        Some(self.gift(key, node, run))
    }

    /// Notes that `run` is being given.
    pub fn give(
        self: &Arc<Ledger>,
        key: FileKey,
        node: &str,
        run: Range<u32>,
        pieces: u32,
    ) -> Gift {
        let mut files = self.lock();
        let book = files.entry(key).or_default();
        book.times.resize(pieces as usize, 0);
        book.start(node, &run);
        drop(files);
        self.gift(key, node, run)
    }

    fn gift(self: &Arc<Ledger>, key: FileKey, node: &str, run: Range<u32>) -> Gift {
        Gift {
            ledger: self.clone(),
            key,
            node: node.to_owned(),
            run,
            is_done: false,
        }
    }

    /// Resolves when the next gift has ended.
    pub async fn given(&self) {
        self.given.notified().await;
    }

    /// The pieces that nobody was given yet.
    pub fn fresh(&self, key: FileKey, pieces: u32) -> Bitfield {
        let mut fresh = Bitfield::full(pieces);
        if let Some(book) = self.lock().get(&key) {
            let given = book
                .times
                .iter()
                .enumerate()
                .filter(|(_, times)| **times > 0);
            given.for_each(|(index, _)| fresh.set(index as u32, false));
        }
        fresh
    }

    /// The nodes that a wanted piece was given to, once that was often enough to send others there.
    pub fn holders(&self, key: FileKey, index: u32, asker: &str) -> Vec<String> {
        let files = self.lock();
        let Some(book) = files.get(&key) else {
            return Vec::new();
        };
        if book
            .times
            .get(index as usize)
            .is_none_or(|times| *times < WANTED_GIFTS)
        {
            return Vec::new();
        }
        let holders = book.nodes.iter();
        let holders = holders.filter(|(node, page)| *node != asker && page.done.get(index));
        holders.map(|(node, _)| node.clone()).collect()
    }

    /// A node left: it holds nothing any more; what it was given stays counted.
    pub fn forget(&self, key: FileKey, node: &str) {
        let mut files = self.lock();
        if let Some(book) = files.get_mut(&key) {
            book.nodes.remove(node);
            if book.nodes.is_empty() {
                files.remove(&key);
            }
        }
    }
}

impl Book {
    fn best_run(&self, node: &str, from: &Bitfield, run_max: u32) -> Option<Range<u32>> {
        let given = self.nodes.get(node).map(|page| &page.given);
        // A node that needs again what it was given has lost it: better twice than never.
        let rank = |index: u32| {
            let again = given.is_some_and(|given| given.get(index));
            (again, self.times[index as usize])
        };
        let first = from.iter().min_by_key(|index| (rank(*index), *index))?;
        let like = |index: &u32| !from.get(*index) || rank(*index) != rank(first);
        let limit = first + run_max.clamp(1, RUN_PIECES_MAX);
        Some(first..(first..limit).find(like).unwrap_or(limit))
    }

    fn start(&mut self, node: &str, run: &Range<u32>) {
        let pieces = self.times.len() as u32;
        let page = self.nodes.entry(node.to_owned()).or_insert_with(|| Page {
            given: Bitfield::new(pieces),
            done: Bitfield::new(pieces),
        });
        for index in run.clone() {
            page.given.set(index, true);
            if let Some(times) = self.times.get_mut(index as usize) {
                *times = times.saturating_add(1);
            }
        }
    }

    fn end(&mut self, node: &str, run: &Range<u32>, is_done: bool) {
        for index in run.clone() {
            match self.nodes.get_mut(node) {
                Some(page) if is_done => page.done.set(index, true),
                Some(page) => page.given.set(index, false),
                None => {}
            }
            if let Some(times) = self.times.get_mut(index as usize).filter(|_| !is_done) {
                *times = times.saturating_sub(1);
            }
        }
    }
}

impl Gift {
    pub fn run(&self) -> Range<u32> {
        self.run.clone()
    }

    /// The last byte is on its way.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Gift {
    fn drop(&mut self) {
        if let Some(book) = self.ledger.lock().get_mut(&self.key) {
            book.end(&self.node, &self.run, self.is_done);
        }
        self.ledger.given.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FileKey = FileKey([1; 32]);

    fn given(ledger: &Arc<Ledger>, node: &str, from: &Bitfield) -> Range<u32> {
        let gift = ledger
            .choose(KEY, node, from, 4)
            .expect("something to give");
        let run = gift.run();
        gift.done();
        run
    }

    #[test]
    fn every_node_gets_other_pieces_until_all_are_out() {
        let (ledger, all) = (Arc::new(Ledger::default()), Bitfield::full(10));
        assert_eq!(given(&ledger, "a", &all), 0..4);
        assert_eq!(given(&ledger, "b", &all), 4..8);
        assert_eq!(given(&ledger, "a", &all), 8..10);
        assert!(ledger.fresh(KEY, 10).is_empty());
        assert_eq!(given(&ledger, "b", &all), 0..4);
        assert_eq!(
            given(&ledger, "a", &all),
            4..8,
            "not its own 0..4 or 8..10 again"
        );
        assert!(ledger.choose(KEY, "a", &Bitfield::new(10), 4).is_none());
    }

    #[test]
    fn a_broken_gift_is_given_to_the_next() {
        let (ledger, all) = (Arc::new(Ledger::default()), Bitfield::full(8));
        drop(ledger.choose(KEY, "a", &all, 4));
        assert_eq!(given(&ledger, "b", &all), 0..4);
    }

    #[test]
    fn a_wanted_piece_has_named_holders_after_two_gifts() {
        let ledger = Arc::new(Ledger::default());
        ledger.give(KEY, "a", 3..4, 8).done();
        assert!(ledger.holders(KEY, 3, "c").is_empty());
        let unfinished = ledger.give(KEY, "b", 3..4, 8);
        assert_eq!(ledger.holders(KEY, 3, "c"), ["a"]);
        assert!(ledger.holders(KEY, 3, "a").is_empty());
        drop(unfinished);
        assert!(ledger.holders(KEY, 3, "c").is_empty());
        ledger.forget(KEY, "a");
        assert_eq!(
            ledger.fresh(KEY, 8).count(),
            7,
            "b is still counted as a node"
        );
    }
}
