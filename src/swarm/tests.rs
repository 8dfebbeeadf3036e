//! Seeds and nodes in one process over real sockets.

mod events_of_pods;
mod hedge;
mod zones;

use super::provider::{Chosen, Content, Provider, Refusal};
use super::request::Request;
use super::*;
use crate::model::{
    Bitfield, Digest, Entry, Failure, FailureKind, FileKey, Geometry, Listing, PIECE_BYTES, Pin,
    Reference, Token, Verified,
};
use crate::seed::server::SeedService;
use crate::source::{Arrival, Catalog, FileRef, Need, Origin, Source};
use crate::store::{CacheFile, ReadOutcome, State, Store, StoreConfig};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

mod tls;

fn content(size: u64) -> Bytes {
    let byte = |at: u64| (at.wrapping_mul(2_654_435_761) >> 24) as u8;
    (0..size).map(byte).collect::<Vec<_>>().into()
}

fn pin() -> Arc<Pin> {
    Arc::new(
        format!("hf://o/n@{}", "a".repeat(40))
            .parse()
            .expect("a pin"),
    )
}

fn file_ref(content: &Bytes) -> FileRef {
    let digest = Digest::Sha256(*blake3::hash(content).as_bytes());
    let (path, size) = ("model.bin".to_owned(), content.len() as u64);
    let key = FileKey::derive(&pin(), &path, size, &digest);
    FileRef::new(
        &pin(),
        &Entry {
            path,
            size,
            digest,
            key,
        },
        None,
    )
}

struct Folder {
    store: Store,
    _dir: tempfile::TempDir,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().expect("a folder");
    let config = StoreConfig {
        dir: dir.path().to_owned(),
        limit_bytes: Some(1 << 30),
    };
    Folder {
        store: Store::open(&config).expect("a store"),
        _dir: dir,
    }
}

/// A hub that is a vector; each piece is read from it at most once.
struct MemoryOrigin {
    store: Store,
    content: Bytes,
    reads: AtomicU64,
    announced: AtomicU64,
}

impl MemoryOrigin {
    fn new(store: &Store, content: &Bytes) -> MemoryOrigin {
        MemoryOrigin {
            store: store.clone(),
            content: content.clone(),
            reads: AtomicU64::new(0),
            announced: AtomicU64::new(0),
        }
    }

    fn bring(&self, file: &FileRef, index: u32) {
        let cache = self.store.file(file.key, file.size).expect("a file");
        let range = file.geometry().bytes(index);
        let bytes = self.content.slice(range.start as usize..range.end as usize);
        let piece = Verified::of_origin(file.geometry(), index, bytes).expect("a piece");
        if cache.put(&piece).expect("room") {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        if cache.have().is_full() {
            cache
                .finish(*blake3::hash(&self.content).as_bytes())
                .expect("final");
        }
    }
}

#[async_trait]
impl Origin for MemoryOrigin {
    async fn demand(&self, file: &FileRef, index: u32) -> Result<(), Failure> {
        self.bring(file, index);
        Ok(())
    }

    fn announce(&self, _: &FileRef, _: &Bitfield) -> Result<(), Failure> {
        self.announced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn any(&self, file: &FileRef, need: &Bitfield) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        need.iter()
            .take(8)
            .for_each(|index| self.bring(file, index));
        Ok(())
    }

    async fn settle(&self, _: &FileRef) {}

    async fn read_through(&self, _: &FileRef, _: u32) -> Result<Verified, Failure> {
        Err(Failure::new(FailureKind::Unsupported, "not in tests"))
    }
}

#[async_trait]
impl Catalog for MemoryOrigin {
    async fn resolve(
        &self,
        _: &Reference,
        volume: Option<&str>,
        _: Option<&Token>,
    ) -> Result<Pin, Failure> {
        match volume {
            Some("denied") => Err(Failure::new(FailureKind::Denied, "accept the licence")),
            _ => Ok(pin().as_ref().clone()),
        }
    }

