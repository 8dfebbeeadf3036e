//! One lock a name: calls about one target or one mount take turns, others do not wait for them.
//!
//! Held in blocking threads only, so these are plain mutexes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct Locks<K>(Mutex<HashMap<K, Arc<Mutex<()>>>>);

impl<K: Eq + Hash + Clone> Locks<K> {
    pub(super) fn new() -> Locks<K> {
        Locks(Mutex::default())
    }

    /// Runs `work` while nobody else works under this name.
    pub(super) fn hold<T>(&self, name: &K, work: impl FnOnce() -> T) -> T {
        let lock = self.map(|map| map.entry(name.clone()).or_default().clone());
        let result = {
            let _turn = lock.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        drop(lock);
        // The map's own reference alone means that nobody holds it or waits.
        self.map(|map| map.retain(|_, lock| Arc::strong_count(lock) > 1));
        result
    }

    fn map<T>(&self, with: impl FnOnce(&mut HashMap<K, Arc<Mutex<()>>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_takes_turns_and_leaves_nothing() {
        let (locks, count) = (Locks::new(), Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    locks.hold(&"a", || {
                        let before = *count.lock().expect("no panic");
                        std::thread::yield_now();
                        *count.lock().expect("no panic") = before + 1;
                        locks.hold(&"b", || ());
                    })
                });
            }
        });
        assert_eq!(*count.lock().expect("no panic"), 8);
        assert!(locks.map(|map| map.is_empty()));
    }
}
