//! Fetching against a source that counts: each piece once, no more than is wanted, never a wrong byte.

use super::*;
use crate::model::{Digest, Geometry, PIECE_BYTES, Verify};
use crate::source::Arrival;
use crate::store::StoreConfig;
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// For reads that end long before.
const WAIT: Duration = Duration::from_secs(600);
const SIZE: u64 = 40 * PIECE_BYTES + 77;

fn content() -> Vec<u8> {
    (0..SIZE)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8)
        .collect()
}

/// Gives pieces of `content` and writes down which; holds them back while `gate` is closed.
struct Counting {
    content: Bytes,
    store: Store,
    asked: Mutex<Vec<u32>>,
    gate: Semaphore,
    failure: Mutex<Option<Failure>>,
    /// So many questions for admission fail.
    unsure: AtomicUsize,
    silent: AtomicBool,
    /// Background runs never end.
    stuck: AtomicBool,
    demanded: AtomicU32,
    asks: Notify,
}

impl Counting {
    fn verified(&self, index: u32) -> Verified {
        let geometry = Geometry { size: SIZE };
        let range = geometry.bytes(index);
        let bytes = self.content.slice(range.start as usize..range.end as usize);
        Verified::of_origin(geometry, index, bytes).expect("a piece")
    }

    async fn give(&self, file: &FileRef, index: u32) -> Result<Arrival, Failure> {
        self.asked.lock().expect("a lock").push(index);
        self.asks.notify_waiters();
        if let Some(failure) = self.failure.lock().expect("a lock").take() {
            return Err(failure);
        }
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let _open = self.gate.acquire().await.expect("an open gate");
        let cached = self.store.file(file.key, file.size).expect("a file");
        match cached.put(&self.verified(index)) {
            Ok(_) => Ok(Arrival::Kept(index..index + 1)),
            Err(StoreError::NoRoom { .. }) => Ok(Arrival::Passing(vec![self.verified(index)])),
            Err(error) => panic!("{error}"),
        }
    }

    fn asked(&self) -> Vec<u32> {
        let mut asked = self.asked.lock().expect("a lock").clone();
        asked.sort();
        asked
    }
}

#[async_trait]
impl Source for Counting {
    async fn admit(&self, _: &FileRef) -> Result<(), Failure> {
        let left = self.unsure.load(Ordering::SeqCst);
        self.unsure.store(left.saturating_sub(1), Ordering::SeqCst);
        match left {
            0 => Ok(()),
            _ => Err(Failure::new(FailureKind::Unavailable, "no seed")),
        }
    }

    async fn piece(&self, file: &FileRef, index: u32) -> Result<Arrival, Failure> {
        self.demanded.fetch_add(1, Ordering::SeqCst);
        self.give(file, index).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn some(&self, file: &FileRef, need: &Arc<Need>) -> Result<Arrival, Failure> {
        // Not in order, as a swarm brings them.
        let claim = need.open().last().and_then(|last| need.claim(*last, 1));
        match claim {
            Some(_claim) if self.stuck.load(Ordering::SeqCst) => std::future::pending().await,
            Some(claim) => self.give(file, claim.run().start).await,
            None => Ok(Arrival::Kept(0..0)),
        }
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    source: Arc<Counting>,
    fetcher: Arc<Fetcher>,
}

impl Bench {
    fn reader(&self, verify: Verify, seconds: u64) -> Reader {
        Reader {
            open: self.fetcher.open(file()).expect("a file"),
            verify,
            timeout: Duration::from_secs(seconds),
        }
    }
}

fn bench(limit_bytes: u64) -> Bench {
    let dir = tempfile::tempdir().expect("a folder");
    let config = StoreConfig {
        dir: dir.path().to_owned(),
        limit_bytes: Some(limit_bytes),
    };
    let store = Store::open(&config).expect("a store");
    let source = Arc::new(Counting {
        content: content().into(),
        store: store.clone(),
        asked: Mutex::default(),
        gate: Semaphore::new(64),
        failure: Mutex::default(),
        unsure: AtomicUsize::new(0),
        silent: AtomicBool::new(false),
        stuck: AtomicBool::new(false),
        demanded: AtomicU32::new(0),
        asks: Notify::new(),
    });
    let fetcher = Fetcher::new(store, source.clone(), FetchConfig::default());
    Bench {
        _dir: dir,
        source,
        fetcher,
    }
}

fn plenty() -> Bench {
    bench(1 << 30)
}

fn file() -> FileRef {
    let pin = format!("hf://o/n@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    FileRef {
        key: FileKey([1; 32]),
        size: SIZE,
        digest: Digest::Sha256([0; 32]),
        pin: Arc::new(pin),
        path: "w.safetensors".into(),
        token: None.into(),
    }
}

#[tokio::test]
async fn a_read_brings_just_its_pieces_and_returns_exactly_its_bytes() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    let at = 7 * PIECE_BYTES - 3;
    assert!(open.read_now(at, 10).is_none());
    let bytes = open.read(at, 10, WAIT).await.expect("bytes");
    assert_eq!(bytes, content()[at as usize..at as usize + 10]);
    assert_eq!(bench.source.asked(), [6, 7]);
    assert_eq!(open.read_now(at, 10).expect("here").expect("bytes"), bytes);
    let tail = open.read(SIZE - 5, 4096, WAIT).await.expect("bytes");
    assert_eq!(tail, content()[SIZE as usize - 5..]);
    assert_eq!(bench.source.asked(), [6, 7, 40]);
}

#[tokio::test]
async fn many_readers_of_one_piece_fetch_it_once() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    let reads = (0..50).map(|n| open.read(n * 4096, 4096, WAIT));
    let all = futures::future::join_all(reads).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(bench.source.asked(), [0]);
}

