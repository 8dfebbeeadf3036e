//! Connections as the server takes them: shaken hands, and with the role of who is there.
//!
//! Up to [`HANDSHAKES_MAX`] handshakes run beside each other, each at most [`HANDSHAKE`]; further connections
//! wait in the kernel's queue. One that fails is closed and logged, and nobody else notices.

use super::{Role, TlsDir};
use crate::carried::Carried;
use futures::{Stream, StreamExt};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

const HANDSHAKE: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 64;

/// After a failed accept: without it a process out of descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose other end is known.
pub type Connection = Carried<TlsStream<TcpStream>, Peer>;

/// Who is at the other end: what requests carry as their connection's info.
#[derive(Clone, Debug)]
pub struct Peer {
    pub role: Role,
    pub tcp: TcpConnectInfo,
}

impl TlsDir {
    /// The connections of a bound socket, for a gRPC server.
    pub fn accept(
        self: Arc<TlsDir>,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<Connection>> {
        TcpListenerStream::new(listener)
            .map(move |tcp| self.clone().taken(tcp))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(|connection| std::future::ready(connection.map(Ok)))
    }

    async fn shake(&self, tcp: TcpStream) -> io::Result<Connection> {
        tcp.set_nodelay(true)?;
        let peer = tcp.connect_info();
        let shaken = TlsAcceptor::from(self.configs().server).accept(tcp);
        let stream = timeout(HANDSHAKE, shaken).await??;
        let certificate = stream.get_ref().1.peer_certificates();
        let role = certificate.and_then(|chain| Role::of(chain.first()?));
        let role = role.ok_or_else(|| io::Error::other("the certificate names no role"))?;
        Ok(Carried {
            stream,
            info: Peer { role, tcp: peer },
            held: (),
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
        let from = tcp.peer_addr().ok();
        let shaken = self.shake(tcp).await;
        shaken
            .inspect_err(|error| tracing::warn!(?from, %error, "connection refused: check the other side's --tls-dir"))
            .ok()
    }
}
