//! Tells pods' owners what becomes of their volumes after the mount.
//!
//! One task a target, started by a publish that names its pod, ended with the mount. kubelet names the pod
//! again with each republish, so a new process follows what it restored.

use crate::model::{News, PodRef};
use crate::source::Observer;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::AbortOnDropHandle;

/// What becomes of a volume, in words for its owner.
pub type Bulletin = BoxStream<'static, (News, String)>;

/// The tasks: at most one for each target that is mounted.
#[derive(Default)]
pub(super) struct Following(Mutex<HashMap<PathBuf, AbortOnDropHandle<()>>>);

impl Following {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, AbortOnDropHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts unless the target is followed already; asks for the bulletin only then.
    pub(super) fn start(
        &self,
        target: &Path,
        observer: Arc<dyn Observer>,
        pod: PodRef,
        bulletin: impl FnOnce() -> Option<Bulletin>,
    ) {
        if self.follows(target) {
            return;
        }
        // Outside the lock of all targets: it looks at every file of the volume. Calls for one target take turns.
        if let Some(bulletin) = bulletin() {
            let task = tokio::spawn(bulletin.for_each(move |(news, text)| {
                observer.observe(&pod, news, text);
                std::future::ready(())
            }));
            let task = AbortOnDropHandle::new(task);
            self.lock().insert(target.to_owned(), task);
        }
    }

    fn follows(&self, target: &Path) -> bool {
        let tasks = self.lock();
        tasks.get(target).is_some_and(|task| !task.is_finished())
    }

    pub(super) fn stop(&self, target: &Path) {
        self.lock().remove(target);
    }
}
