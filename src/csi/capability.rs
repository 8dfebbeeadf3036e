//! Which volume capabilities are accepted: filesystems in every access mode, always read-only.
//!
//! A reader who asked for more finds out by EROFS, as with any read-only volume; refusing ReadWriteOnce
//! would refuse every inline volume, for kubelet asks for nothing else there.

use super::status::Refusal;
use super::v1::VolumeCapability;
use super::v1::volume_capability::{AccessType, MountVolume};

/// What a mount has anyway. Another flag would be a promise that nobody keeps.
const MOUNT_FLAGS: [&str; 4] = ["ro", "nosuid", "nodev", "noatime"];

/// Refuses what cannot be shown.
pub(super) fn check(capability: Option<&VolumeCapability>) -> Result<(), Refusal> {
    match capability.map(|capability| &capability.access_type) {
        None => Err(Refusal::Missing {
            field: "volume_capability",
        }),
        Some(None) => Err(refused("has no access type: use `volumeMode: Filesystem`")),
        Some(Some(AccessType::Block(_))) => Err(refused(
            "models are files, not block devices: use `volumeMode: Filesystem`",
        )),
        Some(Some(AccessType::Mount(mount))) => check_flags(mount),
    }
}

/// Refuses an empty list, which no volume can have, and what cannot be shown.
pub(super) fn check_all(capabilities: &[VolumeCapability]) -> Result<(), Refusal> {
    if capabilities.is_empty() {
        return Err(Refusal::Missing {
            field: "volume_capabilities",
        });
    }
    capabilities
        .iter()
        .try_for_each(|capability| check(Some(capability)))
}

fn check_flags(mount: &MountVolume) -> Result<(), Refusal> {
    let foreign = |flag: &&String| !MOUNT_FLAGS.contains(&flag.as_str());
    match mount.mount_flags.iter().find(foreign) {
        None => Ok(()),
        Some(flag) => Err(refused(format!(
            "mount option {:?} is not allowed: allowed are {}",
            flag.chars().take(64).collect::<String>(),
            MOUNT_FLAGS.join(", ")
        ))),
    }
}

fn refused(cause: impl Into<String>) -> Refusal {
    Refusal::Field {
        field: "volume_capability",
        cause: cause.into(),
    }
}
