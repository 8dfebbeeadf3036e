//! The content of open files, by item.
//!
//! The kernel's handles are stateless: a read names its node, and content that is not here is opened
//! again, so a daemon that takes over a mount can answer reads of files it never saw opened. Content is
//! let go with the last close.

use super::open::{Content, Opener};
use super::tree::ItemId;
use crate::fetch::ReadError;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Handles {
    state: Mutex<HandlesState>,
}

#[derive(Default)]
struct HandlesState {
    open: HashMap<ItemId, Handle>,
    /// Files whose completion somebody awaits: at most one task each.
    watched: HashSet<ItemId>,
}

struct Handle {
    content: Arc<dyn Content>,
    opens: u32,
}

impl Handles {
    fn lock(&self) -> MutexGuard<'_, HandlesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an item once more. The newest content is kept: it was opened with the newest credential.
    pub(super) fn open(
        &self,
        id: ItemId,
        entry: usize,
        opener: &dyn Opener,
    ) -> Result<Arc<dyn Content>, ReadError> {
        let content = opener.open(entry)?;
        let mut state = self.lock();
        let opens = state.open.get(&id).map_or(0, |handle| handle.opens) + 1;
        let handle = Handle {
            content: content.clone(),
            opens,
        };
        state.open.insert(id, handle);
        Ok(content)
    }

    /// The content of an item for a read.
    pub(super) fn content(
        &self,
        id: ItemId,
        entry: usize,
        opener: &dyn Opener,
    ) -> Result<Arc<dyn Content>, ReadError> {
        let found = self
            .lock()
            .open
            .get(&id)
            .map(|handle| handle.content.clone());
        match found {
            Some(content) => Ok(content),
            None => self.open(id, entry, opener),
        }
    }

    pub(super) fn release(&self, id: ItemId) {
        let mut state = self.lock();
        let Some(handle) = state.open.get_mut(&id) else {
            return;
        };
        handle.opens = handle.opens.saturating_sub(1);
        if handle.opens == 0 {
            state.open.remove(&id);
        }
    }

    /// Whether the caller is the one to watch this item.
    pub(super) fn watch(&self, id: ItemId) -> bool {
        self.lock().watched.insert(id)
    }

    /// The watch is over: a later open may start another.
    pub(super) fn unwatch(&self, id: ItemId) {
        self.lock().watched.remove(&id);
    }

    pub(super) fn open_count(&self) -> usize {
        self.lock().open.len()
    }
}
