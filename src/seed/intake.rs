//! What one file's reading from its hub looks like: which pieces are under way, what is wanted, how fast.
//! Pure bookkeeping; [`super::ingest`] does the reading.

use crate::model::{Bitfield, Geometry, PIECE_BYTES};
use std::ops::Range;
use std::time::Duration;

/// A bulk request lasts about this long: long enough that requests do not count, short enough that a
/// reader's piece inside it is soon here.
const RUN_SECONDS: f64 = 0.5;
/// The first bulk request, before a rate is known: 4 MiB.
const RUN_FIRST: u32 = 4;
/// 64 MiB: one request every half second at 1 Gbit/s.
const RUN_MAX: u32 = 64;
/// Bulk requests of one file under way at once: hubs serve a connection at a fraction of what they can.
pub const RUNS_MAX: usize = 4;

/// The state of one file at the origin.
#[derive(Debug)]
pub struct Intake {
    geometry: Geometry,
    in_flight: Vec<Range<u32>>,
    bulk_runs: usize,
    wanted: Bitfield,
    /// Pieces the next bulk request may take.
    run_pieces: u32,
}

impl Intake {
    pub fn new(geometry: Geometry) -> Intake {
        let wanted = Bitfield::new(geometry.pieces());
        Intake {
            geometry,
            in_flight: Vec::new(),
            bulk_runs: 0,
            wanted,
            run_pieces: RUN_FIRST,
        }
    }

    /// Starts a single piece unless it is under way.
    pub fn start_piece(&mut self, index: u32) -> bool {
        let free = !self.is_in_flight(index);
        if free {
            self.in_flight.push(index..index + 1);
        }
        free
    }

    /// Adds to what readers want in bulk.
    pub fn want(&mut self, need: &Bitfield) {
        if need.len() == self.wanted.len() {
            need.iter().for_each(|index| self.wanted.set(index, true));
        }
    }

    /// Nobody asks any more.
    pub fn want_nothing(&mut self) {
        self.wanted = Bitfield::new(self.geometry.pieces());
    }

    /// Starts the next bulk request, cut around what is here or under way and of `most` pieces. `None` when
    /// nothing is left to start or enough is under way.
    pub fn start_run(&mut self, have: &Bitfield, most: u32) -> Option<Range<u32>> {
        if self.is_busy() || most == 0 {
            return None;
        }
        let open = self.wanted.minus(have);
        let first = self.next(have)?;
        let limit = first.saturating_add(self.run_pieces.min(most));
        let end = (first..limit).find(|index| !open.get(*index) || self.is_in_flight(*index));
        let run = first..end.unwrap_or(limit);
        self.in_flight.push(run.clone());
        self.bulk_runs += 1;
        Some(run)
    }

    /// As many bulk requests as may be are under way.
    pub fn is_busy(&self) -> bool {
        self.bulk_runs == RUNS_MAX
    }

    fn next(&self, have: &Bitfield) -> Option<u32> {
        self.wanted
            .minus(have)
            .iter()
            .find(|index| !self.is_in_flight(*index))
    }

    /// Whether something is wanted, not here and not under way.
    pub fn has_work(&self, have: &Bitfield) -> bool {
        self.next(have).is_some()
    }

    pub fn end_piece(&mut self, index: u32) {
        self.in_flight.retain(|run| *run != (index..index + 1));
    }

    /// Ends a bulk request that brought `pieces` pieces in `took`, and sizes the next one.
    pub fn end_run(&mut self, run: &Range<u32>, pieces: u32, took: Duration) {
        self.in_flight.retain(|other| other != run);
        self.bulk_runs -= 1;
        if pieces > 0 {
            let rate = f64::from(pieces) / took.as_secs_f64().max(1e-6);
            let fitting = (rate * RUN_SECONDS) as u32;
            self.run_pieces = fitting
                .clamp(1, RUN_MAX)
                .min(self.run_pieces.saturating_mul(4));
        }
    }

    pub fn is_in_flight(&self, index: u32) -> bool {
        self.in_flight.iter().any(|run| run.contains(&index))
    }

    /// Pieces under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.iter().map(|run| run.len() as u32).sum()
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The bytes of a run of pieces.
    pub fn bytes(&self, run: &Range<u32>) -> Range<u64> {
        let start = u64::from(run.start) * PIECE_BYTES;
        start..(u64::from(run.end) * PIECE_BYTES).min(self.geometry.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECES: u32 = 300;

    fn intake() -> Intake {
        Intake::new(Geometry {
            size: u64::from(PIECES) * PIECE_BYTES - 9,
        })
    }

    #[test]
    fn runs_are_cut_around_what_is_here_or_under_way() {
        let mut intake = intake();
        let mut have = Bitfield::new(PIECES);
        have.set(2, true);
        assert!(
            intake.start_run(&have, u32::MAX).is_none(),
            "nobody wants anything"
        );
        intake.want(&Bitfield::full(PIECES));
        assert!(intake.start_piece(5) && !intake.start_piece(5));
        assert_eq!(intake.start_run(&have, u32::MAX), Some(0..2));
        assert_eq!(intake.start_run(&have, u32::MAX), Some(3..5));
        assert_eq!(intake.start_run(&have, u32::MAX), Some(6..10));
        assert_eq!(intake.start_run(&have, u32::MAX), Some(10..14));
        assert_eq!(
            intake.start_run(&have, u32::MAX),
            None,
            "four are under way"
        );
        assert_eq!(
            intake.bytes(&(299..300)).end,
            u64::from(PIECES) * PIECE_BYTES - 9
        );
    }

    #[test]
    fn a_run_lasts_half_a_second_and_grows_no_faster_than_fourfold() {
        let mut intake = intake();
        intake.want(&Bitfield::full(PIECES));
        let have = Bitfield::new(PIECES);
        for (expected, took_ms) in [(4, 10), (16, 10), (64, 10_000), (3, 1)] {
            let run = intake.start_run(&have, u32::MAX).expect("work");
            assert_eq!(run.len(), expected);
            intake.end_run(&run, run.len() as u32, Duration::from_millis(took_ms));
        }
        assert!(intake.is_idle());
    }

    proptest! {
        /// Whatever is asked for in whatever order, no piece is ever under way twice.
        #[test]
        fn nothing_is_read_twice(asks in prop::collection::vec((0u32..PIECES, any::<bool>()), 1..80)) {
            let mut intake = intake();
            let have = Bitfield::new(PIECES);
            let mut started = vec![0; PIECES as usize];
            for (index, bulk) in asks {
                if bulk {
                    let mut need = Bitfield::new(PIECES);
                    (index..(index + 40).min(PIECES)).for_each(|i| need.set(i, true));
                    intake.want(&need);
                    for i in intake.start_run(&have, u32::MAX).into_iter().flatten() { started[i as usize] += 1; }
                } else if intake.start_piece(index) {
                    started[index as usize] += 1;
                }
            }
            prop_assert!(started.iter().all(|count| *count <= 1));
        }
    }
}
