//! A source for a process that is its own seed: the origin fills the same store that the readers read.

use crate::model::{Bitfield, Failure, FailureKind};
use crate::source::{Arrival, FileRef, Need, Origin, Source};
use async_trait::async_trait;
use std::sync::Arc;

/// Gives an [`Origin`]'s pieces to `fetch` where both share one store.
pub struct LocalSource {
    origin: Arc<dyn Origin>,
}

impl LocalSource {
    pub fn new(origin: Arc<dyn Origin>) -> LocalSource {
        LocalSource { origin }
    }
}

#[async_trait]
impl Source for LocalSource {
    /// A file that an earlier process left whole gets its verdict now.
    fn opened(&self, file: &FileRef) {
        let (origin, file) = (self.origin.clone(), file.clone());
        tokio::spawn(async move { origin.settle(&file).await });
    }

    async fn admit(&self, file: &FileRef) -> Result<(), Failure> {
        self.origin.prove(file).await
    }

    async fn piece(&self, file: &FileRef, index: u32) -> Result<Arrival, Failure> {
        match self.origin.demand(file, index).await {
            Ok(()) => Ok(Arrival::Kept(index..index + 1)),
            Err(failure) if failure.kind == FailureKind::NoRoom => Ok(Arrival::Passing(vec![
                self.origin.read_through(file, index).await?,
            ])),
            Err(failure) => Err(failure),
        }
    }

    /// One piece at a time: the origin itself reads the whole need in long runs meanwhile.
    async fn some(&self, file: &FileRef, need: &Arc<Need>) -> Result<Arrival, Failure> {
        let Some(claim) = need.open().first().and_then(|first| need.claim(*first, 1)) else {
            return Ok(Arrival::Kept(0..0));
        };
        let mut wanted = need.bitmap(file.geometry().pieces());
        wanted.set(claim.run().start, true);
        let mut first = Bitfield::new(wanted.len());
        first.set(claim.run().start, true);
        // The whole need is announced, the claimed piece is awaited.
        self.origin.announce(file, &wanted)?;
        self.origin.any(file, &first).await?;
        Ok(Arrival::Kept(claim.run()))
    }
}
