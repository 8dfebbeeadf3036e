//! A node's [`Catalog`]: its seed's, with the small files that come along kept.

use super::node::Swarm;
use super::remote::rank_key;
use super::v1;
use super::wire;
use crate::model::{Failure, Listing, Pin, Reference, Token, Verified};
use crate::source::Catalog;
use crate::store::Store;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

#[async_trait]
impl Catalog for Swarm {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let (_, link) = self.link_for(&rank_key(reference), token)?;
        link.seed.resolve(reference, volume, token).await
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let (_, link) = self.link_for(&rank_key(&pin.repository), token)?;
        let (listing, contents) = link.seed.listing(pin, token).await?;
        self.keep_all(listing.clone(), contents).await;
        Ok(listing)
    }
}

impl Swarm {
    /// Keeps the contents that came along. One that cannot be kept is simply fetched when it is read.
    async fn keep_all(&self, listing: Arc<Listing>, contents: Vec<v1::Content>) {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let keep = |content| keep(&store, &listing, content);
            contents.into_iter().filter_map(keep).count()
        });
        let files = kept.await.unwrap_or_default();
        tracing::debug!(files, "small files came along");
    }
}

fn keep(store: &Store, listing: &Listing, content: v1::Content) -> Option<()> {
    let key = wire::key_of(&content.key)?;
    let root = content.root.try_into().ok()?;
    let entry = listing.files().iter().find(|entry| entry.key == key)?;
    let piece = Verified::check(entry.geometry(), 0, Bytes::from(content.bytes), &root)?;
    let file = store.file(key, entry.size).ok()?;
    store.keep(&file, &piece).ok()?;
    file.finish(root).ok().map(drop)
}
