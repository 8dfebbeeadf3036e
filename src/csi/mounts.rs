//! The publisher that mounts: this room's contract on top of `mount`.

use super::publisher::{
    PublishError, PublishRequest, Publisher, StorageFacts, VolumeFacts, VolumeStats,
};
use crate::fetch::Fetcher;
use crate::mount::{MountError, MountSpec, Mounts};
use async_trait::async_trait;
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

    fn storage(&self) -> StorageFacts {
        let reach = self.fetcher.reach();
        StorageFacts {
            seeds: reach.seeds,
            connected: reach.connected,
            is_full: self.fetcher.store().is_full(),
        }
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
