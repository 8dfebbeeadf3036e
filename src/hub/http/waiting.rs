//! Waiting: between tries, and for a rate limit that closes the hub to everybody with one token.

use crate::backoff::Retries;
use crate::hub::HubError;
use crate::metrics::METRICS;
use crate::model::Token;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Longer than a five-minute quota window is a matter for whoever called.
const PAUSE_MAX: Duration = Duration::from_secs(330);

/// Waits before the next try, or gives the error back: when it is final, tries are spent, or the hub asks
/// for more than a quota window.
pub async fn pause(hub: &str, retries: &mut Retries, error: HubError) -> Result<(), HubError> {
    let HubError::Transient { after, limited, .. } = &error else {
        return Err(error);
    };
    let Some(backoff) = retries.failed() else {
        return Err(error);
    };
    let wait = after.unwrap_or(backoff);
    if wait > PAUSE_MAX {
        return Err(error);
    }
    if *limited {
        count_limited(hub, wait);
    }
    tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "hub: trying again");
    sleep(wait).await;
    Ok(())
}

fn count_limited(hub: &str, waited: Duration) {
    METRICS
        .origin_limited_seconds
        .with_label_values(&[hub])
        .inc_by(waited.as_secs());
}

/// Who may not ask the hub before when. One entry per limited token; those passed are swept at each close.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<HashMap<Option<[u8; 32]>, Instant>>,
}

impl Gate {
    fn until(&self, token: Option<&Token>) -> Option<Instant> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed
            .get(&token.map(Token::fingerprint))
            .copied()
            .filter(|until| *until > Instant::now())
    }

    /// Returns when this token may ask again.
    pub async fn pass(&self, hub: &str, token: Option<&Token>) {
        let started = Instant::now();
        while let Some(until) = self.until(token) {
            sleep_until(until).await;
        }
        count_limited(hub, started.elapsed());
    }

    /// The hub answered 429: nobody with this token asks for `wait`.
    pub fn close(&self, token: Option<&Token>, wait: Duration) {
        let now = Instant::now();
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.retain(|_, until| *until > now);
        closed.insert(token.map(Token::fingerprint), now + wait.min(PAUSE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::model::FailureKind;

    #[tokio::test]
    async fn a_limit_holds_up_its_own_token_alone() {
        let gate = Gate::default();
        let limited = Token::new("a");
        let wait = Duration::from_millis(30);
        let started = Instant::now();
        gate.close(limited.as_ref(), wait);
        assert!(gate.until(None).is_none());
        assert!(gate.until(Token::new("b").as_ref()).is_none());
        gate.pass("hf", limited.as_ref()).await;
        assert!(started.elapsed() >= wait);
    }

    #[tokio::test]
    async fn only_transient_errors_are_waited_for() {
        let mut retries = Retries::new(Backoff::default());
        let last = HubError::last(FailureKind::NotFound, "gone");
        assert!(pause("hf", &mut retries, last).await.is_err());
        let limited = |after| HubError::Transient {
            message: "429".into(),
            after: Some(after),
            limited: true,
        };
        let wait = Duration::from_millis(30);
        let started = Instant::now();
        assert!(pause("hf", &mut retries, limited(wait)).await.is_ok());
        assert!(started.elapsed() >= wait);
        let hours = Duration::from_secs(3000);
        assert!(pause("hf", &mut retries, limited(hours)).await.is_err());
    }
}
