//! Handshakes that failed: each is counted, and said once a minute for each other side.
//!
//! Who has the wrong files tries again many times a second. Bound: 256 others are told apart.

use super::blame::{Cause, cause};
use crate::metrics::METRICS;
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const AGAIN: Duration = Duration::from_secs(60);
const OTHERS_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Refusals {
    said: Mutex<HashMap<String, Instant>>,
}

impl Refusals {
    /// A connection from `who` that was not accepted.
    pub fn came_in(&self, who: &str, error: &io::Error) {
        if self.note("in", who, cause(error)) {
            tracing::warn!(from = who, %error, "connection refused: check the other side's --tls-dir");
        }
    }

    /// A connection to `who` that was not accepted, by either side.
    pub fn went_out(&self, who: &str, error: &io::Error) {
        if self.note("out", who, cause(error)) {
            tracing::warn!(to = who, %error, "connection not made");
        }
    }

    /// Whether to say it.
    fn note(&self, way: &'static str, who: &str, cause: Cause) -> bool {
        METRICS
            .handshakes_failed
            .with_label_values(&[way, cause.name()])
            .inc();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, since| since.elapsed() < AGAIN);
        let what = format!("{way} {who} {}", cause.name());
        if said.len() >= OTHERS_MAX || said.contains_key(&what) {
            return false;
        }
        said.insert(what, Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_other_side_and_cause_is_said_once() {
        let refusals = Refusals::default();
        let before = METRICS
            .handshakes_failed
            .with_label_values(&["in", "silence"])
            .get();
        assert!(refusals.note("in", "10.0.0.1", Cause::Silence));
        assert!(!refusals.note("in", "10.0.0.1", Cause::Silence));
        assert!(refusals.note("in", "10.0.0.1", Cause::Plain));
        for other in 0..2 * OTHERS_MAX {
            refusals.note("in", &other.to_string(), Cause::Silence);
        }
        let said = refusals.said.lock().expect("a lock").len();
        assert_eq!(said, OTHERS_MAX);
        let after = METRICS
            .handshakes_failed
            .with_label_values(&["in", "silence"])
            .get();
        assert!(
            after - before >= 2 + 2 * OTHERS_MAX as u64,
            "all are counted"
        );
    }
}
