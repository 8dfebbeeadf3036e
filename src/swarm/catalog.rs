//! A node's [`Catalog`]: the seeds', over their gRPC service.
//!
//! The seed for a reference is chosen by its repository, so that all nodes ask the same one and it asks the
//! hub once. A listing is checked as if it came from the hub; contents that come along are hashed and kept.

use super::node::Swarm;
use super::v1;
use super::wire;
use crate::model::{Digest, Failure, FailureKind, Listing, Pin, Reference, Token, Verified};
use crate::source::Catalog;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// The most bytes of content that come along with a listing are 4 MiB; more is the seed's mistake.
const CONTENT_BYTES_MAX: usize = 8 << 20;

#[async_trait]
impl Catalog for Swarm {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let (_, link) = self.link_for(&rank_key(&reference.repo), token)?;
        let request = v1::ResolveRequest {
            reference: reference.to_string(),
            volume: volume.map(str::to_owned),
            token: token.map(|token| token.reveal().to_owned()),
        };
        let reply = link
            .client()
            .resolve(request)
            .await
            .map_err(|status| wire::failure_of(&status))?;
        reply
            .into_inner()
            .pin
            .parse()
            .map_err(|error| bad_answer(&link.name, error))
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let (_, link) = self.link_for(&rank_key(&pin.repository.repo), token)?;
        let request = v1::ListingRequest {
            pin: pin.to_string(),
            token: token.map(|token| token.reveal().to_owned()),
        };
        let failure = |status| wire::failure_of(&status);
        let mut pages = link
            .client()
            .listing(request)
            .await
            .map_err(failure)?
            .into_inner();
        let (mut rows, mut contents, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(page) = pages.message().await.map_err(failure)? {
            rows.extend(page.entries);
            bytes += page
                .contents
                .iter()
                .map(|content| content.bytes.len())
                .sum::<usize>();
            if rows.len() > crate::model::listing::FILES_MAX || bytes > CONTENT_BYTES_MAX {
                return Err(bad_answer(&link.name, "listing is too large"));
            }
            contents.extend(page.contents);
        }
        let listing = read(pin, rows).map_err(|cause| bad_answer(&link.name, cause))?;
        self.keep(listing.clone(), contents).await;
        Ok(listing)
    }
}

impl Swarm {
    /// Keeps the contents that came along. One that cannot be kept is simply fetched when it is read.
    async fn keep(&self, listing: Arc<Listing>, contents: Vec<v1::Content>) {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let keep = |content| keep(&store, &listing, content);
            contents.into_iter().filter_map(keep).count()
        });
        let files = kept.await.unwrap_or_default();
        tracing::debug!(files, "small files came along");
    }
}

fn keep(store: &crate::store::Store, listing: &Listing, content: v1::Content) -> Option<()> {
    let key = wire::key_of(&content.key)?;
    let root = content.root.try_into().ok()?;
    let entry = listing.files().iter().find(|entry| entry.key == key)?;
    let piece = Verified::check(entry.geometry(), 0, Bytes::from(content.bytes), &root)?;
    let file = store.file(key, entry.size).ok()?;
    store.keep(&file, &piece).ok()?;
    file.finish(root).ok().map(drop)
}

fn rank_key(repository: &str) -> [u8; 32] {
    *blake3::hash(repository.as_bytes()).as_bytes()
}

fn read(pin: &Pin, rows: Vec<v1::Entry>) -> Result<Arc<Listing>, String> {
    let row = |row: v1::Entry| {
        let digest: Result<Digest, ()> = row.digest.parse();
        digest
            .map(|digest| (row.path, row.size, digest))
            .map_err(|()| format!("digest `{}`", row.digest))
    };
    let rows: Vec<_> = rows.into_iter().map(row).collect::<Result<_, _>>()?;
    Listing::new(pin.clone(), rows)
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

fn bad_answer(seed: &str, cause: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        format!("seed {seed} gave no usable answer: {cause}"),
    )
}
