//! A catalog and a publisher in memory that count their calls and fail on demand.

use crate::csi::{
    Bulletin, PublishError, PublishRequest, Publisher, StorageFacts, VolumeFacts, VolumeStats,
};
use crate::model::{
    Digest, Failure, FailureKind, Listing, News, Pin, PodRef, Reference, Revision, Token,
};
use crate::source::{Catalog, Observer};
use async_trait::async_trait;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// 7 bytes of weights and 2 of configuration, in every repository.
pub(super) const BYTES: i64 = 9;
pub(super) const FILES: i64 = 2;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under the lock")
}

/// A seed whose every branch stands at one commit until it is moved.
pub(super) struct TwinCatalog {
    head: Mutex<char>,
    pins: Mutex<HashMap<String, Pin>>,
    failure: Mutex<Option<Failure>>,
    pub(super) tokens: Mutex<Vec<Option<Token>>>,
    pub(super) resolved: AtomicUsize,
    /// A listing takes one of these and gives it back.
    pub(super) gate: Semaphore,
    /// One for each volume that was forgotten.
    pub(super) forgotten: Semaphore,
}

impl TwinCatalog {
    pub(super) fn new() -> Arc<TwinCatalog> {
        Arc::new(TwinCatalog {
            head: Mutex::new('a'),
            pins: Mutex::default(),
            failure: Mutex::default(),
            tokens: Mutex::default(),
            resolved: AtomicUsize::default(),
            gate: Semaphore::new(1),
            forgotten: Semaphore::new(0),
        })
    }

    pub(super) fn move_branch(&self, head: char) {
        *lock(&self.head) = head;
    }

    pub(super) fn fail(&self, kind: impl Into<Option<FailureKind>>) {
        *lock(&self.failure) = kind
            .into()
            .map(|kind| Failure::new(kind, format!("hub says {kind}")));
    }

    pub(super) fn fail_with(&self, failure: Option<Failure>) {
        *lock(&self.failure) = failure;
    }

    fn answer(&self) -> Result<(), Failure> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    fn commit(&self, reference: &Reference) -> Revision {
        let head = lock(&self.head).to_string().repeat(40);
        let asked = reference.revision.as_deref().unwrap_or_default();
        asked.parse().unwrap_or_else(|_| head.parse().expect("hex"))
    }
}

#[async_trait]
impl Catalog for TwinCatalog {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        lock(&self.tokens).push(token.cloned());
        self.answer()?;
        let pin = Pin {
            repository: reference.repository(),
            revision: self.commit(reference),
        };
        let volume = volume.expect("volumes have identifiers").to_owned();
        Ok(lock(&self.pins).entry(volume).or_insert(pin).clone())
    }

    async fn forget(&self, volume: &str) {
        lock(&self.pins).remove(volume);
        self.forgotten.add_permits(1);
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let _open = self.gate.acquire().await.expect("never closed");
        lock(&self.tokens).push(token.cloned());
        self.answer()?;
        let row = |path: &str, size| (path.to_owned(), size, Digest::Sha256([size as u8; 32]));
        let rows = [row("config.json", 2), row("onnx/weights.bin", 7)];
        Ok(Arc::new(
            Listing::new(pin.clone(), rows).expect("a listing"),
        ))
    }

    async fn reach(&self) -> Result<(), Failure> {
        self.answer()
    }
}

/// Remembers what pods' owners hear.
#[derive(Default)]
pub(super) struct TwinObserver(watch::Sender<Vec<(PodRef, News, String)>>);

impl TwinObserver {
    pub(super) fn heard(&self) -> Vec<(PodRef, News, String)> {
        self.0.borrow().clone()
    }

    /// What they hear once it is this much.
    pub(super) async fn heard_of(&self, most: usize) -> Vec<(PodRef, News, String)> {
        let mut heard = self.0.subscribe();
        let heard = heard.wait_for(|heard| heard.len() >= most).await;
        heard.expect("the observer lives").clone()
    }
}