    async fn listing(&self, pin: &Pin, _: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let file = file_ref(&self.content);
        let rows = [("config.json".to_owned(), file.size, file.digest)];
        Ok(Arc::new(
            Listing::new(pin.clone(), rows).expect("a listing"),
        ))
    }
}

/// Counts the pieces that go out, and remembers what was chosen for whom.
struct Counting {
    inner: Arc<dyn Provider>,
    given: AtomicU64,
    chosen: Mutex<Vec<(String, Range<u32>)>>,
}

#[async_trait]
impl Provider for Counting {
    async fn ready(&self, request: &Request, run: Range<u32>) -> Result<Content, Refusal> {
        self.given.fetch_add(run.len() as u64, Ordering::SeqCst);
        self.inner.ready(request, run).await
    }

    async fn any(
        &self,
        request: &Request,
        wanted: Option<u32>,
        need: Vec<u8>,
    ) -> Result<Chosen, Refusal> {
        let chosen = self.inner.any(request, wanted, need).await?;
        self.given
            .fetch_add(chosen.run.len() as u64, Ordering::SeqCst);
        let mut given = self.chosen.lock().expect("a lock");
        given.push((request.node.clone(), chosen.run.clone()));
        drop(given);
        Ok(chosen)
    }

    fn tells_hashes(&self) -> bool {
        self.inner.tells_hashes()
    }
}

/// Serves `provider` and, if there is one, a seed's service on one port.
async fn serve(
    provider: Arc<dyn Provider>,
    slots: Slots,
    service: Option<SeedService>,
    shutdown: &CancellationToken,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    serve_on(listener, provider, slots, service, shutdown)
}

fn serve_on(
    listener: TcpListener,
    provider: Arc<dyn Provider>,
    slots: Slots,
    service: Option<SeedService>,
    shutdown: &CancellationToken,
) -> String {
    let addr = listener.local_addr().expect("an address").to_string();
    let (server, grpc) = PieceServer::new(provider, slots, None);
    tokio::spawn(server.run(listener, shutdown.clone()));
    if let Some(service) = service {
        let server = tonic::transport::Server::builder().add_service(service.into_service());
        tokio::spawn(server.serve_with_incoming_shutdown(
            ReceiverStream::new(grpc),
            shutdown.clone().cancelled_owned(),
        ));
    }
    addr
}

struct Seed {
    addr: String,
    origin: Arc<MemoryOrigin>,
    given: Arc<Counting>,
    folder: Folder,
}

async fn seed(content: &Bytes, shutdown: &CancellationToken) -> Seed {
    let folder = folder();
    let tracker = Tracker::new("seed-0", folder.store.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tracker.set_piece_addr(([0, 0, 0, 0], port).into());
    let origin = Arc::new(MemoryOrigin::new(&folder.store, content));
    let inner = Arc::new(SeedProvider::new(tracker.clone(), origin.clone()));
    let given = Arc::new(Counting {
        inner,
        given: AtomicU64::new(0),
        chosen: Mutex::default(),
    });
    let service = SeedService::new(tracker, origin.clone(), origin.clone());
    let addr = serve_on(
        listener,
        given.clone(),
        Slots::of_seed(),
        Some(service),
        shutdown,
    );
    Seed {
        addr,
        origin,
        given,
        folder,
    }
}

struct Node {
    swarm: Arc<Swarm>,
    folder: Folder,
}

async fn node(name: &str, seeds: &[&str], shutdown: &CancellationToken) -> Node {
    node_in("", name, seeds, shutdown).await
}

async fn node_in(zone: &str, name: &str, seeds: &[&str], shutdown: &CancellationToken) -> Node {
    let (folder, listener) = (
        folder(),
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    let addr = listener.local_addr().expect("an address");
    let seeds = seeds.iter().map(|seed| seed.to_string()).collect();
    let config = SwarmConfig {
        zone: zone.to_owned(),
        ..SwarmConfig::new(name.to_owned(), seeds, addr)
    };
    let swarm =
        Swarm::start(config, folder.store.clone(), listener, shutdown.clone()).expect("a node");
    Node { swarm, folder }
}

impl Node {
    fn cache(&self, file: &FileRef) -> Arc<CacheFile> {
        self.folder.store.file(file.key, file.size).expect("a file")
    }

    /// Fetches the whole file with `slots` runs at a time, as the background of a mount does.
    async fn fetch_all(&self, file: &FileRef, slots: usize) {
        let (need, pieces) = (Arc::new(Need::default()), file.geometry().pieces());
        need.want((0..pieces.min(16)).collect(), Bitfield::full(pieces));
        let run = || async {
            while !self.cache(file).have().is_full() {
                match self.swarm.some(file, &need).await.expect("an arrival") {
                    Arrival::Kept(run) if run.is_empty() => {
                        tokio::time::sleep(Duration::from_millis(2)).await
                    }
                    _ => {}
                }
            }
        };
        futures::future::join_all((0..slots).map(|_| run())).await;
    }

    fn assert_holds(&self, file: &FileRef, content: &Bytes) {
        match self.cache(file).read(0, content.len()).expect("a read") {
            ReadOutcome::Bytes(bytes) => assert!(bytes == content),
            missing => panic!("{missing:?}"),
        }
    }
}

/// Waits for something that another task will do.
async fn until(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen in 5 s");
}

/// A node's provider over a store that holds all of `content`.
fn full_provider(content: &Bytes) -> (Folder, FileRef, Arc<dyn Provider>) {
    let (folder, file) = (folder(), file_ref(content));
    let origin = MemoryOrigin::new(&folder.store, content);
    let cache = folder.store.file(file.key, file.size).expect("a file");
    (0..file.geometry().pieces()).for_each(|index| origin.bring(&file, index));
    drop(cache);
    let files = Arc::new(recent::Recent::new(folder.store.clone()));
    (folder, file, Arc::new(provider::NodeProvider { files }))
}

async fn raw(addr: &str, request: &str, bytes: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while answer.len() < bytes {
        match stream.read(&mut buffer).await.expect("an answer") {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_ranges_and_pipelined_requests_come_back_byte_for_byte() {
    let (content, shutdown) = (content(3 * PIECE_BYTES + 77), CancellationToken::new());
    let (_folder, file, provider) = full_provider(&content);
    let addr = serve(provider, Slots::of_node(), None, &shutdown).await;
    let get =
        |run: &str, more: &str| format!("GET /v1/pieces/{}/{run} HTTP/1.1\r\n{more}\r\n", file.key);
    let requests = [
        get("0-3", ""),
        get("3", ""),
        get("1-2", "range: bytes=1048570-1048579\r\n"),
        get("1", "range: bytes=2000000-\r\n"),
        get("9", ""),
        get("2", "range: bytes=5-\r\nconnection: close\r\n"),
    ];
    let answers = raw(&addr, &requests.concat(), usize::MAX).await;
    let mut rest = &answers[..];
    let mut next = || {
        let head = rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let text = String::from_utf8(rest[..head].to_vec()).expect("text");
        let len = text
            .split("content-length: ")
            .nth(1)
            .and_then(|text| text.split("\r\n").next());
        let len: usize = len.expect("a length").parse().expect("a number");
        let body = &rest[head..head + len];
        rest = &rest[head + len..];
        (text[9..12].to_owned(), body)
    };
    let mib = PIECE_BYTES as usize;
    assert!(next() == ("200".into(), &content[..]));
    assert!(next() == ("200".into(), &content[3 * mib..]));
    assert!(next() == ("206".into(), &content[2 * mib - 6..2 * mib + 4]));
    assert_eq!(next().0, "416");
    assert_eq!(next().0, "404");
    assert!(next() == ("206".into(), &content[2 * mib + 5..3 * mib]));
    assert!(rest.is_empty());
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn full_slots_answer_busy_at_once_and_nonsense_is_refused() {
    let (content, shutdown) = (content(20), CancellationToken::new());
    let (_folder, file, provider) = full_provider(&content);
    let slots = Slots::new(1, 0);
    let held = slots.take(slots::Class::Bulk);
    let addr = serve(provider, slots, None, &shutdown).await;
    let get = format!(
        "GET /v1/pieces/{}/0 HTTP/1.1\r\nconnection: close\r\n\r\n",
        file.key
    );
    let busy = String::from_utf8(raw(&addr, &get, usize::MAX).await).expect("text");
    assert!(
        busy.starts_with("HTTP/1.1 503") && busy.contains("retry-after-ms"),
        "{busy}"
    );
    drop(held);
    assert!(raw(&addr, &get, usize::MAX).await.ends_with(&content));
    for nonsense in [
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        &"A".repeat(request::HEAD_BYTES_MAX),
    ] {
        let answer = raw(&addr, nonsense, usize::MAX).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{nonsense:?}");
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_went_bad_on_disk_is_never_served() {
    use std::os::unix::fs::FileExt;
    let (content, shutdown) = (content(2 * PIECE_BYTES), CancellationToken::new());
    let (folder, file, provider) = full_provider(&content);
    let cache = folder.store.get(file.key).expect("the file");
    cache.data().write_all_at(b"rotten", 5).expect("written");
    drop(cache);
    let addr = serve(provider, Slots::of_node(), None, &shutdown).await;
    let get = |index| {
        format!(
            "GET /v1/pieces/{}/{index} HTTP/1.1\r\nconnection: close\r\n\r\n",
            file.key
        )
    };
    assert!(
        raw(&addr, &get(0), usize::MAX)
            .await
            .starts_with(b"HTTP/1.1 404")
    );
    assert!(
        raw(&addr, &get(1), usize::MAX)
            .await
            .starts_with(b"HTTP/1.1 200")
    );
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_share_what_the_seed_gives_about_once() {
    let (content, shutdown) = (content(40 * PIECE_BYTES + 5), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(node(name, &[&seed.addr], &shutdown).await);
    }
    futures::future::join_all(nodes.iter().map(|node| node.fetch_all(&file, 4))).await;
    for node in &nodes {
        node.assert_holds(&file, &content);
        until("final", || node.cache(&file).state() == State::Final).await;
    }
    let given = seed.given.given.load(Ordering::SeqCst);
    println!("the seed gave {given} pieces");
    let announced = seed.origin.announced.load(Ordering::SeqCst);
    assert!(announced > 0, "the hub is read while what is here goes out");
    assert_eq!(seed.origin.reads.load(Ordering::SeqCst), 41);
    assert!(
        (41..=62).contains(&given),
        "the seed gave {given} pieces of 41 to 3 nodes"
    );
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_its_piece_from_the_seed_then_from_a_neighbour_even_without_the_seed() {
    let (content, shutdown) = (content(5 * PIECE_BYTES), CancellationToken::new());
    let seed_shutdown = CancellationToken::new();
    let (seed, file) = (seed(&content, &seed_shutdown).await, file_ref(&content));
    let a = node("a", &[&seed.addr], &shutdown).await;
    let b = node("b", &[&seed.addr], &shutdown).await;
    assert!(matches!(a.swarm.piece(&file, 3).await, Ok(Arrival::Kept(run)) if run == (3..4)));
    assert_eq!(
        seed.origin.reads.load(Ordering::SeqCst),
        1,
        "exactly what was asked for"
    );
    // b learns of a, its pieces and their hashes.
    b.swarm.open(&file).expect("an interest");
    until("b hears of a's piece", || {
        b.cache(&file).hash(3).is_some()
            && b.swarm.availability.with(file.key, |has| has.count(3) > 0)
    })
    .await;
    seed_shutdown.cancel();
    b.swarm.piece(&file, 3).await.expect("from a");
    assert_eq!(seed.given.given.load(Ordering::SeqCst), 1);
    let lost = b.swarm.piece(&file, 4).await.expect_err("nobody has it");
    assert_eq!(lost.kind, FailureKind::Unavailable);
    shutdown.cancel();
    drop(seed.folder);
}

/// Gives wrong bytes for every piece it is asked for.
struct Liar(Arc<CacheFile>);

#[async_trait]
impl Provider for Liar {
    async fn ready(&self, _: &Request, run: Range<u32>) -> Result<Content, Refusal> {
        let geometry = self.0.geometry();
        let lie = Bytes::from(vec![6; geometry.len(run.start)]);
        let piece = Verified::of_origin(geometry, run.start, lie).expect("well formed");
        Ok(Content::Bytes(self.0.clone(), piece))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_piece_is_rejected_its_giver_banned_and_the_piece_fetched_elsewhere() {
    let (content, shutdown) = (content(2 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let a = node("a", &[&seed.addr], &shutdown).await;
    let own = a.cache(&file);
    own.learn(
        0,
        &[file.geometry().hash(0, &content[..PIECE_BYTES as usize])],
    );
    let liar: Arc<str> = serve(Arc::new(Liar(own)), Slots::of_node(), None, &shutdown)
        .await
        .into();
    a.swarm.availability.learn(
        &liar,
        file.key,
        Geometry { size: file.size },
        availability::News::All(vec![1]),
    );
    let rejected = crate::metrics::METRICS
        .pieces_rejected
        .with_label_values(&["peer"]);
    let before = rejected.get();
    a.swarm.piece(&file, 0).await.expect("from the seed");
    assert_eq!(rejected.get() - before, 1);
    assert_eq!(a.swarm.peers.standing(&liar), planner::Standing::Out);
    let bytes = a
        .cache(&file)
        .read(0, PIECE_BYTES as usize)
        .expect("a read");
    assert!(matches!(bytes, ReadOutcome::Bytes(bytes) if bytes == content[..PIECE_BYTES as usize]));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_file_is_dropped_everywhere() {
    let (content, shutdown) = (content(2 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let a = node("a", &[&seed.addr], &shutdown).await;
    a.swarm.piece(&file, 0).await.expect("a piece");
    seed.folder
        .store
        .get(file.key)
        .expect("the file")
        .revoke()
        .expect("revoked");
    let cache = a.cache(&file);
    until("revoked", || cache.state() == State::Revoked).await;
    let failure = a.swarm.piece(&file, 0).await.expect_err("revoked");
    assert_eq!(failure.kind, FailureKind::Integrity);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_looked_up_at_the_seed_and_small_files_come_along() {
    let (content, shutdown) = (content(900), CancellationToken::new());
    let seed = seed(&content, &shutdown).await;
    let a = node("a", &[&seed.addr], &shutdown).await;
    let reference: Reference = "hf://o/n@main".parse().expect("a reference");
    assert_eq!(
        a.swarm
            .resolve(&reference, None, None)
            .await
            .expect("a pin"),
        *pin()
    );
    let denied = a
        .swarm
        .resolve(&reference, Some("denied"), None)
        .await
        .expect_err("denied");
    assert_eq!(
        (denied.kind, denied.message.as_str()),
        (FailureKind::Denied, "accept the licence")
    );
    let listing = a.swarm.listing(&pin(), None).await.expect("a listing");
    let entry = listing.get("config.json").expect("the file");
    assert!(
        a.folder.store.get(entry.key).is_none(),
        "the seed has no content yet"
    );
    let file = FileRef::new(&pin(), entry, None);
    seed.origin.bring(&file, 0);
    a.swarm.listing(&pin(), None).await.expect("a listing");
    assert!(
        a.folder.store.get(entry.key).is_none(),
        "the repository has not shown that it holds it"
    );
    let store = &seed.origin.store;
    store.prove(&pin().repository, file.key).expect("a disk");
    a.swarm.listing(&pin(), None).await.expect("a listing");
    assert_eq!(a.cache(&file).state(), State::Final);
    assert!(
        a.folder
            .store
            .is_proven(&pin().repository, file.key, &file.digest)
    );
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_not_leave_the_machine_in_the_clear() {
    let shutdown = CancellationToken::new();
    let a = node("a", &["192.0.2.1:7000"], &shutdown).await;
    let file = FileRef {
        token: Token::new("hf_secret").into(),
        ..file_ref(&content(5))
    };
    let failure = a.swarm.piece(&file, 0).await.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Unauthenticated);
    assert!(failure.message.contains("--tls-dir") && !failure.message.contains("hf_secret"));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_asker_of_a_wanted_piece_is_sent_to_a_holder_and_may_come_back() {
    let (content, shutdown) = (content(3 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let nodes = [
        node("a", &[&seed.addr], &shutdown).await,
        node("b", &[&seed.addr], &shutdown).await,
    ];
    for node in &nodes {
        node.swarm.piece(&file, 1).await.expect("a piece");
    }
    let ask = |tried| {
        let ask = client::AnyAsk {
            wanted: Some(1),
            tried,
            run_max: 1,
            need: &[],
        };
        request::print_any(file.key, &ask, "c")
    };
    if seed.given.given.load(Ordering::SeqCst) == 2 {
        let answer = raw(&seed.addr, &ask(false), 12).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 409") && answer.contains("x-holder: 127.0.0.1:"),
            "{answer}"
        );
    }
    let answer = raw(&seed.addr, &ask(true), 12).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    shutdown.cancel();
}

/// A crowd of readers in order was given each first piece again and again, for nobody had it whole yet.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_sent_to_a_holder_waits_for_its_copy_before_the_seed_gives_another() {
    let (content, shutdown) = (content(3 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let (a, c) = (
        node("a", &[&seed.addr], &shutdown).await,
        node("c", &[&seed.addr], &shutdown).await,
    );
    a.swarm.open(&file).expect("an interest");
    c.swarm.piece(&file, 0).await.expect("a piece");
    until("c knows a", || {
        c.swarm.availability.with(file.key, |has| !has.is_empty())
    })
    .await;
    // Twice to a, which has lost it both times.
    for _ in 0..2 {
        let ask = client::AnyAsk {
            wanted: Some(1),
            tried: true,
            run_max: 1,
            need: &[],
        };
        let bytes = PIECE_BYTES as usize;
        raw(&seed.addr, &request::print_any(file.key, &ask, "a"), bytes).await;
    }
    let hash = file
        .geometry()
        .hash(1, &content[PIECE_BYTES as usize..][..PIECE_BYTES as usize]);
    c.cache(&file).learn(1, &[hash]);
    let given = seed.given.given.load(Ordering::SeqCst);
    let brought = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        MemoryOrigin::new(&a.folder.store, &content).bring(&file, 1);
    };
    let (piece, ()) = tokio::join!(c.swarm.piece(&file, 1), brought);
    piece.expect("from a");
    assert_eq!(seed.given.given.load(Ordering::SeqCst), given);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_server_serves_a_node_on_two_ports_and_ends_at_shutdown() {
    let (content, shutdown) = (content(PIECE_BYTES + 1), CancellationToken::new());
    let (folder, file) = (folder(), file_ref(&content));
    let origin = Arc::new(MemoryOrigin::new(&folder.store, &content));
    let control = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let pieces = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let addr = control.local_addr().expect("an address").to_string();
    let server = crate::seed::SeedServer::new(
        "seed-0".into(),
        folder.store.clone(),
        origin.clone(),
        origin,
    );
    let served = tokio::spawn(server.run(control, None, pieces, shutdown.clone()));
    let a = node("a", &[&addr], &shutdown).await;
    a.fetch_all(&file, 2).await;
    a.assert_holds(&file, &content);
    let catalog = RemoteCatalog::new(&[addr], None).expect("a catalog");
    assert_eq!(
        catalog
            .listing(&pin(), None)
            .await
            .expect("a listing")
            .files()
            .len(),
        1
    );
    shutdown.cancel();
    served.await.expect("it ends").expect("well");
}
