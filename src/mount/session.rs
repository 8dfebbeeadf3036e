//! One connection to the kernel: mounted, served by its own threads, ended without remains.
//!
//! Mounted by mount(2) itself, for no helper program is in the image. All threads read one descriptor:
//! cloned ones would lose their requests with a crash. Ending detaches the mount and aborts the
//! connection, since another mount namespace may hold a copy that keeps it alive; then no reader waits
//! and the threads return. Dropping a session ends it.

use super::probe::Watch;
use super::{MountError, info, syscalls};
use crate::fs::fuse::{Adapter, REQUEST_BYTES_MAX};
use crate::fs::{Mode, Volume};
use fuser::{BackingId, Config, INodeNo, Notifier, SessionACL};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

type FuseSession = fuser::Session<Adapter>;

/// Two would do but for random reads that wait for the disk.
const THREADS: usize = 4;

/// Threads return in milliseconds once the connection is aborted.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A mounted volume.
pub struct Session {
    dir: PathBuf,
    device: (u32, u32),
    volume: Arc<Volume>,
    /// Taken by the first to end it.
    running: Mutex<Option<Running>>,
    watch: Watch,
    ended: CancellationToken,
}

struct Running {
    threads: JoinHandle<()>,
    /// Closes when all serving threads have returned.
    returned: Receiver<()>,
    abort: Option<File>,
}

impl Session {
    /// Mounts `volume` on the directory `dir` and serves it. `data_dir` is where its data files lie: whether
    /// the kernel reads files there directly is tried out.
    pub fn mount(volume: Arc<Volume>, dir: &Path, data_dir: &Path) -> Result<Session, MountError> {
        let device = open_device()?;
        syscalls::mount_fuse(&device, dir, REQUEST_BYTES_MAX)?;
        let mounted = Session::serve(volume, dir, data_dir, device);
        if mounted.is_err() {
            let _ = syscalls::detach(dir);
        }
        mounted
    }

    fn serve(
        volume: Arc<Volume>,
        dir: &Path,
        data_dir: &Path,
        device: OwnedFd,
    ) -> Result<Session, MountError> {
        let fuse =
            handshake(&volume, device).map_err(|error| MountError::io("mount", dir, error))?;
        let line = info::on(dir)?.ok_or_else(|| MountError::Missing { dir: dir.into() })?;
        if volume.mode() == Mode::Passthrough {
            volume.set_mode(probe(&fuse, data_dir));
        }
        let notifier = fuse.notifier();
        volume.set_announce(Box::new(move |parent, name| {
            forget(&notifier, parent, name)
        }));
        let ended = CancellationToken::new();
        let (threads, returned) =
            run(fuse, ended.clone()).map_err(|error| MountError::io("serve", dir, error))?;
        let running = Running {
            threads,
            returned,
            abort: syscalls::abort_file(line.device.1),
        };
        Ok(Session {
            dir: dir.to_owned(),
            device: line.device,
            volume,
            running: Mutex::new(Some(running)),
            watch: Watch::default(),
            ended,
        })
    }

    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The superblock's device, which binds of this mount share.
    pub fn device(&self) -> (u32, u32) {
        self.device
    }

    /// Cancelled when nothing is served any more, whoever unmounted it.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Whether this session is what is mounted on its directory.
    pub fn is_mounted(&self) -> bool {
        !self.ended.is_cancelled()
            && matches!(info::on(&self.dir), Ok(Some(line)) if line.device == self.device)
    }

    /// Unmounts, frees every waiting reader and joins the threads. Blocks for milliseconds.
    pub fn end(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else {
            return;
        };
        // Somebody may have mounted something else there since.
        if self.is_mounted()
            && let Err(error) = syscalls::detach(&self.dir)
        {
            tracing::warn!(%error, "mount stays");
        }
        self.volume.end();
        running.stop(&self.dir);
    }
}

impl Running {
    fn stop(mut self, dir: &Path) {
        if let Some(mut abort) = self.abort.take() {
            // Fails when the connection is gone already.
            let _ = abort.write_all(b"1");
        }
        match self.returned.recv_timeout(JOIN_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!(dir = %dir.display(), "mount still has users: its threads stay until they are gone");
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(self.threads.join()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    // std sets O_CLOEXEC: a child that inherited the descriptor would keep the connection alive.
    let device = File::options().read(true).write(true).open("/dev/fuse");
    match device {
        Ok(device) => Ok(device.into()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Err(MountError::NoDevice),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(MountError::NoDevice),
        Err(error) => Err(MountError::io("open", "/dev/fuse".as_ref(), error)),
    }
}

/// Answers INIT, which the kernel has queued at mount.
fn handshake(volume: &Arc<Volume>, device: OwnedFd) -> io::Result<FuseSession> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.clone_fd = false;
    FuseSession::from_fd(
        Adapter::new(volume.clone()),
        device,
        SessionACL::All,
        config,
    )
}

/// Runs a session on threads of its own.
fn run(fuse: FuseSession, ended: CancellationToken) -> io::Result<(JoinHandle<()>, Receiver<()>)> {
    let (returning, returned) = channel();
    let serve = move || {
        if let Err(error) = fuse.run() {
            tracing::warn!(%error, "mount ended");
        }
        ended.cancel();
        drop(returning);
    };
    let runner = std::thread::Builder::new()
        .name("fuse".into())
        .spawn(serve)?;
    Ok((runner, returned))
}

fn forget(notifier: &Notifier, parent: u64, name: &str) {
    if let Err(error) = notifier.inval_entry(INodeNo(parent), OsStr::new(name)) {
        tracing::debug!(%error, name, "kernel keeps a name");
    }
}

nix::ioctl_write_ptr!(
    /// Gives a backing id back. fuser does so only for ids that were made in answer to an open.
    #[allow(unsafe_code)]
    backing_close, 229, 2, u32
);

/// Whether the kernel takes a file of `data_dir` as a backing file: not on overlayfs, not without
/// CAP_SYS_ADMIN, not before 6.9.
fn probe(fuse: &FuseSession, data_dir: &Path) -> Mode {
    let try_one = || -> io::Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(data_dir)?;
        let id = BackingId::create_raw(fuse, &file)?;
        // SAFETY: the descriptor is this session's and `id` was just made on it; nobody else knows it.
        #[allow(unsafe_code)]
        unsafe {
            backing_close(fuse.as_fd().as_raw_fd(), &id)?;
        }
        Ok(())
    };
    match try_one() {
        Ok(()) => Mode::Passthrough,
        Err(error) => {
            tracing::info!(%error, dir = %data_dir.display(), "no passthrough: complete files are read through this process");
            Mode::Cached
        }
    }
}
