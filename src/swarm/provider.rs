//! What a piece server serves from: the store of a node, or a seed's store with the hub behind it.

use super::ledger::Gift;
use super::recent::Recent;
use super::request::Request;
use crate::model::{Failure, Verified};
use crate::store::CacheFile;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// Why a request is not answered with bytes.
#[derive(Debug)]
pub enum Refusal {
    /// Not here, and this server does not fetch.
    NotHere,
    /// A seed nobody has told about this file.
    NoInterest,
    /// The wanted piece was given to this peer before: ask it.
    Holder(String),
    /// Enough wait for the hub already.
    Busy,
    Failed(Failure),
}

/// Where the bytes of an answer lie.
pub enum Content {
    /// In the data file, to be sent by the kernel. Every piece of the run is here.
    File(Arc<CacheFile>),
    /// In memory, for a store that has no room: one piece.
    Bytes(Arc<CacheFile>, Verified),
}

impl Content {
    pub fn file(&self) -> &Arc<CacheFile> {
        match self {
            Content::File(file) | Content::Bytes(file, _) => file,
        }
    }
}

/// An answer to `any`: the pieces chosen, and the note that they were given.
pub struct Chosen {
    pub run: Range<u32>,
    pub content: Content,
    pub gift: Option<Gift>,
}

/// What stands behind a piece server.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Returns when the pieces of `run` are here. May wait for the hub on a seed; a node never waits.
    async fn ready(&self, request: &Request, run: Range<u32>) -> Result<Content, Refusal>;

    /// Chooses a run among `need`. Only a seed does.
    async fn any(
        &self,
        _request: &Request,
        _wanted: Option<u32>,
        _need: Vec<u8>,
    ) -> Result<Chosen, Refusal> {
        Err(Refusal::NotHere)
    }

    /// Whether answers carry piece hashes; only a seed's are believed.
    fn tells_hashes(&self) -> bool {
        false
    }
}

/// A node gives what it has, at once.
pub struct NodeProvider {
    pub(super) files: Arc<Recent>,
}

#[async_trait]
impl Provider for NodeProvider {
    async fn ready(&self, request: &Request, run: Range<u32>) -> Result<Content, Refusal> {
        let file = self.files.get(request.key).ok_or(Refusal::NotHere)?;
        let end = run.end.min(file.geometry().pieces());
        let is_here = (run.start..end).all(|index| file.has(index));
        is_here
            .then_some(Content::File(file))
            .ok_or(Refusal::NotHere)
    }
}
