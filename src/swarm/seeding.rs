//! What a seed serves: its store, and through its origin what is not there yet.
//!
//! `any` gives a node pieces that nobody was given yet. While everything that is here has been given and
//! more is to come from the hub, it waits a little for that, for the nodes can pass the old pieces on
//! themselves; then it gives the least given. A wanted piece goes out twice; later askers are sent to a
//! holder. A store without room is read through, piece by piece.

use super::link::is_seed_node;
use super::provider::{Chosen, Content, Provider, Refusal};
use super::request::Request;
use super::tracker::Tracker;
use crate::model::{Bitfield, Failure, FailureKind, FileKey};
use crate::source::{FileRef, Origin};
use crate::store::CacheFile;
use async_trait::async_trait;
use futures::future::try_join_all;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long new pieces are waited for while old ones could be given. Less spends a thin uplink on copies
/// that nodes have from each other by then (1.09 times the bound at 100 ms, 1.07 at 300).
pub const FRESH_WAIT: Duration = Duration::from_millis(300);

/// Who may wait for new pieces at a time, the others are busied: as many as there are slots, for a thousand
/// that wait too long would each be given an old piece (1.33 times the bound without this, 1.04 with it).
pub const WAITING_MAX: usize = 5;

pub struct SeedProvider {
    tracker: Arc<Tracker>,
    origin: Arc<dyn Origin>,
    waiting: Semaphore,
}

