//! The publisher that mounts: this room's contract on top of `mount`.

use super::publisher::{
    Bulletin, PublishError, PublishRequest, Publisher, StorageFacts, VolumeFacts, VolumeStats,
};
use crate::fetch::Fetcher;
use crate::fs::{Change, Follow, Volume};
use crate::model::News;
use crate::mount::{MountError, MountSpec, Mounts};
use async_trait::async_trait;
use futures::StreamExt;
use std::path::Path;
use std::sync::Arc;

/// Shows volumes through the process's mounts.
pub struct MountPublisher {
    pub mounts: Arc<Mounts>,
    /// What the mounts read through.
    pub fetcher: Arc<Fetcher>,
}

#[async_trait]
impl Publisher for MountPublisher {
    async fn publish(
        &self,
        volume_id: &str,
        request: PublishRequest,
        target: &Path,
    ) -> Result<(), PublishError> {
        let spec = MountSpec {
            listing: request.listing,
            view: request.view,
            token: request.token,
            prefetch: request.prefetch,
        };
        self.mounts
            .publish(spec, volume_id, target)
            .await
            .map_err(|error| refusal(error, target))
    }

    async fn unpublish(&self, volume_id: &str, target: &Path) -> Result<(), PublishError> {
        self.mounts
            .unpublish(volume_id, target)
            .await
            .map_err(|error| refusal(error, target))
    }

    fn stats(&self, volume_id: &str, path: &Path) -> Option<VolumeStats> {
        let stats = self.mounts.stats(volume_id, path)?;
        Some(VolumeStats {
            bytes: stats.bytes,
            files: stats.files,
        })
    }

    async fn health(&self, volume_id: &str, path: &Path) -> Option<VolumeFacts> {
        let health = self.mounts.health(volume_id, path).await?;
        Some(VolumeFacts {
            is_served: health.is_served,
            is_complete: health.survey.is_complete,
            revoked: health.survey.revoked,
            starving: health.survey.starving,
        })
    }

    fn follow(&self, volume_id: &str, path: &Path) -> Option<Bulletin> {
        let follow = self.mounts.follow(volume_id, path)?;
        let next = |mut follow: Follow| async {
            let change = follow.next().await?;
            Some((told(follow.volume(), change), follow))
        };
        Some(futures::stream::unfold(follow, next).boxed())
    }

    fn storage(&self) -> StorageFacts {
        let reach = self.fetcher.reach();
        StorageFacts {
            seeds: reach.seeds,
            connected: reach.connected,
            is_full: self.fetcher.store().is_full(),
        }
    }
}

/// A change in words for the pod's owner.
fn told(volume: &Volume, change: Change) -> (News, String) {
    let tree = volume.tree();
    let (pin, bytes, files) = (tree.listing().pin(), tree.bytes(), tree.files());
    match change {
        Change::Complete => {
            let text = format!("{pin} is complete on this node: {bytes} bytes in {files} files");
            (News::Complete, text)
        }
        Change::Degraded(cause) => (News::Degraded, format!("{pin}: {cause}")),
    }
}

/// What is wrong with the target is the caller's; all else is this node's.
fn refusal(error: MountError, target: &Path) -> PublishError {
    let target = target.to_owned();
    match error {
        MountError::OtherVolume { .. } => PublishError::OtherVolume { target },
        MountError::Missing { .. }
        | MountError::NotADirectory { .. }
        | MountError::NotEmpty { .. } => PublishError::Target {
            target,
            cause: error.to_string(),
        },
        error => PublishError::Mount {
            target,
            source: std::io::Error::other(error),
        },
    }
}