#[tokio::test]
async fn a_reader_in_order_finds_the_rest_here_and_each_piece_was_fetched_once() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    open.run_ahead();
    let mut whole = Vec::new();
    while whole.len() < SIZE as usize {
        whole.extend_from_slice(
            &open
                .read(whole.len() as u64, 128 << 10, WAIT)
                .await
                .expect("bytes"),
        );
    }
    assert!(whole == content());
    assert_eq!(bench.source.asked(), (0..41).collect::<Vec<_>>());
}

#[tokio::test]
async fn fetch_all_completes_a_file_without_a_reader() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    let root = *blake3::hash(&content()).as_bytes();
    let cached = bench
        .fetcher
        .store()
        .file(open.file.key, SIZE)
        .expect("a file");
    assert!(!cached.finish(root).expect("pieces are missing"));
    open.complete(WAIT)
        .await
        .expect("all pieces and the verdict");
    assert_eq!(open.present_bytes(), SIZE);
    assert_eq!(bench.source.asked(), (0..41).collect::<Vec<_>>());
    let demanded = bench.source.demanded.load(Ordering::SeqCst);
    assert_eq!(demanded, 0, "nobody waits for a piece of it");
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_asked_again_and_a_final_one_is_told() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    let fail = |kind| {
        *bench.source.failure.lock().expect("a lock") = Some(Failure::new(kind, "hub says no"))
    };
    fail(FailureKind::Unavailable);
    assert!(open.read(0, 1, WAIT).await.is_ok());
    fail(FailureKind::Denied);
    let error = open
        .read(9 * PIECE_BYTES, 1, WAIT)
        .await
        .expect_err("no right");
    assert!(
        matches!(&error, ReadError::Denied { .. }) && error.to_string().contains("hub says no")
    );
    assert!(
        open.read(9 * PIECE_BYTES, 1, WAIT).await.is_ok(),
        "a later read asks anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_without_progress_ends_with_an_error_after_its_own_mounts_timeout() {
    let bench = plenty();
    bench.source.silent.store(true, Ordering::SeqCst);
    let wait = async |seconds| {
        let (started, reader) = (Instant::now(), bench.reader(Verify::Piece, seconds));
        let error = reader.read(0, 1).await.expect_err("nobody answers");
        assert!(
            matches!(error, ReadError::Timeout { piece: 0, seconds: told, .. } if told == seconds)
        );
        assert_eq!(started.elapsed().as_secs(), seconds);
    };
    tokio::join!(wait(30), wait(90));
}

