//! After a restart: what was shown is shown again, at the same targets.
//!
//! A FUSE mount dies with its process, so a new one reads the records and publishes each volume once more,
//! without a token: what is public, or may be read without one for another reason, is back at once, the rest
//! when kubelet republishes with the pod's credential. A pod that ran through it keeps its dead mount unless
//! it asked for mount propagation. Targets whose pod is gone are forgotten. Nothing here fails the start.

use super::lookup::ANSWER_MAX;
use super::node::Node;
use super::parameters::Author;
use super::publication::{Publication, Shared};
use super::records::RecordError;
use super::status::Refusal;
use super::volume::{self, Published, Wish};
use futures::StreamExt;
use std::path::{Path, PathBuf};

/// Volumes restored at once: each costs one question to a seed.
const RESTORES: usize = 8;

impl Node {
    /// Every recorded target, by volume.
    pub async fn recorded(&self) -> Result<Vec<(String, PathBuf)>, RecordError> {
        let mut found = Vec::new();
        for (volume_id, bytes) in self.shared.records.all().await? {
            match volume::decode::<Published>(&volume_id, &bytes) {
                Ok(record) => found.extend(
                    record
                        .targets
                        .into_iter()
                        .map(|target| (volume_id.clone(), target)),
                ),
                Err(error) => tracing::warn!(%error, "not restored"),
            }
        }
        Ok(found)
    }

    /// Shows them again, as far as seeds answer within half a minute.
    pub async fn restore(&self, recorded: Vec<(String, PathBuf)>) {
        let restores = futures::stream::iter(recorded);
        let restores = restores.for_each_concurrent(RESTORES, |(volume_id, target)| async move {
            let (shared, volume) = (self.shared.clone(), volume_id.clone());
            let call = async move { shared.restore(&volume, &target).await };
            if let Err(error) = self.turns.run(&volume_id, call).await {
                tracing::warn!(volume = ?volume_id, %error, "not restored, waits for kubelet");
            }
        });
        if tokio::time::timeout(ANSWER_MAX, restores).await.is_err() {
            tracing::warn!("seeds are slow: some volumes are restored later");
        }
    }
}

impl Shared {
    /// A call that came first may have taken the volume away: the record says.
    async fn restore(&self, volume_id: &str, target: &Path) -> Result<(), Refusal> {
        let Some(record) = self.record(volume_id).await? else {
            return Ok(());
        };
        if !record.targets.iter().any(|known| known == target) {
            return Ok(());
        }
        if !target.parent().is_some_and(Path::exists) {
            tracing::info!(volume = ?volume_id, target = %target.display(), "its pod is gone, forgotten");
            return self.unpublish(volume_id, target).await;
        }
        let author = match record.is_inline {
            true => Author::Pod,
            false => Author::Admin,
        };
        let publication = Publication {
            volume_id: volume_id.to_owned(),
            target: target.to_owned(),
            wish: Wish::of_context(&record.words, author)?,
            words: record.words,
            is_inline: record.is_inline,
            kept_as: record.kept_as,
            token: None,
            pod: None,
        };
        self.publish(publication).await.map(drop)
    }
}
