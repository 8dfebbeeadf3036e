//! Who is near whom: the choice of neighbours, and of the gateways between zones. Pure.
//!
//! Every choice is by rendezvous hash: it needs no memory, is the same whoever computes it, and one node
//! more or less changes little. A node without a zone is in the zone named "".

use super::request::RUN_PIECES_MAX;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Neighbours a node and file: more bring nothing (1.14 of the bound at 30 as at 100).
pub const PEERS_MAX: usize = 30;
/// Of them from other zones: only a zone's gateways ask these.
const FAR_MAX: usize = 6;
/// Of them from the node's own rack.
const RACK_MAX: usize = 12;
/// A file's pieces are dealt to this many lanes, each with its own gateways: the pieces that the hub gives
/// at one time then cross through many nodes. One bit of a `u64` each.
pub const LANES: u32 = 64;

/// The lane of a piece: whole runs stay together.
pub fn lane_of(index: u32) -> u32 {
    index / RUN_PIECES_MAX % LANES
}

/// A node as the tracker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// [`rank_of`] its name.
    pub rank: u64,
    pub zone: &'a str,
    pub rack: &'a str,
}

/// What stands for a node's name in all choices.
pub fn rank_of(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Chooses up to 30 of `others`: the same ones each time, and mostly mutual, for the order hangs on the
/// pair. From the own zone first, of these up to 12 from the own rack, and 6 from elsewhere.
pub fn neighbours<'a, T>(
    of: Place<'_>,
    others: impl Iterator<Item = T>,
    place: impl Fn(&T) -> Place<'a>,
) -> Vec<T> {
    let mut rack = Vec::new();
    let mut zone = Vec::new();
    let mut far = Vec::new();
    for other in others {
        let at = place(&other);
        let order = mixed(of.rank.wrapping_add(at.rank));
        let is_near = at.zone == of.zone;
        let list = match is_near && !of.rack.is_empty() && at.rack == of.rack {
            true => &mut rack,
            false if is_near => &mut zone,
            false => &mut far,
        };
        list.push((order, other));
    }
    for list in [&mut rack, &mut zone, &mut far] {
        list.sort_unstable_by_key(|(order, _)| *order);
    }
    let from_far = far.len().min(FAR_MAX);
    let mut spare = rack.split_off(rack.len().min(RACK_MAX));
    let mut chosen = rack;
    chosen.append(&mut zone);
    chosen.append(&mut spare);
    chosen.truncate(PEERS_MAX - from_far);
    chosen.extend(far);
    chosen.truncate(PEERS_MAX);
    chosen.into_iter().map(|(_, other)| other).collect()
}

/// The gateways of one lane among the nodes of a zone: the first, and who takes over from it.
pub fn gateways(file: &[u8; 32], lane: u32, ranks: &[u64]) -> [Option<u64>; 2] {
    let seed = u64::from_le_bytes(std::array::from_fn(|at| file[at])) ^ u64::from(lane) << 32;
    let mut best: [Option<(u64, u64)>; 2] = [None, None];
    for rank in ranks {
        let weight = Some((mixed(seed.wrapping_add(*rank)), *rank));
        match weight {
            weight if weight > best[0] => best = [weight, best[0]],
            weight if weight > best[1] => best[1] = weight,
            _ => {}
        }
    }
    best.map(|weight| weight.map(|(_, rank)| rank))
}

/// The finisher of SplitMix64: every bit of the result hangs on every bit of `value`.
fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(index: u32, zones: u32, racks: u32) -> Place<'static> {
        const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
        let name = |of: u32| match of {
            0 | 1 => "",
            many => NAMES[(index % many) as usize],
        };
        Place {
            rank: rank_of(&format!("node-{index}")),
            zone: name(zones),
            rack: name(racks),
        }
    }

    proptest! {
        #[test]
        fn neighbours_are_others_distinct_and_as_near_as_there_are(count in 0u32..120, zones in 1u32..5, racks in 1u32..5) {
            let own = place(0, zones, racks);
            let all = || (1..=count).map(|index| place(index, zones, racks));
            let chosen = neighbours(own, all(), |other| *other);
            prop_assert_eq!(chosen.len(), PEERS_MAX.min(count as usize));
            let near = |places: &[Place<'_>]| places.iter().filter(|other| other.zone == own.zone).count();
            let everyone: Vec<_> = all().collect();
            let wanted = if zones > 1 { PEERS_MAX - FAR_MAX } else { PEERS_MAX };
            prop_assert!(near(&chosen) >= wanted.min(near(&everyone)));
            let ranks: std::collections::BTreeSet<_> = chosen.iter().map(|other| other.rank).collect();
            prop_assert!(ranks.len() == chosen.len() && !ranks.contains(&own.rank));
        }

        #[test]
        fn a_gateway_that_leaves_is_replaced_by_the_second(count in 2u64..40, lane in 0u32..LANES) {
            let ranks: Vec<u64> = (0..count).map(|index| rank_of(&index.to_string())).collect();
            let [first, second] = gateways(&[7; 32], lane, &ranks);
            prop_assert!(first.is_some() && second.is_some() && first != second);
            let left: Vec<u64> = ranks.into_iter().filter(|rank| Some(*rank) != first).collect();
            prop_assert_eq!(gateways(&[7; 32], lane, &left)[0], second);
        }
    }

    #[test]
    fn most_neighbours_are_mutual_and_a_newcomer_changes_few() {
        let of = |index: u32, count: u32| {
            let others = (0..count).filter(move |other| *other != index);
            neighbours(place(index, 1, 1), others, |other| place(*other, 1, 1))
        };
        let mutual = |index: u32| {
            of(index, 200)
                .into_iter()
                .filter(move |other| of(*other, 200).contains(&index))
        };
        let shared: usize = (0..200).map(|index| mutual(index).count()).sum();
        assert!(shared > 200 * 22, "{shared} of 6,000");
        let changed = (0..200)
            .filter(|index| of(*index, 200) != of(*index, 201))
            .count();
        assert!((10..60).contains(&changed), "{changed} of 200");
    }

    #[test]
    fn gateways_are_spread_over_the_zone() {
        let ranks: Vec<u64> = (0..50)
            .map(|index: u32| rank_of(&index.to_string()))
            .collect();
        let mut lanes = std::collections::BTreeMap::<_, u32>::new();
        for lane in 0..1000 {
            *lanes
                .entry(gateways(&[3; 32], lane, &ranks)[0])
                .or_default() += 1;
        }
        assert_eq!(lanes.len(), 50);
        assert!(lanes.values().all(|count| *count < 50), "{lanes:?}");
    }
}