#[tokio::test]
async fn a_strict_reader_gets_nothing_before_the_verdict_on_the_whole_file() {
    let bench = plenty();
    let reader = bench.reader(Verify::Strict, 600);
    let cached = bench.fetcher.store().file(file().key, SIZE);
    let cached = cached.expect("a file");
    let mut read = std::pin::pin!(reader.read(0, 10));
    let mut changes = cached.changes();
    while cached.state() != State::Whole {
        tokio::select! {
            _ = &mut read => panic!("read before the file was whole"),
            changed = changes.changed() => changed.expect("the file lives"),
        }
    }
    assert!(reader.read_now(0, 10).is_none(), "whole is not confirmed");
    assert!(futures::poll!(&mut read).is_pending());
    assert_eq!(bench.source.asked(), (0..41).collect::<Vec<_>>());
    let root = *blake3::hash(&content()).as_bytes();
    assert!(cached.finish(root).expect("a disk"));
    assert_eq!(read.await.expect("confirmed"), content()[..10]);
    assert!(reader.read_now(20, 10).is_some());
}

#[tokio::test]
async fn a_strict_reader_of_a_revoked_file_fails_at_once() {
    let bench = plenty();
    let (piece, strict) = (Verify::Piece, Verify::Strict);
    let admitted = bench.reader(piece, 600).read(0, 1).await;
    admitted.expect("bytes");
    let reader = bench.reader(strict, 600);
    reader.open.cached.revoke().expect("a disk");
    let refused = reader.read_now(0, 1);
    assert!(matches!(refused, Some(Err(ReadError::Revoked { .. }))));
    assert_eq!(bench.source.asked(), [0]);
}

