//! The filesystem's operations, without the kernel's types: lookup, attributes, directories, open, read.
//!
//! **Two nodes a file.** The kernel fixes how an open is served for the life of the open and forbids mixing
//! ways on one inode, so the node says the way: the *lazy* node is page-cached and answered by us, the
//! *complete* node is read by the kernel straight from the data file (passthrough). Both stay valid; a
//! lookup gives the one for the file's present state, and when that changes the kernel is told to forget
//! the name ([`Announce`]), so later opens take the new node while old descriptors and mappings go on.
//!
//! Nothing here waits: a read whose bytes are missing becomes a future.

use super::errno::FsError;
use super::handles::Handles;
use super::open::{Content, Opener};
use super::tree::{Attr, ItemId, Kind, Tree};
use crate::metrics::METRICS;
use crate::store::State;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Files below this size keep their lazy node: once in the page cache there is nothing to win, and a
/// passthrough open costs twice a cached one.
pub const SWITCH_BYTES_MIN: u64 = 16 << 20;

/// Tells the kernel to forget a name below a directory's node. Blocks; never call it where reads are served.
pub type Announce = Box<dyn Fn(u64, &str) + Send + Sync>;

/// How complete files of a mount are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the kernel, from the data file.
    Passthrough,
    /// Through this process and the page cache.
    Cached,
}

impl Mode {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Passthrough => "passthrough",
            Mode::Cached => "cached",
        }
    }
}

/// A name or node as the kernel wants to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub node: u64,
    pub attr: Attr,
}

/// One line of a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    pub found: Found,
    pub name: &'a str,
    /// Where to go on behind this line.
    pub next: u64,
}

/// How an open is served.
#[derive(Debug)]
pub enum OpenMode {
    Passthrough(Arc<File>),
    Cached,
    /// The opener asked for O_DIRECT.
    Direct,
}

/// A read's answer, or where it will come from.
pub enum Read {
    Now(Result<Bytes, FsError>),
    Later(BoxFuture<'static, Result<Bytes, FsError>>),
}

/// One mounted view of a revision.
pub struct Volume {
    tree: Tree,
    opener: Arc<dyn Opener>,
    handles: Handles,
    runtime: Handle,
    passthrough: AtomicBool,
    announce: Mutex<Option<Arc<Announce>>>,
    ending: CancellationToken,
    /// When it was made, until the first byte is read.
    unread_since: Mutex<Option<Instant>>,
}

impl Volume {
    pub fn new(tree: Tree, opener: Arc<dyn Opener>, runtime: Handle) -> Arc<Volume> {
        METRICS
            .mounts
            .with_label_values(&[Mode::Cached.name()])
            .inc();
        Arc::new(Volume {
            tree,
            opener,
            handles: Handles::default(),
            runtime,
            passthrough: AtomicBool::new(false),
            announce: Mutex::new(None),
            ending: CancellationToken::new(),
            unread_since: Mutex::new(Some(Instant::now())),
        })
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn opener(&self) -> &Arc<dyn Opener> {
        &self.opener
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Cancelled when the mount ends: everything that works for it stops.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    pub fn mode(&self) -> Mode {
        match self.passthrough.load(Ordering::Acquire) {
            true => Mode::Passthrough,
            false => Mode::Cached,
        }
    }

    /// Changes how complete files are read from now on; nodes given out before stay valid.
    pub fn set_mode(&self, mode: Mode) {
        let passthrough = mode == Mode::Passthrough;
        if self.passthrough.swap(passthrough, Ordering::AcqRel) != passthrough {
            let gauge = |mode: Mode| METRICS.mounts.with_label_values(&[mode.name()]);
            match passthrough {
                true => (gauge(Mode::Cached).dec(), gauge(Mode::Passthrough).inc()),
                false => (gauge(Mode::Passthrough).dec(), gauge(Mode::Cached).inc()),
            };
        }
    }

    /// Where name changes go, once there is a kernel to tell.
    pub fn set_announce(&self, announce: Announce) {
        *self.announce() = Some(Arc::new(announce));
    }

    /// Ends every wait: reads fail, watches stop, the kernel is told nothing more.
    pub fn end(&self) {
        self.ending.cancel();
        *self.announce() = None;
    }

    fn announce(&self) -> std::sync::MutexGuard<'_, Option<Arc<Announce>>> {
        self.announce.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name below a directory; `NotFound` may be remembered by the kernel, for names never appear.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Found, FsError> {
        let parent = self.item(parent)?;
        let id = self.tree.lookup(parent, name).ok_or(FsError::NotFound)?;
        Ok(self.found(id))
    }

    pub fn getattr(&self, node: u64) -> Result<Attr, FsError> {
        Ok(self.tree.attr(self.item(node)?))
    }

    /// The lines of a directory from `offset` on, without `.` and `..`; offsets are stable.
    pub fn readdir(
        &self,
        node: u64,
        offset: u64,
    ) -> Result<impl Iterator<Item = Listed<'_>>, FsError> {
        let id = self.item(node)?;
        if self.tree.attr(id).kind == Kind::File {
            return Err(FsError::NotDirectory);
        }
        let lines = self.tree.children(id).enumerate();
        Ok(lines
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
            .map(|(at, id)| Listed {
                found: self.found(id),
                name: self.tree.name(id),
                next: at as u64 + 1,
            }))
    }

    /// The node of a directory's parent, for `..`.
    pub fn parent(&self, node: u64) -> Result<u64, FsError> {
        Ok(Tree::lazy(self.tree.parent(self.item(node)?)))
    }

    /// Opens a file with the caller's flags; every success is paired with a [`Volume::release`].
    pub fn open(self: &Arc<Self>, node: u64, flags: i32) -> Result<OpenMode, FsError> {
        let id = self.file(node)?;
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(FsError::ReadOnly);
        }
        let entry = self.tree.entry_index(id);
        let content = self.handles.open(id, entry, &*self.opener)?;
        let mode = match Tree::is_complete(node) {
            true => self.open_complete(node, &*content),
            false => {
                self.follow(id, content);
                Ok(match flags & libc::O_DIRECT {
                    0 => OpenMode::Cached,
                    _ => OpenMode::Direct,
                })
            }
        };
        if mode.is_err() {
            self.handles.release(id);
        }
        mode
    }

