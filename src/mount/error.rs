//! Why a mount cannot be made or ended, and what to do about it.

use crate::model::view::ViewError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mount point {dir}: does not exist: create it with mkdir")]
    Missing { dir: PathBuf },
    #[error("mount point {dir}: is not a directory: name an empty directory")]
    NotADirectory { dir: PathBuf },
    #[error("mount point {dir}: is not empty: name an empty directory")]
    NotEmpty { dir: PathBuf },
    #[error("mount point {dir}: is already mounted: unmount it first with umount {dir}")]
    Mounted { dir: PathBuf },
    #[error("/dev/fuse: does not exist: load the kernel module with modprobe fuse")]
    NoDevice,
    #[error("{path}: mounting is not permitted: run as root or with CAP_SYS_ADMIN")]
    NotPermitted { path: PathBuf },
    #[error("{target}: holds another volume ({volume}): unpublish that one first")]
    OtherVolume { target: PathBuf, volume: String },
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("{path}: cannot {action}: {source}; see the kernel log with dmesg")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: the filesystem does not answer: look at the node's disk and mounts")]
    Hung { path: PathBuf },
    /// The program is shutting down under the call.
    #[error("{path}: the mount was interrupted: try again")]
    Interrupted { path: PathBuf },
}

impl MountError {
    /// The error of a system call on `path`.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> MountError {
        let (path, source) = (path.to_owned(), source.into());
        match source.kind() {
            io::ErrorKind::PermissionDenied => MountError::NotPermitted { path },
            _ => MountError::Io {
                action,
                path,
                source,
            },
        }
    }
}
