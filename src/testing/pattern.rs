//! Content of any size that needs no disk: each byte is computed from its offset.
//!
//! A file is cut into blocks of 4 KiB. A block is a window of one random table, chosen by the seed and the
//! block's number, with eight bytes of that number's hash at its start: so no two blocks are alike, and the
//! cost is a copy. A block in the wrong place, or a byte flipped, is seen by comparing.

use std::sync::LazyLock;

const BLOCK_BYTES: usize = 4096;
/// Windows start at this many places; the table is a block longer.
const WINDOWS: usize = 1 << 16;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut table = vec![0; WINDOWS + BLOCK_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut table);
    table
});

/// Writes the bytes `offset..offset + out.len()` of the file that `seed` names.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let (block, within) = (at / BLOCK_BYTES as u64, at as usize % BLOCK_BYTES);
        let len = (BLOCK_BYTES - within).min(out.len() - done);
        copy(seed, block, within, &mut out[done..done + len]);
        done += len;
    }
}

/// Writes a part of one block from `within` on.
fn copy(seed: u64, block: u64, within: usize, out: &mut [u8]) {
    let mark = mix(seed ^ mix(block));
    let window = mark as usize % WINDOWS + within;
    out.copy_from_slice(&TABLE[window..window + out.len()]);
    let mark = mark.to_le_bytes();
    if within < mark.len() {
        let len = (mark.len() - within).min(out.len());
        out[..len].copy_from_slice(&mark[within..within + len]);
    }
}

/// splitmix64's finaliser.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The seed of a file by its path: equal paths and sizes are equal content.
pub fn seed_of(path: &str) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes()[..8]
        .iter()
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let mut whole = vec![0; 5 * BLOCK_BYTES + 9];
        fill(7, 0, &mut whole);
        for (start, end) in [
            (0, 1),
            (3, 4099),
            (4095, 4097),
            (4100, 12_300),
            (8192, whole.len()),
        ] {
            let mut part = vec![0; end - start];
            fill(7, start as u64, &mut part);
            assert!(part == whole[start..end], "{start}..{end}");
        }
    }

    #[test]
    fn blocks_and_seeds_differ() {
        let block = |seed, number: u64| {
            let mut block = vec![0; BLOCK_BYTES];
            fill(seed, number * BLOCK_BYTES as u64, &mut block);
            block
        };
        assert!(block(1, 0) != block(1, 1));
        assert!(block(1, 0) != block(2, 0));
        assert!(block(1, 1 << 40) != block(1, 0));
    }
}
