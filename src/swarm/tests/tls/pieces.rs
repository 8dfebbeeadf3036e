//! Pieces and HAVE over TLS: who is served, whom is believed, and what the others are told.

use super::*;
use crate::metrics::METRICS;
use crate::swarm::client::{AnyAsk, PieceClient, TransferError};
use crate::swarm::slots::Class;

/// A store with all of a file behind a piece server with a certificate of one role.
struct Server {
    addr: String,
    file: FileRef,
    content: Bytes,
    _folder: Folder,
    _stop: tokio_util::sync::DropGuard,
}

/// Tells hashes as a seed does, whatever its certificate says.
struct Telling(Arc<dyn Provider>);

#[async_trait]
impl Provider for Telling {
    async fn ready(&self, request: &Request, run: Range<u32>) -> Result<Content, Refusal> {
        self.0.ready(request, run).await
    }

    async fn any(
        &self,
        request: &Request,
        wanted: Option<u32>,
        _: Vec<u8>,
    ) -> Result<Chosen, Refusal> {
        let first = wanted.unwrap_or_default();
        let run = first..first + 1;
        let content = self.0.ready(request, run.clone()).await?;
        let gift = None;
        Ok(Chosen { run, content, gift })
    }

    fn tells_hashes(&self) -> bool {
        true
    }
}

impl Server {
    async fn start(tls: Option<Arc<TlsDir>>) -> Server {
        let (content, shutdown) = (content(6 * PIECE_BYTES + 9), CancellationToken::new());
        let (folder, file, provider) = full_provider(&content);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        let provider = Arc::new(Telling(provider));
        let (server, _) = PieceServer::new(provider, Slots::of_node(), tls);
        tokio::spawn(server.run(listener, shutdown.clone()));
        Server {
            addr,
            file,
            content,
            _folder: folder,
            _stop: shutdown.drop_guard(),
        }
    }
}

/// Who asks, with a store of its own.
struct Client {
    pieces: PieceClient,
    folder: Folder,
}

impl Client {
    fn new(tls: Option<Arc<TlsDir>>) -> Client {
        let folder = folder();
        let pieces = PieceClient::new(folder.store.clone(), "n".into(), tls);
        Client { pieces, folder }
    }

    fn cache(&self, server: &Server) -> Arc<CacheFile> {
        let file = &server.file;
        self.folder.store.file(file.key, file.size).expect("a file")
    }

    /// A piece as from a peer: its hash is known.
    async fn piece(&self, server: &Server, index: u32) -> Result<(), TransferError> {
        let (cache, geometry) = (self.cache(server), server.file.geometry());
        let bytes = geometry.bytes(index);
        let bytes = &server.content[bytes.start as usize..bytes.end as usize];
        cache.learn(index, &[geometry.hash(index, bytes)]);
        let asked = self
            .pieces
            .pieces(&server.addr, &cache, index..index + 1, Class::Bulk);
        timeout(SOON, asked).await.expect("an answer").map(drop)
    }

    /// A piece with its hash, as from a seed.
    async fn any(&self, server: &Server) -> Result<(), TransferError> {
        let ask = AnyAsk {
            wanted: Some(2),
            tried: false,
            run_max: 4,
            need: &[],
        };
        let cache = self.cache(server);
        let asked = self
            .pieces
            .any(&server.addr, &cache, ask, |run| Some(((), run)));
        timeout(SOON, asked).await.expect("an answer").map(drop)
    }
}

fn failures(way: &str, cause: &str) -> u64 {
    METRICS
        .handshakes_failed
        .with_label_values(&[way, cause])
        .get()
}

fn text(refused: Result<(), TransferError>) -> String {
    refused.expect_err("refused").to_string()
}

