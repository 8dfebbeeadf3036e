//! Connections as a client makes them: to a seed or a peer, whatever address it has.

use super::blame::{Cause, cause};
use super::dir::{HTTP1, HTTP2};
use super::{Stream, TlsDir};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// What is read from the socket at once (rustls asks for 4 KiB at a time): 8 MB for 30 neighbours with four
/// connections each.
const READ_BYTES: usize = 64 << 10;

/// Of news, which are small.
const NEWS_BYTES: usize = 8 << 10;

/// Whom a client takes for the one it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The seed role alone: what it says of hashes is believed.
    Seed,
    /// A node or a seed.
    Peer,
}

/// Why a client and a server did not come together.
#[derive(Debug, thiserror::Error)]
#[error("TLS with {addr}: {}: check --tls-dir on both sides", explain(source))]
struct DialError {
    addr: String,
    source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match cause(error) {
        Cause::Plain => "the other side speaks in the clear".into(),
        _ => error.to_string(),
    }
}

impl TlsDir {
    /// A channel to an `http://host:port` endpoint, over TLS. It connects when it is first used, with the files
    /// as they are then; the endpoint's time to connect bounds the handshake too.
    pub fn dial(self: &Arc<TlsDir>, endpoint: &Endpoint, callee: Callee) -> Channel {
        let tls = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let tls = tls.clone();
            async move {
                let addr = uri.authority().map_or("", |authority| authority.as_str());
                tls.shake_with(addr, callee, HTTP2).await.map(TokioIo::new)
            }
        }))
    }

    /// A connection for requests of HTTP/1.1. The caller bounds its time.
    pub async fn connect(&self, addr: &str, callee: Callee) -> io::Result<Stream> {
        self.shake_with(addr, callee, HTTP1).await
    }

    async fn shake_with(&self, addr: &str, callee: Callee, protocol: &[u8]) -> io::Result<Stream> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let (configs, name) = (self.configs(), name_of(addr)?);
        let connector = TlsConnector::from(match callee {
            Callee::Seed => configs.seed,
            Callee::Peer => configs.peer,
        });
        let reader = match protocol {
            HTTP1 => BufReader::with_capacity(READ_BYTES, tcp),
            _ => BufReader::with_capacity(NEWS_BYTES, tcp),
        };
        let shaken = connector.with_alpn(vec![protocol.to_vec()]);
        let shaken = shaken.connect(name, reader).await;
        let shaken = shaken.inspect_err(|error| self.refusals.went_out(addr, error));
        let refused = |source| DialError {
            addr: addr.to_owned(),
            source,
        };
        let shaken = shaken.map_err(|error| io::Error::other(refused(error)))?;
        Ok(Stream::Tls(Box::new(shaken.into())))
    }
}

/// The host, which sessions are resumed by; certificates name roles, not hosts.
fn name_of(addr: &str) -> io::Result<ServerName<'static>> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
