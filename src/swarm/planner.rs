//! What a node asks next, and of whom. Pure: the node and the simulator run the same rules.
//!
//! Readers come first: the first 16 open pieces ahead of them, in their order; after those the piece that
//! fewest neighbours have. Of those that have it, whoever is expected to finish first. Neighbours go before
//! the seed, which is asked to choose among the pieces that no neighbour tells of: distinct pieces from the
//! seed are worth more than any cleverness here. Between zones a piece travels once: only the gateway of its
//! lane may fetch it from afar, the others wait until somebody of their own zone has it.

use super::request::RUN_PIECES_MAX;
use crate::model::Bitfield;
use std::ops::Range;

/// How many pieces before the readers go in order.
pub const WINDOW: usize = 16;
/// Pieces among which the rarest is looked for: enough to choose from, cheap to look through.
const HORIZON: usize = 1024;
/// A run takes no longer than this at the measured rate, so that thin links get single pieces: a piece
/// can be passed on only when its last byte is here.
const RUN_SECONDS_MAX: f64 = 0.020;

/// What is expected of somebody never asked: little, so that it gets tried.
pub const STRANGER_SECONDS: f64 = 0.001;

/// How far a giver is. Unknown places are one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    Rack,
    Zone,
    Far,
}

/// A neighbour as it stands now.
#[derive(Clone, Copy, Debug)]
pub struct Giver<'a, Id> {
    pub id: &'a Id,
    pub has: &'a Bitfield,
    pub distance: Distance,
    pub standing: Standing,
}

/// What may be expected of a giver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// May be asked.
    Free(Pace),
    /// Full, or said that it is.
    Busy,
    /// Banned or unreachable: what it has does not count.
    Out,
}

impl Standing {
    /// Of somebody never asked.
    pub const STRANGER: Standing = Standing::Free(Pace {
        seconds: STRANGER_SECONDS,
        piece_seconds: None,
    });
}

/// How fast a giver is for us now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Expected seconds until a piece asked now is here.
    pub seconds: f64,
    /// Seconds a piece, as measured; `None` before the first.
    pub piece_seconds: Option<f64>,
}

impl Pace {
    /// Pieces to ask at once. Of a stranger one, for its link may be thin.
    pub fn run_max(&self) -> u32 {
        let fitting = |seconds: f64| (RUN_SECONDS_MAX / seconds) as u32;
        self.piece_seconds
            .map_or(1, fitting)
            .clamp(1, RUN_PIECES_MAX)
    }
}

/// What the seed may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    pub standing: Standing,
    pub is_far: bool,
    /// Requests for whatever it chooses that are under way.
    pub asked: u32,
}

/// One file as its node sees it.
pub struct View<'a, Id> {
    /// Open pieces ahead of readers, most urgent first.
    pub window: &'a [u32],
    /// All open pieces: wanted, not here, not under way.
    pub open: &'a Bitfield,
    pub givers: &'a [Giver<'a, Id>],
    pub seed: Seed,
    /// The pieces that may be fetched from another zone.
    pub crossing: &'a Bitfield,
    /// Nothing has come for a while although something is open.
    pub is_starved: bool,
    /// Varies which of equally rare pieces is taken.
    pub salt: u32,
}

/// The next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<Id> {
    Peer {
        id: Id,
        run: Range<u32>,
    },
    /// Ask the seed to choose among these.
    Seed {
        need: Bitfield,
        run_max: u32,
    },
    /// Nobody to ask now.
    Wait,
}

/// Plans one request. `known`: whether a piece's hash is known, for others cannot be verified;
/// `holders`: how many neighbours have a piece.
pub fn next<Id: Clone>(
    view: &View<'_, Id>,
    known: impl Fn(u32) -> bool,
    holders: impl Fn(u32) -> u32,
) -> Next<Id> {
    let zone = view.held(|giver| giver.distance < Distance::Far);
    match view.peer(&zone, known, holders) {
        Some((id, run)) => Next::Peer { id, run },
        None => view.seed(&zone),
    }
}

/// The giver of a piece that a reader waits for: of its own zone if there is one, expected to finish first.
pub fn giver_of<'a, Id>(index: u32, givers: &[Giver<'a, Id>]) -> Option<&'a Id> {
    let holders = givers.iter().filter(|giver| giver.has.get(index));
    let free = holders.filter_map(|giver| Some((giver.distance, giver.cost()?, giver.id)));
    let far = |distance: Distance| distance == Distance::Far;
    free.min_by(|a, b| far(a.0).cmp(&far(b.0)).then(a.1.total_cmp(&b.1)))
        .map(|(_, _, id)| id)
}

