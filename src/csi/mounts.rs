//! The publisher that mounts: this room's contract on top of `mount`.

use super::publisher::{PublishError, PublishRequest, Publisher, VolumeStats};
use crate::mount::{MountError, MountSpec, Mounts};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;

/// Shows volumes through the process's mounts.
pub struct MountPublisher(pub Arc<Mounts>);

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
        self.0
            .publish(spec, volume_id, target)
            .await
            .map_err(|error| refusal(error, target))
    }

    async fn unpublish(&self, volume_id: &str, target: &Path) -> Result<(), PublishError> {
        self.0
            .unpublish(volume_id, target)
            .await
            .map_err(|error| refusal(error, target))
    }

    fn stats(&self, volume_id: &str, path: &Path) -> Option<VolumeStats> {
        let stats = self.0.stats(volume_id, path)?;
        Some(VolumeStats {
            bytes: stats.bytes,
            files: stats.files,
        })
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
