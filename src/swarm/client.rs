//! Transfers: a run of pieces asked from one server, verified, kept.
//!
//! A piece is hashed and written in one step off the runtime, while the next one is read. Hashes come from
//! the store, where seeds' hashes go; from an answer's head only if a seed was asked, which over TLS its
//! certificate has shown. Bytes that fail
//! their hash are dropped and named as [`TransferError::Corrupt`]. Nothing is retried here.

use super::connection::{Connection, Head, Pool};
use super::request::{self, RUN_PIECES_MAX};
use super::slots::Class;
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind, FileKey, PieceHash, Verified};
use crate::source::Arrival;
use crate::store::{CacheFile, Store, StoreError};
use crate::tls::{Callee, TlsDir};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Why a transfer brought nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("no free slot for {after:?}")]
    Busy { after: Duration },
    #[error("pieces are not here")]
    NotHere,
    #[error("the seed does not know this file yet")]
    NoInterest,
    #[error("held by {0}")]
    Holder(String),
    #[error(transparent)]
    Failed(Failure),
    #[error("hash of piece {piece} is wrong")]
    Corrupt { piece: u32 },
    #[error("hash of piece {piece} is not known")]
    NoHash { piece: u32 },
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// Somebody else has every piece of it under way.
    #[error("nothing of the run is wanted any more")]
    Unwanted,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransferError {
    /// The hub refused the credential that the seed has of this node.
    pub fn is_refusal(&self) -> bool {
        use crate::model::FailureKind::{Denied, NotFound, Unauthenticated};
        matches!(self, TransferError::Failed(failure)
            if matches!(failure.kind, Denied | NotFound | Unauthenticated))
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    Peer,
    Seed,
}

impl Giver {
    /// The metrics label.
    pub fn name(self) -> &'static str {
        match self {
            Giver::Peer => "peer",
            Giver::Seed => "seed",
        }
    }

    /// Who must be at the other end, by its certificate.
    fn callee(self) -> Callee {
        match self {
            Giver::Peer => Callee::Peer,
            Giver::Seed => Callee::Seed,
        }
    }
}

/// What is asked of a seed.
pub struct AnyAsk<'a> {
    pub wanted: Option<u32>,
    pub tried: bool,
    /// The most pieces of a run: few on a thin link.
    pub run_max: u32,
    pub need: &'a [u8],
}

/// Asks piece servers on behalf of one node.
#[derive(Clone)]
pub struct PieceClient {
    store: Store,
    pool: Pool,
    node: String,
}

impl PieceClient {
    /// Without certificates it asks in the clear.
    pub fn new(store: Store, node: String, tls: Option<Arc<TlsDir>>) -> PieceClient {
        PieceClient {
            store,
            pool: Pool::new(tls),
            node,
        }
    }

    /// Brings exactly `run` from `addr`.
    pub async fn pieces(
        &self,
        addr: &str,
        file: &Arc<CacheFile>,
        run: Range<u32>,
        class: Class,
    ) -> Result<Arrival, TransferError> {
        let head = request::print_pieces(file.key(), &run, class, &self.node);
        let answer = self.ask(addr, &head, &[], Giver::Peer).await?;
        let expected = run.clone();
        if answer.head.length != length(file, &run) {
            return Err(invalid("answer has another length").into());
        }
        self.take(addr, answer, file, run, |index| expected.contains(&index))
            .await
    }

    /// Reads a run and drops it, for benches: what the transport costs alone.
    #[cfg(feature = "testing")]
    pub async fn drain(
        &self,
        addr: &str,
        file: &CacheFile,
        run: Range<u32>,
    ) -> Result<(), TransferError> {
        let head = request::print_pieces(file.key(), &run, Class::Bulk, &self.node);
        let mut answer = self.ask(addr, &head, &[], Giver::Peer).await?;
        for index in run {
            answer.connection.read(file.geometry().len(index)).await?;
        }
        self.pool.put(addr, answer.connection);
        Ok(())
    }

    /// Brings what the seed at `addr` chooses. `claim` is told the run before its bytes are read and says
    /// which pieces of it to keep; it holds them claimed as long as its value lives.
    pub async fn any<C>(
        &self,
        addr: &str,
        file: &Arc<CacheFile>,
        ask: AnyAsk<'_>,
        claim: impl FnOnce(Range<u32>) -> Option<(C, Range<u32>)>,
    ) -> Result<Arrival, TransferError> {
        let key: FileKey = file.key();
        let head = request::print_any(key, &ask, &self.node);
        let answer = self.ask(addr, &head, ask.need, Giver::Seed).await?;
        let run = answer.head.piece.as_deref().and_then(request::run_of);
        let run = run.filter(|run| is_sound(file, run, answer.head.length));
        let run = run.ok_or_else(|| invalid("seed's run and length do not fit the file"))?;
        learn(file, &answer.head, &run)?;
        let (_claim, kept) = claim(run.clone()).ok_or(TransferError::Unwanted)?;
        self.take(addr, answer, file, run, |index| kept.contains(&index))
            .await
    }

    /// Closes what is open to a server that is not trusted any more.
    pub fn forget(&self, addr: &str) {
        self.pool.forget(addr);
    }

