//! Who may speak with a seed over TLS, with real certificates over real sockets.

mod pieces;

use super::*;
use crate::swarm::remote::RemoteSeed;
use crate::swarm::v1::{to_node, to_seed};
use crate::tls::{Folder as CertificateFolder, TlsDir, bootstrap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

const SOON: Duration = Duration::from_secs(20);

/// Certificates for all roles under one CA, in folders.
struct Certificates(tempfile::TempDir);

impl Certificates {
    async fn new() -> Certificates {
        Certificates::made(SystemTime::now()).await
    }

    async fn made(at: SystemTime) -> Certificates {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = CertificateFolder(dir.path().to_owned());
        bootstrap(&folder, at).await.expect("certificates");
        Certificates(dir)
    }

    fn dir(&self, role: &str) -> PathBuf {
        self.0.path().join(role)
    }

    /// Looks at its files before every handshake.
    fn open(&self, role: &str) -> Arc<TlsDir> {
        TlsDir::open_checked(&self.dir(role), Duration::ZERO).expect("certificates")
    }

    /// Puts another CA's files in the place of a role's.
    fn replace(&self, role: &str, other: &Certificates, files: &[&str]) {
        for file in files {
            copy(&other.dir(role), &self.dir(role), file);
        }
    }
}

fn copy(from: &Path, to: &Path, file: &str) {
    std::fs::copy(from.join(file), to.join(file)).expect("a copy");
}

const ALL: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// Pins everything, and remembers the tokens it was shown.
#[derive(Default)]
struct Tokens(Mutex<Vec<String>>);

#[async_trait]
impl Catalog for Tokens {
    async fn resolve(
        &self,
        _: &Reference,
        _: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let token = token.map(|token| token.reveal().to_owned());
        self.0.lock().expect("a lock").extend(token);
        Ok(pin().as_ref().clone())
    }

    async fn listing(&self, _: &Pin, _: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        Err(Failure::new(FailureKind::NotFound, "not in this test"))
    }
}

struct SecureSeed {
    addr: String,
    tokens: Arc<Tokens>,
    content: Bytes,
    _folder: Folder,
    _stop: tokio_util::sync::DropGuard,
}

async fn secure_seed(certificates: &Certificates) -> SecureSeed {
    let (folder, shutdown) = (folder(), CancellationToken::new());
    let content = content(3 * PIECE_BYTES + 5);
    let origin = Arc::new(MemoryOrigin {
        store: folder.store.clone(),
        content: content.clone(),
        reads: AtomicU64::new(0),
        announced: AtomicU64::new(0),
    });
    let control = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let pieces = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = control.local_addr().expect("an address").to_string();
    let tokens = Arc::new(Tokens::default());
    let server = crate::seed::SeedServer::new(
        "seed-0".into(),
        folder.store.clone(),
        origin,
        tokens.clone(),
    );
    let tls = certificates.open("seed");
    tokio::spawn(server.run(control, Some(tls), pieces, shutdown.clone()));
    SecureSeed {
        addr,
        tokens,
        content,
        _folder: folder,
        _stop: shutdown.drop_guard(),
    }
}

impl SecureSeed {
    fn remote(&self, tls: &Arc<TlsDir>) -> RemoteSeed {
        RemoteSeed::new(&self.addr, Some(tls)).expect("an address")
    }

    /// Resolves over a connection of its own.
    async fn resolve(&self, tls: &Arc<TlsDir>) -> Result<Pin, Failure> {
        let (remote, reference) = (self.remote(tls), pin().repository.clone());
        let resolved = remote.resolve(&reference, None, None);
        timeout(SOON, resolved).await.expect("an answer")
    }
}

/// A node's stream, spoken by hand.
struct Stream {
    sender: mpsc::Sender<v1::ToSeed>,
    inbound: Streaming<v1::ToNode>,
}

impl Stream {
    async fn open(remote: &RemoteSeed, node: &str, piece_addr: &str) -> Result<Stream, Status> {
        let (sender, receiver) = mpsc::channel(8);
        let hello = v1::Hello {
            node: node.into(),
            piece_addr: piece_addr.into(),
            version: String::new(),
            ..v1::Hello::default()
        };
        let hello = Some(to_seed::Message::Hello(hello));
        let hello = v1::ToSeed { message: hello };
        sender.send(hello).await.expect("room");
        let session = remote
            .client()
            .session(ReceiverStream::new(receiver))
            .await?;
        let inbound = session.into_inner();
        Ok(Stream { sender, inbound })
    }

    async fn want(&self, content: &Bytes) {
        let interest = wire::interest_of(&file_ref(content));
        let message = Some(to_seed::Message::Interest(interest));
        let sent = self.sender.send(v1::ToSeed { message }).await;
        sent.expect("a live stream");
    }

    /// Where the seed says that a node is.
    async fn addr_of(&mut self, node: &str) -> String {
        let told = async {
            loop {
                let told = self.inbound.message().await.expect("a live stream");
                let Some(to_node::Message::PeerSet(set)) = told.and_then(|told| told.message)
                else {
                    continue;
                };
                if let Some(peer) = set.peers.iter().find(|peer| peer.node == node) {
                    return peer.addr.clone();
                }
            }
        };
        timeout(SOON, told).await.expect("a peer set")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_call_what_the_table_says() {
    let certificates = Certificates::new().await;
    let seed = secure_seed(&certificates).await;
    for (role, resolves, joins) in [
        ("node", true, true),
        ("admin", true, true),
        ("controller", true, false),
        ("seed", false, true),
    ] {
        let tls = certificates.open(role);
        let resolved = seed.resolve(&tls).await;
        assert_eq!(resolved.is_ok(), resolves, "{role}: {resolved:?}");
        let joined = Stream::open(&seed.remote(&tls), role, "127.0.0.1:1").await;
        match (joins, joined.err()) {
            (true, None) => {}
            (false, Some(status)) => {
                assert_eq!(status.code(), Code::PermissionDenied, "{role}");
                let text = status.message();
                assert!(
                    text.contains("role seed or node or admin") && text.contains(role),
                    "{text}"
                );
            }
            (_, refused) => panic!("{role}: {refused:?}"),
        }
        // Hashes that are kept here are believed: from seeds alone.
        let kept = seed
            .remote(&tls)
            .fellow()
            .keep(v1::KeepRequest::default())
            .await;
        let code = kept.expect_err("refused").code();
        let expected = match role {
            "seed" => Code::Unimplemented,
            _ => Code::PermissionDenied,
        };
        assert_eq!(code, expected, "{role}");
    }
}

/// The stream's address stands for a node that names none, over TLS as in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_address_is_known_by_the_one_it_comes_from() {
    let certificates = Certificates::new().await;
    let seed = secure_seed(&certificates).await;
    let (remote, content) = (
        seed.remote(&certificates.open("node")),
        content(PIECE_BYTES),
    );
    let a = Stream::open(&remote, "a", "0.0.0.0:9999")
        .await
        .expect("a stream");
    let mut b = Stream::open(&remote, "b", "127.0.0.1:1")
        .await
        .expect("a stream");
    a.want(&content).await;
    b.want(&content).await;
    assert_eq!(b.addr_of("a").await, "127.0.0.1:9999");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_in_the_handshake() {
    let (ours, theirs) = (Certificates::new().await, Certificates::new().await);
    let seed = secure_seed(&ours).await;
    // Somebody who trusts us and whom we do not know.
    theirs.replace("node", &ours, &["ca.crt"]);
    let refused = seed
        .resolve(&theirs.open("node"))
        .await
        .expect_err("refused");
    assert_eq!(refused.kind, FailureKind::Unavailable, "{refused}");
    assert!(refused.message.contains("check --tls-dir"), "{refused}");
    // Somebody whom we do not trust: the seed of another cluster.
    let other = secure_seed(&theirs).await;
    let refused = other
        .resolve(&ours.open("node"))
        .await
        .expect_err("refused");
    assert!(
        refused.message.contains("invalid peer certificate"),
        "{refused}"
    );
    assert!(refused.message.contains("--tls-dir"), "{refused}");
    // A node that plays the seed.
    for file in ALL {
        copy(&ours.dir("node"), &ours.dir("seed"), file);
    }
    let refused = seed
        .resolve(&ours.open("admin"))
        .await
        .expect_err("refused");
    assert!(refused.message.contains("not valid for name"), "{refused}");
    // Somebody in the clear.
    let plain = RemoteSeed::new(&seed.addr, None).expect("an address");
    let refused = timeout(SOON, plain.resolve(&pin().repository, None, None)).await;
    refused.expect("an answer").expect_err("refused");
    assert_eq!(seed.tokens.0.lock().expect("a lock").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_is_refused() {
    use rustls::pki_types::pem::PemObject;
    let certificates = Certificates::new().await;
    let seed = secure_seed(&certificates).await;
    let ca = certificates.dir("node").join("ca.crt");
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_file(ca).expect("a CA");
    roots.add(ca).expect("a CA");
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(&seed.addr).await.expect("a connection");
    let name = "seed.model-p2p.dev".try_into().expect("a name");
    // In TLS 1.3 the client learns of it with its first read.
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, tcp).await.expect("the seed's half");
    let read = timeout(SOON, stream.read_u8()).await.expect("an answer");
    let text = read.expect_err("refused").to_string();
    assert!(text.contains("CertificateRequired"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_holds_up_nobody_and_is_cut_off() {
    let certificates = Certificates::new().await;
    let seed = secure_seed(&certificates).await;
    let mut silent = TcpStream::connect(&seed.addr).await.expect("a connection");
    seed.resolve(&certificates.open("node"))
        .await
        .expect("a pin");
    let read = timeout(SOON, silent.read(&mut [0; 1])).await;
    assert_eq!(read.expect("cut off").unwrap_or(0), 0);
}

/// A whole new CA on both sides, which is more than a renewal does: new connections use it, a session that runs
/// goes on, and who kept the old files is out.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_without_a_restart() {
    let (now, next) = (Certificates::new().await, Certificates::new().await);
    let seed = secure_seed(&now).await;
    let (node, admin) = (now.open("node"), now.open("admin"));
    let remote = seed.remote(&node);
    let mut stream = Stream::open(&remote, "b", "127.0.0.1:1")
        .await
        .expect("a stream");
    now.replace("seed", &next, &ALL);
    now.replace("node", &next, &ALL);
    seed.resolve(&node)
        .await
        .expect("both sides have the new files");
    seed.resolve(&admin)
        .await
        .expect_err("this one has the old files");
    let content = content(PIECE_BYTES);
    let late = Stream::open(&seed.remote(&node), "a", "0.0.0.0:9999").await;
    late.expect("a stream").want(&content).await;
    stream.want(&content).await;
    let other = Stream::open(&remote, "c", "0.0.0.0:9998")
        .await
        .expect("the old connection");
    other.want(&content).await;
    assert_eq!(stream.addr_of("c").await, "127.0.0.1:9998");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_files_change_nothing() {
    let (certificates, other) = (Certificates::new().await, Certificates::new().await);
    let seed = secure_seed(&certificates).await;
    let node = certificates.open("node");
    // Half of a rotation: a key that does not fit its certificate.
    certificates.replace("seed", &other, &["tls.key"]);
    seed.resolve(&node)
        .await
        .expect("the seed keeps its old files");
    std::fs::write(certificates.dir("node").join("tls.crt"), "nonsense").expect("a file");
    seed.resolve(&node)
        .await
        .expect("the node keeps its old files");
    std::fs::remove_file(certificates.dir("node").join("ca.crt")).expect("a file");
    seed.resolve(&node)
        .await
        .expect("the node keeps its old files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_travels_over_tls() {
    let certificates = Certificates::new().await;
    let (seed, node) = (secure_seed(&certificates).await, certificates.open("node"));
    let token = Token::new("hf_secret").expect("a token");
    let (remote, pin) = (seed.remote(&node), pin());
    let resolved = remote.resolve(&pin.repository, None, Some(&token));
    resolved.await.expect("a pin");
    assert_eq!(*seed.tokens.0.lock().expect("a lock"), ["hf_secret"]);
    let far = RemoteSeed::new("seed.example:7440", Some(&node)).expect("an address");
    far.check_token(Some(&token)).expect("TLS protects it");
    let plain = RemoteSeed::new("seed.example:7440", None).expect("an address");
    let refused = plain.check_token(Some(&token)).expect_err("in the clear");
    assert!(refused.message.contains("--tls-dir") && !refused.message.contains("hf_secret"));
}
