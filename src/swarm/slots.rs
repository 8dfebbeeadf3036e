//! Upload slots: how many transfers at a time, and who is refused at once.
//!
//! A node gives 4 bulk transfers and keeps one slot for readers that wait; a seed 5 and 2. More uploads
//! than downloads would spread a node's uplink too thin for anyone to pass pieces on (1.4-1.7 times the
//! makespan in simulation). A slot is held by its guard and comes back however the transfer ends.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who waits for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A reader waits for exactly this piece.
    Demand,
    /// A reader will soon be there.
    Window,
    /// Nobody waits.
    Bulk,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Demand => "demand",
            Class::Window => "window",
            Class::Bulk => "bulk",
        }
    }

    /// The class of a wire name; an unknown one has no privileges.
    pub fn from_name(name: &str) -> Class {
        match name {
            "demand" => Class::Demand,
            "window" => Class::Window,
            _ => Class::Bulk,
        }
    }
}

/// The upload slots of one server.
#[derive(Clone)]
pub struct Slots {
    bulk: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

/// One transfer's slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub fn new(bulk: usize, reserved: usize) -> Slots {
        Slots {
            bulk: Arc::new(Semaphore::new(bulk)),
            reserved: Arc::new(Semaphore::new(reserved)),
        }
    }

    /// A node's: 4 and 1.
    pub fn of_node() -> Slots {
        Slots::new(4, 1)
    }

    /// A seed's: 5 and 2. Fewer than a node's download slots would starve it.
    pub fn of_seed() -> Slots {
        Slots::new(5, 2)
    }

    /// A slot if one is free now. Demand takes the reserved ones first, so that bulk keeps its own.
    pub fn take(&self, class: Class) -> Option<Slot> {
        let reserved = || self.reserved.clone().try_acquire_owned().ok();
        let bulk = || self.bulk.clone().try_acquire_owned().ok();
        let permit = match class {
            Class::Demand => reserved().or_else(bulk),
            Class::Window | Class::Bulk => bulk(),
        };
        permit.map(|_permit| Slot { _permit })
    }

    /// Waits for a slot in turn; for requests that have already waited for their piece.
    pub async fn wait(&self, class: Class) -> Option<Slot> {
        if let Some(slot) = self.take(class) {
            return Some(slot);
        }
        let _permit = match class {
            Class::Demand => tokio::select! {
                permit = self.reserved.clone().acquire_owned() => permit,
                permit = self.bulk.clone().acquire_owned() => permit,
            },
            Class::Window | Class::Bulk => self.bulk.clone().acquire_owned().await,
        };
        _permit.ok().map(|_permit| Slot { _permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_finds_a_slot_when_bulk_holds_all_of_its_own() {
        let slots = Slots::new(2, 1);
        let bulk = [slots.take(Class::Bulk), slots.take(Class::Window)];
        assert!(bulk.iter().all(Option::is_some));
        assert!(slots.take(Class::Bulk).is_none());
        let demand = slots.take(Class::Demand);
        assert!(demand.is_some());
        assert!(slots.take(Class::Demand).is_none());
        drop(bulk);
        assert!(slots.take(Class::Demand).is_some());
    }

    #[tokio::test]
    async fn a_waiter_gets_the_slot_that_comes_back() {
        let slots = Slots::new(1, 0);
        let held = slots.take(Class::Bulk);
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.wait(Class::Demand).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiter.await.expect("the waiter ends"));
    }
}
