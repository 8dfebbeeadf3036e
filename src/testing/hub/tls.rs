//! TLS in front of the hub double, as real hubs have it: ends here, goes on in the clear to the double.
//!
//! The certificate is the one in the folder given, or is made there for the addresses listened on; its
//! `tls.crt` is then the file to trust.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Uses, or makes, `tls.crt` and `tls.key` in `dir`.
pub fn acceptor(dir: &Path, addresses: [IpAddr; 2]) -> io::Result<TlsAcceptor> {
    let (cert, key) = (dir.join("tls.crt"), dir.join("tls.key"));
    if !cert.exists() {
        let names = addresses.map(|address| address.to_string());
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        std::fs::write(&cert, made.cert.pem())?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&cert)
        .map_err(io::Error::other)?
        .collect();
    let key = PrivateKeyDer::from_pem_file(&key).map_err(io::Error::other)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Carries connections from `front` to the double at `back` until `stop`.
pub async fn terminate(
    acceptor: TlsAcceptor,
    front: TcpListener,
    back: SocketAddr,
    stop: CancellationToken,
) {
    while let Some(Ok((tcp, _))) = stop.run_until_cancelled(front.accept()).await {
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            let carried = carry(acceptor, tcp, back);
            let _ = stop.run_until_cancelled(carried).await;
        });
    }
}

async fn carry(acceptor: TlsAcceptor, tcp: TcpStream, back: SocketAddr) -> io::Result<()> {
    let mut outside = acceptor.accept(tcp).await?;
    let mut inside = TcpStream::connect(back).await?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside)
        .await
        .map(drop)
}