impl Observer for TwinObserver {
    fn observe(&self, pod: &PodRef, news: News, text: String) {
        self.0
            .send_modify(|heard| heard.push((pod.clone(), news, text)));
    }
}

/// How mounting fails.
pub(super) type Broken = fn(&Path) -> PublishError;

/// Shows volumes as empty directories.
#[derive(Default)]
pub(super) struct TwinPublisher {
    mounts: Mutex<HashMap<PathBuf, Mount>>,
    failure: Mutex<Option<Broken>>,
    pub(super) mounted: AtomicUsize,
    pub(super) facts: Mutex<VolumeFacts>,
    pub(super) storage: Mutex<StorageFacts>,
    /// Each follower's end, by its target.
    pub(super) followers: Mutex<HashMap<PathBuf, Follower>>,
}

type Follower = UnboundedSender<(News, String)>;

struct Mount {
    volume_id: String,
    request: PublishRequest,
}

impl TwinPublisher {
    pub(super) fn fail(&self, failure: Option<Broken>) {
        *lock(&self.failure) = failure;
    }

    /// What is shown at a path.
    pub(super) fn shown(&self, target: &Path) -> Option<PublishRequest> {
        Some(lock(&self.mounts).get(target)?.request.clone())
    }

    /// The commit that is shown at a path, by its first digit.
    pub(super) fn commit(&self, target: &Path) -> Option<char> {
        let request = self.shown(target)?;
        request.listing.pin().revision.as_str().chars().next()
    }
}

#[async_trait]
impl Publisher for TwinPublisher {
    async fn publish(
        &self,
        volume_id: &str,
        request: PublishRequest,
        target: &Path,
    ) -> Result<(), PublishError> {
        tokio::task::yield_now().await;
        if let Some(failure) = *lock(&self.failure) {
            return Err(failure(target));
        }
        let mut mounts = lock(&self.mounts);
        if let Some(there) = mounts.get(target) {
            let same = there.volume_id == volume_id
                && there.request.view == request.view
                && there.request.listing.pin() == request.listing.pin();
            if !same {
                let target = target.to_owned();
                return Err(PublishError::OtherVolume { target });
            }
        } else {
            self.mounted.fetch_add(1, Ordering::SeqCst);
            std::fs::create_dir(target).map_err(|source| PublishError::Mount {
                target: target.to_owned(),
                source,
            })?;
        }
        let volume_id = volume_id.to_owned();
        mounts.insert(target.to_owned(), Mount { volume_id, request });
        Ok(())
    }

    async fn unpublish(&self, _volume_id: &str, target: &Path) -> Result<(), PublishError> {
        lock(&self.mounts).remove(target);
        match std::fs::remove_dir(target) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                let target = target.to_owned();
                Err(PublishError::Mount { target, source })
            }
            _ => Ok(()),
        }
    }

    async fn health(&self, volume_id: &str, path: &Path) -> Option<VolumeFacts> {
        self.stats(volume_id, path)?;
        Some(lock(&self.facts).clone())
    }

    fn follow(&self, volume_id: &str, path: &Path) -> Option<Bulletin> {
        self.stats(volume_id, path)?;
        let (sender, bulletin) = unbounded_channel();
        lock(&self.followers).insert(path.to_owned(), sender);
        Some(Box::pin(UnboundedReceiverStream::new(bulletin)))
    }

    fn storage(&self) -> StorageFacts {
        *lock(&self.storage)
    }

    fn stats(&self, volume_id: &str, path: &Path) -> Option<VolumeStats> {
        let mounts = lock(&self.mounts);
        let mount = mounts
            .get(path)
            .filter(|mount| mount.volume_id == volume_id)?;
        Some(VolumeStats {
            bytes: mount.request.listing.bytes(),
            files: mount.request.listing.files().len() as u64,
        })
    }
}
