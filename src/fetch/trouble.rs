//! Why readers of a file do not get what they wait for, as far as the last try has shown.

use crate::model::{Failure, FailureKind};
use crate::store::Store;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
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
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, trouble) = last.as_ref()?;
        (since.elapsed() < NEWS).then(|| trouble.clone())
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

    /// Only what begins is told to those who listen: that it lasts is theirs to look at.
    fn set(&self, trouble: Option<Trouble>) {
        let begins = trouble.is_some() && self.now().is_none();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            trouble.map(|trouble| (Instant::now(), trouble));
        if begins {
            self.store.stir();
        }
    }
}
