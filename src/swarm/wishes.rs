//! The files this node wants or lately wanted, and which seed is told of each.
//!
//! Bound: 4,096 files; the longest unused goes when another comes.

use crate::model::{FileKey, Geometry, Token};
use crate::source::FileRef;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

const FILES_MAX: usize = 4096;
/// While a file is this young its neighbours have hardly told what they have.
const YOUNG: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Wishes {
    files: Mutex<HashMap<FileKey, Wish>>,
    changes: watch::Sender<u64>,
}

/// One wanted file.
#[derive(Clone)]
pub struct Wish {
    pub file: FileRef,
    /// Which of the configured seeds tracks it.
    pub seed: usize,
    /// The seed that reads it, by name, once one has said so.
    pub owner: Option<String>,
    /// One request for whatever the seed chooses at a time, while the file is young.
    pub asking: Arc<Semaphore>,
    /// The credential that the seed was told.
    told: Option<Token>,
    told_at: Instant,
    since: Instant,
    used: Instant,
}

impl Wish {
    /// Whether the seed may not yet know where and with which credential the file is read now.
    pub fn is_news(&self) -> bool {
        self.told_at.elapsed() < YOUNG
    }

    pub fn is_young(&self) -> bool {
        self.since.elapsed() < YOUNG
    }
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileKey, Wish>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a file from a seed, which is told when that is new, or another credential or seed.
    pub fn want(&self, file: &FileRef, seed: usize) -> Wish {
        let (mut files, told) = (self.lock(), file.token.get());
        let now = Instant::now();
        if files.len() >= FILES_MAX && !files.contains_key(&file.key) {
            forget_one(&mut files);
        }
        let mut is_news = false;
        let wish = files.entry(file.key).or_insert_with(|| {
            is_news = true;
            Wish {
                file: file.clone(),
                seed,
                owner: None,
                asking: Arc::new(Semaphore::new(1)),
                told: told.clone(),
                told_at: now,
                since: now,
                used: now,
            }
        });
        // The same file of another repository is read there from now on: this one's reader is let in for sure.
        if wish.seed != seed || wish.told != told || wish.file.pin != file.pin {
            (is_news, wish.told_at) = (true, now);
        }
        wish.used = now;
        wish.seed = seed;
        (wish.file, wish.told) = (file.clone(), told);
        let wish = wish.clone();
        drop(files);
        if is_news {
            self.changed();
        }
        wish
    }

    /// A seed says which one reads the file.
    pub fn set_owner(&self, key: FileKey, name: &str, seed: usize) {
        let mut files = self.lock();
        let Some(wish) = files.get_mut(&key) else {
            return;
        };
        if wish.seed == seed && wish.owner.as_deref() == Some(name) {
            return;
        }
        (wish.owner, wish.seed, wish.told_at) = (Some(name.to_owned()), seed, Instant::now());
        drop(files);
        self.changed();
    }

    pub fn owner(&self, key: FileKey) -> Option<String> {
        self.lock().get(&key)?.owner.clone()
    }

    /// Tells the files anew where `home` says that another seed tracks them now.
    pub fn rehome(&self, home: impl Fn(&FileRef, Option<&str>) -> Option<usize>) {
        let mut files = self.lock();
        for wish in files.values_mut() {
            if let Some(seed) =
                home(&wish.file, wish.owner.as_deref()).filter(|seed| *seed != wish.seed)
            {
                (wish.seed, wish.told_at) = (seed, Instant::now());
            }
        }
        drop(files);
        self.changed();
    }

    /// Counts up with every change that a seed should hear of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn geometry(&self, key: FileKey) -> Option<Geometry> {
        self.lock().get(&key).map(|wish| wish.file.geometry())
    }

    /// The files that one seed tracks.
    pub fn of_seed(&self, seed: usize) -> Vec<FileRef> {
        let files = self.lock();
        files
            .values()
            .filter(|wish| wish.seed == seed)
            .map(|wish| wish.file.clone())
            .collect()
    }
}

fn forget_one(files: &mut HashMap<FileKey, Wish>) {
    let oldest = files
        .iter()
        .min_by_key(|(_, wish)| wish.used)
        .map(|(key, _)| *key);
    if let Some(key) = oldest {
        files.remove(&key);
    }
}
