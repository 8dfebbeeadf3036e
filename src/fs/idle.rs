//! Things kept per node while they are open and, within a bound, after: the kernel's backing ids.
//!
//! Making one costs more than opening a file, and closing one under an open makes later opens fail. So an
//! entry with an open is never dropped, and of the idle ones the longest unused goes first.

use std::collections::HashMap;

struct Slot<T> {
    value: T,
    opens: u32,
    used: u64,
}

/// A bounded map of node numbers to values with a count of opens.
pub(super) struct IdleMap<T> {
    slots: HashMap<u64, Slot<T>>,
    most: usize,
    clock: u64,
}

impl<T: Clone> IdleMap<T> {
    pub(super) fn new(most: usize) -> IdleMap<T> {
        IdleMap {
            slots: HashMap::new(),
            most,
            clock: 0,
        }
    }

    /// Counts one open of `node`; the value is made at the first.
    pub(super) fn open<E>(
        &mut self,
        node: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.clock += 1;
        if !self.slots.contains_key(&node) {
            self.make_room();
            let value = make()?;
            let slot = Slot {
                value,
                opens: 0,
                used: 0,
            };
            self.slots.insert(node, slot);
        }
        let clock = self.clock;
        let slot = self.slots.get_mut(&node).map(|slot| {
            slot.opens += 1;
            slot.used = clock;
            slot.value.clone()
        });
        Ok(slot.unwrap_or_else(|| unreachable!("inserted above")))
    }

    /// Counts one open less. A node that is not here was opened before a restart: nothing to do.
    pub(super) fn release(&mut self, node: u64) {
        if let Some(slot) = self.slots.get_mut(&node) {
            slot.opens = slot.opens.saturating_sub(1);
        }
    }

    fn make_room(&mut self) {
        while self.slots.len() >= self.most {
            let idle = self.slots.iter().filter(|(_, slot)| slot.opens == 0);
            let Some(oldest) = idle
                .min_by_key(|(_, slot)| slot.used)
                .map(|(node, _)| *node)
            else {
                return;
            };
            self.slots.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(map: &mut IdleMap<u64>, node: u64, value: u64) -> u64 {
        map.open(node, || Ok::<_, ()>(value)).expect("no error")
    }

    #[test]
    fn an_open_value_stays_and_the_longest_idle_goes() {
        let mut map = IdleMap::new(2);
        assert_eq!(open(&mut map, 3, 30), 30);
        assert_eq!(open(&mut map, 3, 31), 30, "made once");
        open(&mut map, 5, 50);
        open(&mut map, 7, 70);
        assert_eq!(map.slots.len(), 3, "none is idle: the bound gives way");
        map.release(3);
        map.release(5);
        map.release(7);
        open(&mut map, 9, 90);
        assert!(map.slots.contains_key(&3), "one of two opens is left");
        assert!(!map.slots.contains_key(&5) && !map.slots.contains_key(&7));
        map.release(11);
    }
}