/// It waited for news of a file of which nothing comes any more.
#[tokio::test(start_paused = true)]
async fn a_strict_reader_of_a_file_revoked_meanwhile_fails_at_once() {
    let bench = plenty();
    bench.source.silent.store(true, Ordering::SeqCst);
    let reader = bench.reader(Verify::Strict, 600);
    reader.open.cached.revoke().expect("a disk");
    let started = Instant::now();
    let refused = reader.read(0, 1).await;
    assert!(matches!(refused, Err(ReadError::Revoked { .. })));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// It waited for the background first and then its whole timeout again.
#[tokio::test(start_paused = true)]
async fn a_strict_read_without_progress_ends_after_its_timeout() {
    for seconds in [1, 30] {
        let bench = plenty();
        bench.source.silent.store(true, Ordering::SeqCst);
        let (started, reader) = (Instant::now(), bench.reader(Verify::Strict, seconds));
        let error = reader.read(0, 1).await.expect_err("nobody answers");
        assert!(matches!(error, ReadError::Timeout { seconds: told, .. } if told == seconds));
        assert_eq!(started.elapsed().as_millis() as u64 / 10, seconds * 100);
        assert_eq!(bench.source.demanded.load(Ordering::SeqCst), 1);
    }
}

/// One refusal in the background ended it, and the file came at a piece in five seconds.
#[tokio::test(start_paused = true)]
async fn a_whole_file_goes_on_after_a_failure_in_the_background() {
    let bench = plenty();
    let refusal = Failure::new(FailureKind::Denied, "hub says no");
    *bench.source.failure.lock().expect("a lock") = Some(refusal);
    let open = bench.fetcher.open(file()).expect("a file");
    let root = *blake3::hash(&content()).as_bytes();
    open.cached.finish(root).expect("a disk");
    let started = Instant::now();
    open.complete(WAIT).await.expect("the whole file");
    assert_eq!(started.elapsed().as_secs(), 5, "one pause");
    assert_eq!(bench.source.demanded.load(Ordering::SeqCst), 1);
}

/// A pod was told of a missing source for a minute after there was one.
#[tokio::test(start_paused = true)]
async fn an_admission_that_comes_at_last_ends_its_trouble() {
    let bench = plenty();
    bench.source.unsure.store(2, Ordering::SeqCst);
    let open = bench.fetcher.open(file()).expect("a file");
    let mut news = bench.fetcher.store().news();
    let told = async {
        news.changed().await.expect("the store lives");
        bench.fetcher.troubles(&open.file.pin.repository).len()
    };
    let (admitted, told) = tokio::join!(open.admission.wait(WAIT), told);
    admitted.expect("at the third question");
    assert_eq!(told, 1);
    assert_eq!(open.troubles.now(), None);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_admission_does_not_outlast_its_reader() {
    let bench = plenty();
    bench.source.unsure.store(usize::MAX, Ordering::SeqCst);
    let open = bench.fetcher.open(file()).expect("a file");
    let started = Instant::now();
    let refused = open.admission.wait(Duration::from_secs(9)).await;
    assert_eq!(refused.expect_err("nobody admits").message, "no seed");
    assert_eq!(started.elapsed().as_millis() / 10, 900);
}

/// A trouble that began while the one before it ended was told to nobody.
#[tokio::test]
async fn a_trouble_that_begins_is_told_whatever_ends_meanwhile() {
    let bench = plenty();
    let troubles = Troubles::new(bench.fetcher.store().clone(), "w".into());
    let failure = Failure::new(FailureKind::Unavailable, "no seed");
    let mut news = bench.fetcher.store().news();
    let (turn, mut lost) = (AtomicU32::new(0), 0);
    let until = |value| {
        while turn.load(Ordering::SeqCst) != value {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in (0..40_000).step_by(2) {
                until(round + 1);
                troubles.over();
                turn.store(round + 2, Ordering::SeqCst);
            }
        });
        for round in (0..40_000).step_by(2) {
            troubles.failed(&failure);
            news.mark_unchanged();
            turn.store(round + 1, Ordering::SeqCst);
            (0..round % 128).for_each(|_| std::hint::spin_loop());
            troubles.failed(&failure);
            until(round + 2);
            // It began anew and is told, or lasted and is over.
            let told = news.has_changed().expect("the store lives");
            lost += u32::from(!told && troubles.now().is_some());
        }
    });
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn a_full_store_serves_readers_without_keeping() {
    let bench = bench(2 * PIECE_BYTES);
    let open = bench.fetcher.open(file()).expect("a file");
    for at in [
        0,
        10 * PIECE_BYTES - 5,
        20 * PIECE_BYTES,
        30 * PIECE_BYTES - 9,
    ] {
        let bytes = open.read(at, 100, WAIT).await.expect("bytes");
        assert_eq!(bytes, content()[at as usize..at as usize + 100]);
    }
    assert!(bench.fetcher.store().used_bytes() <= 2 * PIECE_BYTES);
}

/// A reader in order waits for pieces that the background has under way: from a peer that had gone silent it
/// waited until the connection was given up.
#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_long_for_a_background_run() {
    let bench = plenty();
    bench.source.stuck.store(true, Ordering::SeqCst);
    let open = bench.fetcher.open(file()).expect("a file");
    open.run_ahead();
    let started = Instant::now();
    for index in 0..5 {
        open.read(index * PIECE_BYTES, 4096, WAIT)
            .await
            .expect("bytes");
    }
    assert!(
        open.need.is_claimed(4),
        "the background still has it under way"
    );
    assert!((1..=3).contains(&started.elapsed().as_secs()));
}

/// A killed reader's request must not go on for ever: its flight ends with the last who waits.
#[tokio::test]
async fn a_flight_that_nobody_waits_for_ends() {
    let bench = plenty();
    bench.source.silent.store(true, Ordering::SeqCst);
    let open = bench.fetcher.open(file()).expect("a file");
    let asked = bench.source.asks.notified();
    let reader = tokio::spawn({
        let open = open.clone();
        async move { open.read(0, 1, WAIT).await.map(|_| ()) }
    });
    asked.await;
    reader.abort();
    assert!(reader.await.expect_err("aborted").is_cancelled());
    bench.source.silent.store(false, Ordering::SeqCst);
    let bytes = open.read(0, 1, WAIT).await.expect("a new flight lands");
    assert_eq!(bytes[..], content()[..1]);
    assert_eq!(bench.source.asked(), [0, 0]);
}

#[tokio::test]
async fn without_run_ahead_a_reader_in_order_brings_only_what_it_touches() {
    let bench = plenty();
    let open = bench.fetcher.open(file()).expect("a file");
    for index in 0..6 {
        open.read(index * PIECE_BYTES, 4096, WAIT)
            .await
            .expect("bytes");
    }
    assert_eq!(bench.source.asked(), (0..6).collect::<Vec<_>>());
}
