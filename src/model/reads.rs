//! How a mount's reads behave: when bytes are believed, and how long a read waits for them.

use std::time::Duration;

/// A mount's manner of reading; two that differ share no mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reads {
    pub verify: Verify,
    /// How long a read waits while its file makes no progress; `None` is the daemon's own time.
    pub timeout: Option<Duration>,
}

/// When bytes reach a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verify {
    /// As soon as their piece's hash is right.
    #[default]
    Piece,
    /// Once the whole file is here and the hub's digest has confirmed it.
    Strict,
}

impl Verify {
    /// Its word in parameters and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verify::Piece => "piece",
            Verify::Strict => "strict",
        }
    }
}

impl std::str::FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Verify, String> {
        let found = [Verify::Piece, Verify::Strict]
            .into_iter()
            .find(|verify| verify.name() == text);
        found.ok_or_else(|| format!("verify `{text}`: piece or strict is expected"))
    }
}

/// Below this a hub's ordinary pause would be an error.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// A reader that waits longer has been forgotten.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a read's timeout as Go writes durations, in whole numbers: `600s`, `10m`, `1h30m`.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    let bad = || {
        let text: String = text.chars().take(64).collect();
        format!("`{text}` is not a time from 1s to 24h: write it like 600s, 10m or 1h30m")
    };
    let time = duration(text).map(Duration::from_millis);
    time.filter(|time| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(time))
        .ok_or_else(bad)
}

/// Milliseconds of one or more numbers, each with its unit.
fn duration(mut text: &str) -> Option<u64> {
    let mut sum = 0_u64;
    while !text.is_empty() {
        let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (unit, rest) = rest.split_at(
            rest.find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len()),
        );
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(digits.parse::<u64>().ok()?.checked_mul(*unit_ms)?)?;
        text = rest;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_go_writes_it_and_bounded() {
        for (text, seconds) in [
            ("600s", 600),
            ("10m", 600),
            ("1h30m", 5400),
            ("24h", 86_400),
        ] {
            assert_eq!(parse_timeout(text), Ok(Duration::from_secs(seconds)));
        }
        assert_eq!(parse_timeout("1500ms"), Ok(Duration::from_millis(1500)));
        for text in [
            "",
            "600",
            "s",
            "10 m",
            "-1s",
            "1.5h",
            "0s",
            "999ms",
            "24h1s",
            "1d",
            "s10",
            "99999999999999999999s",
            "18446744073709551615h",
            "é",
        ] {
            let error = parse_timeout(text).expect_err(text);
            assert!(error.contains("600s") && error.contains("24h"), "{error}");
        }
    }
}
