//! What the test hub was asked and what it gave.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The grain in which given bytes are counted.
const BLOCK_BYTES: u64 = 64 << 10;

/// All counters at one moment; the JSON of `GET /_test/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All requests, those for unknown things too.
    pub requests: u64,
    /// CDN requests that carried an Authorization header: must be none.
    pub cdn_authorized: u64,
    /// The User-Agents seen.
    pub agents: Vec<String>,
    pub repos: BTreeMap<String, RepoStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// By operation: revision, tree, resolve, resolve_cache, auth_check, cdn.
    pub requests: BTreeMap<String, u64>,
    /// Content given by the hub itself.
    pub hub_bytes: u64,
    /// Content given by the CDN.
    pub cdn_bytes: u64,
    pub files: BTreeMap<String, FileStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStats {
    pub size: u64,
    pub resolve_requests: u64,
    pub cdn_requests: u64,
    /// Bytes given, hub and CDN together.
    pub given_bytes: u64,
    /// Bytes of the file that were never given, counted by 64 KiB.
    pub missing_bytes: u64,
    /// Bytes given more than once, counted by 64 KiB.
    pub repeated_bytes: u64,
    /// Ranges asked for at the CDN, the first thousand of them.
    pub ranges: Vec<(u64, u64)>,
}

impl FileStats {
    /// Whether each byte was given, and none twice.
    pub fn exactly_once(&self) -> bool {
        self.missing_bytes == 0 && self.repeated_bytes == 0 && self.given_bytes == self.size
    }
}

impl Stats {
    /// A repository's counters; all zero if nobody asked for it.
    pub fn repo(&self, id: &str) -> RepoStats {
        self.repos.get(id).cloned().unwrap_or_default()
    }
}

impl RepoStats {
    /// Requests of one operation.
    pub fn of(&self, operation: &str) -> u64 {
        self.requests.get(operation).copied().unwrap_or_default()
    }

    pub fn file(&self, path: &str) -> FileStats {
        self.files.get(path).cloned().unwrap_or_default()
    }
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    Hub,
    Cdn,
}

#[derive(Debug, Default)]
pub struct Counters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stats: Stats,
    /// Bytes given of each block, by repository and path.
    given: BTreeMap<(String, String), Vec<u64>>,
}

const RANGES_MAX: usize = 1000;

impl Counters {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn request(&self, agent: Option<&str>) {
        let mut state = self.lock();
        state.stats.requests += 1;
        if let Some(agent) = agent
            && !state.stats.agents.iter().any(|known| known == agent)
        {
            state.stats.agents.push(agent.to_owned());
        }
    }

    pub fn operation(&self, id: &str, operation: &str) {
        let mut state = self.lock();
        let repo = state.stats.repos.entry(id.to_owned()).or_default();
        *repo.requests.entry(operation.to_owned()).or_default() += 1;
    }

    pub fn resolved(&self, id: &str, path: &str, size: u64) {
        file(&mut self.lock().stats, id, path, size).resolve_requests += 1;
    }

    pub fn cdn(&self, id: &str, path: &str, size: u64, range: &Range<u64>, authorized: bool) {
        let mut state = self.lock();
        state.stats.cdn_authorized += u64::from(authorized);
        let file = file(&mut state.stats, id, path, size);
        file.cdn_requests += 1;
        if file.ranges.len() < RANGES_MAX {
            file.ranges.push((range.start, range.end));
        }
    }

    /// Counts content as it is handed to the connection.
    pub fn gave(&self, giver: Giver, id: &str, path: &str, size: u64, bytes: Range<u64>) {
        let len = bytes.end - bytes.start;
        let mut state = self.lock();
        let repo = state.stats.repos.entry(id.to_owned()).or_default();
        match giver {
            Giver::Hub => repo.hub_bytes += len,
            Giver::Cdn => repo.cdn_bytes += len,
        }
        file(&mut state.stats, id, path, size).given_bytes += len;
        let blocks = state
            .given
            .entry((id.to_owned(), path.to_owned()))
            .or_insert_with(|| vec![0; size.div_ceil(BLOCK_BYTES) as usize]);
        let mut at = bytes.start;
        while at < bytes.end {
            let block = at / BLOCK_BYTES;
            let end = bytes.end.min((block + 1) * BLOCK_BYTES);
            if let Some(given) = blocks.get_mut(block as usize) {
                *given += end - at;
            }
            at = end;
        }
    }

    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    pub fn snapshot(&self) -> Stats {
        let state = self.lock();
        let mut stats = state.stats.clone();
        for (id, repo) in &mut stats.repos {
            for (path, file) in &mut repo.files {
                let given = state.given.get(&(id.clone(), path.clone()));
                settle(file, given.map_or(&[], Vec::as_slice));
            }
        }
        stats
    }
}

fn file<'a>(stats: &'a mut Stats, id: &str, path: &str, size: u64) -> &'a mut FileStats {
    let repo = stats.repos.entry(id.to_owned()).or_default();
    let file = repo.files.entry(path.to_owned()).or_default();
    file.size = size;
    file
}

fn settle(file: &mut FileStats, given: &[u64]) {
    if given.is_empty() {
        file.missing_bytes = file.size;
    }
    for (block, given) in given.iter().enumerate() {
        let start = block as u64 * BLOCK_BYTES;
        let len = BLOCK_BYTES.min(file.size - start);
        file.missing_bytes += len.saturating_sub(*given);
        file.repeated_bytes += given.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_given_once_twice_and_never_are_told_apart() {
        let counters = Counters::default();
        let size = 3 * BLOCK_BYTES + 5;
        counters.gave(Giver::Cdn, "o/n", "w", size, 0..BLOCK_BYTES + 1);
        counters.gave(Giver::Hub, "o/n", "w", size, BLOCK_BYTES + 1..size);
        let repo = counters.snapshot().repo("o/n");
        assert!(repo.file("w").exactly_once());
        assert_eq!(repo.hub_bytes + repo.cdn_bytes, size);
        counters.gave(Giver::Cdn, "o/n", "w", size, size - 5..size);
        assert_eq!(counters.snapshot().repo("o/n").file("w").repeated_bytes, 5);
        counters.reset();
        counters.resolved("o/n", "w", size);
        let file = counters.snapshot().repo("o/n").file("w");
        assert_eq!((file.missing_bytes, file.resolve_requests), (size, 1));
    }
}
