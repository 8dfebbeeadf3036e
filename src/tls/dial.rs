//! Connections as a client makes them: to a seed, whatever address it has.

use super::{Role, TlsDir};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

impl TlsDir {
    /// A channel to the seed at an `http://host:port` endpoint, over TLS. It connects when it is first used,
    /// with the files as they are then; the endpoint's time to connect bounds the handshake too.
    pub fn dial(self: &Arc<TlsDir>, endpoint: &Endpoint) -> Channel {
        let tls = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| {
            let tls = tls.clone();
            async move { tls.connect(&uri).await.map(TokioIo::new) }
        }))
    }

    async fn connect(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let addr = uri.authority().map_or("", |authority| authority.as_str());
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let seed = ServerName::try_from(Role::Seed.dns()).map_err(io::Error::other)?;
        let shaken = TlsConnector::from(self.configs().client).connect(seed, tcp);
        shaken.await.map_err(|error| {
            io::Error::other(format!(
                "TLS with {addr}: {error}: check --tls-dir on both sides"
            ))
        })
    }
}
