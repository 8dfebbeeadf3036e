//! Content that a test controls: which bytes are here, when the rest comes, when a file is complete.

use super::open::{Content, Opener, Provider};
use crate::fetch::{ReadError, Trouble};
use crate::model::{Digest, Entry, FileKey, Listing, Reads, Token};
use crate::store::State;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A listing of these (path, size) rows. Every path has its own digest.
pub fn listing(files: &[(&str, u64)]) -> Arc<Listing> {
    let pin = format!("hf://o/n@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    let row = |(path, size): &(&str, u64)| {
        let digest = Digest::Sha256(*blake3::hash(path.as_bytes()).as_bytes());
        (path.to_string(), *size, digest)
    };
    Arc::new(Listing::new(pin, files.iter().map(row)).expect("a listing"))
}

/// The byte at `offset` of every test file: no two pages are equal.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    let byte = |at: u64| (at ^ (at >> 8) ^ (at >> 12).wrapping_mul(31) ^ (at >> 20)) as u8;
    (offset..offset + len as u64).map(byte).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Now {
    /// Bytes before this one are here.
    here: u64,
    state: State,
}

/// A file whose first `here` bytes are here.
pub struct TwinFile {
    pub size: u64,
    now: watch::Sender<Now>,
    /// Counts the reads that wait for bytes.
    pub waiting: watch::Sender<usize>,
    pub whole_wanted: watch::Sender<bool>,
    pub trouble: Mutex<Option<Trouble>>,
    news: watch::Sender<u64>,
    /// Counts the reads that came through the filesystem at all.
    pub reads: AtomicU64,
    pub path: PathBuf,
    data: Arc<File>,
}

impl TwinFile {
    fn new(dir: &Path, name: usize, size: u64, news: watch::Sender<u64>) -> Arc<TwinFile> {
        let path = dir.join(name.to_string());
        let data = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .expect("a data file");
        data.write_all_at(&pattern(0, size as usize), 0)
            .expect("data");
        Arc::new(TwinFile {
            size,
            now: watch::Sender::new(Now {
                here: size,
                state: State::Whole,
            }),
            waiting: watch::Sender::new(0),
            whole_wanted: watch::Sender::new(false),
            trouble: Mutex::default(),
            news,
            reads: AtomicU64::new(0),
            path,
            data: Arc::new(data),
        })
    }

    /// Only the first `here` bytes are here from now on.
    pub fn hold(&self, here: u64) {
        self.now.send_modify(|now| {
            *now = Now {
                here,
                state: State::Partial,
            }
        });
    }

    pub fn set(&self, state: State) {
        let here = self.size;
        self.now.send_modify(|now| *now = Now { here, state });
        self.news.send_modify(|count| *count += 1);
    }

    /// Readers suffer from this from now on.
    pub fn ail(&self, cause: impl Into<Option<&'static str>>) {
        let starving = |cause: &str| Trouble::Starving {
            path: "twin".into(),
            cause: cause.into(),
        };
        *self.trouble.lock().expect("no panic") = cause.into().map(starving);
        self.news.send_modify(|count| *count += 1);
    }

    fn bytes(&self, offset: u64, len: usize) -> Bytes {
        let mut bytes = vec![0; len.min((self.size - offset) as usize)];
        self.data.read_exact_at(&mut bytes, offset).expect("data");
        bytes.into()
    }

    fn revoked(&self) -> ReadError {
        ReadError::Revoked {
            path: "twin".into(),
        }
    }
}

impl Content for TwinFile {
    fn read_now(&self, offset: u64, len: usize) -> Option<Result<Bytes, ReadError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let now = *self.now.borrow();
        if now.state == State::Revoked {
            return Some(Err(self.revoked()));
        }
        let end = (offset + len as u64).min(self.size);
        (end <= now.here).then(|| Ok(self.bytes(offset, len)))
    }

    fn read(
        self: Arc<Self>,
        offset: u64,
        len: usize,
    ) -> BoxFuture<'static, Result<Bytes, ReadError>> {
        Box::pin(async move {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let mut now = self.now.subscribe();
            loop {
                if let Some(result) = self.read_now(offset, len) {
                    return result;
                }
                now.changed().await.expect("the file lives");
            }
        })
    }

    fn state(&self) -> State {
        self.now.borrow().state
    }

    fn backing(&self) -> Option<Arc<File>> {
        (self.state() == State::Final).then(|| self.data.clone())
    }

    fn finished(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut now = self.now.subscribe();
            let _ = now.wait_for(|now| now.state == State::Final).await;
        })
    }

    fn fetch_all(&self) {
        self.whole_wanted.send_replace(true);
    }
}

/// Files by path; each is made, complete but not final, when it is first asked for.
pub struct Twin {
    dir: tempfile::TempDir,
    files: Mutex<HashMap<String, Arc<TwinFile>>>,
    news: watch::Sender<u64>,
    pub token: Mutex<Option<Token>>,
    /// Of the mount that was made last.
    pub reads: Mutex<Reads>,
}

impl Twin {
    /// Data files need a filesystem that passthrough takes: the build's own.
    pub fn new() -> Arc<Twin> {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
        Arc::new(Twin {
            dir: tempfile::tempdir_in(target).expect("a directory"),
            files: Mutex::default(),
            news: watch::Sender::new(0),
            token: Mutex::default(),
            reads: Mutex::default(),
        })
    }

    pub fn file(&self, path: &str, size: u64) -> Arc<TwinFile> {
        let mut files = self.files.lock().expect("no panic");
        let name = files.len();
        files
            .entry(path.to_owned())
            .or_insert_with(|| TwinFile::new(self.dir.path(), name, size, self.news.clone()))
            .clone()
    }
}

/// The twin as a process would have it.
pub struct TwinProvider(pub Arc<Twin>);

impl Provider for TwinProvider {
    fn opener(&self, listing: Arc<Listing>, token: Option<Token>, reads: Reads) -> Arc<dyn Opener> {
        *self.0.reads.lock().expect("no panic") = reads;
        *self.0.token.lock().expect("no panic") = token;
        Arc::new(TwinOpener {
            twin: self.0.clone(),
            listing,
        })
    }

    fn data_dir(&self) -> &Path {
        self.0.dir.path()
    }
}

struct TwinOpener {
    twin: Arc<Twin>,
    listing: Arc<Listing>,
}

impl TwinOpener {
    fn file(&self, entry: usize) -> Arc<TwinFile> {
        let entry = &self.listing.files()[entry];
        self.twin.file(&entry.path, entry.size)
    }
}

impl Opener for TwinOpener {
    fn open(&self, entry: usize) -> Result<Arc<dyn Content>, ReadError> {
        Ok(self.file(entry))
    }

    fn state(&self, entry: usize) -> State {
        self.file(entry).state()
    }

    fn troubles(&self) -> HashMap<FileKey, Trouble> {
        let files = self.twin.files.lock().expect("no panic");
        let trouble = |entry: &Entry| {
            let trouble = files.get(&entry.path)?.trouble.lock().expect("no panic");
            Some((entry.key, trouble.clone()?))
        };
        self.listing.files().iter().filter_map(trouble).collect()
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.twin.news.subscribe()
    }

    fn run_ahead(&self) {}

    fn set_token(&self, token: Token) {
        *self.twin.token.lock().expect("no panic") = Some(token);
    }
}
