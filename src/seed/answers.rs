//! Answers by question: each asked once at a time, believed for a while, bounded in number.
//!
//! A refusal is believed for half a minute, so that a thousand pods with a bad token cost the hub one request;
//! a trouble that passes for a second, so that those who waited for the same answer do not each ask again.

use crate::model::{Failure, FailureKind};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const REFUSED_TTL: Duration = Duration::from_secs(30);
const TROUBLE_TTL: Duration = Duration::from_secs(1);

pub struct Answers<K, V> {
    ttl: Duration,
    most: usize,
    known: Mutex<HashMap<K, Arc<Question<V>>>>,
}

struct Question<V> {
    /// Held while one caller asks; the others then find its answer.
    answer: tokio::sync::Mutex<Option<(Instant, Result<V, Failure>)>>,
    asked_at: Instant,
}

impl<K: Eq + Hash, V: Clone> Answers<K, V> {
    /// Successes are believed for `ttl`; of more than `most` questions the older half is forgotten.
    pub fn new(ttl: Duration, most: usize) -> Answers<K, V> {
        Answers {
            ttl,
            most,
            known: Mutex::default(),
        }
    }

    pub async fn get<F>(&self, key: K, ask: impl FnOnce() -> F) -> Result<V, Failure>
    where
        F: Future<Output = Result<V, Failure>>,
    {
        let question = self.question(key);
        let mut answer = question.answer.lock().await;
        if let Some((at, known)) = answer.as_ref()
            && at.elapsed() < self.believed(known)
        {
            return known.clone();
        }
        let new = ask().await;
        *answer = Some((Instant::now(), new.clone()));
        new
    }

    fn believed(&self, answer: &Result<V, Failure>) -> Duration {
        use FailureKind::{Denied, Integrity, NotFound, Unauthenticated};
        match answer {
            Ok(_) => self.ttl,
            Err(failure) if failure.kind.is_transient() => TROUBLE_TTL,
            Err(failure) => match failure.kind {
                Denied | Integrity | NotFound | Unauthenticated => REFUSED_TTL,
                _ => Duration::ZERO,
            },
        }
    }

    fn question(&self, key: K) -> Arc<Question<V>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.most && !known.contains_key(&key) {
            let mut ages: Vec<_> = known.values().map(|question| question.asked_at).collect();
            ages.sort();
            let half = ages[ages.len() / 2];
            known.retain(|_, question| question.asked_at > half);
        }
        let new = || Question {
            answer: tokio::sync::Mutex::new(None),
            asked_at: Instant::now(),
        };
        known.entry(key).or_insert_with(|| Arc::new(new())).clone()
    }
}
