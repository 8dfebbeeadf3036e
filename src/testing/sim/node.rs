//! A simulated node: the state that a real one has, and the real planner's question put to it.

use super::net::Nanos;
use super::seed::KEY;
use crate::model::Bitfield;
use crate::swarm::Slots;
use crate::swarm::availability::Holdings;
use crate::swarm::peers::Standings;
use crate::swarm::planner::{self, Distance, Giver, Next, Seed, View};
use crate::swarm::vicinity::{self, Place};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// The seed among the ids of [`Standings`].
pub const SEED: u32 = u32::MAX;
pub const DOWN_SLOTS: u32 = crate::fetch::BULK_SLOTS as u32;

pub struct Node {
    pub zone: u32,
    pub have: Bitfield,
    pub claimed: Bitfield,
    pub holdings: Holdings<u32>,
    pub standings: Standings<u32>,
    pub slots: Slots,
    /// Who hears what this node has.
    pub listeners: Vec<u32>,
    /// Here, but not told yet.
    pub untold: Vec<u32>,
    pub in_use: u32,
    pub seed_asked: u32,
    pub arrived_at: Nanos,
    pub looks_at: Option<Nanos>,
    pub half_at: Option<Nanos>,
    pub done_at: Option<Nanos>,
    /// What this node may fetch from other zones, at once and when the first gateway fails.
    crossing: [Bitfield; 2],
    cursor: u32,
}

impl Node {
    pub fn new(zone: u32, pieces: u32) -> Node {
        Node {
            zone,
            have: Bitfield::new(pieces),
            claimed: Bitfield::new(pieces),
            holdings: Holdings::default(),
            standings: Standings::default(),
            slots: Slots::of_node(),
            listeners: Vec::new(),
            untold: Vec::new(),
            in_use: 0,
            seed_asked: 0,
            arrived_at: 0,
            looks_at: None,
            half_at: None,
            done_at: None,
            crossing: [Bitfield::new(pieces), Bitfield::new(pieces)],
            cursor: 0,
        }
    }

    pub fn may_cross(&mut self, rank: usize, lane: u32) {
        let pieces = (0..self.have.len()).filter(|index| vicinity::lane_of(*index) == lane);
        pieces.for_each(|index| self.crossing[rank].set(index, true));
    }

    /// What this node would ask next.
    pub fn plan(&self, known: &Known<'_>, zones: &[u32], now: Instant, salt: u32) -> Next<u32> {
        let open = self.have.not().minus(&self.claimed);
        let window: Vec<u32> = open.iter().take(planner::WINDOW).collect();
        let distance = |zone: u32| match zone == self.zone {
            true => Distance::Zone,
            false => Distance::Far,
        };
        let giver = |(id, has)| Giver {
            id,
            has,
            distance: distance(zones[*id as usize]),
            standing: self.standings.of(id, now),
        };
        let givers: Vec<_> = self.holdings.iter().map(giver).collect();
        let is_starved = known.now.saturating_sub(self.arrived_at) > known.starved;
        let view = View {
            window: &window,
            open: &open,
            givers: &givers,
            seed: Seed {
                standing: self.standings.of(&SEED, now),
                is_far: self.zone != known.seed_zone,
                asked: self.seed_asked,
            },
            crossing: &self.crossing[0],
            is_starved,
            salt,
        };
        planner::next(
            &view,
            |index| known.at[index as usize] <= known.now,
            |index| self.holdings.count(index),
        )
    }

    pub fn claim(&mut self, run: Range<u32>, value: bool) {
        run.for_each(|index| self.claimed.set(index, value));
    }

    /// A piece has come.
    pub fn take(&mut self, index: u32, now: Nanos) {
        self.have.set(index, true);
        self.claimed.set(index, false);
        self.untold.push(index);
        self.arrived_at = now;
        while self.have.get(self.cursor) {
            self.cursor += 1;
        }
        let pieces = self.have.len();
        if self.cursor >= pieces / 2 {
            self.half_at.get_or_insert(now);
        }
        if self.cursor == pieces {
            self.done_at = Some(now);
        }
    }
}

/// When each piece's hash is known, and what else a node knows beside its own state.
pub struct Known<'a> {
    pub at: &'a [Nanos],
    pub now: Nanos,
    pub starved: Nanos,
    pub seed_zone: u32,
}

/// The place of node `index`, as the tracker would know it.
pub fn place(index: u32, zone: u32) -> Place<'static> {
    const ZONES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    Place {
        rank: vicinity::rank_of(&format!("node-{index}")),
        zone: ZONES[zone as usize % ZONES.len()],
        rack: "",
    }
}

/// Makes everyone's neighbours and gateways as the tracker does.
pub fn acquaint(nodes: &mut [Node]) {
    let places: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| place(index as u32, node.zone))
        .collect();
    for (index, own) in places.iter().enumerate() {
        let others = (0..places.len()).filter(|other| *other != index);
        let chosen = vicinity::neighbours(*own, others, |other| places[*other]);
        for other in chosen {
            nodes[other].listeners.push(index as u32);
            let pieces = nodes[index].have.len();
            nodes[index].holdings.add(&(other as u32), 0..0, pieces);
        }
    }
    let zones: std::collections::BTreeSet<u32> = nodes.iter().map(|node| node.zone).collect();
    for zone in zones {
        let of_zone = || (0..places.len()).filter(|index| nodes[*index].zone == zone);
        let ranks: Vec<u64> = of_zone().map(|index| places[index].rank).collect();
        let members: Vec<usize> = of_zone().collect();
        for lane in 0..vicinity::LANES {
            let chosen = vicinity::gateways(&KEY.0, lane, &ranks);
            for (rank, gateway) in chosen.into_iter().enumerate() {
                let at = ranks.iter().position(|rank| Some(*rank) == gateway);
                if let Some(at) = at {
                    nodes[members[at]].may_cross(rank, lane);
                }
            }
        }
    }
}

/// As long as a busy giver asks to be left alone, varied.
pub fn after_busy(factor: f64) -> Duration {
    Duration::from_millis(20).mul_f64(0.5 + factor)
}
