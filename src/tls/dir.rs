//! A directory of certificates, taken anew when its files change.
//!
//! The files are compared by content before a handshake, at most every two seconds: a Secret's volume swaps a
//! symlink, which file events miss. New handshakes use the new files; connections live on. A set that cannot
//! be used, or one caught half written, changes nothing but the log.
//!
//! Sessions are resumed, which spares signatures, but only among handshakes of the same files and for an hour:
//! a certificate that has lost its CA or has expired does not live on in a ticket.

use super::refusals::Refusals;
use super::role::{AnyOf, Role};
use super::{CA_FILE, CERT_FILE, KEY_FILE, TlsError, provider};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How long after a whole handshake its session may be resumed.
const RESUMED_MAX: Duration = Duration::from_secs(3600);

/// Sessions kept, about 1.5 KB each, on each side of a process.
const SESSIONS_MAX: usize = 1024;

/// The protocols of the piece port; control is HTTP/2 alone.
pub(super) const HTTP2: &[u8] = b"h2";
pub(super) const HTTP1: &[u8] = b"http/1.1";

pub struct TlsDir {
    dir: PathBuf,
    check_every: Duration,
    state: Mutex<State>,
    pub(super) refusals: Refusals,
}

struct State {
    checked: Instant,
    built: Instant,
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
    /// Of who calls a seed, and of who calls a peer: sessions of one are never resumed by the other.
    pub seed: Arc<ClientConfig>,
    pub peer: Arc<ClientConfig>,
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
            built: Instant::now(),
            configs: files.configs(dir)?,
            files,
        };
        Ok(Arc::new(TlsDir {
            dir: dir.to_owned(),
            check_every,
            state: Mutex::new(state),
            refusals: Refusals::default(),
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
        let is_new = files != state.files;
        if is_new || state.built.elapsed() >= RESUMED_MAX {
            state.configs = files.configs(&self.dir)?;
            (state.files, state.built) = (files, Instant::now());
        }
        if is_new {
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
        server.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        server.send_tls13_tickets = 1;
        let issued = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
        let client = |roles| client(roles, &issued, chain.clone(), key.clone_key());
        Ok(Configs {
            server: Arc::new(server),
            seed: Arc::new(client(&[Role::Seed])?),
            peer: Arc::new(client(&[Role::Node, Role::Seed])?),
        })
    }
}

fn client(
    roles: &'static [Role],
    issued: &Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let issued = issued.clone();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyOf { roles, issued }))
        .with_client_auth_cert(chain, key)?;
    client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX / 2);
    Ok(client)
}

/// All certificates of a PEM text: at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate".into()),
        found => found.map_err(|error| error.to_string()),
    }
}
