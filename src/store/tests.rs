//! The store's promises: what is put is read, what is damaged is found, what is owned is alone.

use super::*;
use crate::model::{Digest, Geometry, Listing, PIECE_BYTES, Pin, Verified};
use bytes::Bytes;
use std::os::unix::fs::FileExt;

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        dir: dir.to_owned(),
        limit_bytes: Some(64 << 20),
    }
}

fn store(dir: &Path) -> Store {
    Store::open(&config(dir)).expect("a store")
}

const KEY: FileKey = FileKey([7; 32]);
const SIZE: u64 = 3 * PIECE_BYTES + 5;

fn content() -> Vec<u8> {
    (0..SIZE)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn piece(index: u32) -> Verified {
    let geometry = Geometry { size: SIZE };
    let range = geometry.bytes(index);
    let bytes = Bytes::from(content()).slice(range.start as usize..range.end as usize);
    Verified::of_origin(geometry, index, bytes).expect("a piece")
}

fn root() -> [u8; 32] {
    *blake3::hash(&content()).as_bytes()
}

fn fill(file: &CacheFile) {
    for index in 0..4 {
        assert!(file.put(&piece(index)).expect("room"));
    }
}

fn read_all(file: &CacheFile) -> Result<Vec<u8>, u32> {
    match file.read(0, usize::MAX).expect("a readable disk") {
        ReadOutcome::Bytes(bytes) => Ok(bytes.to_vec()),
        ReadOutcome::Missing(index) => Err(index),
    }
}

#[test]
fn a_file_fills_in_any_order_and_becomes_final_with_its_root() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let file = store.file(KEY, SIZE).expect("a file");
    for index in [2, 0, 3] {
        assert!(file.put(&piece(index)).expect("room"));
    }
    assert!(!file.put(&piece(2)).expect("here already"));
    assert_eq!(read_all(&file), Err(1));
    assert!(!file.finish(root()).expect("pieces are missing"));
    assert_eq!(file.state(), State::Partial);
    assert!(file.put(&piece(1)).expect("room"));
    assert_eq!(
        file.state(),
        State::Final,
        "the last piece applies the announced root"
    );
    assert_eq!(read_all(&file), Ok(content()));
    assert_eq!(store.used_bytes(), SIZE);
}

#[test]
fn reads_are_cut_at_the_end_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = store(dir.path()).file(KEY, SIZE).expect("a file");
    fill(&file);
    for (offset, len) in [
        (0, 1),
        (SIZE - 1, 9),
        (PIECE_BYTES - 3, 7),
        (SIZE, 5),
        (SIZE + 9, 5),
        (5, 0),
    ] {
        let Ok(ReadOutcome::Bytes(bytes)) = file.read(offset, len) else {
            panic!("all is here")
        };
        let end = (offset + len as u64).min(SIZE).max(offset.min(SIZE)) as usize;
        assert_eq!(bytes, content()[offset.min(SIZE) as usize..end]);
    }
}

#[test]
fn an_empty_file_is_final_as_soon_as_its_root_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = store(dir.path()).file(KEY, 0).expect("a file");
    assert_eq!(file.state(), State::Whole);
    assert!(
        file.finish(*blake3::hash(b"").as_bytes())
            .expect("nothing to write")
    );
}

#[test]
fn a_wrong_root_revokes_and_nothing_of_it_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let file = store.file(KEY, SIZE).expect("a file");
    fill(&file);
    assert!(!file.finish([9; 32]).expect("a disk"));
    assert_eq!((file.state(), store.used_bytes()), (State::Revoked, 0));
    assert!(read_all(&file).is_err());
    assert!(!file.put(&piece(0)).expect("refused"));
    file.renew();
    fill(&file);
    assert!(file.finish(root()).expect("a disk"));
}

/// A process that is killed leaves what the page cache holds: the next one reads it without the network.
#[test]
fn a_reopened_cache_is_used_and_each_piece_is_hashed_before_it_is_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = store(dir.path()).file(KEY, SIZE).expect("a file");
    fill(&first);
    drop(first);
    let again = store(dir.path());
    let file = again.get(KEY).expect("it is on disk");
    assert_eq!((file.count(), again.used_bytes()), (4, SIZE));
    assert!(!file.is_checked(0));
    assert_eq!(read_all(&file), Ok(content()));
    assert!(file.is_checked(0));
}

