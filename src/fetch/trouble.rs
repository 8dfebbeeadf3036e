//! Why readers of a file do not get what they wait for, as far as the last try has shown.

use crate::model::{Failure, FailureKind};
use crate::store::Store;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A trouble is news as long as a reader that still waits would have met it again: a try takes 10 s and the
/// longest pause between two is 30 s.
const NEWS: Duration = Duration::from_secs(60);

/// What is wrong, for the pod's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody gives what a reader waits for.
    Starving { path: Arc<str>, cause: String },
    /// Readers are served, and nothing of it is kept.
    NoRoom { path: Arc<str> },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Starving { path, cause } => write!(f, "{path}: {cause}"),
            Trouble::NoRoom { path } => write!(
                f,
                "{path}: the cache is full of what is in use, so reads fetch again what they read before: raise --cache-size"
            ),
        }
    }
}

/// The last trouble of one file.
pub struct Troubles {
    store: Store,
    path: Arc<str>,
    last: Mutex<Option<(Instant, Trouble)>>,
}

impl Troubles {
    pub fn new(store: Store, path: Arc<str>) -> Arc<Troubles> {
        Arc::new(Troubles {
            store,
            path,
            last: Mutex::default(),
        })
    }

    pub fn now(&self) -> Option<Trouble> {
        news(&self.lock()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, Trouble)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try failed. Content that is wrong is no trouble that passes: its file is revoked.
    pub fn failed(&self, failure: &Failure) {
        if failure.kind != FailureKind::Integrity {
            let (path, cause) = (self.path.clone(), failure.to_string());
            self.set(Some(Trouble::Starving { path, cause }));
        }
    }

    pub fn no_room(&self) {
        let path = self.path.clone();
        self.set(Some(Trouble::NoRoom { path }));
    }

    pub fn over(&self) {
        self.set(None);
    }

    /// Only what begins is told to those who listen: that it lasts is theirs to look at. Told once it can be
    /// seen, and seen to begin by one only, or whoever looks at the wrong moment is never told.
    fn set(&self, trouble: Option<Trouble>) {
        let mut last = self.lock();
        let begins = trouble.is_some() && news(&last).is_none();
        *last = trouble.map(|trouble| (Instant::now(), trouble));
        drop(last);
        if begins {
            self.store.stir();
        }
    }
}

fn news(last: &Option<(Instant, Trouble)>) -> Option<&Trouble> {
    let (since, trouble) = last.as_ref()?;
    (since.elapsed() < NEWS).then_some(trouble)
}
