//! What the filesystem needs of a file's content, and how it gets hold of it.
//!
//! Three small traits, so that the filesystem and its mounts run in tests on content that the test
//! controls. In the program all three are `fetch`.

use crate::fetch::{Fetcher, ReadError, Reader, Trouble};
use crate::model::{Credential, FileKey, Listing, Pin, Reads, Token};
use crate::source::FileRef;
use crate::store::State;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// The content of one file, of which parts may be missing.
pub trait Content: Send + Sync + 'static {
    /// Reads if all bytes are here; `None` when something must be fetched. Never waits for the network.
    fn read_now(&self, offset: u64, len: usize) -> Option<Result<Bytes, ReadError>>;
    /// Reads, fetching what is missing. Exactly `min(len, size - offset)` bytes, or an error.
    fn read(
        self: Arc<Self>,
        offset: u64,
        len: usize,
    ) -> BoxFuture<'static, Result<Bytes, ReadError>>;
    fn state(&self) -> State;
    /// The data file to hand to the kernel, only when `State::Final`.
    fn backing(&self) -> Option<Arc<File>>;
    /// Resolves once the file is Final; never for a revoked file.
    fn finished(self: Arc<Self>) -> BoxFuture<'static, ()>;
    /// Fetches the rest of the file in the background.
    fn fetch_all(&self);
}

/// The way to the content of one listing's files. An entry is an index into [`Listing::files`].
pub trait Opener: Send + Sync + 'static {
    fn open(&self, entry: usize) -> Result<Arc<dyn Content>, ReadError>;
    /// What is known of a file that is not open; must not create anything.
    fn state(&self, entry: usize) -> State;
    /// What readers of the listing's files suffer from, where they do; from memory.
    fn troubles(&self) -> HashMap<FileKey, Trouble>;
    /// Counts up when what [`Opener::state`] or [`Opener::troubles`] say of any file may have changed.
    fn news(&self) -> watch::Receiver<u64>;
    /// From now on files opened here are brought ahead of their readers.
    fn run_ahead(&self);
    /// The credential from now on, also of open files: kubelet rotates tokens under a running mount.
    fn set_token(&self, token: Token);
}

/// Makes openers; one a process.
pub trait Provider: Send + Sync + 'static {
    fn opener(&self, listing: Arc<Listing>, token: Option<Token>, reads: Reads) -> Arc<dyn Opener>;
    /// Where the data files lie: whether the kernel may read them directly is probed there.
    fn data_dir(&self) -> &Path;
}

impl Content for Reader {
    fn read_now(&self, offset: u64, len: usize) -> Option<Result<Bytes, ReadError>> {
        Reader::read_now(self, offset, len)
    }

    fn read(
        self: Arc<Self>,
        offset: u64,
        len: usize,
    ) -> BoxFuture<'static, Result<Bytes, ReadError>> {
        Box::pin(async move { Reader::read(&self, offset, len).await })
    }

    fn state(&self) -> State {
        self.open.state()
    }

    fn backing(&self) -> Option<Arc<File>> {
        self.open.backing()
    }

    fn finished(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.open.finished().await })
    }

    fn fetch_all(&self) {
        self.open.fetch_all()
    }
}

/// The program's provider.
pub struct FetchProvider(pub Arc<Fetcher>);

impl Provider for FetchProvider {
    fn opener(&self, listing: Arc<Listing>, token: Option<Token>, reads: Reads) -> Arc<dyn Opener> {
        Arc::new(FetchOpener {
            fetcher: self.0.clone(),
            pin: Arc::new(listing.pin().clone()),
            token: self.0.credential(&listing.pin().repository, token),
            listing,
            reads,
            run_ahead: AtomicBool::new(false),
        })
    }

    fn data_dir(&self) -> &Path {
        self.0.store().dir()
    }
}

struct FetchOpener {
    fetcher: Arc<Fetcher>,
    pin: Arc<Pin>,
    listing: Arc<Listing>,
    token: Credential,
    reads: Reads,
    run_ahead: AtomicBool,
}

impl Opener for FetchOpener {
    fn open(&self, entry: usize) -> Result<Arc<dyn Content>, ReadError> {
        let entry = &self.listing.files()[entry];
        let file = FileRef::new(&self.pin, entry, self.token.clone());
        let open = self.fetcher.open(file)?;
        if self.run_ahead.load(Ordering::Relaxed) {
            open.run_ahead();
        }
        Ok(Arc::new(Reader {
            open,
            verify: self.reads.verify,
            timeout: self.reads.timeout.unwrap_or(self.fetcher.read_timeout()),
        }))
    }

    fn state(&self, entry: usize) -> State {
        let (store, entry) = (self.fetcher.store(), &self.listing.files()[entry]);
        match store.is_proven(&self.pin.repository, entry.key, &entry.digest) {
            true => store
                .get(entry.key)
                .map_or(State::Partial, |file| file.state()),
            false => State::Partial,
        }
    }

    fn troubles(&self) -> HashMap<FileKey, Trouble> {
        self.fetcher.troubles(&self.pin.repository)
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.fetcher.store().news()
    }

    fn run_ahead(&self) {
        self.run_ahead.store(true, Ordering::Relaxed);
    }

    fn set_token(&self, token: Token) {
        self.token.set(Some(token));
    }
}
