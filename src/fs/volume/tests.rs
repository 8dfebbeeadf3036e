//! The core against content that the test controls, without a kernel.

use super::*;
use crate::fs::open::Provider;
use crate::fs::twin::{Twin, TwinProvider, listing, pattern};
use crate::model::{Reads, View};

const BIG: u64 = SWITCH_BYTES_MIN;

fn volume(twin: &Arc<Twin>, files: &[(&str, u64)]) -> Arc<Volume> {
    let listing = listing(files);
    let tree = Tree::new(listing.clone(), &View::default()).expect("a tree");
    let opener = TwinProvider(twin.clone()).opener(listing, None, Reads::default());
    let volume = Volume::new(tree, opener, Handle::current());
    volume.set_mode(Mode::Passthrough);
    volume
}

fn node(volume: &Volume, name: &str) -> u64 {
    volume
        .lookup(super::super::tree::ROOT, name.as_bytes())
        .expect("a name")
        .node
}

async fn bytes(read: Read) -> Result<Bytes, FsError> {
    match read {
        Read::Now(result) => result,
        Read::Later(read) => read.await,
    }
}

#[tokio::test]
async fn a_read_is_cut_at_the_end_of_the_file_and_is_whole_before_it() {
    let volume = volume(&Twin::new(), &[("f", 10)]);
    let f = node(&volume, "f");
    assert_eq!(
        bytes(volume.read(f, 0, 4)).await.expect("in"),
        pattern(0, 4)
    );
    assert_eq!(
        bytes(volume.read(f, 8, 4)).await.expect("cut"),
        pattern(8, 2)
    );
    for offset in [10, 11, u64::MAX] {
        assert!(
            bytes(volume.read(f, offset, 4))
                .await
                .expect("out")
                .is_empty()
        );
    }
}

#[tokio::test]
async fn missing_bytes_are_waited_for_outside_and_end_with_the_mount() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("f", 100)]);
    twin.file("f", 100).hold(50);
    let f = node(&volume, "f");
    assert!(matches!(volume.read(f, 0, 50), Read::Now(Ok(_))));
    let Read::Later(later) = volume.read(f, 0, 51) else {
        panic!("must wait")
    };
    twin.file("f", 100).set(State::Whole);
    assert_eq!(later.await.expect("came"), pattern(0, 51));
    twin.file("f", 100).hold(0);
    let Read::Later(never) = volume.read(f, 0, 1) else {
        panic!("must wait")
    };
    volume.end();
    assert!(matches!(never.await, Err(FsError::Ending)));
}

#[tokio::test]
async fn a_name_has_the_node_of_its_state_and_only_large_files_switch() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("big", BIG), ("small", BIG - 1)]);
    for (name, size) in [("big", BIG), ("small", BIG - 1)] {
        assert!(!Tree::is_complete(node(&volume, name)));
        twin.file(name, size).set(State::Final);
    }
    assert!(Tree::is_complete(node(&volume, "big")));
    assert!(!Tree::is_complete(node(&volume, "small")));
    volume.set_mode(Mode::Cached);
    assert!(!Tree::is_complete(node(&volume, "big")));
}

#[tokio::test]
async fn the_node_alone_decides_how_an_open_is_served() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("big", BIG)]);
    let id = volume.tree.lookup(0, b"big").expect("big");
    let (lazy, complete) = (Tree::lazy(id), Tree::complete(id));
    let open = |node, flags| volume.open(node, flags);
    assert!(matches!(open(complete, 0), Err(FsError::Stale { .. })));
    twin.file("big", BIG).set(State::Final);
    assert!(matches!(open(complete, 0), Ok(OpenMode::Passthrough(_))));
    assert!(matches!(open(lazy, 0), Ok(OpenMode::Cached)));
    assert!(matches!(open(lazy, libc::O_DIRECT), Ok(OpenMode::Direct)));
    volume.set_mode(Mode::Cached);
    assert!(matches!(open(complete, 0), Err(FsError::Stale { .. })));
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert!(matches!(open(lazy, flags), Err(FsError::ReadOnly)));
    }
    assert!(matches!(open(1, 0), Err(FsError::IsDirectory)));
    (0..3).for_each(|_| volume.release(lazy));
    assert_eq!(volume.open_files(), 0, "failed opens count nothing");
}

#[tokio::test]
async fn completion_is_announced_once_under_parent_and_name() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("d/big", BIG), ("d/small", 1)]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    volume.set_announce(Box::new(move |parent, name| {
        let _ = tell.send((parent, name.to_owned()));
    }));
    let d = node(&volume, "d");
    for name in ["big", "small"] {
        let file = volume.lookup(d, name.as_bytes()).expect("a file").node;
        volume.open(file, 0).expect("open");
        volume.open(file, 0).expect("open");
    }
    twin.file("d/small", 1).set(State::Final);
    twin.file("d/big", BIG).set(State::Final);
    assert_eq!(told.recv().await, Some((d, "big".to_owned())));
    volume.end();
    drop(volume);
    assert_eq!(told.recv().await, None, "and nothing else");
}

#[tokio::test]
async fn directories_list_from_any_offset() {
    let volume = volume(&Twin::new(), &[("a", 1), ("b/x", 1), ("c", 1)]);
    let names = |offset| -> Vec<&str> {
        let lines = volume.readdir(1, offset).expect("a directory");
        lines.map(|line| line.name).collect()
    };
    assert_eq!(names(0), ["a", "b", "c"]);
    assert_eq!(names(1), ["b", "c"]);
    assert!(names(3).is_empty() && names(u64::MAX).is_empty());
    let a = node(&volume, "a");
    assert!(matches!(volume.readdir(a, 0), Err(FsError::NotDirectory)));
    assert!(matches!(volume.lookup(1, b"x"), Err(FsError::NotFound)));
}

#[tokio::test]
async fn revoked_content_is_an_error_and_never_zeros() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("f", 10)]);
    twin.file("f", 10).set(State::Revoked);
    let read = bytes(volume.read(node(&volume, "f"), 0, 10)).await;
    assert_eq!(read.expect_err("revoked").errno(), libc::EIO);
    assert!(whole(Bytes::from_static(b"abc"), "f".into(), 0, 4).is_err());
}

#[tokio::test]
async fn prefetch_takes_the_next_file_when_one_is_done() {
    let twin = Twin::new();
    let volume = volume(&twin, &[("a", 1), ("b", 1), ("c", 1)]);
    for name in ["a", "b", "c"] {
        twin.file(name, 1).hold(0);
    }
    super::super::prefetch::start(&volume);
    let wanted = |name| {
        let file = twin.file(name, 1);
        async move {
            let mut wanted = file.whole_wanted.subscribe();
            wanted.wait_for(|wanted| *wanted).await.expect("wanted");
        }
    };
    wanted("a").await;
    wanted("b").await;
    assert!(!*twin.file("c", 1).whole_wanted.borrow(), "two at once");
    twin.file("a", 1).set(State::Final);
    wanted("c").await;
}
