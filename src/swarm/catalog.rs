//! A node's [`Catalog`]: its seed's, with the small files that come along kept.
//!
//! The node keeps the listings of public pins. With every seed down that is enough to publish what
//! is pinned; what only a hub's permission opens fails closed.

use super::node::Swarm;
use super::remote::{Listed, rank_key};
use super::v1;
use super::wire;
use crate::model::{Failure, FailureKind, Listing, Pin, Reference, Token, Verified};
use crate::source::Catalog;
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A seed that retries its hub for longer than this is given up for now: kubelet asks again.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pins that the hub gives to everybody.
const PUBLIC: &str = "public";
const PUBLIC_MAX: usize = 10_000;

#[async_trait]
impl Catalog for Swarm {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let (_, link) = self.link_for(&rank_key(reference), token)?;
        let answer = link.seed.resolve(reference, volume, token).await;
        answer.or_else(|failure| match failure.kind {
            FailureKind::Unavailable => self.pinned(reference).ok_or(failure),
            _ => Err(failure),
        })
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let late = || {
            let message = format!("{pin}: no answer from a seed within {ANSWER_MAX:?}");
            Failure::new(FailureKind::Unavailable, message)
        };
        let asked = timeout(ANSWER_MAX, self.ask(pin, token)).await;
        let failure = match asked.unwrap_or_else(|_| Err(late())) {
            Ok(listed) => return Ok(self.keep_all(listed).await),
            Err(failure) => failure,
        };
        use FailureKind::{Denied, NotFound, Unauthenticated, Unavailable};
        match failure.kind {
            Unavailable => self.kept(pin, failure),
            Denied | NotFound | Unauthenticated if token.is_none() => {
                let _ = self.store.index().remove_record(PUBLIC, &pin.to_string());
                Err(failure)
            }
            _ => Err(failure),
        }
    }

    fn is_public(&self, pin: &Pin) -> bool {
        let note = self.store.index().record(PUBLIC, &pin.to_string());
        matches!(note, Ok(Some(_)))
    }

    async fn forget(&self, volume: &str) {
        for link in &self.links {
            link.seed.forget(volume).await;
        }
    }
}

impl Swarm {
    async fn ask(&self, pin: &Pin, token: Option<&Token>) -> Result<Listed, Failure> {
        let (_, link) = self.link_for(&rank_key(&pin.repository), token)?;
        link.seed.listing(pin, token).await
    }

    /// A full commit is its own pin, if this node has seen that it is one and public.
    fn pinned(&self, reference: &Reference) -> Option<Pin> {
        let pin = Pin {
            repository: reference.repository(),
            revision: reference.revision.as_ref()?.parse().ok()?,
        };
        self.is_public(&pin).then_some(pin)
    }

    /// What this node kept of a public pin; the failure if that is nothing.
    fn kept(&self, pin: &Pin, failure: Failure) -> Result<Arc<Listing>, Failure> {
        let listing = self.store.index().listing(pin).ok().flatten();
        match listing.filter(|_| self.is_public(pin)) {
            Some(listing) => {
                tracing::warn!(%pin, %failure, "no seed answers, using the listing kept here");
                Ok(Arc::new(listing))
            }
            None => Err(failure),
        }
    }

    /// Keeps what came. What cannot be kept is asked for again when it is needed.
    async fn keep_all(&self, listed: Listed) -> Arc<Listing> {
        let (store, listing) = (self.store.clone(), listed.listing.clone());
        let kept = tokio::task::spawn_blocking(move || keep_all(&store, listed)).await;
        match kept {
            Ok(Ok(files)) => tracing::debug!(files, "small files came along"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep a listing"),
            Err(_) => {}
        }
        listing
    }
}

fn keep_all(store: &Store, listed: Listed) -> Result<usize, StoreError> {
    let (index, pin) = (store.index(), listed.listing.pin());
    if listed.public && !index.has_listing(pin)? {
        index.put_listing(&listed.listing)?;
    }
    let name = pin.to_string();
    // Written when it changes: kubelet asks every minute.
    match (listed.public, index.record(PUBLIC, &name)?.is_some()) {
        (true, false) => index.note(PUBLIC, &name, "", PUBLIC_MAX)?,
        (false, true) => index.remove_record(PUBLIC, &name)?,
        _ => {}
    }
    let keep = |content| keep(store, &listed.listing, content);
    Ok(listed.contents.into_iter().filter_map(keep).count())
}

fn keep(store: &Store, listing: &Listing, content: v1::Content) -> Option<()> {
    let key = wire::key_of(&content.key)?;
    let root = content.root.try_into().ok()?;
    let entry = listing.files().iter().find(|entry| entry.key == key)?;
    let piece = Verified::check(entry.geometry(), 0, Bytes::from(content.bytes), &root)?;
    let file = store.file(key, entry.size).ok()?;
    store.keep(&file, &piece).ok()?;
    file.finish(root).ok()?;
    store.prove(&listing.pin().repository, key).ok()
}
