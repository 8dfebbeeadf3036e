//! What nodes tell about others: which seeds they reach, which pieces they hold. A seed that has lost another
//! one goes by it.

use super::super::{v1, wire};
use super::{INTERESTS_MAX, Session, Tracker};
use crate::model::{Bitfield, FileKey};
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Seeds that a node may say it reaches.
const REACH_MAX: usize = 64;

impl Tracker {
    /// A node tells which seeds it is connected with.
    pub fn reaches(&self, session: &Session, reach: &v1::Reach) {
        let seeds = reach.seeds.iter().take(REACH_MAX).cloned().collect();
        *session.reach.lock().unwrap_or_else(PoisonError::into_inner) = seeds;
    }

    /// Whether most nodes are connected with another seed.
    pub fn most_reach(&self, seed: &str) -> bool {
        let state = self.lock();
        let nodes = || state.sessions.values().filter(|session| !session.is_seed);
        let reach = |session: &&Arc<Session>| {
            let reach = session.reach.lock().unwrap_or_else(PoisonError::into_inner);
            reach.contains(seed)
        };
        nodes().filter(reach).count() * 2 > nodes().count()
    }

    /// Notes which seed reads a file, for those who are interested.
    pub fn set_owner(&self, key: FileKey, seed: &str) {
        let mut state = self.lock();
        let track = state.files.get_mut(&key);
        let Some(track) = track.filter(|track| track.owner.as_deref() != Some(seed)) else {
            return;
        };
        track.owner = Some(seed.to_owned());
        state.touch(key);
    }

    /// What a node holds, for it was asked.
    pub fn inventory(&self, session: &Session, inventory: &v1::Inventory) {
        let mut state = self.lock();
        if !state.is_current(session) {
            return;
        }
        for bitmap in inventory.files.iter().take(INTERESTS_MAX) {
            let track = wire::key_of(&bitmap.key).and_then(|key| state.files.get_mut(&key));
            let Some(track) = track.filter(|track| track.interested.contains_key(&session.node))
            else {
                continue;
            };
            let pieces = track.cache.geometry().pieces();
            if let Some(bits) = Bitfield::from_bytes(bitmap.bits.clone(), pieces) {
                track.held.insert(session.node.clone(), bits);
            }
        }
        drop(state);
        self.inventories.send_modify(|count| *count += 1);
    }

    /// Counts up with every inventory.
    pub fn inventories(&self) -> watch::Receiver<u64> {
        self.inventories.subscribe()
    }

    /// Whether anybody is interested in a file.
    pub fn is_wanted(&self, key: FileKey) -> bool {
        self.lock().files.contains_key(&key)
    }

    /// The pieces of a file that nodes said they hold.
    pub fn held(&self, key: FileKey) -> Option<Bitfield> {
        let state = self.lock();
        let track = state.files.get(&key)?;
        let mut held = Bitfield::new(track.cache.geometry().pieces());
        for bits in track.held.values() {
            held.add(bits);
        }
        Some(held)
    }

    /// Any node other than `asker` that said it holds a piece, and its address.
    pub fn holder(&self, key: FileKey, index: u32, asker: &str) -> Option<(String, String)> {
        let state = self.lock();
        let held = state.files.get(&key)?.held.iter();
        let holders = held.filter(|(node, bits)| *node != asker && bits.get(index));
        let holders: Vec<&String> = holders.map(|(node, _)| node).collect();
        let node = *holders.get(rand::random_range(0..holders.len().max(1)))?;
        Some((node.clone(), state.sessions.get(node)?.addr.clone()))
    }

    /// A node does not give a piece that it said it holds.
    pub fn lacks(&self, key: FileKey, index: u32, node: &str) {
        let mut state = self.lock();
        let track = state.files.get_mut(&key);
        if let Some(bits) = track.and_then(|track| track.held.get_mut(node)) {
            bits.set(index, false);
        }
    }
}