async fn secure_node(name: &str, seed: &SecureSeed, tls: Arc<TlsDir>) -> super::super::Node {
    let (folder, listener) = (
        folder(),
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let addr = listener.local_addr().expect("an address");
    let config = SwarmConfig {
        tls: Some(tls),
        ..SwarmConfig::new(name.to_owned(), vec![seed.addr.clone()], addr)
    };
    let shutdown = CancellationToken::new();
    let swarm = Swarm::start(config, folder.store.clone(), listener, shutdown).expect("a node");
    super::super::Node { swarm, folder }
}

/// From the seed, then from the neighbour that was heard of over TLS while the seed is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_lives_over_tls_alone() {
    let certificates = Certificates::new().await;
    let seed = secure_seed(&certificates).await;
    let file = file_ref(&seed.content);
    let a = secure_node("a", &seed, certificates.open("node")).await;
    let b = secure_node("b", &seed, certificates.open("node")).await;
    a.fetch_all(&file, 2).await;
    a.assert_holds(&file, &seed.content);
    b.swarm.open(&file).expect("an interest");
    until("b hears of a's piece", || {
        b.cache(&file).hash(1).is_some()
            && b.swarm
                .availability
                .with(file.key, |has| has.iter().any(|(_, has)| has.get(1)))
    })
    .await;
    drop(seed);
    b.swarm.piece(&file, 1).await.expect("from a");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_seeds_and_admins_are_served_and_a_controller_is_told_why_not() {
    let certificates = Certificates::new().await;
    let server = Server::start(Some(certificates.open("node"))).await;
    for role in ["node", "seed", "admin"] {
        let client = Client::new(Some(certificates.open(role)));
        for index in [5, 6] {
            let brought = client.piece(&server, index).await;
            brought.unwrap_or_else(|error| panic!("{role}: {error}"));
        }
    }
    let client = Client::new(Some(certificates.open("controller")));
    let before = failures("in", "role");
    for _ in 0..2 {
        let refused = client.piece(&server, 1).await.expect_err("refused");
        assert!(refused.is_refusal(), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("node, seed or admin, this one has controller"),
            "{text}"
        );
    }
    assert_eq!(failures("in", "role") - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_a_node_that_plays_a_seed_are_not_believed() {
    let certificates = Certificates::new().await;
    let client = Client::new(Some(certificates.open("node")));
    let node = Server::start(Some(certificates.open("node"))).await;
    let before = failures("out", "role");
    // The connection that brings a peer's piece is kept, and is no seed's for that.
    client.piece(&node, 0).await.expect("as a peer it is good");
    let text = text(client.any(&node).await);
    assert!(
        text.contains("not valid for name") && text.contains("seed.model-p2p.dev"),
        "{text}"
    );
    assert!(client.cache(&node).hash(2).is_none());
    assert!(failures("out", "role") > before);
    let seed = Server::start(Some(certificates.open("seed"))).await;
    client.any(&seed).await.expect("a seed's word");
    client.piece(&seed, 4).await.expect("a seed is a peer too");
    let controller = Server::start(Some(certificates.open("controller"))).await;
    client.piece(&controller, 3).await.expect_err("neither");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_neither_given_to_strangers_nor_taken_from_them() {
    let (ours, theirs) = (Certificates::new().await, Certificates::new().await);
    let server = Server::start(Some(ours.open("node"))).await;
    let stranger = Server::start(Some(theirs.open("node"))).await;
    let (went_out, came_in) = (
        failures("out", "certificate"),
        failures("in", "certificate"),
    );
    let text_of_stranger = text(
        Client::new(Some(ours.open("node")))
            .piece(&stranger, 0)
            .await,
    );
    assert!(
        text_of_stranger.contains("invalid peer certificate"),
        "{text_of_stranger}"
    );
    assert!(
        text_of_stranger.contains("check --tls-dir on both sides"),
        "{text_of_stranger}"
    );
    // Somebody who trusts us and whom we do not know.
    theirs.replace("node", &ours, &["ca.crt"]);
    let refused = text(
        Client::new(Some(theirs.open("node")))
            .piece(&server, 0)
            .await,
    );
    assert!(
        refused.contains("refuses this certificate") && refused.contains("check --tls-dir"),
        "{refused}"
    );
    assert!(failures("out", "certificate") > went_out && failures("in", "certificate") > came_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_nobodys() {
    let now = SystemTime::now();
    let two_years = Duration::from_secs(2 * 365 * 86_400);
    let certificates = Certificates::made(now - two_years).await;
    let kept = tempfile::tempdir().expect("a folder");
    for file in ALL {
        copy(&certificates.dir("node"), kept.path(), file);
    }
    let expired = TlsDir::open(kept.path()).expect("certificates");
    let server = Server::start(Some(expired.clone())).await;
    let text_of_server = text(Client::new(Some(expired.clone())).piece(&server, 0).await);
    assert!(text_of_server.contains("expired"), "{text_of_server}");
    // The same CA has given the server a new one.
    bootstrap(&CertificateFolder(certificates.0.path().into()), now)
        .await
        .expect("renewed");
    let server = Server::start(Some(certificates.open("node"))).await;
    let came_in = failures("in", "certificate");
    text(Client::new(Some(expired)).piece(&server, 0).await);
    assert!(failures("in", "certificate") > came_in);
    Client::new(Some(certificates.open("node")))
        .piece(&server, 0)
        .await
        .expect("renewed");
}

/// A whole new CA under a running server and client: what is open goes on, what is new uses the new files.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_open_connections() {
    let (now, next) = (Certificates::new().await, Certificates::new().await);
    let (server_dir, client_dir) = (now.open("seed"), now.open("node"));
    let server = Server::start(Some(server_dir)).await;
    let (client, old) = (Client::new(Some(client_dir.clone())), now.open("admin"));
    client.piece(&server, 0).await.expect("the first files");
    now.replace("seed", &next, &ALL);
    client.piece(&server, 1).await.expect("the open connection");
    text(
        Client::new(Some(client_dir.clone()))
            .piece(&server, 2)
            .await,
    );
    now.replace("node", &next, &ALL);
    let fresh = Client::new(Some(client_dir));
    fresh
        .piece(&server, 2)
        .await
        .expect("both have the new files");
    client.piece(&server, 2).await.expect("still open");
    text(Client::new(Some(old)).piece(&server, 3).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_tls_tell_each_other_apart_at_once() {
    let certificates = Certificates::new().await;
    let (plain, sealed) = (
        Server::start(None).await,
        Server::start(Some(certificates.open("node"))).await,
    );
    let before = failures("in", "plain");
    let started = std::time::Instant::now();
    let refused = text(Client::new(None).piece(&sealed, 0).await);
    assert!(refused.contains("speaks TLS: give --tls-dir"), "{refused}");
    assert_eq!(failures("in", "plain") - before, 1);
    let refused = text(
        Client::new(Some(certificates.open("node")))
            .piece(&plain, 0)
            .await,
    );
    assert!(
        refused.contains("the other side speaks in the clear"),
        "{refused}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "no timeout was waited for"
    );
    Client::new(None)
        .piece(&plain, 0)
        .await
        .expect("in the clear");
}