#[test]
fn a_final_file_of_this_boot_is_final_again_and_a_touched_one_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = store(dir.path()).file(KEY, SIZE).expect("a file");
    fill(&first);
    assert!(first.finish(root()).expect("a disk"));
    drop(first);
    let second = store(dir.path()).get(KEY).expect("on disk");
    assert_eq!(second.state(), State::Final);
    second
        .data()
        .write_all_at(b"damage", PIECE_BYTES + 100)
        .expect("a write");
    drop(second);
    let third = store(dir.path()).get(KEY).expect("on disk");
    assert_eq!(third.state(), State::Whole);
    assert_eq!(
        read_all(&third),
        Err(1),
        "the damaged piece is found and dropped"
    );
    assert!(third.put(&piece(1)).expect("room"));
    assert_eq!(
        third.state(),
        State::Whole,
        "pieces of the earlier process are not all hashed yet"
    );
    third.scrub().expect("a disk");
    assert_eq!(
        (third.state(), read_all(&third)),
        (State::Final, Ok(content()))
    );
}

/// What can befall the two files of a key, crossed with what comes next: never a wrong byte.
#[test]
fn damage_is_never_read() {
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 5] = [
        ("data truncated", |dir| {
            truncate(&map::data_path(dir, KEY), 10)
        }),
        ("data removed", |dir| {
            std::fs::remove_file(map::data_path(dir, KEY)).expect("data")
        }),
        ("map truncated", |dir| truncate(&map::path(dir, KEY), 20)),
        ("map removed", |dir| {
            std::fs::remove_file(map::path(dir, KEY)).expect("map")
        }),
        ("map scrambled", |dir| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(map::path(dir, KEY))
                .expect("map");
            file.write_all_at(&[0x5a; 40], 130).expect("a write");
        }),
    ];
    for (name, harm) in harms {
        let dir = tempfile::tempdir().expect("a folder");
        let file = store(dir.path()).file(KEY, SIZE).expect("a file");
        fill(&file);
        drop(file);
        harm(dir.path());
        let file = store(dir.path()).file(KEY, SIZE).expect("a file");
        for index in 0..4 {
            if !file.check(index).expect("a disk") {
                assert!(
                    file.put(&piece(index)).expect("room"),
                    "{name}: piece {index}"
                );
            }
        }
        assert_eq!(read_all(&file), Ok(content()), "{name}");
    }
}

fn truncate(path: &Path, len: u64) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    file.set_len(len).expect("a shorter file");
}

#[test]
fn one_process_owns_a_cache() {
    let dir = tempfile::tempdir().expect("a folder");
    let owner = store(dir.path());
    let mode = std::fs::metadata(dir.path())
        .expect("a folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700, "other users see nothing of it");
    assert!(matches!(
        Store::open(&config(dir.path())),
        Err(StoreError::Owned { .. })
    ));
    drop(owner);
    store(dir.path());
}

#[test]
fn a_full_cache_refuses_and_makes_room_from_the_oldest_idle_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let limit_bytes = Some(SIZE + PIECE_BYTES);
    let store = Store::open(&StoreConfig {
        dir: dir.path().to_owned(),
        limit_bytes,
    })
    .expect("a store");
    fill(&store.file(KEY, SIZE).expect("a file"));
    let other = store.file(FileKey([8; 32]), SIZE).expect("a file");
    assert!(other.put(&piece(0)).expect("room for one more"));
    assert!(matches!(
        other.put(&piece(1)),
        Err(StoreError::NoRoom { .. })
    ));
    assert!(
        store
            .keep(&other, &piece(1))
            .expect("the first file is idle and goes")
    );
    assert!(store.get(KEY).is_none());
    for index in [2, 3] {
        assert!(store.keep(&other, &piece(index)).expect("room"));
    }
    let third = store.file(FileKey([9; 32]), SIZE).expect("a file");
    for index in 0..4 {
        let kept = store.keep(&third, &piece(index));
        assert_eq!(
            kept.is_err(),
            index > 0,
            "piece {index}: an open file is never evicted"
        );
    }
}

#[test]
fn records_listings_and_first_answers_survive() {
    let dir = tempfile::tempdir().expect("a folder");
    let pin: Pin = format!("hf://o/n@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    let rows = [("a b.json".to_owned(), 5, Digest::GitSha1([1; 20]))];
    let listing = Listing::new(pin.clone(), rows).expect("a listing");
    {
        let store = store(dir.path());
        store.index().put_listing(&listing).expect("a disk");
        assert_eq!(
            store
                .index()
                .put_record_once("pins", "v", b"one")
                .expect("a disk"),
            b"one"
        );
        assert_eq!(
            store
                .index()
                .put_record_once("pins", "v", b"two")
                .expect("a disk"),
            b"one"
        );
    }
    let store = store(dir.path());
    assert_eq!(store.index().listing(&pin).expect("a disk"), Some(listing));
    assert_eq!(
        store.index().record("pins", "v").expect("a disk"),
        Some(b"one".to_vec())
    );
    assert_eq!(store.index().pins().expect("a disk"), [pin]);
}

/// A reader and the scrub of a reopened file met on one rotten piece: both dropped and counted it, and the
/// slower one could have dropped the good piece that had come in between.
#[test]
fn a_rotten_piece_found_by_many_threads_is_dropped_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = store(dir.path()).file(KEY, SIZE).expect("a file");
    fill(&file);
    file.data().write_all_at(b"damage", 100).expect("a write");
    drop(file);
    let store = store(dir.path());
    let file = store.get(KEY).expect("on disk");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if !file.check(0).expect("a disk") {
                    file.put(&piece(0)).expect("room");
                }
            });
        }
    });
    assert!(file.has(0), "nobody drops the good piece");
    assert_eq!((file.count(), store.used_bytes()), (4, SIZE));
    assert_eq!(read_all(&file), Ok(content()));
}

