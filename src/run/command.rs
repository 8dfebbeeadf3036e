//! What `resolve`, `get` and `mount` do with an engine, wherever they were asked: in this process or over
//! the control socket of another.

use super::engine::Engine;
use crate::fetch::OpenFile;
use crate::model::{Entry, Failure, FailureKind, Listing, Pin, Prefetch, Reference, Token, View};
use crate::mount::{DirectMount, MountError, MountSpec, Mounts};
use crate::source::FileRef;
use futures::StreamExt;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Files downloaded at once: enough to hide a hub's round trip behind another's bytes.
const FILES_AT_ONCE: usize = 8;

impl From<MountError> for Failure {
    /// What is wrong with the mount point is the caller's to change.
    fn from(error: MountError) -> Failure {
        let kind = match &error {
            MountError::Missing { .. }
            | MountError::NotADirectory { .. }
            | MountError::NotEmpty { .. }
            | MountError::Mounted { .. } => FailureKind::BadReference,
            MountError::View(_) => FailureKind::NotFound,
            MountError::NoDevice
            | MountError::NotPermitted { .. }
            | MountError::OtherVolume { .. }
            | MountError::Io { .. }
            | MountError::Hung { .. }
            | MountError::Interrupted { .. } => FailureKind::Internal,
        };
        Failure::new(kind, error.to_string())
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub reference: Reference,
    pub view: View,
    pub token: Option<Token>,
    pub dir: PathBuf,
    pub prefetch: Prefetch,
}

/// What a command prints when it is done.
#[derive(Clone, Debug)]
pub struct Done {
    pub text: String,
    pub json: Value,
}

/// (done, total) bytes of a running command.
pub type ProgressSender = watch::Sender<(u64, u64)>;

/// A reference, pinned and listed.
pub struct Resolved {
    pub pin: Pin,
    pub listing: Arc<Listing>,
}

/// Pins and lists what a request names, and checks that its view shows something.
pub async fn resolve(engine: &Engine, request: &Request) -> Result<Resolved, Failure> {
    let token = request.token.as_ref();
    let pin = engine
        .catalog
        .resolve(&request.reference, None, token)
        .await?;
    let listing = engine.catalog.listing(&pin, token).await?;
    request
        .view
        .select(&listing)
        .map_err(|error| Failure::new(FailureKind::NotFound, error.to_string()))?;
    Ok(Resolved { pin, listing })
}

impl Resolved {
    fn files<'a>(&'a self, view: &View) -> Vec<(&'a str, &'a Entry)> {
        view.select(&self.listing).unwrap_or_default()
    }

    fn bytes(&self, view: &View) -> u64 {
        self.files(view).iter().map(|(_, entry)| entry.size).sum()
    }

    /// The pin and its files, as `resolve` prints them.
    pub fn describe(&self, view: &View) -> Done {
        let files = self.files(view);
        let rows: Vec<Value> = files
            .iter()
            .map(|(path, entry)| json!({"path": path, "size": entry.size, "digest": entry.digest.to_string()}))
            .collect();
        let mut text = format!("{}\n", self.pin);
        for (path, entry) in &files {
            text.push_str(&format!("{:>14}  {}  {path}\n", entry.size, entry.digest));
        }
        let bytes = self.bytes(view);
        text.push_str(&format!(
            "{} files, {}",
            files.len(),
            crate::run::progress::bytes(bytes)
        ));
        let commit = self.pin.revision.to_string();
        let json =
            json!({"pin": self.pin.to_string(), "commit": commit, "bytes": bytes, "files": rows});
        Done { text, json }
    }
}

