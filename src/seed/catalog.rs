//! References resolved once, revisions listed once, both remembered.
//!
//! A branch is asked for by one caller at a time and its answer holds for a minute, so a thousand pods that
//! name it cost the hub one request. The first pin of a volume is kept for ever. Listings never change and
//! are stored; whether a credential may see one is asked of the hub again after some minutes. With the hub
//! unreachable, the last known commit of a branch is used if it was public.

use super::ingest::HubSet;
use crate::hub::HubError;
use crate::model::{Failure, FailureKind, Listing, Pin, Reference, Token};
use crate::source::Catalog;
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a branch's commit is believed.
const BRANCH_TTL: Duration = Duration::from_secs(60);
/// How long a credential's permission is believed.
const ALLOWED_TTL: Duration = Duration::from_secs(300);
/// Answers remembered of each sort; the oldest half goes when there are more.
const ANSWERS_MAX: usize = 10_000;
/// Listings kept ready in memory; the store has the rest.
const LISTINGS_MAX: usize = 64;

/// Who asks: nobody, or a credential's fingerprint.
type Asker = Option<[u8; 32]>;

/// The catalog of a process that reads hubs itself.
pub struct LocalCatalog {
    store: Store,
    hubs: Arc<dyn HubSet>,
    branches: Answers<(Reference, Asker), Pin>,
    allowed: Answers<(Pin, Asker), ()>,
    listings: Answers<Pin, Arc<Listing>>,
}

impl LocalCatalog {
    pub fn new(store: Store, hubs: Arc<dyn HubSet>) -> LocalCatalog {
        LocalCatalog {
            store,
            hubs,
            branches: Answers::new(BRANCH_TTL, ANSWERS_MAX),
            allowed: Answers::new(ALLOWED_TTL, ANSWERS_MAX),
            listings: Answers::new(Duration::from_secs(3600), LISTINGS_MAX),
        }
    }

    async fn resolve_branch(
        &self,
        reference: &Reference,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let key = (
            Reference {
                subdir: None,
                ..reference.clone()
            },
            asker(token),
        );
        self.branches
            .get(key, || self.ask_hub(reference, token))
            .await
    }

    async fn ask_hub(&self, reference: &Reference, token: Option<&Token>) -> Result<Pin, Failure> {
        let hub = self.hubs.hub(reference.scheme)?;
        let name = Reference {
            subdir: None,
            ..reference.clone()
        }
        .to_string();
        match hub.resolve(reference, token).await {
            Ok(pin) => {
                self.remember_commit(&name, &pin, token)?;
                Ok(pin)
            }
            Err(error) => self.last_known(&name, token, error),
        }
    }

    /// Only what nobody needed a credential for: a commit of a gated model must not outlive the permission.
    fn remember_commit(&self, name: &str, pin: &Pin, token: Option<&Token>) -> Result<(), Failure> {
        match token {
            None => self
                .store
                .index()
                .put_record("commits", name, pin.to_string().as_bytes())
                .map_err(internal),
            Some(_) => Ok(()),
        }
    }

    fn last_known(
        &self,
        name: &str,
        token: Option<&Token>,
        error: HubError,
    ) -> Result<Pin, Failure> {
        let failure = Failure::from(error);
        let known = self
            .store
            .index()
            .record("commits", name)
            .map_err(internal)?;
        match known.and_then(|bytes| parse_pin(&bytes)) {
            Some(pin) if token.is_none() && failure.kind.is_transient() => {
                tracing::warn!(reference = name, %pin, %failure, "hub unreachable, using the last known commit");
                Ok(pin)
            }
            _ => Err(failure),
        }
    }

    async fn authorize(&self, pin: &Pin, token: Option<&Token>) -> Result<(), Failure> {
        let hub = self.hubs.hub(pin.repository.scheme)?;
        let ask = || async { hub.authorize(pin, token).await.map_err(Failure::from) };
        match self.allowed.get((pin.clone(), asker(token)), ask).await {
            Err(failure) if token.is_none() && failure.kind.is_transient() => {
                self.known_public(pin, failure)
            }
            answer => answer.map(|()| {
                if token.is_none() {
                    // Losing this note costs only a public model's service while its hub is down.
                    let _ = self
                        .store
                        .index()
                        .put_record_once("public", &pin.to_string(), b"");
                }
            }),
        }
    }

    /// A model that once was readable without a credential stays readable while its hub is down.
    fn known_public(&self, pin: &Pin, failure: Failure) -> Result<(), Failure> {
        match self
            .store
            .index()
            .record("public", &pin.to_string())
            .map_err(internal)?
        {
            Some(_) => Ok(()),
            None => Err(failure),
        }
    }

    async fn stored_listing(
        &self,
        pin: &Pin,
        token: Option<&Token>,
    ) -> Result<Arc<Listing>, Failure> {
        if let Some(listing) = self.store.index().listing(pin).map_err(internal)? {
            return Ok(Arc::new(listing));
        }
        let listing = self
            .hubs
            .hub(pin.repository.scheme)?
            .list(pin, token)
            .await?;
        self.store.index().put_listing(&listing).map_err(internal)?;
        Ok(Arc::new(listing))
    }
}

#[async_trait]
impl Catalog for LocalCatalog {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let Some(volume) = volume else {
            return self.resolve_branch(reference, token).await;
        };
        if let Some(bytes) = self
            .store
            .index()
            .record("volumes", volume)
            .map_err(internal)?
        {
            return parse_pin(&bytes)
                .ok_or_else(|| Failure::new(FailureKind::Internal, "a damaged pin record"));
        }
        let pin = self.resolve_branch(reference, token).await?;
        let kept =
            self.store
                .index()
                .put_record_once("volumes", volume, pin.to_string().as_bytes());
        Ok(parse_pin(&kept.map_err(internal)?).unwrap_or(pin))
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        self.authorize(pin, token).await?;
        self.listings
            .get(pin.clone(), || self.stored_listing(pin, token))
            .await
    }
}

fn asker(token: Option<&Token>) -> Asker {
    token.map(Token::fingerprint)
}

fn parse_pin(bytes: &[u8]) -> Option<Pin> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn internal(error: StoreError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}

/// Answers by question, each asked once at a time and believed for a while. Failures are not remembered.
struct Answers<K, V> {
    ttl: Duration,
    most: usize,
    known: Mutex<HashMap<K, Arc<Question<V>>>>,
}

struct Question<V> {
    /// Held while one caller asks; the others then find its answer.
    answer: tokio::sync::Mutex<Option<(Instant, V)>>,
    asked_at: Instant,
}

impl<K: Eq + Hash, V: Clone> Answers<K, V> {
    fn new(ttl: Duration, most: usize) -> Answers<K, V> {
        Answers {
            ttl,
            most,
            known: Mutex::default(),
        }
    }

    async fn get<F>(&self, key: K, ask: impl FnOnce() -> F) -> Result<V, Failure>
    where
        F: Future<Output = Result<V, Failure>>,
    {
        let question = self.question(key);
        let mut answer = question.answer.lock().await;
        if let Some((_, value)) = answer.as_ref().filter(|(at, _)| at.elapsed() < self.ttl) {
            return Ok(value.clone());
        }
        let value = ask().await?;
        *answer = Some((Instant::now(), value.clone()));
        Ok(value)
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
