//! What the listeners share: repositories by name and commit, faults, counters, the signing key.

use super::body::Bucket;
use super::fault::Faults;
use super::repo::TestRepo;
use super::stats::Counters;
use super::{TestHubConfig, route};
use crate::model::Kind;
use axum::Router;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct State {
    pub config: TestHubConfig,
    pub cdn_url: String,
    pub faults: Faults,
    pub stats: Counters,
    pub bucket: Bucket,
    pub stop: CancellationToken,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// By name; see [`name`].
    repos: HashMap<String, Shelved>,
    /// Old names to new ones.
    renamed: HashMap<String, String>,
    /// Signed URLs given out so far; each carries its number.
    signed: u64,
    expired: HashSet<u64>,
}

#[derive(Default)]
struct Shelved {
    main: String,
    commits: HashMap<String, Arc<TestRepo>>,
}

/// A repository's key here and in the counters: `owner/name`, with the kind before it unless it is a model.
pub fn name(kind: Kind, id: &str) -> String {
    match kind {
        Kind::Model => id.to_owned(),
        kind => format!("{}/{id}", kind.plural()),
    }
}

/// What a revision names.
pub enum Found {
    Commit(String, Arc<TestRepo>),
    NoRevision(Arc<TestRepo>),
    Renamed(String),
    NoRepo,
}

impl State {
    pub fn new(config: TestHubConfig, cdn_url: String, stop: CancellationToken) -> State {
        State {
            bucket: Bucket::new(config.rate),
            config,
            cdn_url,
            faults: Faults::default(),
            stats: Counters::default(),
            stop,
            shelf: Mutex::default(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, repo: TestRepo) -> String {
        let (key, commit) = (name(repo.kind, &repo.id), repo.commit());
        let mut shelf = self.shelf();
        for old in &repo.old_names {
            shelf.renamed.insert(name(repo.kind, old), repo.id.clone());
        }
        let shelved = shelf.repos.entry(key).or_default();
        shelved.main.clone_from(&commit);
        shelved.commits.insert(commit.clone(), Arc::new(repo));
        commit
    }

    pub fn remove(&self, id: &str) {
        self.shelf().repos.remove(id);
    }

    /// Takes a token from everything it opened.
    pub fn revoke(&self, token: &str) {
        let mut shelf = self.shelf();
        let repos = shelf.repos.values_mut();
        for repo in repos.flat_map(|shelved| shelved.commits.values_mut()) {
            Arc::make_mut(repo).accepted.retain(|known| known != token);
        }
    }

    pub fn forget(&self, id: &str, commit: &str) {
        if let Some(shelved) = self.shelf().repos.get_mut(id) {
            shelved.commits.remove(commit);
        }
    }

    /// `main` and `refs/pr/1` are the branch; anything else must be a commit.
    pub fn find(&self, kind: Kind, id: &str, revision: &str) -> Found {
        let shelf = self.shelf();
        let key = name(kind, id);
        if let Some(new) = shelf.renamed.get(&key) {
            return Found::Renamed(new.clone());
        }
        let Some(shelved) = shelf.repos.get(&key) else {
            return Found::NoRepo;
        };
        let commit = match revision {
            "main" | "refs/pr/1" => shelved.main.as_str(),
            commit => commit,
        };
        match (shelved.commits.get(commit), shelved.commits.values().next()) {
            (Some(repo), _) => Found::Commit(commit.to_owned(), repo.clone()),
            (None, Some(any)) => Found::NoRevision(any.clone()),
            (None, None) => Found::NoRepo,
        }
    }

    /// Whether the hub has issued this token at all.
    pub fn knows(&self, token: &str) -> bool {
        let has = |repo: &Arc<TestRepo>| repo.accepted.iter().any(|known| known == token);
        self.config.tokens.iter().any(|known| known == token)
            || self
                .shelf()
                .repos
                .values()
                .any(|shelved| shelved.commits.values().any(has))
    }

    pub fn next_signed(&self) -> u64 {
        let mut shelf = self.shelf();
        shelf.signed += 1;
        shelf.signed
    }

    pub fn expire(&self, number: u64) {
        self.shelf().expired.insert(number);
    }

    pub fn is_expired(&self, number: u64) -> bool {
        self.shelf().expired.contains(&number)
    }
}

/// Serves until `stop`; bodies under way break off then.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let served = axum::serve(route::quick(listener), router);
    let _ = served
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
}
