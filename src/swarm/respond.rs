//! One answer of the piece server: a slot, the pieces, the head, the bytes.
//!
//! A slot is taken before any work. A request whose pieces must come from the hub first gives its slot back
//! while it waits, so that pieces that are here go on flowing.

use super::buffer::Buffer;
use super::provider::{Chosen, Content, Provider, Refusal};
use super::request::{Ask, BadRequest, Request};
use super::server::{Asked, IDLE};
use super::slots::{Slot, Slots};
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind, Geometry, PIECE_BYTES};
use crate::store::{CacheFile, StoreError};
use crate::tls::{Role, Stream};
use futures::future::{Either, select};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// When a refused client may ask again: about one 4 MiB transfer on a slow link.
const RETRY_AFTER_MS: u32 = 20;

/// The most bytes sent at a time, so that one fast peer does not hold a runtime thread.
const SEND_BYTES_MAX: u64 = PIECE_BYTES;

/// The server's side of one connection.
pub struct Responder {
    pub stream: Stream,
    /// The role of who asks, if it is none that is served.
    pub stranger: Option<Role>,
    pub provider: Arc<dyn Provider>,
    pub slots: Slots,
    pub waiting: Arc<Semaphore>,
}

/// Why an answer has no pieces.
enum Refused {
    Busy,
    Stranger(Role),
    BadRequest(BadRequest),
    OutOfRange(u64),
    By(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused::By(refusal)
    }
}

/// What will be sent: bytes `bytes` of the file, which lie in `run`.
struct Answer {
    chosen: Chosen,
    bytes: Range<u64>,
    is_partial: bool,
    _slot: Slot,
}

impl Responder {
    /// Answers one request. An error means that the connection is of no use any more.
    pub async fn answer(&mut self, asked: Asked) -> io::Result<()> {
        let prepared = match (self.stranger, asked) {
            (Some(role), _) => Err(Refused::Stranger(role)),
            (None, Ok((request, body))) => self.prepare(&request, body).await,
            (None, Err(wrong)) => Err(Refused::BadRequest(wrong)),
        };
        match prepared {
            Ok(answer) => self.send(answer).await?,
            Err(refused) => self.write(refusal(&refused).as_bytes()).await?,
        }
        timeout(IDLE, self.stream.flush()).await?
    }

    async fn prepare(&self, request: &Request, body: Vec<u8>) -> Result<Answer, Refused> {
        let (chosen, slot) = self.choose(request, body).await?;
        if let Content::File(file) = &chosen.content {
            check(file.clone(), chosen.run.clone()).await?;
        }
        let geometry = chosen.content.file().geometry();
        let run = geometry.bytes(chosen.run.start).start..geometry.bytes(chosen.run.end - 1).end;
        let bytes = cut(&run, request.range).ok_or(Refused::OutOfRange(run.end - run.start))?;
        let is_partial = request.range.is_some();
        Ok(Answer {
            chosen,
            bytes,
            is_partial,
            _slot: slot,
        })
    }

    /// The pieces and a slot to send them in. Pieces that are not at hand are waited for without a slot.
    async fn choose(&self, request: &Request, body: Vec<u8>) -> Result<(Chosen, Slot), Refused> {
        let slot = self.slots.take(request.class).ok_or(Refused::Busy)?;
        let pieces = std::pin::pin!(self.pieces(request, body));
        match select(pieces, std::future::ready(())).await {
            Either::Left((chosen, _)) => Ok((chosen?, slot)),
            Either::Right(((), pieces)) => {
                drop(slot);
                let _waiting = self.waiting.try_acquire().map_err(|_| Refused::Busy)?;
                let chosen = pieces.await?;
                let slot = self.slots.wait(request.class).await.ok_or(Refused::Busy)?;
                Ok((chosen, slot))
            }
        }
    }

    async fn pieces(&self, request: &Request, body: Vec<u8>) -> Result<Chosen, Refusal> {
        match &request.ask {
            Ask::Any { wanted, .. } => self.provider.any(request, *wanted, body).await,
            Ask::Pieces(run) => {
                let content = self.provider.ready(request, run.clone()).await?;
                let end = run.end.min(content.file().geometry().pieces());
                if run.start >= end {
                    return Err(Refusal::NotHere);
                }
                let run = run.start..end;
                Ok(Chosen {
                    run,
                    content,
                    gift: None,
                })
            }
        }
    }

    async fn send(&mut self, answer: Answer) -> io::Result<()> {
        let head = head(&answer, self.provider.tells_hashes());
        self.write(head.as_bytes()).await?;
        let len = answer.bytes.end - answer.bytes.start;
        match &answer.chosen.content {
            Content::File(file) => self.send_file(file.data(), answer.bytes.clone()).await?,
            Content::Bytes(file, piece) => {
                let start = file.geometry().bytes(piece.index()).start;
                let within =
                    (answer.bytes.start - start) as usize..(answer.bytes.end - start) as usize;
                self.write(&piece.bytes()[within]).await?;
            }
        }
        METRICS
            .served_bytes
            .with_label_values(&["peer"])
            .inc_by(len);
        if let Some(gift) = answer.chosen.gift {
            gift.done();
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(IDLE, self.stream.write_all(bytes)).await?
    }

    async fn send_file(&mut self, file: Arc<File>, bytes: Range<u64>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(tcp) => send_plain(tcp, &file, bytes).await,
            tls => send_sealed(tls, file, bytes).await,
        }
    }
}

