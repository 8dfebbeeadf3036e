//! The seed against a hub that writes down every read: nothing twice, nothing unasked, nothing unverified.

use super::ingest::HubSet;
use super::*;
use crate::hub::{ByteStream, Hub, HubError};
use crate::model::{
    Bitfield, Digest, Entry, FailureKind, FileKey, Geometry, Listing, PIECE_BYTES, Pin, Reference,
    Token,
};
use crate::source::{Arrival, Catalog, FileRef, Need, Origin, Source};
use crate::store::{State, Store, StoreConfig};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use sha2::Digest as _;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

mod authorise;
#[cfg(feature = "testing")]
mod claims;

const SIZE: u64 = 30 * PIECE_BYTES + 11;

/// A hub of one repository with one file, which remembers the ranges it gave.
struct RecordingHub {
    content: Bytes,
    reads: Mutex<Vec<Range<u64>>>,
    resolves: AtomicUsize,
    lists: AtomicUsize,
    authorizes: AtomicUsize,
    commit: Mutex<String>,
    down: Mutex<Option<FailureKind>>,
    /// Nothing is to be had without a token.
    private: Mutex<bool>,
    /// Bytes after which the next body ends.
    cut: Mutex<Option<usize>>,
}

impl RecordingHub {
    fn new(content: Vec<u8>) -> Arc<RecordingHub> {
        Arc::new(RecordingHub {
            content: content.into(),
            reads: Mutex::default(),
            resolves: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            authorizes: AtomicUsize::new(0),
            commit: Mutex::new("a".repeat(40)),
            down: Mutex::default(),
            private: Mutex::default(),
            cut: Mutex::default(),
        })
    }

    fn check(&self) -> Result<(), HubError> {
        match *self.down.lock().expect("a lock") {
            None => Ok(()),
            Some(FailureKind::Unavailable) => Err(HubError::Transient {
                message: "hub is down".into(),
                after: None,
                limited: false,
            }),
            Some(kind) => Err(HubError::Final {
                kind,
                message: "hub says no".into(),
            }),
        }
    }

    /// How often each piece was read; a piece read in part counts.
    fn times_read(&self) -> Vec<usize> {
        let reads = self.reads.lock().expect("a lock");
        let geometry = Geometry {
            size: self.content.len() as u64,
        };
        let touches = |index, read: &Range<u64>| {
            let piece = geometry.bytes(index);
            read.start < piece.end && piece.start < read.end
        };
        (0..geometry.pieces())
            .map(|index| reads.iter().filter(|read| touches(index, read)).count())
            .collect()
    }
}

#[async_trait]
impl Hub for RecordingHub {
    async fn resolve(
        &self,
        reference: &Reference,
        _token: Option<&Token>,
    ) -> Result<Pin, HubError> {
        self.resolves.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.check()?;
        let revision = self
            .commit
            .lock()
            .expect("a lock")
            .parse()
            .expect("a commit");
        Ok(Pin {
            repository: reference.repository(),
            revision,
        })
    }

    async fn list(&self, pin: &Pin, _token: Option<&Token>) -> Result<Listing, HubError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let rows = [(
            "w".to_owned(),
            self.content.len() as u64,
            sha256(&self.content),
        )];
        Ok(Listing::new(pin.clone(), rows).expect("a listing"))
    }

    async fn read(
        &self,
        _: &Pin,
        _: &Entry,
        bytes: Range<u64>,
        _: Option<&Token>,
    ) -> Result<ByteStream, HubError> {
        self.check()?;
        self.reads.lock().expect("a lock").push(bytes.clone());
        let mut body = self.content.slice(bytes.start as usize..bytes.end as usize);
        if let Some(cut) = self.cut.lock().expect("a lock").take() {
            body.truncate(cut);
        }
        // Chunks that do not fall on piece borders.
        let chunks: Vec<_> = body
            .chunks(300_007)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        Ok(futures::stream::iter(chunks).boxed())
    }

    async fn authorize(&self, _pin: &Pin, token: Option<&Token>) -> Result<(), HubError> {
        self.authorizes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.check()?;
        match token.is_none() && *self.private.lock().expect("a lock") {
            true => Err(HubError::last(FailureKind::Unauthenticated, "no token")),
            false => Ok(()),
        }
    }
}

struct One(Arc<RecordingHub>);

impl HubSet for One {
    fn hub(&self, _reference: &Reference) -> Result<Arc<dyn Hub>, HubError> {
        Ok(self.0.clone())
    }
}

fn sha256(content: &[u8]) -> Digest {
    Digest::Sha256(sha2::Sha256::digest(content).into())
}

fn content() -> Vec<u8> {
    (0..SIZE)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8)
        .collect()
}