/// One note a pod would otherwise fill the index for ever.
#[test]
fn of_too_many_notes_the_oldest_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&StoreConfig {
        dir: dir.path().to_owned(),
        limit_bytes: Some(1 << 20),
    })
    .expect("a store");
    let index = store.index();
    for number in 0..30_u32 {
        let value = format!("pin\n{}", 1000 - number);
        let put = index.put_record("notes", &format!("{number:02}"), value.as_bytes());
        put.expect("a disk");
    }
    for _ in 0..20_000 {
        index.keep_newest("notes", 20).expect("a disk");
    }
    let left = index.records("notes").expect("a disk");
    assert_eq!(left.len(), 18, "a tenth more than must");
    assert!(left.iter().all(|(name, _)| name.as_str() < "18"));
}

/// A name, and how an index's folder comes to it.
type Damage = (&'static str, fn(&Path));

/// What befalls an index between two processes.
const DAMAGES: [Damage; 5] = [
    ("overwritten", |index| overwrite(&index.join("db"), 0x5a)),
    ("zeroed", |index| overwrite(&index.join("db"), 0)),
    ("emptied", |index| {
        std::fs::write(index.join("db"), b"").expect("a write")
    }),
    ("removed", |index| {
        std::fs::remove_file(index.join("db")).expect("a file")
    }),
    ("of another make", |index| {
        overwrite(&index.join("conf"), b'x')
    }),
];

fn overwrite(path: &Path, byte: u8) {
    let len = std::fs::metadata(path).expect("a file").len() as usize;
    std::fs::write(path, vec![byte; len]).expect("a write");
}

#[test]
fn a_damaged_index_is_refused_or_set_aside_and_never_taken_for_a_new_one() {
    let cases = DAMAGES.into_iter().flat_map(|case| [(case, 1), (case, 2)]);
    for ((damage, inflict), opened) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let pin = |store: &Store| store.index().record("pins", "v").expect("a disk");
        {
            let store = store(dir.path());
            fill(&store.file(KEY, SIZE).expect("a file"));
            let kept = store.index().put_record("pins", "v", b"one");
            kept.expect("a disk");
        }
        for _ in 1..opened {
            let store = store(dir.path());
            assert_eq!(pin(&store), Some(b"one".to_vec()), "reopened");
        }
        inflict(&dir.path().join("index"));
        let refused = Store::open(&config(dir.path())).err();
        let refused = refused.unwrap_or_else(|| panic!("{damage} {opened}: taken"));
        assert!(
            matches!(refused, StoreError::Damaged { .. }) && refused.to_string().contains("/index"),
            "{damage}: {refused}"
        );
        let store = Store::open_or_renew(&config(dir.path())).expect(damage);
        assert_eq!(pin(&store), None);
        let file = store.get(KEY).expect("content stays");
        assert_eq!(read_all(&file), Ok(content()), "{damage}");
        assert!(dir.path().join("index.damaged").is_dir(), "{damage}");
        drop((store, file));
        Store::open(&config(dir.path())).expect("whole again");
    }
}

/// Whoever follows a volume sleeps until this moves.
#[test]
fn news_is_a_final_file_a_proof_and_nothing_of_pieces() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let file = store.file(KEY, SIZE).expect("a file");
    let news = store.news();
    let moved = |since: u64| *news.borrow() - since;
    let before = *news.borrow();
    fill(&file);
    assert_eq!(moved(before), 0, "pieces alone");
    assert!(
        file.finish(*blake3::hash(&content()).as_bytes())
            .expect("a disk")
    );
    assert_eq!(moved(before), 1, "final");
    let repository = "hf://o/n".parse().expect("a reference");
    store.prove(&repository, KEY).expect("a disk");
    assert_eq!(moved(before), 2, "proven");
}
