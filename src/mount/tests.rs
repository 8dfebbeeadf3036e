//! Real mounts, read by real processes. A server that read its own mount could wait for itself.
//!
//! One test at a time: they compare threads and mounts of the whole process before and after. Sessions end
//! when they are dropped, by abort, so a failed test leaves no reader behind.

use super::*;
use crate::fs::Mode;
use crate::fs::tree::Tree;
use crate::fs::twin::{Twin, TwinFile, TwinProvider, listing};
use crate::fs::volume::SWITCH_BYTES_MIN;
use crate::model::{Listing, Prefetch, Token, View};
use crate::store::State;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};

const BIG: u64 = SWITCH_BYTES_MIN;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A process that serves mounts of the twin, and a place to mount.
struct Lab {
    twin: Arc<Twin>,
    mounts: Arc<Mounts>,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    async fn new() -> Lab {
        let turn = ONE_AT_A_TIME.lock().await;
        let (twin, dir) = (Twin::new(), tempfile::tempdir().expect("a directory"));
        let config = MountsConfig {
            dir: dir.path().join("mnt"),
        };
        let provider = Arc::new(TwinProvider(twin.clone()));
        let mounts = Mounts::with_provider(config, provider, Handle::current());
        Lab {
            twin,
            mounts: mounts.expect("mounts"),
            dir,
            _turn: turn,
        }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    async fn mount(&self, files: &[(&str, u64)]) -> DirectMount {
        let spec = spec(listing(files));
        let mounted = self.mounts.mount_at(spec, &self.dir("direct")).await;
        mounted.expect("a mount")
    }

    /// Mount points of ours below this lab, as the kernel knows them.
    fn points(&self) -> Vec<PathBuf> {
        let lines = info::mounts().expect("a table").into_iter();
        let ours = lines.filter(|line| line.point.starts_with(self.dir.path()));
        ours.map(|line| line.point).collect()
    }
}

fn spec(listing: Arc<Listing>) -> MountSpec {
    MountSpec {
        listing,
        view: View::default(),
        token: None,
        prefetch: Prefetch::Demand,
    }
}

/// Threads that serve FUSE in this process.
fn serving_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("tasks")
        .flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("fuse")).count()
}

fn reader(arguments: &[&str]) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mount/reader.py");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().expect("a reader")
}

