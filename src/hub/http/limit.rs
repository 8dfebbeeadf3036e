//! What an answer says about patience: `RateLimit` and `Retry-After`.

use std::time::Duration;

/// A whole quota window of Hugging Face is five minutes; what asks for more is not a rate limit's reset.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// How long a hub wants us to wait: until the window's reset plus a second where the quota is spent, else
/// `Retry-After` in seconds. HTTP dates are left to the ordinary backoff, for clocks differ.
pub fn patience(rate_limit: Option<&str>, retry_after: Option<&str>) -> Option<Duration> {
    let reset = rate_limit.and_then(|text| match parameter(text, "r") {
        Some(0) => parameter(text, "t").map(|seconds| seconds.saturating_add(1)),
        _ => None,
    });
    let seconds = reset.or_else(|| retry_after?.trim().parse().ok())?;
    Some(Duration::from_secs(seconds).min(PATIENCE_MAX))
}

/// The number `name=N` among the parameters of `"api";r=0;t=55`.
fn parameter(text: &str, name: &str) -> Option<u64> {
    text.split([';', ','])
        .filter_map(|part| part.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(rate_limit: &str, retry_after: &str) -> Option<u64> {
        patience(Some(rate_limit), Some(retry_after)).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_spent_quota_waits_for_its_reset_anything_else_for_retry_after() {
        assert_eq!(seconds("\"resolvers\";r=0;t=55", "7"), Some(56));
        assert_eq!(seconds("\"api\"; r=12; t=55", "7"), Some(7));
        assert_eq!(seconds("", " 7 "), Some(7));
        assert_eq!(seconds("", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(seconds("r=0;t=18446744073709551615", ""), Some(3600));
        assert_eq!(patience(None, None), None);
    }
}
