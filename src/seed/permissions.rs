//! Who may read which pin, by the hub's own word.
//!
//! Asked at every publish and believed for five minutes; questions are remembered under a keyed hash of hub,
//! pin and token, never under the token. Each pin is also tried without a token, once an hour at most: what
//! the hub gives to everybody is served while the hub is down. Anything else then fails closed, unless the
//! hub let this very token in within the configured grace and has not refused it since.

use super::answers::Answers;
use super::ingest::HubSet;
use crate::model::{Failure, FailureKind, Pin, Token};
use crate::store::{Store, StoreError, now_s, stamp_of};
use std::sync::Arc;
use std::time::Duration;

/// How long the hub's permission is believed.
const ALLOWED_TTL: Duration = Duration::from_secs(300);
/// How long it is believed that a pin is public, or is not.
const PUBLIC_TTL: Duration = Duration::from_secs(3600);
/// Questions remembered.
const QUESTIONS_MAX: usize = 10_000;
/// Pins known to be public, and notes of when the hub let a token in: about 100 bytes each.
const PUBLIC_MAX: usize = 100_000;
const GRANTED_MAX: usize = 100_000;

const PUBLIC: &str = "public";
const GRANTED: &str = "granted";

/// A question: hub, pin and token under the key of [`Permissions`].
type Asked = [u8; 32];

pub struct Permissions {
    store: Store,
    hubs: Arc<dyn HubSet>,
    grace: Duration,
    key: [u8; 32],
    allowed: Answers<Asked, ()>,
    public: Answers<Pin, bool>,
}

impl Permissions {
    /// With a `grace`, permissions are noted in the store under a key that stays there; else the key is this
    /// process's own.
    pub fn new(store: Store, hubs: Arc<dyn HubSet>, grace: Duration) -> Permissions {
        let own = rand::random::<[u8; 32]>();
        let key = match grace.is_zero() {
            true => own,
            false => stored_key(&store, own).unwrap_or(own),
        };
        Permissions {
            store,
            hubs,
            grace,
            key,
            allowed: Answers::new(ALLOWED_TTL, QUESTIONS_MAX),
            public: Answers::new(PUBLIC_TTL, QUESTIONS_MAX),
        }
    }

    /// Whether this token may read this pin.
    pub async fn check(&self, pin: &Pin, token: Option<&Token>) -> Result<(), Failure> {
        let hub = self.hubs.hub(&pin.repository)?;
        let asked = self.asked(hub.endpoint(), pin, token);
        let answer = self.allowed.get(asked, || self.ask(pin, token, asked));
        match answer.await {
            Err(failure) if !failure.kind.is_transient() => Err(failure),
            Err(failure) if self.stands(pin, token) => {
                tracing::warn!(%pin, %failure, "hub unreachable, serving who could read this before");
                Ok(())
            }
            answer => answer.map_err(|failure| closed(&failure)),
        }
    }

    /// Whether the hub lets everybody read the pin, as far as is known.
    pub fn is_public(&self, pin: &Pin) -> bool {
        matches!(
            self.store.index().record(PUBLIC, &pin.to_string()),
            Ok(Some(_))
        )
    }

    async fn ask(&self, pin: &Pin, token: Option<&Token>, asked: Asked) -> Result<(), Failure> {
        if token.is_none() {
            return self.ask_public(pin).await;
        }
        let hub = self.hubs.hub(&pin.repository)?;
        let answer = hub.authorize(pin, token).await.map_err(Failure::from);
        let name = hex::encode(asked);
        let index = self.store.index();
        let noted = match &answer {
            Ok(()) if self.grace.is_zero() => Ok(()),
            Ok(()) => index.note(GRANTED, &name, "", GRANTED_MAX),
            Err(failure) if failure.kind.is_transient() => Ok(()),
            Err(_) => index.remove_record(GRANTED, &name),
        };
        noted.map_err(internal)?;
        if answer.is_ok() {
            // Only its note matters here; a refusal is as good an answer for an hour.
            let note = || async {
                match self.ask_public(pin).await {
                    Err(failure) if failure.kind.is_transient() => Err(failure),
                    answer => Ok(answer.is_ok()),
                }
            };
            let _ = self.public.get(pin.clone(), note).await;
        }
        answer
    }

    /// Without a token; what the hub says holds for everybody.
    async fn ask_public(&self, pin: &Pin) -> Result<(), Failure> {
        let hub = self.hubs.hub(&pin.repository)?;
        let answer = hub.authorize(pin, None).await.map_err(Failure::from);
        let (index, name) = (self.store.index(), pin.to_string());
        let noted = match &answer {
            Ok(()) => index.note(PUBLIC, &name, "", PUBLIC_MAX),
            Err(failure) if failure.kind.is_transient() => Ok(()),
            Err(_) => index.remove_record(PUBLIC, &name),
        };
        noted.map_err(internal)?;
        answer
    }

    /// Whether this token may read this pin while the hub cannot be asked.
    pub fn stands(&self, pin: &Pin, token: Option<&Token>) -> bool {
        let hub = self.hubs.hub(&pin.repository);
        let asked = hub.map(|hub| self.asked(hub.endpoint(), pin, token));
        let let_in_at = asked.ok().and_then(|asked| self.let_in_at(asked));
        let in_grace = |at| now_s().saturating_sub(at) <= self.grace.as_secs();
        self.is_public(pin) || let_in_at.is_some_and(in_grace)
    }

    /// When the hub last let this token in, in epoch seconds.
    fn let_in_at(&self, asked: Asked) -> Option<u64> {
        let note = self.store.index().record(GRANTED, &hex::encode(asked));
        Some(stamp_of(&note.ok()??)).filter(|_| !self.grace.is_zero())
    }

    fn asked(&self, endpoint: &str, pin: &Pin, token: Option<&Token>) -> Asked {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let pin = pin.to_string();
        for part in [endpoint, &pin, token.map_or("", Token::reveal)] {
            // Lengths before texts, so that no two questions spell the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

fn closed(failure: &Failure) -> Failure {
    let message = format!(
        "{}: the hub cannot confirm that this token may read it: try again, or let seeds serve for a while whom the hub let in before (seed --auth-grace SECONDS)",
        failure.message
    );
    Failure::new(FailureKind::Unavailable, message)
}

fn stored_key(store: &Store, own: [u8; 32]) -> Option<[u8; 32]> {
    let kept = store.index().put_record_once("keys", "permissions", &own);
    kept.ok()?.try_into().ok()
}

fn internal(error: StoreError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
