//! Where the others are that a node may ask for a file, and what it may fetch from afar: as a seed tells.
//!
//! Between zones a piece travels once. A node fetches the lanes it is the gateway of; when nothing comes for
//! [`TAKE_OVER`] those too of which it is the second; and when nothing comes for longer still, everything:
//! wasted bytes are better than a volume that stands still. Readers' demands cross at once and always.

use super::planner::Distance;
use super::v1;
use super::vicinity::lane_of;
use crate::model::Bitfield;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const TAKE_OVER: Duration = Duration::from_secs(2);
/// Below the patience of one call, whose start counts as news.
const GIVE_UP: Duration = Duration::from_secs(6);

/// One file's. Until a seed has told, a node with a zone takes all others to be elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    distances: HashMap<Arc<str>, Distance>,
    pub is_seed_far: bool,
    /// The gateway's, and the second's, a bit a lane.
    lanes: [u64; 2],
}

impl Surroundings {
    pub fn unknown(own: &v1::Hello) -> Surroundings {
        Surroundings {
            is_seed_far: !own.zone.is_empty(),
            ..Surroundings::default()
        }
    }

    pub fn told(own: &v1::Hello, set: &v1::PeerSet) -> Surroundings {
        let distance = |peer: &v1::Neighbour| match peer.zone == own.zone {
            true if !own.rack.is_empty() && peer.rack == own.rack => Distance::Rack,
            true => Distance::Zone,
            false => Distance::Far,
        };
        let peers = set.peers.iter();
        Surroundings {
            distances: peers
                .map(|peer| (peer.addr.as_str().into(), distance(peer)))
                .collect(),
            is_seed_far: set.zone != own.zone,
            lanes: [set.lanes, set.lanes_second],
        }
    }

    /// How far a neighbour is. One that no seed tells of any more is as near as can be without a rack.
    pub fn distance(&self, addr: &str) -> Distance {
        self.distances.get(addr).copied().unwrap_or(Distance::Zone)
    }

    /// Whether this node is its zone's gateway for a piece.
    pub fn is_own_way(&self, index: u32) -> bool {
        self.lanes[0] >> lane_of(index) & 1 == 1
    }

    /// The pieces that may be fetched from afar when nothing has come for `silence`.
    pub fn crossing(&self, pieces: u32, silence: Duration) -> Bitfield {
        let lanes = match silence {
            silence if silence >= GIVE_UP => u64::MAX,
            silence if silence >= TAKE_OVER => self.lanes[0] | self.lanes[1],
            _ => self.lanes[0],
        };
        if lanes == u64::MAX {
            return Bitfield::full(pieces);
        }
        let mut crossing = Bitfield::new(pieces);
        if lanes != 0 {
            let open = (0..pieces).filter(|index| lanes >> lane_of(*index) & 1 == 1);
            open.for_each(|index| crossing.set(index, true));
        }
        crossing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(zone: &str, rack: &str) -> v1::Hello {
        v1::Hello {
            zone: zone.into(),
            rack: rack.into(),
            ..v1::Hello::default()
        }
    }

    fn peer(addr: &str, zone: &str, rack: &str) -> v1::Neighbour {
        v1::Neighbour {
            node: addr.into(),
            addr: addr.into(),
            zone: zone.into(),
            rack: rack.into(),
        }
    }

    #[test]
    fn places_are_compared_and_none_given_is_one_zone() {
        let peers = vec![
            peer("mate", "a", "1"),
            peer("near", "a", "2"),
            peer("far", "b", "1"),
            peer("bare", "", ""),
        ];
        let set = v1::PeerSet {
            peers,
            ..v1::PeerSet::default()
        };
        let distances = |own: &v1::Hello| {
            let told = Surroundings::told(own, &set);
            ["mate", "near", "far", "bare", "stranger"].map(|addr| told.distance(addr))
        };
        use Distance::{Far, Rack, Zone};
        assert_eq!(distances(&hello("a", "1")), [Rack, Zone, Far, Far, Zone]);
        assert_eq!(distances(&hello("a", "")), [Zone, Zone, Far, Far, Zone]);
        assert_eq!(distances(&hello("", "")), [Far, Far, Far, Zone, Zone]);
        assert!(!Surroundings::told(&hello("", ""), &set).is_seed_far);
        assert!(Surroundings::told(&hello("a", ""), &set).is_seed_far);
    }

    #[test]
    fn more_may_cross_the_longer_nothing_comes() {
        let set = v1::PeerSet {
            lanes: 0b10,
            lanes_second: 0b100,
            ..v1::PeerSet::default()
        };
        let told = Surroundings::told(&hello("a", ""), &set);
        let crossing = |seconds| {
            let crossing = told.crossing(16, Duration::from_secs(seconds));
            crossing.iter().collect::<Vec<_>>()
        };
        assert_eq!(crossing(1), [4, 5, 6, 7]);
        assert_eq!(crossing(4), [4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(crossing(7).len(), 16);
    }
}