impl SeedProvider {
    pub fn new(tracker: Arc<Tracker>, origin: Arc<dyn Origin>) -> SeedProvider {
        SeedProvider {
            tracker,
            origin,
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    fn open(&self, request: &Request) -> Result<(FileRef, Arc<CacheFile>), Refusal> {
        let file = self
            .tracker
            .file(request.key, &request.node)
            .ok_or(Refusal::NoInterest)?;
        if is_seed_node(&request.node) && !self.origin.owns(file.key) {
            let message = "this seed does not own the file: ask its owner";
            return Err(Refusal::Failed(Failure::new(
                FailureKind::Unavailable,
                message,
            )));
        }
        let cache = self
            .tracker
            .store()
            .file(file.key, file.size)
            .map_err(|error| {
                Refusal::Failed(Failure::new(FailureKind::Internal, error.to_string()))
            })?;
        Ok((file, cache))
    }

    /// What is here of a file that another seed owns: nobody need have said what for.
    fn copy(&self, key: FileKey, run: Range<u32>) -> Result<Content, Refusal> {
        let cache = self.tracker.store().get(key).ok_or(Refusal::NoInterest)?;
        let is_here = run.into_iter().all(|index| cache.has(index));
        is_here
            .then_some(Content::File(cache))
            .ok_or(Refusal::NoInterest)
    }

    async fn bring(
        &self,
        file: &FileRef,
        cache: Arc<CacheFile>,
        run: Range<u32>,
    ) -> Result<Content, Refusal> {
        let end = run.end.min(cache.geometry().pieces());
        let missing = (run.start..end).filter(|index| !cache.has(*index));
        let demands = missing.map(|index| self.origin.demand(file, index));
        match try_join_all(demands).await {
            Ok(_) => Ok(Content::File(cache)),
            Err(failure) if failure.kind == FailureKind::NoRoom && run.len() == 1 => {
                let piece = self
                    .origin
                    .read_through(file, run.start)
                    .await
                    .map_err(Refusal::Failed)?;
                Ok(Content::Bytes(cache, piece))
            }
            Err(failure) => Err(Refusal::Failed(failure)),
        }
    }

    async fn wanted(
        &self,
        request: &Request,
        file: &FileRef,
        cache: Arc<CacheFile>,
        index: u32,
    ) -> Result<Chosen, Refusal> {
        if !request.tried
            && let Some(holder) = self.holder(file.key, index, &request.node)
        {
            return Err(Refusal::Holder(holder));
        }
        let (run, pieces) = (index..index + 1, cache.geometry().pieces());
        let gift = self
            .tracker
            .ledger()
            .give(file.key, &request.node, run.clone(), pieces);
        let content = self.bring(file, cache, run.clone()).await?;
        self.origin.vouch(file, &run).await;
        Ok(Chosen {
            run,
            content,
            gift: Some(gift),
        })
    }

    /// Any of the nodes that were given the piece and are still there, or that said they hold it.
    fn holder(&self, key: FileKey, index: u32, asker: &str) -> Option<String> {
        if let Some((_, addr)) = self.tracker.holder(key, index, asker) {
            return Some(addr);
        }
        let holders = self.tracker.ledger().holders(key, index, asker);
        let addrs: Vec<_> = holders
            .iter()
            .filter_map(|node| self.tracker.addr_of(node))
            .collect();
        let at = rand::random_range(0..addrs.len().max(1));
        addrs.into_iter().nth(at)
    }

    async fn choose(
        &self,
        request: &Request,
        file: &FileRef,
        cache: Arc<CacheFile>,
        need: &Bitfield,
    ) -> Result<Chosen, Refusal> {
        let ledger = self.tracker.ledger();
        loop {
            let have = cache.have();
            let (here, missing) = (need.and(&have), need.minus(&have));
            if !missing.is_empty() {
                // Else the hub is not read while what is here goes out, and the link from it lies idle.
                self.origin
                    .announce(file, &missing)
                    .map_err(Refusal::Failed)?;
            }
            let fresh = here.and(&ledger.fresh(file.key, need.len()));
            let gift = ledger.choose(file.key, &request.node, &fresh, request.run_max);
            let gift = match gift {
                None if self.fetch(file, &here, &missing).await? => continue,
                None => ledger.choose(file.key, &request.node, &here, request.run_max),
                gift => gift,
            };
            return match gift {
                Some(gift) => {
                    self.origin.vouch(file, &gift.run()).await;
                    Ok(Chosen {
                        run: gift.run(),
                        content: Content::File(cache),
                        gift: Some(gift),
                    })
                }
                None => self.read_through(request, file, cache, &missing).await,
            };
        }
    }

    /// Gets something that is missing. False when there is nothing to get, when that takes too long while
    /// `here` has something to give, or when the store is full.
    async fn fetch(
        &self,
        file: &FileRef,
        here: &Bitfield,
        missing: &Bitfield,
    ) -> Result<bool, Refusal> {
        if missing.is_empty() {
            return Ok(false);
        }
        // Only those who would else be given old pieces: a file whose hub hangs must not make others wait.
        let _waiting = match here.is_empty() {
            true => None,
            false => Some(self.waiting.try_acquire().map_err(|_| Refusal::Busy)?),
        };
        let fetching = self.origin.any(file, missing);
        let fetched = match here.is_empty() {
            true => fetching.await,
            false => match timeout(FRESH_WAIT, fetching).await {
                Ok(Ok(())) => Ok(()),
                _ => return Ok(false),
            },
        };
        match fetched {
            Err(failure) if failure.kind == FailureKind::NoRoom => Ok(false),
            fetched => fetched.map(|()| true).map_err(Refusal::Failed),
        }
    }

    async fn read_through(
        &self,
        request: &Request,
        file: &FileRef,
        cache: Arc<CacheFile>,
        missing: &Bitfield,
    ) -> Result<Chosen, Refusal> {
        let index = missing.iter().next().ok_or(Refusal::NotHere)?;
        self.wanted(request, file, cache, index).await
    }
}

#[async_trait]
impl Provider for SeedProvider {
    async fn ready(&self, request: &Request, run: Range<u32>) -> Result<Content, Refusal> {
        let (file, cache) = match self.open(request) {
            Err(Refusal::NoInterest) => return self.copy(request.key, run),
            opened => opened?,
        };
        let content = self.bring(&file, cache, run.clone()).await?;
        self.origin.vouch(&file, &run).await;
        Ok(content)
    }

    async fn any(
        &self,
        request: &Request,
        wanted: Option<u32>,
        need: Vec<u8>,
    ) -> Result<Chosen, Refusal> {
        let (file, cache) = self.open(request)?;
        let pieces = cache.geometry().pieces();
        if let Some(index) = wanted {
            let index = (index < pieces).then_some(index).ok_or(Refusal::NotHere)?;
            return self.wanted(request, &file, cache, index).await;
        }
        let malformed = || {
            Failure::new(
                FailureKind::Internal,
                "need bitmap is not of the file's length",
            )
        };
        let need =
            Bitfield::from_bytes(need, pieces).ok_or_else(|| Refusal::Failed(malformed()))?;
        self.choose(request, &file, cache, &need).await
    }

    fn tells_hashes(&self) -> bool {
        true
    }
}
