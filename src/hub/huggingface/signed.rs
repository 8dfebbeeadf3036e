//! Signed URLs, remembered until they are about to expire.
//!
//! A signed URL is a credential of whoever asked for it, so it is kept under that token's fingerprint. One
//! file is opened by one call at a time: others wait for its answer and use it.

use crate::model::{Pin, Token};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use url::Url;

/// Whose URL for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub pin: Pin,
    pub path: String,
    pub token: Option<[u8; 32]>,
}

impl Key {
    pub fn new(pin: &Pin, path: &str, token: Option<&Token>) -> Key {
        Key {
            pin: pin.clone(),
            path: path.to_owned(),
            token: token.map(Token::fingerprint),
        }
    }
}

/// A file's place: locked while it is being opened.
pub type Slot = Arc<tokio::sync::Mutex<Option<SignedUrl>>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedUrl {
    pub url: Url,
    /// The hub stated the listed digest beside it.
    pub stated: bool,
    fresh_until: Instant,
}

/// Files open at once; a model has tens, the largest data sets thousands. About 1 KiB each.
const SLOTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Signed {
    slots: Mutex<HashMap<Key, Slot>>,
}

impl Signed {
    pub fn slot(&self, key: Key) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(&key) {
            sweep(&mut slots);
        }
        slots.entry(key).or_default().clone()
    }
}

/// Drops what is stale; if all is fresh, what nobody uses now: it can be opened again.
fn sweep(slots: &mut HashMap<Key, Slot>) {
    let used = |slot: &Slot| Arc::strong_count(slot) > 1;
    let fresh = |slot: &Slot| match slot.try_lock() {
        Ok(signed) => signed.as_ref().is_some_and(SignedUrl::is_fresh),
        Err(_) => true,
    };
    slots.retain(|_, slot| used(slot) || fresh(slot));
    if slots.len() >= SLOTS_MAX {
        slots.retain(|_, slot| used(slot));
    }
}

impl SignedUrl {
    pub fn new(url: Url, stated: bool) -> SignedUrl {
        let lifetime = lifetime(&url, SystemTime::now()).unwrap_or(LIFETIME_UNKNOWN);
        SignedUrl {
            url,
            stated,
            fresh_until: Instant::now() + lifetime.mul_f64(0.8),
        }
    }

    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.fresh_until
    }
}

/// What to assume of a URL that does not say; hubs sign for an hour.
const LIFETIME_UNKNOWN: Duration = Duration::from_secs(300);

/// Longer than any hub signs for; keeps a wrong clock from making a URL eternal.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a URL says it is valid from `now` on: `X-Amz-Date` + `X-Amz-Expires` or `Expires` (epoch
/// seconds). `None` where it does not say, and where it seems expired already: then a clock is wrong, and
/// the host's refusal tells better.
fn lifetime(url: &Url, now: SystemTime) -> Option<Duration> {
    let parameter = |name: &str| {
        let mut pairs = url.query_pairs();
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let number = |name: &str| parameter(name)?.1.parse::<u64>().ok();
    let end = match (parameter("x-amz-date"), number("x-amz-expires")) {
        (Some((_, date)), Some(seconds)) => amz_epoch(&date)?.checked_add(seconds)?,
        _ => number("expires")?,
    };
    let left = end.checked_sub(now.duration_since(UNIX_EPOCH).ok()?.as_secs())?;
    (left > 0).then(|| Duration::from_secs(left).min(LIFETIME_MAX))
}

/// The epoch seconds of `20260131T235959Z`.
fn amz_epoch(date: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| date.get(range)?.parse::<i64>().ok();
    if date.len() != 16 || !date.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    // Days from civil, after Howard Hinnant: the year starts in March so that leap days come last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(query: &str, now: u64) -> Option<u64> {
        let url = format!("https://cdn/x?{query}").parse().expect("a URL");
        lifetime(&url, UNIX_EPOCH + Duration::from_secs(now)).map(|left| left.as_secs())
    }

    #[test]
    fn lifetimes_are_read_from_both_ways_of_signing() {
        assert_eq!(left("Expires=1000&Signature=x", 400), Some(600));
        assert_eq!(amz_epoch("20260301T000001Z"), Some(1_772_323_201));
        let amz = "X-Amz-Date=20260301T000000Z&X-Amz-Expires=3600";
        assert_eq!(left(amz, 1_772_323_200 + 600), Some(3000));
    }

    #[test]
    fn a_lifetime_that_is_missing_past_or_absurd_is_not_believed() {
        assert_eq!(left("Signature=x", 400), None);
        assert_eq!(left("Expires=1000", 1000), None);
        assert_eq!(left("X-Amz-Date=yesterday&X-Amz-Expires=1", 0), None);
        assert_eq!(left("Expires=18446744073709551615", 0), Some(86_400));
    }

    #[test]
    fn slots_are_bounded_and_those_in_use_stay() {
        let signed = Signed::default();
        let pin: Pin = format!("hf://o/n@{}", "a".repeat(40)).parse().expect("pin");
        let held = signed.slot(Key::new(&pin, "held", None));
        for index in 0..2 * SLOTS_MAX {
            signed.slot(Key::new(&pin, &index.to_string(), None));
        }
        assert!(signed.slots.lock().expect("no panic").len() <= SLOTS_MAX);
        let again = signed.slot(Key::new(&pin, "held", None));
        assert!(Arc::ptr_eq(&held, &again));
    }
}
