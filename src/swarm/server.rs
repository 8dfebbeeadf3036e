//! The piece server: HTTP/1.1 on a socket, gRPC of neighbours on the same port, in the clear or over TLS.
//!
//! In the clear bytes go by sendfile(2), and a connection that begins with HTTP/2's preface goes to the gRPC
//! server unread; over TLS ALPN tells. Nodes, seeds and admins are served; anybody else's certificate gets 403.
//!
//! Answers `GET /v1/pieces/...` and, on a seed, `POST /v1/any/...` (see [`super::request`]) in the order of
//! the requests of a connection, which may be pipelined. 200 and 206 carry pieces that this process has
//! hashed. 404: not here. 409 with `x-holder`: ask that peer. 503 with `retry-after-ms`, at once: no slot.
//! 502 with `x-model-p2p-failure`: the hub failed. 400 and 416: the asker's fault.
//!
//! Bounds: connections (1,024), handshakes (64 at once, 5 s each), head and body of a request, 60 s of
//! silence, and 256 requests waiting for the hub. A data file that shrinks meanwhile fails the receiver's
//! hash check, nothing else.

use super::provider::Provider;
use super::request::{self, Ask, BadRequest, HEAD_BYTES_MAX, Request};
use super::respond::Responder;
use super::slots::Slots;

use crate::carried::Carried;
use crate::tls::{HANDSHAKES_MAX, Role, Shaken, Stream, TlsDir};
use bytes::{Buf, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// 30 neighbours with 4 connections each, and a seed with 200 nodes.
const CONNECTIONS_MAX: usize = 1024;

/// Requests waiting for the hub, on a seed.
const WAITING_MAX: usize = 256;

/// Silence after which a connection is closed, between requests and inside one.
pub const IDLE: Duration = Duration::from_secs(60);

/// A connection that goes on counting against the bound: its place is free again when it is closed.
pub type Counted = Carried<Stream, TcpConnectInfo, OwnedSemaphorePermit>;

/// Connections that turned out to be gRPC, on their way to its server.
pub type GrpcConnections = mpsc::Receiver<io::Result<Counted>>;

/// What a piece server serves and how much of it at a time.
pub struct PieceServer {
    provider: Arc<dyn Provider>,
    slots: Slots,
    waiting: Arc<Semaphore>,
    tls: Option<Arc<TlsDir>>,
    shaking: Semaphore,
    grpc: mpsc::Sender<io::Result<Counted>>,
}

impl PieceServer {
    /// The server, and the gRPC connections that arrive at it (at most 64 wait to be taken). Without
    /// certificates it serves in the clear.
    pub fn new(
        provider: Arc<dyn Provider>,
        slots: Slots,
        tls: Option<Arc<TlsDir>>,
    ) -> (PieceServer, GrpcConnections) {
        let (grpc, connections) = mpsc::channel(64);
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        let server = PieceServer {
            provider,
            slots,
            waiting,
            tls,
            shaking: Semaphore::new(HANDSHAKES_MAX),
            grpc,
        };
        (server, connections)
    }

    /// Serves until `shutdown`, then ends the connections.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (tasks, server) = (TaskTracker::new(), Arc::new(self));
        while let Some(stream) = accept(&listener, &shutdown).await {
            // Over the bound a connection is closed unanswered: its peer tries another.
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let (server, shutdown) = (server.clone(), shutdown.clone());
            tasks.spawn(async move {
                let connection = server.connection(stream, place);
                if let Some(Err(error)) = shutdown.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "piece connection ended");
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn connection(&self, tcp: TcpStream, place: OwnedSemaphorePermit) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let info = tcp.connect_info();
        let opened = self.open(tcp).await?;
        let stranger = opened.role.filter(|role| !may(*role));
        if opened.is_http2 {
            let (stream, held) = (opened.stream, place);
            if stranger.is_none() {
                let _ = self.grpc.send(Ok(Carried { stream, info, held })).await;
            }
            return Ok(());
        }
        let mut responder = Responder {
            stream: opened.stream,
            stranger,
            provider: self.provider.clone(),
            slots: self.slots.clone(),
            waiting: self.waiting.clone(),
        };
        let mut buffer = BytesMut::with_capacity(HEAD_BYTES_MAX);
        while let Some(asked) = next_request(&mut responder.stream, &mut buffer).await? {
            let keep_alive = asked.as_ref().is_ok_and(|(request, _)| request.keep_alive);
            responder.answer(asked).await?;
            if !keep_alive || stranger.is_some() {
                break;
            }
        }
        responder.stream.shutdown().await
    }

    /// Finds out what is spoken, and over TLS by whom.
    async fn open(&self, tcp: TcpStream) -> io::Result<Opened> {
        let Some(tls) = &self.tls else {
            return Ok(Opened {
                is_http2: timeout(IDLE, is_http2(&tcp)).await??,
                stream: Stream::Plain(tcp),
                role: None,
            });
        };
        let from = tcp.peer_addr().ok();
        let _shaking = self.shaking.acquire().await.map_err(io::Error::other)?;
        let shaken: Shaken = tls.shake(tcp).await?;
        if !may(shaken.role) {
            tls.refuse(from, shaken.role);
        }
        Ok(Opened {
            is_http2: shaken.is_http2,
            stream: shaken.stream,
            role: Some(shaken.role),
        })
    }
}

struct Opened {
    stream: Stream,
    is_http2: bool,
    role: Option<Role>,
}

/// Who may have pieces, and news of them.
fn may(role: Role) -> bool {
    matches!(role, Role::Node | Role::Seed | Role::Admin)
}

/// The next connection; `None` at shutdown. A failed accept (out of descriptors) is retried after a pause.
async fn accept(listener: &TcpListener, shutdown: &CancellationToken) -> Option<TcpStream> {
    loop {
        match shutdown.run_until_cancelled(listener.accept()).await? {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether the connection begins with HTTP/2's preface, `PRI * HTTP/2.0`: no other method begins so.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; 3];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 || !b"PRI".starts_with(&start[..seen]) {
            return Ok(false);
        }
        if seen == 3 {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A request with its body, or what is wrong with it.
pub type Asked = Result<(Request, Vec<u8>), BadRequest>;

/// Reads the next request; `None` when the peer closed. What follows it stays in `buffer`.
async fn next_request(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<Option<Asked>> {
    let (request, head) = loop {
        match request::parse(buffer) {
            Ok(Some(parsed)) => break parsed,
            Err(wrong) => return Ok(Some(Err(wrong))),
            Ok(None) => {}
        }
        if timeout(IDLE, stream.read_buf(buffer)).await?? == 0 {
            return Ok(None);
        }
    };
    buffer.advance(head);
    let wanted = match request.ask {
        Ask::Any { body_bytes, .. } => body_bytes,
        Ask::Pieces(_) => 0,
    };
    let mut body = vec![0; wanted];
    let here = wanted.min(buffer.len());
    buffer.copy_to_slice(&mut body[..here]);
    timeout(IDLE, stream.read_exact(&mut body[here..])).await??;
    Ok(Some(Ok((request, body))))
}
