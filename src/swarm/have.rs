//! HAVE, the giving side: tells neighbours what this node has of the files they watch.
//!
//! One stream a neighbour for all files. Each file is told as a bitmap once, then as new runs, gathered for
//! [`FLUSH`] and only when something changed. What was told is compared with what is here at the moment of
//! sending, so a neighbour that lags gets one larger difference, never a queue. 16,384 files a stream.

use super::recent::Recent;
use super::v1::{self, peer_server::Peer};
use super::wire;
use crate::model::{Bitfield, FileKey};
use crate::store::{CacheFile, State};
use futures::stream::{BoxStream, SelectAll, StreamExt, once};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

/// Below three piece times at 1 Gb/s, which costs 1 % of the makespan; 50 ms would cost a tenth at 10 Gb/s.
const FLUSH: Duration = Duration::from_millis(10);
/// A file that nobody has open changes only by eviction.
const RECHECK: Duration = Duration::from_secs(30);
const FILES_MAX: usize = 16_384;

/// The gRPC service that neighbours subscribe at.
pub struct PeerService {
    pub(super) files: Arc<Recent>,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type HaveStream = ReceiverStream<Result<v1::HaveBatch, Status>>;

    async fn have(
        &self,
        request: Request<Streaming<v1::Watch>>,
    ) -> Result<Response<Self::HaveStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let teller = Teller {
            files: self.files.clone(),
            told: HashMap::new(),
            dirty: BTreeSet::new(),
            closed: BTreeSet::new(),
            changes: SelectAll::new(),
        };
        tokio::spawn(teller.run(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What happens to a watched file: it changes, or nobody has it open any more.
enum Event {
    Changed(FileKey),
    Closed(FileKey),
}

struct Teller {
    files: Arc<Recent>,
    /// Watched files, with what was told of them.
    told: HashMap<FileKey, Option<Bitfield>>,
    dirty: BTreeSet<FileKey>,
    closed: BTreeSet<FileKey>,
    changes: SelectAll<BoxStream<'static, Event>>,
}

impl Teller {
    async fn run(
        mut self,
        mut watches: Streaming<v1::Watch>,
        stream: mpsc::Sender<Result<v1::HaveBatch, Status>>,
    ) {
        let mut recheck = tokio::time::interval(RECHECK);
        loop {
            tokio::select! {
                watch = watches.message() => match watch {
                    Ok(Some(watch)) => self.watch(&watch),
                    _ => return,
                },
                Some(event) = self.changes.next(), if !self.changes.is_empty() => self.note(event),
                _ = recheck.tick() => self.dirty.append(&mut self.closed),
                () = stream.closed() => return,
            }
            if self.dirty.is_empty() {
                continue;
            }
            tokio::time::sleep(FLUSH).await;
            let batch = self.batch();
            if !batch.files.is_empty() && stream.send(Ok(batch)).await.is_err() {
                return;
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Changed(key) => drop(self.dirty.insert(key)),
            Event::Closed(key) => drop(self.closed.insert(key)),
        }
    }

    /// Replaces the watched files.
    fn watch(&mut self, watch: &v1::Watch) {
        let keys: BTreeSet<_> = watch
            .keys
            .iter()
            .filter_map(|key| wire::key_of(key))
            .take(FILES_MAX)
            .collect();
        self.told.retain(|key, _| keys.contains(key));
        self.closed.retain(|key| keys.contains(key));
        for key in keys {
            if let std::collections::hash_map::Entry::Vacant(entry) = self.told.entry(key) {
                entry.insert(None);
                self.closed.insert(key);
                self.dirty.insert(key);
            }
        }
    }

    fn batch(&mut self) -> v1::HaveBatch {
        while let Some(Some(event)) = futures::FutureExt::now_or_never(self.changes.next()) {
            self.note(event);
        }
        let dirty = std::mem::take(&mut self.dirty);
        let files = dirty.into_iter().filter_map(|key| self.news(key)).collect();
        v1::HaveBatch { files }
    }

    fn news(&mut self, key: FileKey) -> Option<v1::FileHave> {
        let told = self.told.get_mut(&key)?;
        let Some(file) = self.files.peek(key) else {
            self.closed.insert(key);
            return None;
        };
        // Subscribed before it is looked at, so that nothing falls in between.
        if self.closed.remove(&key) {
            self.changes.push(events(&file));
        }
        let have = match file.state() {
            State::Revoked => Bitfield::new(file.geometry().pieces()),
            _ => file.have(),
        };
        let news = difference(key, told.as_ref(), &have);
        *told = Some(have);
        news
    }
}

/// Does not keep the file open: that would keep it from eviction.
fn events(file: &CacheFile) -> BoxStream<'static, Event> {
    let key = file.key();
    let changes = WatchStream::from_changes(file.changes()).map(move |_| Event::Changed(key));
    changes
        .chain(once(std::future::ready(Event::Closed(key))))
        .boxed()
}

/// What to tell a neighbour that was told `told`; `None` when nothing changed.
fn difference(key: FileKey, told: Option<&Bitfield>, have: &Bitfield) -> Option<v1::FileHave> {
    let key = key.0.to_vec();
    let all = || Some(have.as_bytes().to_vec());
    let Some(told) = told.filter(|told| told.minus(have).is_empty()) else {
        return Some(v1::FileHave {
            key,
            bits: all(),
            runs: Vec::new(),
        });
    };
    let new: Vec<u32> = have.minus(told).iter().collect();
    let run = |run: &[u32]| v1::Run {
        first: run[0],
        count: run.len() as u32,
    };
    let runs: Vec<_> = new.chunk_by(|a, b| a + 1 == *b).map(run).collect();
    match runs.len() {
        0 => None,
        // A run is up to 10 bytes on the wire.
        count if count * 10 > have.as_bytes().len() => Some(v1::FileHave {
            key,
            bits: all(),
            runs: Vec::new(),
        }),
        _ => Some(v1::FileHave {
            key,
            bits: None,
            runs,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(of: impl IntoIterator<Item = u32>) -> Bitfield {
        let mut bits = Bitfield::new(800);
        of.into_iter().for_each(|index| bits.set(index, true));
        bits
    }

    #[test]
    fn only_what_is_new_is_told_in_the_shorter_form() {
        let tell = |told: Option<&Bitfield>, have| difference(FileKey([0; 32]), told, &have);
        let before = bits([1, 2]);
        assert!(
            tell(None, bits([])).is_some_and(|told| told.bits.is_some()),
            "the first is a bitmap"
        );
        assert!(tell(Some(&before), bits([1, 2])).is_none());
        let runs = tell(Some(&before), bits([1, 2, 3, 4, 9]))
            .expect("news")
            .runs;
        assert_eq!(
            runs,
            [
                v1::Run { first: 3, count: 2 },
                v1::Run { first: 9, count: 1 }
            ]
        );
        assert!(
            tell(Some(&before), bits([1])).is_some_and(|told| told.bits.is_some()),
            "one went away"
        );
        let many = tell(
            Some(&before),
            bits((0..800).filter(|index| index % 2 == 1 || *index == 2)),
        );
        assert!(many.is_some_and(|told| told.bits.is_some()));
    }
}