async fn done(reader: Child) -> String {
    let output = reader.wait_with_output().await.expect("an end");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

async fn waits(file: &TwinFile) {
    let mut waiting = file.waiting.subscribe();
    let waited = waiting.wait_for(|waiting| *waiting > 0).await;
    assert!(*waited.expect("the file lives") > 0);
}

/// Asks for a name's node until it is the complete one: the kernel hears of it some time after completion.
async fn switched(path: &Path) {
    let asked = async {
        while !Tree::is_complete(inode(path).await) {
            tokio::task::yield_now().await;
        }
    };
    // A bound for a broken build only.
    let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
    asked.expect("the kernel was told");
}

async fn inode(path: &Path) -> u64 {
    let output = Command::new("stat").args(["-c", "%i", text(path)]).output();
    let output = output.await.expect("stat").stdout;
    let digits = String::from_utf8(output).expect("text");
    digits.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_read_gives_the_same_bytes_lazy_and_complete() {
    let lab = Lab::new().await;
    let files = [
        ("big", BIG + 123),
        ("d/odd", 3_000_123),
        ("empty", 0),
        ("one", 1),
        ("page", 4096),
    ];
    let mount = lab.mount(&files).await;
    for state in [State::Whole, State::Final] {
        for (path, size) in files {
            let file = lab.twin.file(path, size);
            file.set(state);
            if state == State::Final && size >= BIG && mount.volume().mode() == Mode::Passthrough {
                switched(&mount.dir().join(path)).await;
            }
            let here = mount.dir().join(path);
            done(reader(&["same", text(&here), text(&file.path)])).await;
        }
    }
    mount.unmount().await;
    assert_eq!(lab.points(), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_large_directories_are_listed_and_found() {
    let lab = Lab::new().await;
    let many: Vec<String> = (0..3000)
        .map(|at| format!("many/shard-{at:05}-of-03000.bin"))
        .collect();
    let odd = [
        "a b",
        "#1",
        "50%.bin",
        "ünï/文.txt",
        "é",
        "e\u{301}",
        ".hidden",
        "x.",
        "x ",
        "a-",
        "a/b",
        "new\nline",
    ];
    let mut files: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 0)).collect();
    files.extend(
        odd.iter()
            .filter(|name| !name.contains('\n'))
            .map(|name| (*name, 1)),
    );
    let mount = lab.mount(&files).await;
    let listed = done(reader(&["names", text(mount.dir())])).await;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort();
    let mut wanted: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    wanted.sort();
    assert_eq!(listed, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_missing_bytes_waits_and_gets_them() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("f", 300_000)]).await;
    let file = lab.twin.file("f", 300_000);
    file.hold(10);
    let waiting = reader(&["same", text(&mount.dir().join("f")), text(&file.path)]);
    waits(&file).await;
    file.set(State::Whole);
    done(waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reader_is_free_although_its_bytes_never_come() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("pread", 300_000), ("fault", 300_000)]).await;
    for way in ["pread", "fault"] {
        let (file, path) = (lab.twin.file(way, 300_000), mount.dir().join(way));
        file.hold(0);
        let arguments = match way {
            "pread" => vec!["same", text(&path), text(&file.path)],
            _ => vec!["fault", text(&path)],
        };
        let mut stuck = reader(&arguments);
        waits(&file).await;
        // A bound for a broken build: a free reader is gone in milliseconds.
        let killed = tokio::time::timeout(Duration::from_secs(10), stuck.kill()).await;
        killed.expect("free").expect("killed");
    }
    mount.unmount().await;
    assert_eq!(serving_threads(), 0, "waiting reads hold no thread");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_file_is_read_by_the_kernel_while_old_readers_go_on() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("d/big", BIG)]).await;
    if mount.volume().mode() == Mode::Cached {
        return eprintln!("skipped: this kernel or filesystem has no passthrough");
    }
    let (file, path) = (lab.twin.file("d/big", BIG), mount.dir().join("d/big"));
    file.hold(1 << 20);
    let mut old = reader(&["across", text(&path), text(&file.path)]);
    let mut line = String::new();
    let mut output = BufReader::new(old.stdout.take().expect("a pipe"));
    output.read_line(&mut line).await.expect("a line");
    let lazy: u64 = line.trim().parse().expect("a node");
    assert!(!Tree::is_complete(lazy));
    file.set(State::Final);
    switched(&path).await;
    assert_eq!(inode(&path).await, lazy + 1);
    let before = file.reads.load(Ordering::Relaxed);
    done(reader(&["same", text(&path), text(&file.path)])).await;
    assert_eq!(
        file.reads.load(Ordering::Relaxed),
        before,
        "the kernel read it"
    );
    old.stdin
        .take()
        .expect("a pipe")
        .write_all(b"\n")
        .await
        .expect("told");
    done(old).await;
    assert!(
        file.reads.load(Ordering::Relaxed) > before,
        "old readers come to us"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_file_is_complete_no_more_is_looked_up_again() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("big", BIG)]).await;
    let (file, path) = (lab.twin.file("big", BIG), mount.dir().join("big"));
    file.set(State::Final);
    inode(&path).await;
    file.set(State::Whole);
    done(reader(&["same", text(&path), text(&file.path)])).await;
    assert!(!Tree::is_complete(inode(&path).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("f", 10)]).await;
    done(reader(&["refused", text(mount.dir()), "f"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_ten_times_leaves_one_mount_and_unpublishing_nothing() {
    let lab = Lab::new().await;
    let listing = listing(&[("f", 10), ("d/g", 20)]);
    let target = |name: &str| lab.dir("pods").join(name);
    let publish = |name: &'static str| {
        let (mounts, spec, target) = (lab.mounts.clone(), spec(listing.clone()), target(name));
        async move { mounts.publish(spec, name, &target).await }
    };
    for name in ["a", "b"] {
        let calls = futures::future::join_all((0..10).map(|_| publish(name))).await;
        assert!(calls.into_iter().all(|call| call.is_ok()));
    }
    assert_eq!(
        lab.points().len(),
        3,
        "one mount, two binds: {:?}",
        lab.points()
    );
    assert_eq!(lab.mounts.list().len(), 1);
    assert_eq!(lab.mounts.list()[0].targets, [target("a"), target("b")]);
    let stats = VolumeStats {
        bytes: 30,
        files: 2,
    };
    assert_eq!(lab.mounts.stats("a", &target("a")), Some(stats));
    assert_eq!(lab.mounts.stats("b", &target("a")), None);
    let file = lab.twin.file("d/g", 20);
    done(reader(&[
        "same",
        text(&target("b").join("d/g")),
        text(&file.path),
    ]))
    .await;
    done(reader(&["refused", text(&target("b")), "f"])).await;
    for (name, volume) in [
        ("a", "a"),
        ("a", "a"),
        ("b", "a"),
        ("b", "b"),
        ("never", "x"),
    ] {
        let unpublished = lab.mounts.unpublish(volume, &target(name)).await;
        unpublished.expect("always fine");
    }
    assert_eq!(lab.points(), [] as [PathBuf; 0]);
    assert_eq!(serving_threads(), 0);
    for dir in ["pods", "mnt"] {
        assert_eq!(
            std::fs::read_dir(lab.dir(dir))
                .expect("a directory")
                .count(),
            0,
            "{dir}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_holds_one_volume_and_takes_a_new_token() {
    let lab = Lab::new().await;
    let (first, target) = (spec(listing(&[("f", 10)])), lab.dir("pods").join("t"));
    let publish = |spec: MountSpec, volume| lab.mounts.publish(spec, volume, &target);
    publish(first.clone(), "v").await.expect("published");
    let view = View {
        include: vec!["f".into()],
        ..View::default()
    };
    let other = MountSpec {
        view,
        ..first.clone()
    };
    for (spec, volume) in [(first.clone(), "w"), (other, "v")] {
        let refused = publish(spec, volume).await;
        assert!(matches!(refused, Err(MountError::OtherVolume { .. })));
    }
    let token = Token::new("new");
    let renewed = MountSpec {
        token: token.clone(),
        ..first
    };
    publish(renewed, "v").await.expect("the same volume");
    assert_eq!(*lab.twin.token.lock().expect("no panic"), token);
    lab.mounts.unpublish("v", &target).await.expect("gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_publish_leaves_nothing() {
    let lab = Lab::new().await;
    let target = lab.dir.path().join("no/parent");
    let failed = lab
        .mounts
        .publish(spec(listing(&[("f", 1)])), "v", &target)
        .await;
    assert!(
        matches!(
            failed,
            Err(MountError::Io {
                action: "create",
                ..
            })
        ),
        "{failed:?}"
    );
    assert_eq!(lab.points(), [] as [PathBuf; 0]);
    assert!(lab.mounts.list().is_empty());
    assert_eq!(
        std::fs::read_dir(lab.dir("mnt"))
            .expect("a directory")
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_volume_is_unpublished_and_its_waiting_reader_fails() {
    let lab = Lab::new().await;
    let (spec, target) = (spec(listing(&[("f", 300_000)])), lab.dir("pods").join("t"));
    lab.mounts
        .publish(spec, "v", &target)
        .await
        .expect("published");
    let file = lab.twin.file("f", 300_000);
    file.hold(0);
    let stuck = reader(&["fault", text(&target.join("f"))]);
    waits(&file).await;
    lab.mounts.unpublish("v", &target).await.expect("gone");
    let ended = stuck.wait_with_output().await.expect("an end");
    assert!(!ended.status.success());
    assert_eq!(lab.points(), [] as [PathBuf; 0]);
    assert_eq!(serving_threads(), 0);
}

/// Without the abort the open file keeps the connection, and its threads, alive.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_open_file_does_not_keep_an_ended_mount() {
    let lab = Lab::new().await;
    let mount = lab.mount(&[("f", 300_000)]).await;
    let (file, path) = (lab.twin.file("f", 300_000), mount.dir().join("f"));
    let mut holder = reader(&["across", text(&path), text(&file.path)]);
    let mut output = BufReader::new(holder.stdout.take().expect("a pipe"));
    output
        .read_line(&mut String::new())
        .await
        .expect("it is open");
    mount.unmount().await;
    assert_eq!(serving_threads(), 0);
    holder.kill().await.expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_mount_names_what_is_wrong_and_notices_a_foreign_umount() {
    let lab = Lab::new().await;
    let at = |dir: PathBuf| {
        let mounts = lab.mounts.clone();
        async move { mounts.mount_at(spec(listing(&[])), &dir).await }
    };
    let file = lab.dir("full").join("file");
    std::fs::write(&file, "").expect("a file");
    let cause = |result: Result<DirectMount, MountError>| result.err().expect("an error");
    assert!(matches!(
        cause(at(lab.dir.path().join("no")).await),
        MountError::Missing { .. }
    ));
    assert!(matches!(
        cause(at(file).await),
        MountError::NotADirectory { .. }
    ));
    assert!(matches!(
        cause(at(lab.dir("full")).await),
        MountError::NotEmpty { .. }
    ));
    let mount = at(lab.dir("d")).await.expect("a mount");
    assert!(matches!(
        cause(at(lab.dir("d")).await),
        MountError::Mounted { .. }
    ));
    let umount = Command::new("umount").arg(mount.dir()).status().await;
    assert!(umount.expect("umount").success());
    mount.ended().await;
    mount.unmount().await;
    assert_eq!(serving_threads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_cleans_dead_mounts_and_their_binds_alone() {
    let lab = Lab::new().await;
    let (live, dead) = (lab.dir("pods").join("live"), lab.dir("pods/dead"));
    let (below, lost) = (lab.dir("mnt/0123456789abcdef"), lab.dir("pods/lost"));
    let spec = spec(listing(&[("f", 1)]));
    lab.mounts
        .publish(spec, "v", &live)
        .await
        .expect("published");
    for dir in [&below, &lost] {
        let device = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse");
        let device = device.expect("a device");
        syscalls::mount_fuse(&device, dir, 4096).expect("mounted");
        if dir == &below {
            syscalls::bind(&below, &dead).expect("bound");
        }
    }
    let recorded = vec![live.clone(), lost.clone()];
    let mut cleaned = lab.mounts.recover(recorded).await.expect("recovered");
    cleaned.sort();
    assert_eq!(cleaned, [dead, lost]);
    assert!(!below.exists());
    let file = lab.twin.file("f", 1);
    done(reader(&["same", text(&live.join("f")), text(&file.path)])).await;
    lab.mounts.unpublish("v", &live).await.expect("gone");
    assert_eq!(lab.points(), [] as [PathBuf; 0]);
}
