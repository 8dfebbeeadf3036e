//! How much of a revision is fetched before anybody reads it.

use super::tree::ItemId;
use super::volume::Volume;
use crate::store::State;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prefetch {
    /// Only what is read.
    Demand,
    /// Ahead of readers; content does that by itself.
    #[default]
    Auto,
    /// The whole revision, in the background.
    All,
}

/// Files under way at once: one after another so that the next shard opens complete, two so that the
/// check at a file's end does not idle the network.
const FILES_AT_ONCE: usize = 2;

/// How often a file is looked at that may never finish, because it was revoked.
const REVOKED_CHECK: Duration = Duration::from_secs(1);

/// Starts fetching everything in the tree's order; ends with the volume.
pub fn start(volume: &Arc<Volume>) {
    let (weak, ending) = (Arc::downgrade(volume), volume.ending().clone());
    let files: Vec<ItemId> = volume.tree().all_files().collect();
    let all = async move {
        let fetch = |id| {
            let volume = weak.upgrade();
            async move {
                if let Some(volume) = volume {
                    fetch_file(volume, id).await;
                }
            }
        };
        let files = futures::stream::iter(files).map(fetch);
        files
            .buffer_unordered(FILES_AT_ONCE)
            .for_each(|()| async {})
            .await;
    };
    volume.runtime().spawn(async move {
        tokio::select! {
            () = all => {}
            () = ending.cancelled() => {}
        }
    });
}

/// Fetches one file; a file that cannot be opened now is left to its readers.
async fn fetch_file(volume: Arc<Volume>, id: ItemId) {
    let (opener, entry) = (volume.opener().clone(), volume.tree().entry_index(id));
    let opened = tokio::task::spawn_blocking(move || opener.open(entry)).await;
    let content = match opened {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => return tracing::warn!(%error, "file is not prefetched"),
        Err(_) => return,
    };
    content.fetch_all();
    volume.follow(id, content.clone());
    drop(volume);
    while content.state() != State::Revoked {
        tokio::select! {
            () = content.clone().finished() => return,
            () = tokio::time::sleep(REVOKED_CHECK) => {}
        }
    }
}