/// Downloads what a request shows into its directory: resumable through the cache, verified by the hub's
/// digests, each file appearing under its name only when it is complete.
pub async fn get(
    engine: &Engine,
    request: &Request,
    progress: ProgressSender,
) -> Result<Done, Failure> {
    let resolved = resolve(engine, request).await?;
    let (pin, total) = (
        Arc::new(resolved.pin.clone()),
        resolved.bytes(&request.view),
    );
    let file = |(path, entry): (&str, &Entry)| {
        (
            FileRef::new(&pin, entry, request.token.clone()),
            request.dir.join(path),
        )
    };
    let files: Vec<_> = resolved
        .files(&request.view)
        .into_iter()
        .map(file)
        .collect();
    let (count, meter) = (files.len(), Arc::new(Meter::default()));
    let work = futures::stream::iter(files)
        .map(|(file, target)| get_file(engine.clone(), file, target, meter.clone()));
    let mut work = std::pin::pin!(work.buffer_unordered(FILES_AT_ONCE));
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            got = work.next() => match got {
                Some(got) => got?,
                None => break,
            },
            _ = tick.tick() => {
                progress.send_replace((meter.bytes(), total));
            }
        }
    }
    progress.send_replace((total, total));
    Ok(got(&resolved, request, count, total))
}

fn got(resolved: &Resolved, request: &Request, files: usize, bytes: u64) -> Done {
    let dir = request.dir.display().to_string();
    let size = crate::run::progress::bytes(bytes);
    Done {
        text: format!("got {} into {dir} ({files} files, {size})", resolved.pin),
        json: json!({"pin": resolved.pin.to_string(), "dir": dir, "files": files, "bytes": bytes}),
    }
}

/// Adds up the bytes of files done and files under way.
#[derive(Default)]
struct Meter {
    done: AtomicU64,
    open: Mutex<Vec<Arc<OpenFile>>>,
}

impl Meter {
    fn opened(&self, file: &Arc<OpenFile>) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(file.clone());
    }

    fn closed(&self, file: &Arc<OpenFile>) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|open| !Arc::ptr_eq(open, file));
        self.done.fetch_add(file.size(), Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.done.load(Ordering::Relaxed)
            + open.iter().map(|file| file.present_bytes()).sum::<u64>()
    }
}

async fn get_file(
    engine: Engine,
    file: FileRef,
    target: PathBuf,
    meter: Arc<Meter>,
) -> Result<(), Failure> {
    let open = engine.fetcher.open(file.clone())?;
    meter.opened(&open);
    open.complete(engine.fetcher.read_timeout()).await?;
    let source = engine.store.file(file.key, file.size)?.data();
    let copied = tokio::task::spawn_blocking(move || copy(&source, &target));
    let copied = copied
        .await
        .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    meter.closed(&open);
    copied
}

/// Copies a cache file to where the user wants it, by reflink where the filesystem can, never by hard link:
/// a user's edit must not reach the cache.
fn copy(source: &std::fs::File, target: &Path) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => FailureKind::NoRoom,
            _ => FailureKind::Internal,
        };
        Failure::new(kind, format!("cannot write {}: {error}", target.display()))
    };
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(".model-p2p-partial");
    let partial = PathBuf::from(partial);
    let written = write_copy(source, &partial).and_then(|()| std::fs::rename(&partial, target));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        fail(error)
    })
}

fn write_copy(source: &std::fs::File, partial: &Path) -> std::io::Result<()> {
    // A handle of its own: the offset of the shared one belongs to nobody.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(source));
    let mut from = std::fs::File::open(path)?;
    let mut to = std::fs::File::create(partial)?;
    std::io::copy(&mut from, &mut to).map(|_| ())
}

/// Mounts what a request shows on its directory.
pub async fn mount(
    engine: &Engine,
    mounts: &Arc<Mounts>,
    request: &Request,
) -> Result<(DirectMount, Done), Failure> {
    let resolved = resolve(engine, request).await?;
    let spec = MountSpec {
        listing: resolved.listing.clone(),
        view: request.view.clone(),
        token: request.token.clone(),
        prefetch: request.prefetch,
    };
    let mounted = mounts.mount_at(spec, &request.dir).await?;
    let (files, bytes) = (
        resolved.files(&request.view).len(),
        resolved.bytes(&request.view),
    );
    let (dir, size) = (
        request.dir.display().to_string(),
        crate::run::progress::bytes(bytes),
    );
    let done = Done {
        text: format!("mounted {} at {dir} ({files} files, {size})", resolved.pin),
        json: json!({"pin": resolved.pin.to_string(), "dir": dir, "files": files, "bytes": bytes}),
    };
    Ok((mounted, done))
}
