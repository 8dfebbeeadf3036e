//! A mount on a directory of the user's choice, for the command line.

use super::session::Session;
use super::table::{MountSpec, Mounts};
use super::{MountError, info};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Ends with [`DirectMount::unmount`] or when dropped.
pub struct DirectMount {
    session: Session,
}

impl DirectMount {
    /// The directory must exist, be empty and have nothing mounted on it.
    pub(super) fn new(mounts: &Mounts, spec: MountSpec, dir: &Path) -> Result<Self, MountError> {
        let dir = check(dir)?;
        let session = mounts.start(&spec, &dir)?;
        Ok(DirectMount { session })
    }

    pub fn volume(&self) -> &Arc<crate::fs::Volume> {
        self.session.volume()
    }

    pub fn dir(&self) -> &Path {
        self.session.dir()
    }

    /// Resolves when nothing is served any more: after `umount` by somebody else.
    pub async fn ended(&self) {
        self.session.ended().cancelled_owned().await;
    }

    /// Unmounts, even if busy; waiting readers fail.
    pub async fn unmount(self) {
        let _ = tokio::task::spawn_blocking(move || self.session.end()).await;
    }
}

/// The directory as the mount table will spell it.
fn check(dir: &Path) -> Result<std::path::PathBuf, MountError> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing { dir: dir.into() },
        io::ErrorKind::NotADirectory => MountError::NotADirectory { dir: dir.into() },
        _ => MountError::io("open", dir, error),
    };
    // Before anything that asks the filesystem there: a dead mount would answer with an odd error.
    let absolute = std::path::absolute(dir).map_err(missing)?;
    if info::on(&absolute)?.is_some() {
        return Err(MountError::Mounted { dir: absolute });
    }
    let real = dir.canonicalize().map_err(missing)?;
    if info::on(&real)?.is_some() {
        return Err(MountError::Mounted { dir: real });
    }
    let mut names = real.read_dir().map_err(missing)?;
    match names.next() {
        None => Ok(real),
        Some(_) => Err(MountError::NotEmpty { dir: real }),
    }
}
