//! What to bring before it is asked for, from how readers have moved. Pure: no clock, no I/O.
//!
//! Readers are told apart per file, not per handle, for loaders interleave several offsets on one
//! descriptor. One or two pieces touched bring exactly those. A third consecutive piece starts a window of
//! four that doubles while the reader goes on. Once 64 MiB or a tenth of the file has been read in order,
//! the whole file is wanted, so that the next open of it is served by the kernel.

use crate::model::{Bitfield, Geometry, PIECE_BYTES};
use std::ops::Range;

/// Streams told apart in one file; a seventeenth takes the place of the one that rested longest.
const STREAMS_MAX: usize = 16;
/// Pieces in a row before a window opens.
const RUN_TO_OPEN: u32 = 3;
/// The first window, in pieces.
const WINDOW_MIN: u32 = 4;
/// 256 MiB: what a 10 Gbit/s link brings in a fifth of a second.
const WINDOW_MAX: u32 = 256;
/// 64 MiB read in order means the reader wants it all.
const WHOLE_AFTER_BYTES: u64 = 64 << 20;

/// One reader's sequential run.
#[derive(Clone, Debug)]
struct Stream {
    /// The last piece touched.
    at: u32,
    /// Pieces touched in a row.
    run: u32,
    window: u32,
    /// When it last moved, counted in moves of the file.
    moved: u64,
}

/// What is wanted, for [`crate::source::Need`].
pub struct Wishes {
    /// In the order of use.
    pub window: Vec<u32>,
    pub rest: Bitfield,
}

/// The readers of one file.
#[derive(Debug)]
pub struct Readers {
    geometry: Geometry,
    streams: Vec<Stream>,
    moves: u64,
    whole: bool,
}

impl Readers {
    pub fn new(geometry: Geometry) -> Readers {
        Readers {
            geometry,
            streams: Vec::new(),
            moves: 0,
            whole: false,
        }
    }

    /// Wants the whole file from now on.
    pub fn want_all(&mut self) {
        self.whole = true;
    }

    /// Notes a read that touched `pieces`. True if the wishes have changed.
    pub fn moved(&mut self, pieces: Range<u32>) -> bool {
        if pieces.is_empty() || self.is_known(&pieces) {
            return false;
        }
        self.moves += 1;
        let at = self.stream_for(pieces.start);
        let stream = &mut self.streams[at];
        stream.run += pieces.end - 1 - stream.at.min(pieces.end - 1);
        stream.at = pieces.end - 1;
        stream.moved = self.moves;
        self.grow(at)
    }

    /// The common case, many small reads within one piece, costs one comparison a stream.
    fn is_known(&self, pieces: &Range<u32>) -> bool {
        self.streams
            .iter()
            .any(|stream| stream.at == pieces.end - 1 && pieces.start + 1 >= stream.at.max(1))
    }

    /// The stream that `first` continues, or a new one.
    fn stream_for(&mut self, first: u32) -> usize {
        let follows = |stream: &Stream| first == stream.at || first == stream.at + 1;
        if let Some(at) = self.streams.iter().position(follows) {
            return at;
        }
        if self.streams.len() == STREAMS_MAX {
            let oldest = self
                .streams
                .iter()
                .enumerate()
                .min_by_key(|(_, stream)| stream.moved);
            let oldest = oldest.map_or(0, |(at, _)| at);
            self.streams.swap_remove(oldest);
        }
        self.streams.push(Stream {
            at: first,
            run: 1,
            window: 0,
            moved: self.moves,
        });
        self.streams.len() - 1
    }

    fn grow(&mut self, at: usize) -> bool {
        let stream = &mut self.streams[at];
        if stream.run < RUN_TO_OPEN {
            return false;
        }
        stream.window = (stream.window * 2).clamp(WINDOW_MIN, WINDOW_MAX);
        let whole_after = WHOLE_AFTER_BYTES.min(self.geometry.size / 10);
        self.whole |= u64::from(stream.run) * PIECE_BYTES >= whole_after;
        true
    }

    /// What is wanted now and not in `have`: each stream's window, latest mover first, then the rest.
    pub fn wishes(&self, have: &Bitfield) -> Wishes {
        let mut streams: Vec<_> = self
            .streams
            .iter()
            .filter(|stream| stream.window > 0)
            .collect();
        streams.sort_by_key(|stream| std::cmp::Reverse(stream.moved));
        let mut listed = have.clone();
        let mut window = Vec::new();
        for stream in streams {
            let end = (stream.at + 1 + stream.window).min(self.geometry.pieces());
            for index in stream.at + 1..end {
                if !listed.get(index) {
                    listed.set(index, true);
                    window.push(index);
                }
            }
        }
        let rest = if self.whole {
            listed.not()
        } else {
            Bitfield::new(self.geometry.pieces())
        };
        Wishes { window, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECES: u32 = 3000;

    fn readers() -> Readers {
        Readers::new(Geometry {
            size: u64::from(PIECES) * PIECE_BYTES,
        })
    }

    fn wishes(readers: &Readers) -> Wishes {
        readers.wishes(&Bitfield::new(PIECES))
    }

    #[test]
    fn scattered_reads_want_nothing_more_than_they_touch() {
        let mut readers = readers();
        for at in [5, 700, 6, 2999, 1200, 0, 41, 1201] {
            assert!(!readers.moved(at..at + 1), "piece {at}");
        }
        let wishes = wishes(&readers);
        assert!(wishes.window.is_empty() && wishes.rest.is_empty());
    }

    #[test]
    fn a_reader_in_order_gets_a_growing_window_and_then_the_file() {
        let mut readers = readers();
        assert!(!readers.moved(10..11) && !readers.moved(11..12));
        assert!(readers.moved(12..13));
        assert_eq!(wishes(&readers).window, [13, 14, 15, 16]);
        assert!(
            !readers.moved(12..13),
            "the same piece again changes nothing"
        );
        assert!(readers.moved(13..14));
        assert_eq!(wishes(&readers).window.len(), 8);
        assert!(wishes(&readers).rest.is_empty());
        (14..75).for_each(|at| assert!(readers.moved(at..at + 1)));
        let wishes = wishes(&readers);
        assert_eq!((wishes.window.len(), wishes.window[0]), (256, 75));
        assert_eq!(wishes.rest.count(), PIECES - 256);
    }

    #[test]
    fn interleaved_readers_each_have_their_window() {
        let mut readers = readers();
        for step in 0..4 {
            readers.moved(step..step + 1);
            readers.moved(1000 + step..1001 + step);
        }
        let window = wishes(&readers).window;
        assert_eq!(window[..2], [1004, 1005], "the latest mover goes first");
        assert!(window.contains(&4) && window.contains(&5));
    }

    proptest! {
        #[test]
        fn wishes_are_new_within_the_file_and_bounded(moves in prop::collection::vec((0u32..PIECES, 1u32..5), 1..200), have in prop::collection::vec(0u32..PIECES, 0..500)) {
            let mut readers = readers();
            for (at, len) in moves { readers.moved(at..(at + len).min(PIECES)); }
            let mut bits = Bitfield::new(PIECES);
            have.into_iter().for_each(|index| bits.set(index, true));
            let wishes = readers.wishes(&bits);
            prop_assert!(wishes.window.len() <= STREAMS_MAX * WINDOW_MAX as usize);
            prop_assert!(wishes.window.iter().all(|index| *index < PIECES && !bits.get(*index)));
            prop_assert!(wishes.rest.and(&bits).is_empty());
            prop_assert!(readers.streams.len() <= STREAMS_MAX);
        }
    }
}
