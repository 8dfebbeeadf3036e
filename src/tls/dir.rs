//! A directory of certificates, taken anew when its files change.
//!
//! The files are compared by content before a handshake, at most every two seconds: a Secret's volume swaps a
//! symlink, which file events miss. New handshakes use the new files; connections live on. A set that cannot
//! be used, or one caught half written, changes nothing but the log. Nothing is resumed, so that a certificate
//! which has lost its CA cannot live on in a ticket.

use super::{CA_FILE, CERT_FILE, KEY_FILE, TlsError, provider};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CHECK_EVERY: Duration = Duration::from_secs(2);

pub struct TlsDir {
    dir: PathBuf,
    check_every: Duration,
    state: Mutex<State>,
}

struct State {
    checked: Instant,
    files: Files,
    configs: Configs,
}

#[derive(PartialEq, Eq)]
struct Files {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Both ends of handshakes made from one set of files.
#[derive(Clone)]
pub(super) struct Configs {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl TlsDir {
    /// Fails when the files cannot be used now.
    pub fn open(dir: &Path) -> Result<Arc<TlsDir>, TlsError> {
        TlsDir::open_checked(dir, CHECK_EVERY)
    }

    pub(crate) fn open_checked(dir: &Path, check_every: Duration) -> Result<Arc<TlsDir>, TlsError> {
        let files = Files::read(dir)?;
        let state = State {
            checked: Instant::now(),
            configs: files.configs(dir)?,
            files,
        };
        Ok(Arc::new(TlsDir {
            dir: dir.to_owned(),
            check_every,
            state: Mutex::new(state),
        }))
    }

    /// What the next handshake uses.
    pub(super) fn configs(&self) -> Configs {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= self.check_every {
            state.checked = Instant::now();
            if let Err(error) = self.reload(&mut state) {
                tracing::error!(%error, "the old certificates stay in use");
            }
        }
        state.configs.clone()
    }

    fn reload(&self, state: &mut State) -> Result<(), TlsError> {
        let files = Files::read(&self.dir)?;
        if files != state.files {
            state.configs = files.configs(&self.dir)?;
            state.files = files;
            tracing::info!(dir = %self.dir.display(), "new certificates are in use");
        }
        Ok(())
    }
}

impl Files {
    fn read(dir: &Path) -> Result<Files, TlsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| TlsError::Read { path, source })
        };
        Ok(Files {
            ca: read(CA_FILE)?,
            cert: read(CERT_FILE)?,
            key: read(KEY_FILE)?,
        })
    }

    fn configs(&self, dir: &Path) -> Result<Configs, TlsError> {
        self.build().map_err(|cause| TlsError::Unusable {
            dir: dir.to_owned(),
            cause: cause.to_string(),
        })
    }

    fn build(&self) -> Result<Configs, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate)?;
        }
        let (roots, chain) = (Arc::new(roots), certificates(&self.cert)?);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "tls.key holds no key")?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Configs {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// All certificates of a PEM text: at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate".into()),
        found => found.map_err(|error| error.to_string()),
    }
}
