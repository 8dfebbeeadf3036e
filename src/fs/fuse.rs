//! The thin layer between the kernel's requests and [`Volume`]: every handler asks, then replies or fails.
//!
//! Here and in `mount/session` alone are fuser's types. Present bytes are answered in the serving thread;
//! a read that must wait is answered from the runtime, so no serving thread ever waits for content.
//! What would change anything fails with EROFS, even where the kernel's read-only flag stops it first.

use super::errno::FsError;
use super::idle::IdleMap;
use super::tree::{Attr, Kind, ROOT, Tree};
use super::volume::{Found, Mode, OpenMode, Read, Volume};
use crate::metrics::METRICS;
use bytes::Bytes;
use fuser::{
    AccessFlags, BackingId, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

mod readonly;

/// Nothing changes but a file's node, and that is announced.
const TTL: Duration = Duration::from_secs(3600);

/// The largest read the kernel may send: one piece.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Readahead requests the kernel may have under way. A wait for missing bytes holds its request, so a
/// small number would let a few slow files stop the readahead of all.
const BACKGROUND_MAX: u16 = 256;

/// Each backing id pins an open file in the kernel.
const BACKINGS_MAX: usize = 4096;

/// One second after the epoch, as in package stores that build reproducibly: a revision's files have no
/// times of their own, and some tools take 0 for "no time".
const MTIME: Duration = Duration::from_secs(1);

const BLOCK: u32 = 4096;

/// The kernel's view of a volume.
pub struct Adapter {
    volume: Arc<Volume>,
    backings: Mutex<IdleMap<Arc<BackingId>>>,
    /// Whether the kernel offers passthrough; set by the handshake.
    offered: bool,
}

impl Adapter {
    pub fn new(volume: Arc<Volume>) -> Adapter {
        Adapter {
            volume,
            backings: Mutex::new(IdleMap::new(BACKINGS_MAX)),
            offered: false,
        }
    }

    fn backings(&self) -> std::sync::MutexGuard<'_, IdleMap<Arc<BackingId>>> {
        self.backings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves an open from the data file, with the one backing id its node has.
    fn open_passthrough(&self, node: u64, file: &std::fs::File, reply: ReplyOpen) {
        let backing = self.backings().open(node, || {
            Ok::<_, std::io::Error>(Arc::new(reply.open_backing(file)?))
        });
        match backing {
            Ok(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, &id),
            Err(error) => {
                tracing::warn!(%error, "kernel refuses passthrough: complete files are read through this process");
                self.volume.set_mode(Mode::Cached);
                self.volume.release(node);
                reply.error(fail(&FsError::Stale { node }));
            }
        }
    }
}

/// What was replied to a failed call, logged once if content is to blame.
fn fail(error: &FsError) -> Errno {
    if error.is_content() {
        tracing::warn!(%error, "read failed");
    }
    Errno::from_i32(error.errno())
}

fn file_attr(node: u64, attr: Attr) -> FileAttr {
    let (kind, perm) = match attr.kind {
        Kind::File => (FileType::RegularFile, 0o444),
        Kind::Directory => (FileType::Directory, 0o555),
    };
    let time = SystemTime::UNIX_EPOCH + MTIME;
    FileAttr {
        ino: INodeNo(node),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        // For a directory 1 means "not counted": no tool then skips files by it.
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn attr_of(found: Found) -> FileAttr {
    file_attr(found.node, found.attr)
}

/// A name that is not there and never will be: node 0 lets the kernel remember that too.
fn absent() -> FileAttr {
    file_attr(
        0,
        Attr {
            kind: Kind::File,
            size: 0,
        },
    )
}

fn answer(reply: ReplyData, result: Result<Bytes, FsError>, flags: OpenFlags) {
    match result {
        Ok(bytes) => {
            let mode = match flags.0 & libc::O_DIRECT {
                0 => "cached",
                _ => "direct",
            };
            METRICS
                .read_bytes
                .with_label_values(&[mode])
                .inc_by(bytes.len() as u64);
            reply.data(&bytes);
        }
        Err(error) => reply.error(fail(&error)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each is taken if the kernel has it; none of them may drop cached pages.
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_ALLOW_IDMAP,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        self.offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        if self.offered {
            let _ = config.set_max_stack_depth(1);
            self.volume.set_mode(Mode::Passthrough);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.volume.lookup(parent.0, name.as_bytes()) {
            Ok(found) => reply.entry(&TTL, &attr_of(found), Generation(0)),
            Err(FsError::NotFound) => reply.entry(&TTL, &absent(), Generation(0)),
            Err(error) => reply.error(fail(&error)),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume.getattr(node.0) {
            Ok(attr) => reply.attr(&TTL, &file_attr(node.0, attr)),
            Err(error) => reply.error(fail(&error)),
        }
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let cached = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        let direct = FopenFlags::FOPEN_DIRECT_IO | cached;
        match self.volume.open(node.0, flags.0) {
            Ok(OpenMode::Passthrough(file)) => self.open_passthrough(node.0, &file, reply),
            Ok(OpenMode::Cached) => reply.opened(FileHandle(0), cached),
            Ok(OpenMode::Direct) => reply.opened(FileHandle(0), direct),
            Err(error) => reply.error(fail(&error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.volume.read(node.0, offset, size as usize) {
            Read::Now(result) => answer(reply, result, flags),
            Read::Later(read) => {
                let later = async move { answer(reply, read.await, flags) };
                self.volume.runtime().spawn(later);
            }
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if Tree::is_complete(node.0) {
            self.backings().release(node.0);
        }
        self.volume.release(node.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let add = |next, found: Found, name: &str| {
            let attr = attr_of(found);
            reply.add(attr.ino, next, attr.kind, name)
        };
        match list(&self.volume, node.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(fail(&error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let add = |next, found: Found, name: &str| {
            let attr = attr_of(found);
            reply.add(attr.ino, next, name, &TTL, &attr, Generation(0))
        };
        match list(&self.volume, node.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(fail(&error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let tree = self.volume.tree();
        let blocks = tree.bytes().div_ceil(u64::from(BLOCK));
        reply.statfs(blocks, 0, 0, tree.files(), 0, BLOCK, 255, BLOCK);
    }

    /// ENOSYS: the kernel answers EOPNOTSUPP by itself from now on, one question less per exec and `ls`.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, size: u32, reply: ReplyXattr) {
        match size {
            0 => reply.size(0),
            _ => reply.data(&[]),
        }
    }

    /// `default_permissions` lets the kernel decide; it does not ask.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// The whole file is data: what is missing comes when it is read.
    fn lseek(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let size = match self.volume.getattr(node.0) {
            Ok(attr) => attr.size as i64,
            Err(error) => return reply.error(fail(&error)),
        };
        match whence {
            _ if offset < 0 || offset >= size => reply.error(Errno::ENXIO),
            libc::SEEK_DATA => reply.offset(offset),
            libc::SEEK_HOLE => reply.offset(size),
            _ => reply.error(Errno::EINVAL),
        }
    }

    readonly::refusals!();
}

/// Feeds `.`, `..` and a directory's lines from `offset` on to `add`, until it says that it is full.
fn list(
    volume: &Volume,
    node: u64,
    offset: u64,
    mut add: impl FnMut(u64, Found, &str) -> bool,
) -> Result<(), FsError> {
    let directory = Attr {
        kind: Kind::Directory,
        size: 0,
    };
    let dot = |node| Found {
        node,
        attr: directory,
    };
    let lines = volume.readdir(node, offset.saturating_sub(2))?;
    let dots = [(dot(node), "."), (dot(volume.parent(node)?), "..")];
    for (at, (found, name)) in dots.into_iter().enumerate().skip(offset.min(2) as usize) {
        if add(at as u64 + 1, found, name) {
            return Ok(());
        }
    }
    for line in lines {
        if add(line.next + 2, line.found, line.name) {
            break;
        }
    }
    Ok(())
}

const _: () = assert!(ROOT == INodeNo::ROOT.0);