fn file(content: &[u8], digest: Digest) -> FileRef {
    let pin: Pin = format!("hf://o/n@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    let size = content.len() as u64;
    let key = FileKey::derive(&pin, "w", size, &digest);
    FileRef {
        key,
        size,
        digest,
        pin: Arc::new(pin),
        path: "w".into(),
        token: None.into(),
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    hub: Arc<RecordingHub>,
    ingest: Ingest,
    file: FileRef,
}

fn bench_of(content: Vec<u8>, digest: Digest, limit: u64) -> Bench {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&StoreConfig {
        dir: dir.path().to_owned(),
        limit_bytes: Some(limit),
    })
    .expect("a store");
    let file = file(&content, digest);
    let hub = RecordingHub::new(content);
    let ingest = Ingest::new(store.clone(), Arc::new(One(hub.clone())));
    Bench {
        _dir: dir,
        store,
        hub,
        ingest,
        file,
    }
}

fn bench() -> Bench {
    bench_of(content(), sha256(&content()), 1 << 30)
}

async fn until_state(bench: &Bench, state: State) {
    let cached = bench
        .store
        .file(bench.file.key, bench.file.size)
        .expect("a file");
    let mut changes = cached.changes();
    while cached.state() != state {
        changes.changed().await.expect("the file is open");
    }
}

#[tokio::test]
async fn a_demanded_piece_costs_one_request_for_exactly_that_piece() {
    let bench = bench();
    let demands = (0..20).map(|_| bench.ingest.demand(&bench.file, 7));
    assert!(
        futures::future::join_all(demands)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(
        *bench.hub.reads.lock().expect("a lock"),
        [Geometry { size: SIZE }.bytes(7)]
    );
}

#[tokio::test]
async fn bulk_and_demand_together_read_every_byte_once_and_the_digest_makes_it_final() {
    let bench = bench();
    let all = Bitfield::full(31);
    let mut asks = tokio::task::JoinSet::new();
    for index in [3, 29, 14, 0, 30] {
        let (ingest, file) = (bench.ingest.clone(), bench.file.clone());
        asks.spawn(async move { ingest.demand(&file, index).await });
    }
    bench
        .ingest
        .any(&bench.file, &all)
        .await
        .expect("some piece");
    while let Some(done) = asks.join_next().await {
        done.expect("no panic").expect("a piece");
    }
    until_state(&bench, State::Final).await;
    assert_eq!(bench.hub.times_read(), [1; 31]);
    let requests = bench.hub.reads.lock().expect("a lock").len();
    assert!(requests <= 14, "long runs, not pieces: {requests} requests");
}

#[tokio::test]
async fn only_what_is_wanted_is_read() {
    let bench = bench();
    let mut need = Bitfield::new(31);
    (4..9).for_each(|index| need.set(index, true));
    for index in 4..9 {
        let mut one = Bitfield::new(31);
        one.set(index, true);
        bench
            .ingest
            .announce(&bench.file, &need)
            .expect("a healthy file");
        bench.ingest.any(&bench.file, &one).await.expect("a piece");
    }
    let times = bench.hub.times_read();
    assert!(
        (0..31).all(|index| times[index] == usize::from((4..9).contains(&index))),
        "{times:?}"
    );
}

#[tokio::test]
async fn an_answer_that_ends_early_keeps_what_came_and_reads_only_the_rest_again() {
    let bench = bench();
    *bench.hub.cut.lock().expect("a lock") = Some(2 * PIECE_BYTES as usize + 100);
    let need = Bitfield::full(31);
    let mut last = Bitfield::new(31);
    last.set(3, true);
    bench
        .ingest
        .announce(&bench.file, &need)
        .expect("a healthy file");
    let failure = bench
        .ingest
        .any(&bench.file, &last)
        .await
        .expect_err("the body was cut in piece 2");
    assert!(failure.kind.is_transient(), "{failure}");
    bench
        .ingest
        .announce(&bench.file, &need)
        .expect("a healthy file");
    bench.ingest.any(&bench.file, &last).await.expect("a piece");
    let times = bench.hub.times_read();
    assert_eq!(
        (times[0], times[1]),
        (1, 1),
        "what came whole is not read again"
    );
}

#[tokio::test]
async fn content_that_differs_from_the_hubs_digest_is_revoked() {
    let bench = bench_of(content(), sha256(b"something else"), 1 << 30);
    for index in 0..31 {
        let _ = bench.ingest.demand(&bench.file, index).await;
    }
    until_state(&bench, State::Revoked).await;
    let failure = bench
        .ingest
        .demand(&bench.file, 0)
        .await
        .expect_err("revoked");
    assert_eq!(failure.kind, FailureKind::Integrity);
    assert_eq!(bench.store.used_bytes(), 0);
}

#[tokio::test]
async fn a_small_file_is_checked_before_a_byte_of_it_is_kept() {
    let bench = bench_of(b"{}".to_vec(), Digest::GitSha1([9; 20]), 1 << 30);
    let failure = bench
        .ingest
        .demand(&bench.file, 0)
        .await
        .expect_err("a wrong digest");
    assert_eq!(failure.kind, FailureKind::Integrity);
    assert_eq!(bench.store.used_bytes(), 0);
}

#[tokio::test]
async fn without_room_the_local_source_passes_pieces_through() {
    let bench = bench_of(content(), sha256(&content()), 0);
    let source = LocalSource::new(Arc::new(bench.ingest.clone()));
    let Ok(Arrival::Passing(pieces)) = source.piece(&bench.file, 5).await else {
        panic!("there is no room")
    };
    let range = Geometry { size: SIZE }.bytes(5);
    assert_eq!(
        pieces[0].bytes()[..],
        content()[range.start as usize..range.end as usize]
    );
}

#[tokio::test]
async fn the_local_source_fills_a_need_and_reads_nothing_twice() {
    let bench = bench();
    let source = LocalSource::new(Arc::new(bench.ingest.clone()));
    let need = Arc::new(Need::default());
    need.want(vec![2, 3], Bitfield::full(31));
    while let Arrival::Kept(run) = source.some(&bench.file, &need).await.expect("a piece") {
        if run.is_empty() {
            break;
        }
        need.arrived(run);
    }
    until_state(&bench, State::Final).await;
    assert_eq!(bench.hub.times_read(), [1; 31]);
}

fn catalog(bench: &Bench) -> LocalCatalog {
    LocalCatalog::new(
        bench.store.clone(),
        Arc::new(One(bench.hub.clone())),
        Duration::ZERO,
    )
}

fn reference() -> Reference {
    "hf://o/n@main".parse().expect("a reference")
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_name_a_branch_cost_the_hub_one_request_a_minute() {
    let bench = bench();
    let catalog = catalog(&bench);
    let reference = reference();
    let asks = (0..1000).map(|_| catalog.resolve(&reference, None, None));
    assert!(
        futures::future::join_all(asks)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(bench.hub.resolves.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    catalog
        .resolve(&reference, None, None)
        .await
        .expect("a pin");
    assert_eq!(bench.hub.resolves.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_volume_keeps_its_first_commit_whatever_the_branch_does() {
    let bench = bench();
    let first = catalog(&bench)
        .resolve(&reference(), Some("vol"), None)
        .await
        .expect("a pin");
    *bench.hub.commit.lock().expect("a lock") = "b".repeat(40);
    let again = catalog(&bench)
        .resolve(&reference(), Some("vol"), None)
        .await
        .expect("a pin");
    assert_eq!(first, again);
    let other = catalog(&bench)
        .resolve(&reference(), Some("new"), None)
        .await
        .expect("a pin");
    assert_ne!(first.revision, other.revision);
}

#[tokio::test]
async fn with_the_hub_down_a_public_model_serves_on_and_a_gated_one_does_not() {
    let bench = bench();
    let token = Token::new("secret");
    let pin = catalog(&bench)
        .resolve(&reference(), None, None)
        .await
        .expect("a pin");
    catalog(&bench)
        .listing(&pin, None)
        .await
        .expect("a listing");
    *bench.hub.down.lock().expect("a lock") = Some(FailureKind::Unavailable);
    let fresh = catalog(&bench);
    assert_eq!(
        fresh
            .resolve(&reference(), None, None)
            .await
            .expect("last known"),
        pin
    );
    assert!(fresh.listing(&pin, None).await.is_ok());
    assert!(
        fresh.listing(&pin, token.as_ref()).await.is_ok(),
        "what everybody may read a token may read too"
    );
    let gated = format!("hf://o/gated@{}", "a".repeat(40));
    let gated: Pin = gated.parse().expect("a pin");
    let failure = fresh.listing(&gated, token.as_ref()).await;
    let failure = failure.expect_err("fails closed");
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.message.contains("--auth-grace"), "{failure}");
    assert_eq!(
        bench.hub.lists.load(Ordering::SeqCst),
        1,
        "a listing is fetched once"
    );
}

#[tokio::test]
async fn a_credential_that_may_not_read_gets_no_listing_though_it_is_stored() {
    let bench = bench();
    let catalog = catalog(&bench);
    let pin = catalog
        .resolve(&reference(), None, None)
        .await
        .expect("a pin");
    catalog
        .listing(&pin, Token::new("good").as_ref())
        .await
        .expect("allowed");
    *bench.hub.down.lock().expect("a lock") = Some(FailureKind::Denied);
    let failure = catalog
        .listing(&pin, Token::new("bad").as_ref())
        .await
        .expect_err("denied");
    assert_eq!(failure.kind, FailureKind::Denied);
    assert!(
        catalog
            .listing(&pin, Token::new("good").as_ref())
            .await
            .is_ok(),
        "believed for five minutes"
    );
}