impl<Id> Giver<'_, Id> {
    /// Expected seconds, a rack-mate's halved; `None` when it must not be asked.
    fn cost(&self) -> Option<f64> {
        match (self.standing, self.distance) {
            (Standing::Free(pace), Distance::Rack) => Some(pace.seconds / 2.0),
            (Standing::Free(pace), _) => Some(pace.seconds),
            _ => None,
        }
    }

    fn run_max(&self) -> u32 {
        match self.standing {
            Standing::Free(pace) => pace.run_max(),
            _ => 0,
        }
    }
}

impl<Id: Clone> View<'_, Id> {
    /// What the givers that `which` chooses have together, those out of favour aside.
    fn held(&self, which: impl Fn(&Giver<'_, Id>) -> bool) -> Bitfield {
        let mut held = Bitfield::new(self.open.len());
        let good = self
            .givers
            .iter()
            .filter(|giver| giver.standing != Standing::Out && which(giver));
        good.for_each(|giver| held.add(giver.has));
        held
    }

    fn peer(
        &self,
        zone: &Bitfield,
        known: impl Fn(u32) -> bool,
        holders: impl Fn(u32) -> u32,
    ) -> Option<(Id, Range<u32>)> {
        let is_free = |giver: &Giver<'_, Id>| giver.cost().is_some();
        let near = self.held(|giver| is_free(giver) && giver.distance < Distance::Far);
        let far = self.held(|giver| is_free(giver) && giver.distance == Distance::Far);
        let mut reach = far.and(self.crossing).minus(zone);
        reach.add(&near);
        let reach = reach.and(self.open);
        let mut window = self.window.iter().take(WINDOW).copied();
        let ahead = window.find(|index| reach.get(*index) && known(*index));
        let first = ahead.or_else(|| self.rarest(&reach, &known, holders))?;
        let giver = self.giver(first, near.get(first))?;
        let fits = |index: &u32| reach.get(*index) && giver.has.get(*index) && known(*index);
        let limit = first.saturating_add(giver.run_max());
        let end = (first..limit).find(|index| !fits(index)).unwrap_or(limit);
        Some((giver.id.clone(), first..end))
    }

    fn rarest(
        &self,
        reach: &Bitfield,
        known: impl Fn(u32) -> bool,
        holders: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let pieces = reach.iter().filter(|index| known(*index)).take(HORIZON);
        // Multiplying by an odd number permutes: another order of equals for each salt.
        pieces.min_by_key(|index| {
            let order = (index ^ self.salt).wrapping_mul(0x9e37_79b1);
            (holders(*index), order)
        })
    }

    fn giver(&self, index: u32, is_near: bool) -> Option<&Giver<'_, Id>> {
        let fits = |giver: &&Giver<'_, Id>| {
            giver.has.get(index) && !(is_near && giver.distance == Distance::Far)
        };
        let free = self.givers.iter().filter(fits);
        free.filter_map(|giver| Some((giver.cost()?, giver)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, giver)| giver)
    }

    /// The seed is asked for what no neighbour tells of, so that it gives each piece about once; for
    /// everything by a starving node. While there are neighbours one such request is out at a time: the rest
    /// comes from them.
    fn seed(&self, zone: &Bitfield) -> Next<Id> {
        let is_full = self.seed.asked > 0 && !self.givers.is_empty();
        let pace = match self.seed.standing {
            Standing::Free(pace) if !is_full => pace,
            _ => return Next::Wait,
        };
        let mut need = self.open.clone();
        if self.seed.is_far {
            need = need.and(self.crossing);
        }
        if !self.is_starved {
            need = need.minus(zone);
        }
        if self.seed.is_far && !self.is_starved {
            need = need.minus(&self.held(|giver| giver.distance == Distance::Far));
        }
        match need.is_empty() {
            true => Next::Wait,
            false => Next::Seed {
                need,
                run_max: pace.run_max(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECES: u32 = 64;

    fn bits(of: impl IntoIterator<Item = u32>) -> Bitfield {
        let mut bits = Bitfield::new(PIECES);
        of.into_iter().for_each(|index| bits.set(index, true));
        bits
    }

    fn paced(seconds: f64) -> Standing {
        Standing::Free(Pace {
            seconds,
            piece_seconds: Some(seconds),
        })
    }

    fn giver<'a>(id: &'a u32, has: &'a Bitfield, seconds: f64) -> Giver<'a, u32> {
        Giver {
            id,
            has,
            distance: Distance::Zone,
            standing: paced(seconds),
        }
    }

    /// A node that wants `open` in that order, near a seed that nobody has asked.
    struct Wants {
        window: Vec<u32>,
        open: Bitfield,
        seed: Seed,
        crossing: Bitfield,
        is_starved: bool,
    }

    fn wants(open: impl IntoIterator<Item = u32>) -> Wants {
        let window: Vec<u32> = open.into_iter().collect();
        Wants {
            open: bits(window.clone()),
            window,
            seed: Seed {
                standing: Standing::STRANGER,
                is_far: false,
                asked: 0,
            },
            crossing: bits([]),
            is_starved: false,
        }
    }

    impl Wants {
        fn next(&self, givers: &[Giver<'_, u32>], known: impl Fn(u32) -> bool) -> Next<u32> {
            let view = View {
                window: &self.window,
                open: &self.open,
                givers,
                seed: self.seed,
                crossing: &self.crossing,
                is_starved: self.is_starved,
                salt: 7,
            };
            let holders = |index| givers.iter().filter(|giver| giver.has.get(index)).count();
            next(&view, known, |index| holders(index) as u32)
        }
    }

    fn seed(need: impl IntoIterator<Item = u32>) -> Next<u32> {
        Next::Seed {
            need: bits(need),
            run_max: 1,
        }
    }

    fn peer(id: u32, run: Range<u32>) -> Next<u32> {
        Next::Peer { id, run }
    }

    #[test]
    fn readers_come_first_and_the_fastest_holder_gives() {
        let (a, b) = (bits([6, 7, 8, 20]), bits([6, 7, 9]));
        let givers = [giver(&1, &a, 0.004), giver(&2, &b, 0.002)];
        let wants = wants([5, 6, 7, 8, 9, 20]);
        assert_eq!(wants.next(&givers, |_| true), peer(2, 6..8));
        assert_eq!(wants.next(&givers, |index| index != 6), peer(2, 7..8));
        assert_eq!(wants.next(&[], |_| true), seed([5, 6, 7, 8, 9, 20]));
    }

    #[test]
    fn behind_the_window_the_rarest_goes_first() {
        for (rare, common) in [(40, 41), (41, 40)] {
            let (a, b) = (bits([rare, common]), bits([common]));
            let givers = [giver(&1, &a, 0.1), giver(&2, &b, 0.1)];
            let next = wants(0..50).next(&givers, |_| true);
            assert_eq!(next, peer(1, rare..rare + 1));
        }
    }

    #[test]
    fn a_thin_link_carries_single_pieces() {
        let all = bits(0..PIECES);
        let run = |seconds| wants(3..20).next(&[giver(&1, &all, seconds)], |_| true);
        assert_eq!(run(0.004), peer(1, 3..7));
        assert_eq!(run(0.009), peer(1, 3..5));
        assert_eq!(run(0.4), peer(1, 3..4));
    }

    #[test]
    fn the_seed_gives_what_no_neighbour_in_favour_has_one_at_a_time() {
        let (a, b) = (bits([1]), bits([2]));
        let mut givers = [giver(&1, &a, 0.1), giver(&2, &b, 0.1)];
        (givers[0].standing, givers[1].standing) = (Standing::Busy, Standing::Out);
        let mut wants = wants([1, 2, 3]);
        assert_eq!(wants.next(&givers, |_| true), seed([2, 3]));
        wants.is_starved = true;
        assert_eq!(wants.next(&givers, |_| true), seed([1, 2, 3]));
        wants.seed.asked = 1;
        assert_eq!(wants.next(&givers, |_| true), Next::Wait);
        assert_eq!(
            wants.next(&[], |_| true),
            seed([1, 2, 3]),
            "alone it asks as often as it has slots"
        );
        (wants.seed.asked, wants.seed.standing) = (0, Standing::Busy);
        assert_eq!(wants.next(&givers, |_| true), Next::Wait);
    }

    #[test]
    fn between_zones_only_the_gateway_fetches_and_only_what_its_zone_lacks() {
        let (near, far) = (bits([1]), bits([1, 2, 3, 4]));
        let mut givers = [giver(&1, &near, 9.0), giver(&2, &far, 0.001)];
        givers[1].distance = Distance::Far;
        let mut wants = wants([1, 2, 3, 9]);
        wants.seed.is_far = true;
        wants.crossing = bits([1, 3, 4, 9]);
        assert_eq!(wants.next(&givers, |_| true), peer(1, 1..2));
        wants.window = vec![2, 3, 9];
        wants.open = bits([2, 3, 9]);
        assert_eq!(wants.next(&givers, |_| true), peer(2, 3..4));
        givers[1].standing = Standing::Busy;
        assert_eq!(wants.next(&givers, |_| true), seed([9]));
        assert_eq!(giver_of(2, &givers), None);
        givers[1].standing = paced(0.1);
        assert_eq!(giver_of(2, &givers), Some(&2), "a demand crosses at once");
        assert_eq!(giver_of(1, &givers), Some(&1), "but not for what is near");
    }

    #[test]
    fn a_rack_mate_is_preferred_until_it_is_half_as_fast() {
        let all = bits(0..PIECES);
        let mut givers = [giver(&1, &all, 0.1), giver(&2, &all, 0.15)];
        givers[1].distance = Distance::Rack;
        assert_eq!(giver_of(5, &givers), Some(&2));
        givers[1].standing = paced(0.21);
        assert_eq!(giver_of(5, &givers), Some(&1));
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            3 => (0.001f64..0.5).prop_map(paced),
            1 => Just(Standing::STRANGER),
            1 => Just(Standing::Busy),
            1 => Just(Standing::Out),
        ]
    }

    fn pieces(most: usize) -> impl Strategy<Value = Bitfield> {
        prop::collection::vec(0..PIECES, 0..most).prop_map(bits)
    }

    fn neighbour() -> impl Strategy<Value = (Bitfield, Distance, Standing)> {
        let distance = prop::sample::select(vec![Distance::Rack, Distance::Zone, Distance::Far]);
        (pieces(40), distance, standing())
    }

    proptest! {
        #[test]
        fn what_is_planned_may_be_asked_and_nothing_that_may_is_left_waiting(
            open in prop::collection::btree_set(0..PIECES, 0..64),
            neighbours in prop::collection::vec(neighbour(), 0..6),
            crossing in pieces(60),
            unknown in pieces(10),
            seed in (standing(), any::<bool>(), 0u32..2, any::<bool>()),
        ) {
            let ids: Vec<u32> = (0..6).collect();
            let givers: Vec<_> = neighbours.iter().zip(&ids).map(|((has, distance, standing), id)| Giver {
                id, has, distance: *distance, standing: *standing,
            }).collect();
            let mut wants = wants(open);
            wants.seed = Seed { standing: seed.0, is_far: seed.1, asked: seed.2 };
            (wants.crossing, wants.is_starved) = (crossing, seed.3);
            let is_near = |giver: &&Giver<'_, u32>| giver.distance < Distance::Far;
            let zone_has = |index| givers.iter().filter(is_near).any(|giver| giver.standing != Standing::Out && giver.has.get(index));
            let may_ask = |giver: &Giver<'_, u32>, index: u32| {
                let crosses = is_near(&giver) || (wants.crossing.get(index) && !zone_has(index));
                giver.cost().is_some() && giver.has.get(index) && wants.open.get(index) && !unknown.get(index) && crosses
            };
            let any_peer = givers.iter().any(|giver| wants.open.iter().any(|index| may_ask(giver, index)));
            match wants.next(&givers, |index| !unknown.get(index)) {
                Next::Peer { id, run } => {
                    let giver = givers[id as usize];
                    prop_assert!(!run.is_empty() && run.len() as u32 <= giver.run_max());
                    for index in run {
                        prop_assert!(may_ask(&giver, index), "{index} of {id}");
                    }
                }
                Next::Seed { need, .. } => {
                    prop_assert!(!any_peer, "peers go first");
                    prop_assert!(matches!(wants.seed.standing, Standing::Free(_)));
                    prop_assert!(!need.is_empty() && need.minus(&wants.open).is_empty());
                    prop_assert!(!wants.seed.is_far || need.minus(&wants.crossing).is_empty());
                    prop_assert!(wants.is_starved || need.iter().all(|index| !zone_has(index)));
                    prop_assert!(wants.seed.asked == 0 || givers.is_empty());
                }
                Next::Wait => prop_assert!(!any_peer),
            }
        }
    }
}
