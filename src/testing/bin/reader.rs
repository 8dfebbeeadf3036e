//! Reads a file as engines do, in a process of its own, and compares every byte.
//!
//! usage: reader PATTERN FILE [--pattern PATH | --original FILE]
//!
//! PATTERN: `seq` (1 MiB reads in order), `random` (4 KiB reads, 2,000 of them), `mmap` (in order), `mmap-shuffled`
//! (16 MiB windows in a mixed order), `threads` (8 threads, a share each), `random-1`... A mismatch or a short read
//! ends it with code 1. Prints {"bytes", "seconds", "cpu_seconds"} of the reading, comparing left out.

use memmap2::Mmap;
use model_p2p::testing::pattern;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const STEP: u64 = 1 << 20;
const WINDOW: u64 = 16 << 20;
const SMALL: u64 = 4096;
const RANDOM_READS: u64 = 2000;

/// Where the right bytes come from.
enum Expected {
    Pattern(u64),
    Original(File),
    /// Only read.
    Nothing,
}

impl Expected {
    fn check(&self, offset: u64, bytes: &[u8]) {
        let mut right = vec![0; bytes.len()];
        match self {
            Expected::Pattern(seed) => pattern::fill(*seed, offset, &mut right),
            Expected::Original(file) => file
                .read_exact_at(&mut right, offset)
                .expect("the original"),
            Expected::Nothing => return,
        }
        if let Some(at) = bytes.iter().zip(&right).position(|(a, b)| a != b) {
            eprintln!(
                "wrong byte at {}: {} instead of {}",
                offset + at as u64,
                bytes[at],
                right[at]
            );
            std::process::exit(1);
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, path, rest @ ..] = args.as_slice() else {
        eprintln!("usage: reader PATTERN FILE [--pattern PATH | --original FILE]");
        std::process::exit(2);
    };
    let expected = match rest {
        [flag, value] if flag == "--pattern" => Expected::Pattern(pattern::seed_of(value)),
        [flag, value] if flag == "--original" => {
            Expected::Original(File::open(value).expect("the original"))
        }
        _ => Expected::Nothing,
    };
    let started = Instant::now();
    let bytes = read(mode, path, &expected);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{{\"bytes\": {bytes}, \"seconds\": {seconds}, \"cpu_seconds\": {}}}",
        cpu_seconds()
    );
}

fn read(mode: &str, path: &str, expected: &Expected) -> u64 {
    let file = File::open(path).expect(path);
    let size = file.metadata().expect("attributes").len();
    match mode {
        "seq" => sequential(&file, 0, size, expected),
        "random" => random(&file, size, RANDOM_READS, expected),
        "random-200" => random(&file, size, 200, expected),
        "mmap" => mapped(&file, (0..size.div_ceil(WINDOW)).collect(), expected),
        "mmap-shuffled" => mapped(&file, shuffled(size.div_ceil(WINDOW)), expected),
        "threads" => threads(&file, size, expected),
        "first" => sequential(&file, 0, size.min(SMALL), expected),
        _ => panic!("{mode} is not a pattern"),
    }
}

fn sequential(file: &File, from: u64, to: u64, expected: &Expected) -> u64 {
    let mut buffer = vec![0; STEP as usize];
    for offset in (from..to).step_by(STEP as usize) {
        let part = &mut buffer[..STEP.min(to - offset) as usize];
        file.read_exact_at(part, offset)
            .expect("all bytes up to the end");
        expected.check(offset, part);
    }
    to - from
}

/// A fixed mixed order: the same in every run.
fn mixed(index: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

fn random(file: &File, size: u64, reads: u64, expected: &Expected) -> u64 {
    let mut buffer = vec![0; SMALL as usize];
    for index in 0..reads {
        let offset = mixed(index) % size.saturating_sub(SMALL).max(1);
        let part = &mut buffer[..SMALL.min(size - offset) as usize];
        file.read_exact_at(part, offset)
            .expect("all bytes asked for");
        expected.check(offset, part);
    }
    reads * SMALL.min(size)
}

fn shuffled(windows: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..windows).collect();
    order.sort_by_key(|window| mixed(*window));
    order
}

#[allow(unsafe_code)]
fn mapped(file: &File, windows: Vec<u64>, expected: &Expected) -> u64 {
    if windows.is_empty() {
        return 0;
    }
    // SAFETY: the file is immutable while it is mounted.
    let map = unsafe { Mmap::map(file).expect("a mapping") };
    let mut sum = 0u64;
    for window in windows {
        let from = window * WINDOW;
        let part = &map[from as usize..(from + WINDOW).min(map.len() as u64) as usize];
        // One word a line touches every page without copying it.
        sum = part
            .chunks(64)
            .fold(sum, |sum, line| sum.wrapping_add(u64::from(line[0])));
        expected.check(from, part);
    }
    std::hint::black_box(sum);
    map.len() as u64
}

fn threads(file: &File, size: u64, expected: &Expected) -> u64 {
    let share = size.div_ceil(8).max(1);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (from, to) = ((thread * share).min(size), ((thread + 1) * share).min(size));
            scope.spawn(move || sequential(file, from, to, expected));
        }
    });
    size
}

fn cpu_seconds() -> f64 {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("usage");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
