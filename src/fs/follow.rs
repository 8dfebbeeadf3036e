//! What becomes of a mounted volume, for those who told somebody of it: when it is complete, and while its
//! readers suffer.
//!
//! Woken by the store's news, of which a burst is looked at once; between them it sleeps. A look asks for the
//! state of the last file that was not final yet, not of all, and for the troubles of open files.

use super::tree::ItemId;
use super::volume::Volume;
use crate::store::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two looks at least.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often a trouble that lasts is told.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);

/// What is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every file that is shown is final here. Told once.
    Complete,
    /// Readers wait in vain, or nothing is kept; with the cause. Told once a minute at most.
    Degraded(String),
}

/// Follows one volume until it ends.
pub struct Follow {
    volume: Arc<Volume>,
    news: watch::Receiver<u64>,
    files: Arc<[ItemId]>,
    /// How many of the files, from the first, were not yet seen final.
    left: usize,
    is_complete: bool,
    is_troubled: bool,
    /// When a trouble was told last.
    told_at: Option<Instant>,
}

impl Follow {
    pub fn new(volume: Arc<Volume>) -> Follow {
        let mut news = volume.opener().news();
        // What is so already is told too.
        news.mark_changed();
        let files: Arc<[ItemId]> = volume.tree().all_files().collect();
        Follow {
            left: files.len(),
            files,
            volume,
            news,
            is_complete: false,
            is_troubled: false,
            told_at: None,
        }
    }

    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The next change; `None` once the volume has ended.
    pub async fn next(&mut self) -> Option<Change> {
        let ending = self.volume.ending().clone();
        ending.run_until_cancelled(self.change()).await.flatten()
    }

    async fn change(&mut self) -> Option<Change> {
        loop {
            let again = self.told_at.filter(|_| self.is_troubled);
            let again = again.map(|told| told + TROUBLE_PAUSE);
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
            if let Some(change) = self.look().await? {
                return Some(change);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Asks the store, which may wait for the disk. `None` when the process ends.
    async fn look(&mut self) -> Option<Option<Change>> {
        let (volume, files, left) = (self.volume.clone(), self.files.clone(), self.left);
        let look = move || (volume.still_missing(&files, left), volume.trouble());
        let (left, trouble) = tokio::task::spawn_blocking(look).await.ok()?;
        self.left = left;
        if left == 0 && !self.is_complete {
            self.is_complete = true;
            self.news.mark_changed();
            return Some(Some(Change::Complete));
        }
        self.is_troubled = trouble.is_some();
        let lately = |told: Instant| told.elapsed() < TROUBLE_PAUSE;
        let cause = trouble.filter(|_| !self.told_at.is_some_and(lately));
        if cause.is_some() {
            self.told_at = Some(Instant::now());
        }
        Some(cause.map(Change::Degraded))
    }
}

impl Volume {
    /// How many of `files`, from the first, are to be looked at again, where those behind `left` were final.
    fn still_missing(&self, files: &[ItemId], left: usize) -> usize {
        let state = |file: &ItemId| self.opener().state(self.tree().entry_index(*file));
        let missing = |file: &ItemId| state(file) != State::Final;
        match files[..left].iter().rposition(missing) {
            Some(last) => last + 1,
            // One that was seen final may have been evicted since.
            None if left > 0 && files.iter().any(missing) => files.len(),
            None => 0,
        }
    }

    fn trouble(&self) -> Option<String> {
        let troubles = self.troubles();
        troubles.first().map(|trouble| trouble.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Tree;
    use crate::fs::open::Provider;
    use crate::fs::twin::{Twin, TwinProvider, listing};
    use crate::model::{Reads, View};
    use futures::FutureExt;

    fn volume(twin: &Arc<Twin>) -> Arc<Volume> {
        let listing = listing(&[("a", 10), ("b", 20)]);
        let tree = Tree::new(listing.clone(), &View::default()).expect("a tree");
        let opener = TwinProvider(twin.clone()).opener(listing, None, Reads::default());
        Volume::new(tree, opener, tokio::runtime::Handle::current())
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_is_complete_once_when_its_last_file_is_final() {
        let twin = Twin::new();
        let (a, b) = (twin.file("a", 10), twin.file("b", 20));
        let volume = volume(&twin);
        let mut follow = Follow::new(volume.clone());
        b.set(State::Final);
        let mut next = Box::pin(follow.next());
        let early = tokio::time::timeout(TROUBLE_PAUSE * 2, &mut next).await;
        assert!(early.is_err(), "`a` is not final");
        a.set(State::Final);
        assert_eq!(next.await, Some(Change::Complete));
        a.set(State::Final);
        let again = tokio::time::timeout(TROUBLE_PAUSE * 2, follow.next()).await;
        assert!(again.is_err(), "told once");
        volume.end();
        assert_eq!(follow.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_final_and_is_so_no_more_is_not_complete() {
        let twin = Twin::new();
        let (a, b) = (twin.file("a", 10), twin.file("b", 20));
        let mut follow = Follow::new(volume(&twin));
        b.set(State::Final);
        let early = tokio::time::timeout(LOOK_PAUSE * 3, follow.next()).await;
        assert!(early.is_err());
        // Evicted.
        b.hold(0);
        a.set(State::Final);
        let early = tokio::time::timeout(LOOK_PAUSE * 3, follow.next()).await;
        assert!(early.is_err(), "`b` went");
        b.set(State::Final);
        assert_eq!(follow.next().await, Some(Change::Complete));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_at_once_and_then_once_a_minute_while_it_lasts() {
        let twin = Twin::new();
        let file = twin.file("a", 10);
        let mut follow = Follow::new(volume(&twin));
        file.ail("the hub asks for patience");
        let told = Instant::now();
        let cause = "twin: the hub asks for patience".to_owned();
        for minute in 0..3 {
            let degraded = follow.next().await;
            assert_eq!(degraded, Some(Change::Degraded(cause.clone())));
            assert_eq!(told.elapsed().as_secs() / 60, minute);
            // It comes and goes meanwhile.
            file.ail(None);
            assert!(follow.next().now_or_never().is_none());
            file.ail("the hub asks for patience");
        }
        file.ail(None);
        let quiet = tokio::time::timeout(TROUBLE_PAUSE * 5, follow.next()).await;
        assert!(quiet.is_err(), "it is over");
    }
}