    /// A complete node is passthrough or nothing: on `Stale` the kernel looks the name up again.
    fn open_complete(&self, node: u64, content: &dyn Content) -> Result<OpenMode, FsError> {
        let backing = match self.mode() {
            Mode::Passthrough => content.backing(),
            Mode::Cached => None,
        };
        backing
            .map(OpenMode::Passthrough)
            .ok_or(FsError::Stale { node })
    }

    pub fn release(&self, node: u64) {
        if let Some(id) = self.tree.item(node) {
            self.handles.release(id);
        }
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.handles.open_count()
    }

    /// Exactly the bytes of `offset..offset + len` that lie inside the file.
    pub fn read(&self, node: u64, offset: u64, len: usize) -> Read {
        let (id, content) = match self.content(node) {
            Ok(found) => found,
            Err(error) => return Read::Now(Err(error)),
        };
        let entry = self.tree.entry(id);
        let len =
            usize::try_from(entry.size.saturating_sub(offset)).map_or(len, |left| left.min(len));
        if len == 0 {
            return Read::Now(Ok(Bytes::new()));
        }
        self.note_first_read();
        let (path, ending) = (entry.path.clone(), self.ending.clone());
        let exact = move |bytes: Bytes| whole(bytes, path, offset, len);
        if let Some(now) = content.read_now(offset, len) {
            return Read::Now(now.map_err(FsError::from).and_then(exact));
        }
        Read::Later(Box::pin(async move {
            tokio::select! {
                read = content.read(offset, len) => read.map_err(FsError::from).and_then(exact),
                () = ending.cancelled() => Err(FsError::Ending),
            }
        }))
    }

    fn note_first_read(&self) {
        let mut since = self
            .unread_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since.take() {
            METRICS
                .first_byte_seconds
                .observe(since.elapsed().as_secs_f64());
        }
    }

    fn content(&self, node: u64) -> Result<(ItemId, Arc<dyn Content>), FsError> {
        let id = self.file(node)?;
        let entry = self.tree.entry_index(id);
        Ok((id, self.handles.content(id, entry, &*self.opener)?))
    }

    fn item(&self, node: u64) -> Result<ItemId, FsError> {
        self.tree.item(node).ok_or(FsError::NotFound)
    }

    fn file(&self, node: u64) -> Result<ItemId, FsError> {
        let id = self.item(node)?;
        match self.tree.attr(id).kind {
            Kind::File => Ok(id),
            Kind::Directory => Err(FsError::IsDirectory),
        }
    }

    /// An item under the node of its present state.
    fn found(&self, id: ItemId) -> Found {
        let complete =
            self.switches(id) && self.opener.state(self.tree.entry_index(id)) == State::Final;
        Found {
            node: match complete {
                true => Tree::complete(id),
                false => Tree::lazy(id),
            },
            attr: self.tree.attr(id),
        }
    }

    /// Whether this file has a complete node to go to.
    fn switches(&self, id: ItemId) -> bool {
        let attr = self.tree.attr(id);
        attr.kind == Kind::File && attr.size >= SWITCH_BYTES_MIN && self.mode() == Mode::Passthrough
    }

    /// Tells the kernel when this file is complete: now, if its name is only out of date, or once it is.
    pub(super) fn follow(self: &Arc<Self>, id: ItemId, content: Arc<dyn Content>) {
        if !self.switches(id) || !self.handles.watch(id) {
            return;
        }
        let (volume, ending) = (Arc::downgrade(self), self.ending.clone());
        self.runtime.spawn(async move {
            let finished = tokio::select! {
                () = content.finished() => true,
                () = ending.cancelled() => false,
            };
            if let Some(volume) = volume.upgrade().filter(|_| finished) {
                volume.name_changed(id);
            }
        });
    }

    /// Announces a file's new node from a thread that serves nothing.
    fn name_changed(self: Arc<Self>, id: ItemId) {
        let Some(announce) = self.announce().clone() else {
            return;
        };
        self.runtime.clone().spawn_blocking(move || {
            announce(Tree::lazy(self.tree.parent(id)), self.tree.name(id));
            self.handles.unwatch(id);
        });
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        METRICS
            .mounts
            .with_label_values(&[self.mode().name()])
            .dec();
    }
}

/// The kernel fills a short answer with zeros, so a short one is an error.
fn whole(bytes: Bytes, path: String, offset: u64, want: usize) -> Result<Bytes, FsError> {
    let got = bytes.len();
    match got == want {
        true => Ok(bytes),
        false => Err(FsError::Short {
            path,
            offset,
            want,
            got,
        }),
    }
}

#[cfg(test)]
mod tests;