/// The kernel copies from the page cache to the socket; the file's own position is not used.
async fn send_plain(tcp: &TcpStream, file: &File, bytes: Range<u64>) -> io::Result<()> {
    let mut at = bytes.start as i64;
    while (at as u64) < bytes.end {
        let most = (bytes.end - at as u64).min(SEND_BYTES_MAX) as usize;
        let send = || {
            nix::sys::sendfile::sendfile64(tcp, file, Some(&mut at), most).map_err(io::Error::from)
        };
        let sent = timeout(IDLE, tcp.async_io(Interest::WRITABLE, send)).await??;
        if sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Read off the runtime, as the disk may be slow; sealed on it, a piece at a time.
async fn send_sealed(tls: &mut Stream, file: Arc<File>, bytes: Range<u64>) -> io::Result<()> {
    let mut at = bytes.start;
    while at < bytes.end {
        let len = (bytes.end - at).min(SEND_BYTES_MAX);
        let file = file.clone();
        let read = move || {
            let mut buffer = Buffer::new(len as usize);
            file.read_exact_at(&mut buffer, at).map(|()| buffer)
        };
        let buffer = tokio::task::spawn_blocking(read).await??;
        timeout(IDLE, tls.write_all(&buffer)).await??;
        at += len;
    }
    Ok(())
}

/// Hashes the pieces that this process has not hashed yet, off the runtime.
async fn check(file: Arc<CacheFile>, run: Range<u32>) -> Result<(), Refusal> {
    if run.clone().all(|index| file.is_checked(index)) {
        return Ok(());
    }
    let checked = tokio::task::spawn_blocking(move || -> Result<bool, StoreError> {
        for index in run {
            if !file.check(index)? {
                return Ok(false);
            }
        }
        Ok(true)
    });
    match checked.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Refusal::NotHere),
        Ok(Err(error)) => Err(internal(&error)),
        Err(error) => Err(internal(&error)),
    }
}

fn internal(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed(Failure::new(FailureKind::Internal, error.to_string()))
}

/// The bytes of `run` that a Range asks for; `None` when there is none of them.
fn cut(run: &Range<u64>, range: Option<(u64, Option<u64>)>) -> Option<Range<u64>> {
    let Some((first, last)) = range else {
        return Some(run.clone());
    };
    let start = run.start.checked_add(first)?;
    let end = match last {
        Some(last) => run
            .start
            .saturating_add(last)
            .saturating_add(1)
            .min(run.end),
        None => run.end,
    };
    (start < end).then_some(start..end)
}

fn head(answer: &Answer, tells_hashes: bool) -> String {
    use std::fmt::Write;
    let (Chosen { run, content, .. }, bytes) = (&answer.chosen, &answer.bytes);
    let status = if answer.is_partial {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let mut head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n",
        bytes.end - bytes.start
    );
    let _ = write!(head, "x-piece: {}-{}\r\n", run.start, run.end - 1);
    if answer.is_partial {
        let _ = write!(
            head,
            "content-range: {}\r\n",
            content_range(content.file().geometry(), run, bytes)
        );
    }
    if tells_hashes && let Some(hashes) = hashes(content, run) {
        let _ = write!(head, "x-piece-hashes: {hashes}\r\n");
    }
    head + "\r\n"
}

/// Counted from the start of the run, as the Range was.
fn content_range(geometry: Geometry, run: &Range<u32>, bytes: &Range<u64>) -> String {
    let (start, end) = (
        geometry.bytes(run.start).start,
        geometry.bytes(run.end - 1).end,
    );
    format!(
        "bytes {}-{}/{}",
        bytes.start - start,
        bytes.end - 1 - start,
        end - start
    )
}

fn hashes(content: &Content, run: &Range<u32>) -> Option<String> {
    let hash = |index| match content {
        Content::Bytes(_, piece) => Some(*piece.hash()),
        Content::File(file) => file.hash(index),
    };
    let texts: Option<Vec<_>> = run
        .clone()
        .map(|index| hash(index).map(hex::encode))
        .collect();
    texts.map(|texts| texts.join(","))
}

fn refusal(refused: &Refused) -> String {
    let (status, fields, body) = match refused {
        Refused::Busy | Refused::By(Refusal::Busy) => (
            "503 Busy",
            format!("retry-after-ms: {RETRY_AFTER_MS}\r\n"),
            String::new(),
        ),
        Refused::Stranger(role) => (
            "403 Forbidden",
            format!(
                "connection: close\r\nx-model-p2p-failure: {}\r\n",
                FailureKind::Denied
            ),
            format!(
                "pieces need a certificate with the role node, seed or admin, this one has {role}: check --tls-dir"
            ),
        ),
        Refused::BadRequest(wrong) => (
            "400 Bad Request",
            "connection: close\r\n".into(),
            wrong.to_string(),
        ),
        Refused::OutOfRange(len) => (
            "416 Range Not Satisfiable",
            format!("content-range: bytes */{len}\r\n"),
            String::new(),
        ),
        Refused::By(Refusal::NotHere) => ("404 Not Found", String::new(), "not here".into()),
        Refused::By(Refusal::NoInterest) => (
            "404 Not Found",
            "x-no-interest: 1\r\n".into(),
            "no interest".into(),
        ),
        Refused::By(Refusal::Holder(addr)) => (
            "409 Conflict",
            format!("x-holder: {addr}\r\n"),
            String::new(),
        ),
        Refused::By(Refusal::Failed(failure)) => (
            "502 Bad Gateway",
            format!("x-model-p2p-failure: {}\r\n", failure.kind),
            failure.message.chars().take(1024).collect(),
        ),
    };
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
}