    async fn ask(
        &self,
        addr: &str,
        head: &str,
        body: &[u8],
        giver: Giver,
    ) -> Result<Answer, TransferError> {
        let mut connection = self.pool.get(addr, giver.callee()).await?;
        let head = connection.ask(head, body).await?;
        if head.status == 200 {
            return Ok(Answer {
                head,
                connection,
                giver,
            });
        }
        if head.length > 4096 {
            return Err(invalid("refusal is longer than 4 KiB").into());
        }
        let body = connection.read(head.length as usize).await?;
        if !matches!(head.status, 400 | 403) {
            self.pool.put(addr, connection);
        }
        Err(refusal(&head, &body))
    }

    /// Reads the run's pieces one after another; each is verified and kept while the next is read. A
    /// connection with part of an answer still in it is closed.
    async fn take(
        &self,
        addr: &str,
        mut answer: Answer,
        file: &Arc<CacheFile>,
        run: Range<u32>,
        keep: impl Fn(u32) -> bool,
    ) -> Result<Arrival, TransferError> {
        let mut landings = Vec::new();
        let mut read = Ok(());
        for index in run.clone() {
            match answer.connection.read(file.geometry().len(index)).await {
                Ok(bytes) if keep(index) => {
                    landings.push(self.land(file.clone(), index, bytes, answer.giver))
                }
                Ok(_) => {}
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        // Before the last pieces are hashed: the next request need not wait for that.
        if read.is_ok() {
            self.pool.put(addr, answer.connection);
        }
        let arrival = gather(landings).await?;
        match (read, &arrival) {
            // What came before the break has arrived; the rest is asked for again by whoever wants it.
            (Err(error), Arrival::Kept(run)) if run.is_empty() => Err(error.into()),
            _ => Ok(arrival),
        }
    }

    fn land(
        &self,
        file: Arc<CacheFile>,
        index: u32,
        bytes: Bytes,
        giver: Giver,
    ) -> JoinHandle<Landing> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let expected = file
                .hash(index)
                .ok_or(TransferError::NoHash { piece: index })?;
            let len = bytes.len() as u64;
            let Some(piece) = Verified::check(file.geometry(), index, bytes, &expected) else {
                METRICS
                    .pieces_rejected
                    .with_label_values(&[giver.name()])
                    .inc();
                return Err(TransferError::Corrupt { piece: index });
            };
            METRICS
                .fetched_bytes
                .with_label_values(&[giver.name()])
                .inc_by(len);
            match store.keep(&file, &piece) {
                Err(StoreError::NoRoom { .. }) => Ok((index, Some(piece))),
                kept => kept.map(|_| (index, None)).map_err(TransferError::from),
            }
        })
    }
}

/// A kept piece, or the piece itself where the store has no room.
type Landing = Result<(u32, Option<Verified>), TransferError>;

struct Answer {
    head: Head,
    connection: Connection,
    giver: Giver,
}

/// The pieces that landed, up to the first that did not. An error only if nothing landed.
async fn gather(landings: Vec<JoinHandle<Landing>>) -> Result<Arrival, TransferError> {
    let (mut kept, mut passing) = (0..0, Vec::new());
    for landing in landings {
        match landing.await.map_err(io::Error::from)? {
            Ok((_, Some(piece))) => passing.push(piece),
            Ok((index, None)) if kept.is_empty() => kept = index..index + 1,
            Ok((index, None)) => kept.end = index + 1,
            Err(error) => return Err(error),
        }
    }
    if passing.is_empty() {
        return Ok(Arrival::Kept(kept));
    }
    Ok(Arrival::Passing(passing))
}

fn invalid(cause: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

fn length(file: &CacheFile, run: &Range<u32>) -> u64 {
    run.clone()
        .map(|index| file.geometry().len(index) as u64)
        .sum()
}

fn is_sound(file: &CacheFile, run: &Range<u32>, length_told: u64) -> bool {
    !run.is_empty()
        && run.len() <= RUN_PIECES_MAX as usize
        && run.end <= file.geometry().pieces()
        && length(file, run) == length_told
}

/// Takes the hashes that a seed sent with a run.
fn learn(file: &CacheFile, head: &Head, run: &Range<u32>) -> io::Result<()> {
    let Some(text) = &head.hashes else {
        return Ok(());
    };
    let parse = |text: &str| {
        let mut hash: PieceHash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok().map(|()| hash)
    };
    let hashes: Option<Vec<_>> = text.split(',').map(parse).collect();
    let hashes = hashes.filter(|hashes| hashes.len() == run.len());
    file.learn(
        run.start,
        &hashes.ok_or_else(|| invalid("x-piece-hashes are malformed"))?,
    );
    Ok(())
}

fn refusal(head: &Head, body: &[u8]) -> TransferError {
    let message = || String::from_utf8_lossy(body).into_owned();
    match (head.status, &head.holder, &head.failure) {
        (503, ..) => TransferError::Busy {
            after: Duration::from_millis(head.retry_after_ms.unwrap_or(20).min(1000)),
        },
        (404, ..) if head.no_interest => TransferError::NoInterest,
        (404, ..) => TransferError::NotHere,
        (409, Some(holder), _) => TransferError::Holder(holder.clone()),
        (_, _, Some(kind)) => {
            TransferError::Failed(Failure::new(FailureKind::from_name(kind), message()))
        }
        (status, ..) => {
            let message = format!("piece server answered {status}: {}", message());
            TransferError::Failed(Failure::new(FailureKind::Unavailable, message))
        }
    }
}
