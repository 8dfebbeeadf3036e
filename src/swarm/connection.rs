//! Connections to piece servers: requests out, heads and bodies of an exact size in, kept for reuse. Where
//! there are certificates they are TLS, and one made to a peer is never used to ask a seed.
//!
//! hyper costs three times the CPU for the same bytes. Bounds: 3 s to connect, 10 s without a byte, 8 KiB
//! of head, 4 idle connections a server and 128 in all, each idle for 30 s at most.

use super::buffer::Buffer;
use super::request::{Fields, HEAD_BYTES_MAX};
use crate::tls::{Callee, Stream, TlsDir, explain_read};
use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const CONNECT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(10);
/// A seed reading the hub is silent for longer.
const HEAD_SILENCE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(30);
const IDLE_PER_PEER: usize = 4;
const IDLE_MAX: usize = 128;
/// What an alert begins with, which is TLS's answer to a request in the clear.
const TLS_ALERT: u8 = 21;

/// One connection, between requests or within one.
pub struct Connection {
    stream: Stream,
    callee: Callee,
    buffer: BytesMut,
}

/// The head of an answer, as far as a client acts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub length: u64,
    /// First and last piece of the body.
    pub piece: Option<String>,
    pub hashes: Option<String>,
    pub holder: Option<String>,
    pub failure: Option<String>,
    pub no_interest: bool,
    pub retry_after_ms: Option<u64>,
}

impl Connection {
    async fn open(addr: &str, tls: Option<&TlsDir>, callee: Callee) -> io::Result<Connection> {
        let opening = async {
            if let Some(tls) = tls {
                return tls.connect(addr, callee).await;
            }
            let tcp = TcpStream::connect(addr).await?;
            tcp.set_nodelay(true)?;
            Ok(Stream::Plain(tcp))
        };
        Ok(Connection {
            stream: timeout(CONNECT, opening).await??,
            callee,
            buffer: BytesMut::with_capacity(HEAD_BYTES_MAX),
        })
    }

    /// Sends a request and reads the head of its answer.
    pub async fn ask(&mut self, head: &str, body: &[u8]) -> io::Result<Head> {
        let request = [head.as_bytes(), body].concat();
        let sending = async {
            self.stream.write_all(&request).await?;
            self.stream.flush().await
        };
        timeout(SILENCE, sending).await??;
        loop {
            if let Some((head, len)) = parse(&self.buffer)? {
                self.buffer.advance(len);
                return Ok(head);
            }
            let read = timeout(HEAD_SILENCE, self.stream.read_buf(&mut self.buffer)).await?;
            if read.map_err(explain_read)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads exactly `len` bytes of the body, at most a piece.
    pub async fn read(&mut self, len: usize) -> io::Result<Bytes> {
        let mut body = Buffer::new(len);
        let mut at = len.min(self.buffer.len());
        self.buffer.copy_to_slice(&mut body[..at]);
        while at < len {
            let read = timeout(SILENCE, self.stream.read(&mut body[at..])).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += read;
        }
        Ok(body.freeze())
    }

    /// Whether the peer has left it open and quiet.
    fn is_fresh(&mut self) -> bool {
        let told = self.stream.read(&mut [0; 1]).now_or_never();
        self.buffer.is_empty() && told.is_none()
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let invalid = |cause| io::Error::new(io::ErrorKind::InvalidData, cause);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| match bytes {
        [TLS_ALERT, ..] => invalid("the other side speaks TLS: give --tls-dir here too"),
        _ => invalid("answer is not HTTP/1.1"),
    })?;
    let httparse::Status::Complete(len) = parsed else {
        let too_long = bytes.len() >= HEAD_BYTES_MAX;
        return if too_long {
            Err(invalid("head is longer than 8 KiB"))
        } else {
            Ok(None)
        };
    };
    let status = response.code.unwrap_or_default();
    let fields = Fields(response.headers);
    let text = |name| fields.get(name).map(str::to_owned);
    let number = |name| fields.get(name).and_then(|value| value.parse().ok());
    let head = Head {
        status,
        length: number("content-length").ok_or_else(|| invalid("no content-length"))?,
        piece: text("x-piece"),
        hashes: text("x-piece-hashes"),
        holder: text("x-holder"),
        failure: text("x-model-p2p-failure"),
        no_interest: fields.get("x-no-interest").is_some(),
        retry_after_ms: number("retry-after-ms"),
    };
    Ok(Some((head, len)))
}

type Idle = HashMap<String, Vec<(Connection, Instant)>>;

/// Idle connections by address. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    tls: Option<Arc<TlsDir>>,
    idle: Arc<Mutex<Idle>>,
}

impl Pool {
    pub fn new(tls: Option<Arc<TlsDir>>) -> Pool {
        let idle = Arc::default();
        Pool { tls, idle }
    }

    /// An idle connection to `addr`, or a new one.
    pub async fn get(&self, addr: &str, callee: Callee) -> io::Result<Connection> {
        while let Some(mut connection) = self.pop(addr, callee) {
            if connection.is_fresh() {
                return Ok(connection);
            }
        }
        Connection::open(addr, self.tls.as_deref(), callee).await
    }

    fn pop(&self, addr: &str, callee: Callee) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let same = idle.get_mut(addr)?;
        let at = same.iter().rposition(|(one, _)| one.callee == callee)?;
        Some(same.swap_remove(at).0)
    }

    /// Keeps a connection whose last answer was read to its end.
    pub fn put(&self, addr: &str, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for connections in idle.values_mut() {
            connections.retain(|(_, since)| since.elapsed() < IDLE);
        }
        idle.retain(|_, connections| !connections.is_empty());
        let total: usize = idle.values().map(Vec::len).sum();
        let same = idle.entry(addr.to_owned()).or_default();
        if same.len() < IDLE_PER_PEER && total < IDLE_MAX {
            same.push((connection, Instant::now()));
        }
    }

    /// Closes the idle connections to `addr`.
    pub fn forget(&self, addr: &str) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after-ms: 20\r\n\r\nrest";
        let (head, len) = parse(text).expect("a head").expect("a whole head");
        assert_eq!(
            (head.status, head.length, head.retry_after_ms),
            (503, 0, Some(20))
        );
        assert_eq!(&text[len..], b"rest");
        assert!(parse(&text[..40]).expect("so far well").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
