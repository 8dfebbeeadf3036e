//! The files this node wants or lately wanted, and which seed is told of each.
//!
//! Bound: 4,096 files; the longest unused goes when another comes.

use super::surroundings::Surroundings;
use super::v1;
use crate::model::{FileKey, Geometry, Token};
use crate::source::FileRef;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

const FILES_MAX: usize = 4096;
/// While a wish is this young the seed may not have been told.
const YOUNG: Duration = Duration::from_secs(2);

pub struct Wishes {
    /// What this node says of itself, its place included.
    own: v1::Hello,
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
    pub surroundings: Arc<Surroundings>,
    pub progress: Arc<Progress>,
    /// The credential that the seed was told.
    told: Option<Token>,
    told_at: Instant,
    used: Instant,
}

/// How the fetching of one file goes.
pub struct Progress {
    /// Planned by one at a time: the others would find the same.
    pub turn: Semaphore,
    /// Requests for whatever the seed chooses.
    asked: AtomicU32,
    arrived: Mutex<Instant>,
    /// When the last piece came from the own zone, or by a way that is this node's own.
    near: Mutex<Instant>,
}

/// A request under way for whatever the seed chooses; dropping it ends it.
pub struct Asking<'a>(&'a Progress);

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            turn: Semaphore::new(1),
            asked: AtomicU32::new(0),
            arrived: Mutex::new(Instant::now()),
            near: Mutex::new(Instant::now()),
        }
    }
}

impl Progress {
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn ask(&self) -> Asking<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asking(self)
    }

    pub fn arrived(&self) {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn arrived_near(&self) {
        *self.near.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Fetching begins; what came before a pause of `pause` does not count.
    pub fn resumed(&self, pause: Duration) {
        if self.silence() > pause {
            self.arrived_near();
        }
    }

    /// For how long nothing has come.
    pub fn silence(&self) -> Duration {
        elapsed(&self.arrived)
    }

    /// For how long the own zone has given nothing. What silence has opened stays open while pieces from afar
    /// come in: else each burst of them would have to be waited for anew.
    pub fn silence_near(&self) -> Duration {
        elapsed(&self.near)
    }
}

fn elapsed(since: &Mutex<Instant>) -> Duration {
    let since = since.lock().unwrap_or_else(PoisonError::into_inner);
    since.elapsed()
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wish {
    /// Whether the seed may not yet know where and with which credential the file is read now.
    pub fn is_news(&self) -> bool {
        self.told_at.elapsed() < YOUNG
    }
}

impl Wishes {
    pub fn new(own: v1::Hello) -> Wishes {
        Wishes {
            own,
            files: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

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
                surroundings: Arc::new(Surroundings::unknown(&self.own)),
                progress: Arc::default(),
                told: told.clone(),
                told_at: now,
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
    /// `seed`: its index, where it is connected; the others find it when it is.
    pub fn set_owner(&self, key: FileKey, name: &str, seed: Option<usize>) {
        let mut files = self.lock();
        let Some(wish) = files.get_mut(&key) else {
            return;
        };
        wish.owner = Some(name.to_owned());
        if let Some(seed) = seed.filter(|seed| *seed != wish.seed) {
            (wish.seed, wish.told_at) = (seed, Instant::now());
            drop(files);
            self.changed();
        }
    }

    pub fn owner(&self, key: FileKey) -> Option<String> {
        self.lock().get(&key)?.owner.clone()
    }

    /// Tells the files anew where `home` says that another seed tracks them now.
    pub fn rehome(&self, home: impl Fn(&FileRef, Option<&str>) -> Option<usize>) {
        let mut moved = false;
        for wish in self.lock().values_mut() {
            let seed = home(&wish.file, wish.owner.as_deref());
            if let Some(seed) = seed.filter(|seed| *seed != wish.seed) {
                (wish.seed, wish.told_at, moved) = (seed, Instant::now(), true);
            }
        }
        if moved {
            self.changed();
        }
    }

    /// Counts up with every change that a seed should hear of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A seed has told who is near.
    pub fn surround(&self, key: FileKey, set: &v1::PeerSet) {
        if let Some(wish) = self.lock().get_mut(&key) {
            wish.surroundings = Arc::new(Surroundings::told(&self.own, set));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece from afar used to close the way again: a zone whose gateway was idle got a burst each 2 s.
    #[tokio::test(start_paused = true)]
    async fn what_silence_opened_stays_open_until_something_comes_from_near() {
        let (progress, second) = (Progress::default(), Duration::from_secs(1));
        tokio::time::advance(7 * second).await;
        progress.arrived();
        progress.resumed(10 * second);
        assert_eq!(progress.silence(), Duration::ZERO);
        assert_eq!(progress.silence_near(), 7 * second);
        progress.arrived_near();
        assert_eq!(progress.silence_near(), Duration::ZERO);
        tokio::time::advance(11 * second).await;
        progress.resumed(10 * second);
        assert_eq!(
            progress.silence_near(),
            Duration::ZERO,
            "nobody fetched meanwhile"
        );
    }
}
