//! Connections as the server takes them: shaken hands, and with the role of who is there.
//!
//! Up to [`HANDSHAKES_MAX`] handshakes run beside each other, each at most [`HANDSHAKE`]; further connections
//! wait in the kernel's queue. One that fails is closed, counted and said, and nobody else notices.

use super::dir::HTTP2;
use super::{Role, Stream, TlsDir};
use crate::carried::Carried;
use futures::StreamExt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes at a time on one socket.
pub const HANDSHAKES_MAX: usize = 64;

/// Servers read requests: small ones.
const READ_BYTES: usize = 8 << 10;

/// Ciphertext under way to the socket: 16 records a system call.
const WRITE_BYTES: usize = 256 << 10;

/// After a failed accept: without it a process out of descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose other end is known.
pub type Connection = Carried<Stream, Peer>;

/// Who is at the other end: what requests carry as their connection's info.
#[derive(Clone, Debug)]
pub struct Peer {
    pub role: Role,
    pub tcp: TcpConnectInfo,
}

/// A connection after its handshake.
pub struct Shaken {
    pub stream: Stream,
    pub role: Role,
    pub is_http2: bool,
}

impl TlsDir {
    /// The connections of a bound socket, for a gRPC server.
    pub fn accept(
        self: Arc<TlsDir>,
        listener: TcpListener,
    ) -> impl futures::Stream<Item = io::Result<Connection>> {
        TcpListenerStream::new(listener)
            .map(move |tcp| self.clone().taken(tcp))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(|connection| std::future::ready(connection.map(Ok)))
    }

    /// The server's side of a handshake, at most 5 s of it. A failure is counted and said.
    pub async fn shake(&self, tcp: TcpStream) -> io::Result<Shaken> {
        let from = tcp.peer_addr().map(|addr| addr.ip().to_string());
        let shaken = timeout(HANDSHAKE, self.shaken(tcp)).await;
        let silent = |_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no handshake in 5 s",
            ))
        };
        let shaken = shaken.unwrap_or_else(silent);
        shaken.inspect_err(|error| {
            let from = from.as_deref().unwrap_or("?");
            self.refusals.came_in(from, error)
        })
    }

    /// Counts and says that somebody with this role was sent away after the handshake.
    pub fn refuse(&self, from: Option<SocketAddr>, role: Role) {
        let from = from.map_or_else(|| "?".into(), |addr| addr.ip().to_string());
        let cause = format!("its certificate has the role {role}, which is not served here");
        let error = io::Error::new(io::ErrorKind::PermissionDenied, cause);
        self.refusals.came_in(&from, &error);
    }

    async fn shaken(&self, tcp: TcpStream) -> io::Result<Shaken> {
        tcp.set_nodelay(true)?;
        let tcp = BufReader::with_capacity(READ_BYTES, tcp);
        let mut stream = TlsAcceptor::from(self.configs().server).accept(tcp).await?;
        let session = stream.get_mut().1;
        session.set_buffer_limit(Some(WRITE_BYTES));
        let certificate = session.peer_certificates();
        let role = certificate.and_then(|chain| Role::of(chain.first()?));
        let role = role.ok_or_else(|| {
            let cause = "the certificate names no role";
            io::Error::new(io::ErrorKind::PermissionDenied, cause)
        })?;
        Ok(Shaken {
            role,
            is_http2: session.alpn_protocol() == Some(HTTP2),
            stream: Stream::Tls(Box::new(stream.into())),
        })
    }

    /// `None` for a connection that failed, which was said.
    async fn taken(self: Arc<TlsDir>, tcp: io::Result<TcpStream>) -> Option<Connection> {
        let tcp = match tcp {
            Ok(tcp) => tcp,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        let info = tcp.connect_info();
        let Shaken { stream, role, .. } = self.shake(tcp).await.ok()?;
        let info = Peer { role, tcp: info };
        let held = ();
        Some(Carried { stream, info, held })
    }
}
