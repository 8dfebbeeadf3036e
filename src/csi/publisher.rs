//! The contract with the room that mounts.
//!
//! `csi` decides what is shown where and to whom; a [`Publisher`] makes it so. Calls for one volume id never
//! overlap, calls for different ones do.

pub use super::following::Bulletin;
use crate::model::{Listing, Prefetch, Token, View};
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is to be shown at a target path.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    pub listing: Arc<Listing>,
    pub view: View,
    /// May differ between two publishes of the same volume: kubelet brings rotated credentials this way.
    pub token: Option<Token>,
    pub prefetch: Prefetch,
}

/// What a published volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    pub bytes: u64,
    pub files: u64,
}

/// How a published volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Mounted where it was published, and answering.
    pub is_served: bool,
    /// Every byte is on this node.
    pub is_complete: bool,
    /// A file whose content differs from the pinned digest.
    pub revoked: Option<String>,
    /// Why nobody gives the pieces that readers wait for.
    pub starving: Option<String>,
}

/// How what stands behind all volumes of this node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageFacts {
    /// None where the process is its own seed.
    pub seeds: usize,
    pub connected: usize,
    /// The cache keeps nothing more.
    pub is_full: bool,
}

impl StorageFacts {
    /// There are seeds, and none is connected.
    pub fn is_cut_off(&self) -> bool {
        self.seeds > 0 && self.connected == 0
    }
}

/// Why a volume is not at its target (nothing was left there), or still is.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("target {target}: {cause}")]
    Target { target: PathBuf, cause: String },
    #[error("target {target} already shows something else: unpublish it first")]
    OtherVolume { target: PathBuf },
    #[error(
        "volume {volume_id}: {bytes} bytes do not fit this node's cache: raise its size or use `prefetch: auto`"
    )]
    NoRoom { volume_id: String, bytes: u64 },
    #[error("mount at {target}: {source}")]
    Mount {
        target: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Shows listings at paths.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Mounts read-only and returns without fetching content. Makes the target, whose parent exists.
    /// Repeated with equal arguments it changes nothing but the token; on an error nothing is left behind,
    /// or what was there before.
    async fn publish(
        &self,
        volume_id: &str,
        request: PublishRequest,
        target: &Path,
    ) -> Result<(), PublishError>;

    /// Removes the mount and the target. `Ok` when there is nothing, also of a volume never heard of, of a
    /// dead mount and of an empty directory.
    async fn unpublish(&self, volume_id: &str, target: &Path) -> Result<(), PublishError>;

    /// What the volume at this path holds, from memory; `None` if that volume is not there.
    fn stats(&self, volume_id: &str, path: &Path) -> Option<VolumeStats>;

    /// How the volume at this path is, within 100 ms; `None` if that volume is not there.
    async fn health(&self, volume_id: &str, path: &Path) -> Option<VolumeFacts>;

    /// What becomes of the volume at this path from now on, until it is not there any more; `None` if that
    /// volume is not there.
    fn follow(&self, volume_id: &str, path: &Path) -> Option<Bulletin>;

    /// How the storage is, from memory.
    fn storage(&self) -> StorageFacts;
}
