//! References resolved once, revisions listed once, both remembered.
//!
//! A branch is asked for by one caller at a time and its answer holds for a minute, so a thousand pods that
//! name it cost the hub one request. The first pin of a volume is kept until the volume is forgotten, or is the
//! oldest of a hundred thousand. Listings never change and are stored; who may see one is for
//! [`Permissions`]. With the hub unreachable, the last known commit of a branch serves those who may read it then.

use super::answers::Answers;
use super::fellows::{Fellow, Fellows};
use super::ingest::HubSet;
use super::permissions::Permissions;
use crate::hub::HubError;
use crate::model::{Failure, FailureKind, Listing, Pin, Reference, Token};
use crate::source::Catalog;
use crate::store::{Store, StoreError, stamped};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// How long a branch's commit is believed.
const BRANCH_TTL: Duration = Duration::from_secs(60);
/// Answers remembered of each sort; the oldest half goes when there are more.
const ANSWERS_MAX: usize = 10_000;
/// Volumes whose pin is kept; the oldest go. About 200 bytes each.
const VOLUMES_MAX: usize = 100_000;
/// Listings kept ready in memory; the store has the rest.
const LISTINGS_MAX: usize = 64;

/// The pins of volumes, each a [`stamped`] text.
const VOLUMES: &str = "volumes";

/// Who asks: nobody, or a credential's fingerprint.
type Asker = Option<[u8; 32]>;

/// The catalog of a process that reads hubs itself.
pub struct LocalCatalog {
    store: Store,
    hubs: Arc<dyn HubSet>,
    branches: Answers<(Reference, Asker), Pin>,
    permissions: Permissions,
    listings: Answers<Pin, Arc<Listing>>,
    /// The other seeds, who keep the pins of volumes too.
    fellows: Option<Arc<Fellows>>,
}

impl LocalCatalog {
    /// `grace`: how long a permission counts while the hub cannot be asked.
    pub fn new(store: Store, hubs: Arc<dyn HubSet>, grace: Duration) -> LocalCatalog {
        LocalCatalog {
            permissions: Permissions::new(store.clone(), hubs.clone(), grace),
            store,
            hubs,
            branches: Answers::new(BRANCH_TTL, ANSWERS_MAX),
            listings: Answers::new(Duration::from_secs(3600), LISTINGS_MAX),
            fellows: None,
        }
    }

    pub fn with_fellows(self, fellows: Arc<Fellows>) -> LocalCatalog {
        LocalCatalog {
            fellows: Some(fellows),
            ..self
        }
    }

    /// Keeps a first pin at all seeds. They are asked in one order, so that of two pins for one volume, made at
    /// the same time at two seeds, both come to keep the same.
    async fn offer(&self, volume: &str, pin: Pin) -> Result<Pin, Failure> {
        let Some(fellows) = &self.fellows else {
            return self.keep_volume(volume, &pin);
        };
        let named = |fellow: &Arc<Fellow>| Some((fellow.name()?, fellow.clone()));
        let mut others: Vec<_> = fellows.answering().filter_map(named).collect();
        others.sort_by(|a, b| a.0.cmp(&b.0));
        let first = others.first().filter(|(name, _)| *name < fellows.me);
        let kept = match first {
            Some((_, fellow)) => fellow.volume(volume, Some(pin.to_string())).await.ok(),
            None => None,
        };
        let kept = kept.flatten().and_then(|pin| pin.parse().ok());
        let pin = self.keep_volume(volume, &kept.unwrap_or(pin))?;
        let _ = self.ask_fellows(volume, Some(&pin)).await;
        Ok(pin)
    }

    /// What another seed keeps for a volume, after it was offered `pin`. Who does not answer is passed over.
    async fn ask_fellows(&self, volume: &str, pin: Option<&Pin>) -> Option<Pin> {
        let up = self.fellows.iter().flat_map(|fellows| fellows.answering());
        let asked = up.map(|fellow| fellow.volume(volume, pin.map(ToString::to_string)));
        let answers = futures::future::join_all(asked).await;
        answers
            .into_iter()
            .flatten()
            .flatten()
            .find_map(|pin| pin.parse().ok())
    }

    fn keep_volume(&self, volume: &str, pin: &Pin) -> Result<Pin, Failure> {
        let index = self.store.index();
        let value = stamped(&pin.to_string());
        let kept = index.put_record_once(VOLUMES, volume, value.as_bytes());
        index.keep_newest(VOLUMES, VOLUMES_MAX).map_err(internal)?;
        Ok(parse_pin(&kept.map_err(internal)?).unwrap_or_else(|| pin.clone()))
    }

    fn kept_volume(&self, volume: &str) -> Result<Option<Pin>, Failure> {
        let record = self.store.index().record(VOLUMES, volume);
        let damaged = || Failure::new(FailureKind::Internal, "a damaged pin record");
        let bytes = record.map_err(internal)?;
        bytes
            .map(|bytes| parse_pin(&bytes).ok_or_else(damaged))
            .transpose()
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
        let hub = self.hubs.hub(reference)?;
        let name = Reference {
            subdir: None,
            ..reference.clone()
        }
        .to_string();
        match hub.resolve(reference, token).await {
            Ok(pin) => {
                let commits = self.store.index();
                let noted = commits.put_record("commits", &name, pin.to_string().as_bytes());
                noted.map_err(internal).map(|()| pin)
            }
            Err(error) => self.last_known(&name, token, error),
        }
    }

    /// Only for who may read it without asking the hub: a commit must not outlive the permission.
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
            Some(pin) if failure.kind.is_transient() && self.permissions.stands(&pin, token) => {
                tracing::warn!(reference = name, %pin, %failure, "hub unreachable, using the last known commit");
                Ok(pin)
            }
            _ => Err(failure),
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
        let listing = self.hubs.hub(&pin.repository)?.list(pin, token).await?;
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
        if let Some(pin) = self.kept_volume(volume)? {
            return Ok(pin);
        }
        if let Some(pin) = self.ask_fellows(volume, None).await {
            return self.keep_volume(volume, &pin);
        }
        let pin = self.resolve_branch(reference, token).await?;
        self.offer(volume, pin).await
    }

    async fn volume(&self, volume: &str, pin: Option<&Pin>) -> Result<Option<Pin>, Failure> {
        match pin {
            Some(pin) => self.keep_volume(volume, pin).map(Some),
            None => self.kept_volume(volume),
        }
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        self.permissions.check(pin, token).await?;
        self.listings
            .get(pin.clone(), || self.stored_listing(pin, token))
            .await
    }

    fn is_public(&self, pin: &Pin) -> bool {
        self.permissions.is_public(pin)
    }

    async fn forget(&self, volume: &str) {
        if let Err(error) = self.store.index().remove_record(VOLUMES, volume) {
            tracing::warn!(%error, "cannot forget a volume's pin");
        }
    }
}

fn asker(token: Option<&Token>) -> Asker {
    token.map(Token::fingerprint)
}

fn parse_pin(bytes: &[u8]) -> Option<Pin> {
    std::str::from_utf8(bytes)
        .ok()?
        .lines()
        .next()?
        .parse()
        .ok()
}

fn internal(error: StoreError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
