//! How long to wait before the next try: exponential backoff with full jitter.
//!
//! [`Delays`] go on for ever; [`Retries`] counts failures since the last progress and says stop when they
//! reach the policy's number.
//! Only arithmetic: who waits, and for which errors, is the caller's affair.

use std::time::Duration;

/// The policy: waits between zero and a ceiling that doubles from `first` to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
    /// Tries in a row without progress, the first one included.
    pub tries: u32,
}

impl Default for Backoff {
    /// 0.5 s to 30 s, five tries: what huggingface_hub does; about 4 s on average before giving up.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            tries: 5,
        }
    }
}

impl Backoff {
    fn delay(&self, failed: u32) -> Duration {
        // Full jitter: 200 nodes that failed together must not come back together.
        self.ceiling(failed).mul_f64(rand::random())
    }

    /// The longest wait after `failed` failures in a row (1 is the first).
    fn ceiling(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// Waits for one who never gives up.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    policy: Backoff,
    failed: u32,
}

impl Delays {
    pub fn new(first: Duration, most: Duration) -> Delays {
        Delays {
            policy: Backoff {
                first,
                most,
                tries: 0,
            },
            failed: 0,
        }
    }

    /// The next wait; its ceiling doubles with each call.
    pub fn next_delay(&mut self) -> Duration {
        self.failed = self.failed.saturating_add(1);
        self.policy.delay(self.failed)
    }
}

/// One operation's failures so far.
#[derive(Clone, Debug)]
pub struct Retries {
    policy: Backoff,
    failed: u32,
}

impl Retries {
    pub fn new(policy: Backoff) -> Retries {
        Retries { policy, failed: 0 }
    }

    /// Bytes arrived: the counter starts again.
    pub fn progress(&mut self) {
        self.failed = 0;
    }

    /// Counts a failure. The wait before the next try, or `None` when tries are spent.
    pub fn failed(&mut self) -> Option<Duration> {
        self.failed += 1;
        (self.failed < self.policy.tries).then(|| self.policy.delay(self.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_most() {
        let policy = Backoff::default();
        let seconds: Vec<f64> = (1..=8)
            .map(|failed| policy.ceiling(failed).as_secs_f64())
            .collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(policy.ceiling(u32::MAX), policy.most);
    }

    #[test]
    fn five_tries_without_progress_are_the_end() {
        let mut retries = Retries::new(Backoff::default());
        for failed in 1..5 {
            let wait = retries.failed().expect("a try is left");
            assert!(wait <= Backoff::default().ceiling(failed));
        }
        assert_eq!(retries.failed(), None);
    }

    #[test]
    fn progress_gives_all_tries_back() {
        let mut retries = Retries::new(Backoff::default());
        for _ in 0..100 {
            assert!(retries.failed().is_some());
            retries.progress();
        }
    }
}
