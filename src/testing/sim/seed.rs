//! The simulated seed: the real ledger and slots before a hub that gives pieces in order at its own rate.
//!
//! It follows [`crate::swarm::SeedProvider`]: what nobody was given yet first; while more is to come from
//! the hub that is waited for a little; then the least given.

use super::net::Nanos;
use crate::model::{Bitfield, FileKey};
use crate::swarm::Slots;
use crate::swarm::ledger::{Gift, Ledger};
use crate::swarm::slots::{Class, Slot};
use std::collections::VecDeque;
use std::sync::Arc;

pub const KEY: FileKey = FileKey([9; 32]);

pub fn fresh_wait() -> Nanos {
    crate::swarm::seeding::FRESH_WAIT.as_nanos() as Nanos
}

/// A node's request for whatever the seed chooses.
pub struct Ask {
    pub node: u32,
    pub need: Bitfield,
    pub run_max: u32,
    pub asked_at: Nanos,
}

pub struct Seed {
    pub here: Bitfield,
    ledger: Arc<Ledger>,
    slots: Slots,
    /// Waiting for something new from the hub.
    waiting: VecDeque<Ask>,
    /// Waiting for a slot with what was chosen.
    ready: VecDeque<(u32, Gift)>,
}

/// What an ask came to.
pub enum Answer {
    Busy,
    Waits,
    Gives(Gift, Slot),
}

impl Seed {
    pub fn new(pieces: u32) -> Seed {
        Seed {
            here: Bitfield::new(pieces),
            ledger: Arc::default(),
            slots: Slots::of_seed(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    pub fn asked(&mut self, ask: Ask) -> Answer {
        let Some(slot) = self.slots.take(Class::Bulk) else {
            return Answer::Busy;
        };
        match self.choose(&ask, false) {
            Some(gift) => Answer::Gives(gift, slot),
            None if self.waiting.len() >= crate::swarm::seeding::WAITING_MAX => Answer::Busy,
            None => {
                self.waiting.push_back(ask);
                Answer::Waits
            }
        }
    }

    fn choose(&self, ask: &Ask, is_late: bool) -> Option<Gift> {
        let here = ask.need.and(&self.here);
        let fresh = here.and(&self.ledger.fresh(KEY, here.len()));
        let name = ask.node.to_string();
        let gift = self.ledger.choose(KEY, &name, &fresh, ask.run_max);
        let is_complete = ask.need.minus(&self.here).is_empty();
        match gift {
            None if is_late || is_complete => self.ledger.choose(KEY, &name, &here, ask.run_max),
            gift => gift,
        }
    }

    /// What can be given now to those who wait, after news from the hub or with time.
    pub fn settle(&mut self, now: Nanos) -> Vec<(u32, Gift, Slot)> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(
            |ask| match self.choose(ask, now >= ask.asked_at + fresh_wait()) {
                Some(gift) => {
                    self.ready.push_back((ask.node, gift));
                    false
                }
                None => true,
            },
        );
        self.waiting = waiting;
        let mut given = Vec::new();
        while !self.ready.is_empty() {
            let Some(slot) = self.slots.take(Class::Bulk) else {
                break;
            };
            if let Some((node, gift)) = self.ready.pop_front() {
                given.push((node, gift, slot));
            }
        }
        given
    }
}
