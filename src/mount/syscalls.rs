//! The system calls that mount and unmount, with errors that name the path.

use super::{MountError, info};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

const FUSECTL: &str = "/sys/fs/fuse/connections";

fn read_only() -> MsFlags {
    MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV
}

/// Mounts a connection on a directory. The kernel queues INIT on `device` and does not wait for its answer.
pub(super) fn mount_fuse(device: &impl AsFd, dir: &Path, read_max: u32) -> Result<(), MountError> {
    let fd = device.as_fd().as_raw_fd();
    let options = format!(
        "fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read={read_max}"
    );
    let (source, fstype) = (Some("model-p2p"), Some(info::FSTYPE));
    mount(source, dir, fstype, read_only(), Some(options.as_str()))
        .map_err(|errno| MountError::io("mount", dir, errno))
}

/// Shows `source` at `target`, read-only. The flags of a bind need a second call.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), MountError> {
    const NONE: Option<&str> = None;
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|errno| MountError::io("bind", target, errno))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | read_only();
    mount(NONE, target, NONE, flags, NONE).map_err(|errno| {
        let _ = umount2(target, MntFlags::MNT_DETACH);
        MountError::io("make read-only", target, errno)
    })
}

/// Takes the top mount off `point`, busy or dead. Nothing mounted there is fine.
pub(super) fn detach(point: &Path) -> Result<(), MountError> {
    match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(MountError::io("unmount", point, errno)),
    }
}

/// Removes a directory that is ours and empty by now; one that is gone is fine.
pub(super) fn remove_dir(dir: &Path) -> Result<(), MountError> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MountError::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}

/// The file whose writing aborts a connection: every request, waiting or to come, then fails at once.
///
/// It is opened while the connection lives and kept: device numbers are used again at once, and the open
/// file is this connection's or nobody's. `None` where the control filesystem cannot be had.
pub(super) fn abort_file(minor: u32) -> Option<File> {
    let path = format!("{FUSECTL}/{minor}/abort");
    let open = || File::options().write(true).open(&path);
    open()
        .or_else(|_| {
            let none: Option<&str> = None;
            mount(
                Some("none"),
                FUSECTL,
                Some("fusectl"),
                MsFlags::empty(),
                none,
            )?;
            open()
        })
        .inspect_err(|error| tracing::warn!(%error, path, "connection cannot be aborted by force"))
        .ok()
}
