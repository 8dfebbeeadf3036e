//! Certificates: who is at the other end of a connection, and whom hubs are trusted by.
//!
//! A process has one directory of certificates ([`TlsDir`]: ca.crt, tls.crt, tls.key), which it takes anew
//! when the files change. Traffic between processes is TLS 1.3 with certificates on both sides; what somebody
//! may do follows from the [`Role`] that the certificate names. [`bootstrap`] makes and renews such certificates.
//! Hubs are trusted by public roots ([`hub_client`]), whatever the directory says.
//!
//! Who has no certificate of the cluster's CA, or one without a role, is refused in the handshake. Files that
//! cannot be used are an error at start and a log line later: the old ones stay. No error holds a key.

mod accept;
mod authority;
mod blame;
mod bootstrap;
mod dial;
mod dir;
mod folder;
mod refusals;
mod role;
mod roots;
mod stream;

pub use accept::{Connection, HANDSHAKES_MAX, Peer, Shaken};
pub use authority::CertSet;
pub use blame::{explain_read, is_untrusted};
pub use bootstrap::{CA, Held, Outcome, Shelf, bootstrap};
pub use dial::Callee;
pub use dir::TlsDir;
pub use folder::Folder;
pub use role::Role;
pub use roots::hub_client;
pub use stream::Stream;

use crate::model::{Failure, FailureKind};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a directory of certificates; a Secret has the same keys.
pub const CA_FILE: &str = "ca.crt";
pub const CERT_FILE: &str = "tls.crt";
pub const KEY_FILE: &str = "tls.key";

/// What is wrong with certificates, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {source}: ca.crt, tls.crt and tls.key are needed there, `model-p2p bootstrap` makes them", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("certificates in {}: {cause}: make them again with `model-p2p bootstrap`", dir.display())]
    Unusable { dir: PathBuf, cause: String },
    #[error("CA file {}: {cause}: give a file of PEM certificates", path.display())]
    Roots { path: PathBuf, cause: String },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error(
        "the CA in use was not made by `model-p2p bootstrap` or lacks its key: delete it, or make the other certificates yourself"
    )]
    ForeignCa,
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        let kind = match error {
            TlsError::Make(_) => FailureKind::Internal,
            _ => FailureKind::BadReference,
        };
        Failure::new(kind, error.to_string())
    }
}

/// The one implementation of cryptography, named wherever one is needed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
