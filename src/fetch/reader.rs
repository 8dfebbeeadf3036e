//! An open file as one mount reads it, with that mount's patience and demand for proof; and the way to a
//! whole file.

use super::{OpenFile, ReadError};
use crate::model::Verify;
use crate::store::{State, StoreError};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Who wants a whole file asks for single pieces only when nothing has come for this long: asked for in order
/// by all nodes at once, the first pieces leave the seed again and again instead of the others.
const IDLE: Duration = Duration::from_secs(5);

/// Cheap; any number may read one file, each in its own manner.
pub struct Reader {
    pub open: Arc<OpenFile>,
    pub verify: Verify,
    /// How long a read may wait while its file makes no progress.
    pub timeout: Duration,
}

impl Reader {
    /// Reads if all bytes are here and may be believed. Never waits for the network.
    pub fn read_now(&self, offset: u64, len: usize) -> Option<Result<Bytes, ReadError>> {
        match self.is_awaited() {
            true => None,
            false => self.open.read_now(offset, len),
        }
    }

    /// Reads, fetching what is missing, if need be the whole file: exactly `min(len, size - offset)` bytes,
    /// or an error.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        if self.is_awaited() {
            self.open.complete(self.timeout).await?;
        }
        self.open.read(offset, len, self.timeout).await
    }

    /// Whether the verdict on the whole file is to come before the first byte. An empty file has none.
    fn is_awaited(&self) -> bool {
        let is_settled = || matches!(self.open.state(), State::Final | State::Revoked);
        self.verify == Verify::Strict && self.open.size() > 0 && !is_settled()
    }
}

impl OpenFile {
    /// Fetches the whole file and waits until the hub's digest has confirmed it.
    pub async fn complete(&self, timeout: Duration) -> Result<(), ReadError> {
        self.admitted(timeout).await?;
        let mut changes = self.cached.changes();
        // Time for the piece that is asked for then, however short the patience.
        let idle = IDLE.min(timeout / 2);
        self.fetch_all();
        while self.state() != State::Revoked
            && let Some(index) = self.cached.have().not().iter().next()
        {
            if tokio::time::timeout(idle, changes.changed()).await.is_ok() {
                continue;
            }
            if let Some(_passed) = self.wait_for(index, timeout, idle).await? {
                let source = StoreError::NoRoom {
                    dir: self.fetcher.store.dir().to_owned(),
                    bytes: self.file.size,
                };
                return Err(self.store_error(source));
            }
            // A failure or a full cache has ended what was wished for.
            self.fetch_all();
        }
        self.verdict(timeout).await
    }

    /// Waits for the seed's word on a file that is whole.
    async fn verdict(&self, timeout: Duration) -> Result<(), ReadError> {
        let mut changes = self.cached.changes();
        loop {
            match self.state() {
                State::Final => return Ok(()),
                State::Revoked => return Err(ReadError::Revoked { path: self.path() }),
                State::Partial | State::Whole => {}
            }
            if tokio::time::timeout(timeout, changes.changed())
                .await
                .is_err()
            {
                let cause = "no seed has confirmed the file's digest".into();
                let piece = self.file.geometry().pieces();
                return Err(ReadError::Timeout {
                    path: self.path(),
                    piece,
                    seconds: timeout.as_secs(),
                    cause,
                });
            }
        }
    }
}
