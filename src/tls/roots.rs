//! Whom hubs are trusted by: Mozilla's roots, which are part of the program, and beside them the system's
//! bundle where there is one, SSL_CERT_FILE, and the file that the user names.
//!
//! Only the user's file must be readable: an image without any files reaches the public hubs all the same.

use super::dir::certificates;
use super::{TlsError, provider};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};

/// Debian, Red Hat, Alpine.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// TLS towards hubs, speaking `protocols` (ALPN, best first).
pub fn hub_client(ca_file: Option<&Path>, protocols: &[&str]) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    for path in named.into_iter().chain(BUNDLES.map(PathBuf::from)) {
        if let Ok(found) = read(&path) {
            roots.add_parsable_certificates(found);
        }
    }
    if let Some(path) = ca_file {
        let bad = |cause| TlsError::Roots {
            path: path.to_owned(),
            cause,
        };
        for certificate in read(path).map_err(bad)? {
            roots
                .add(certificate)
                .map_err(|error| bad(error.to_string()))?;
        }
    }
    let config =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = config
        .map_err(|error| TlsError::Roots {
            path: PathBuf::new(),
            cause: error.to_string(),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    certificates(&pem)
}
