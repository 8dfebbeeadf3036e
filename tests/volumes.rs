//! Volumes as their owners meet them, in real processes: how they are read, what their pods hear, which hub they
//! come from, and what a damaged state directory does to them.
//!
//! Needs root and /dev/fuse. The hub counts requests and bytes.
#![cfg(feature = "testing")]

use model_p2p::model::{News, PodEvent};
use model_p2p::swarm::events;
use model_p2p::testing::cluster::{CACHE_SIZE, Cluster, HubProcess, Node, Seed};
use model_p2p::testing::kubelet::Kubelet;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// Twenty-one pieces.
const SIZE: u64 = 20 * MIB + 77;
/// A bound for broken programs, not a measure.
const SOON: Duration = Duration::from_secs(60);

struct Lab {
    // Dropped in this order: the node's mounts go before its folder.
    node: Node,
    seed: Seed,
    hub: HubProcess,
    cluster: Cluster,
}

fn cluster() -> Cluster {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Cluster::new(base, &Cluster::bin_dir()).expect("a folder for the cluster")
}

/// A hub with a file for each of these repositories, and a seed and a node behind it.
async fn lab(repos: &[&str], node_args: &[&str]) -> Lab {
    let mut cluster = cluster();
    let hub = cluster.hub(&patterns(repos)).await;
    let seed = cluster.seed(&hub, &[]).await;
    let node = cluster.node("node-1", &seed, node_args).await;
    Lab {
        node,
        seed,
        hub,
        cluster,
    }
}

fn patterns(repos: &[&str]) -> Vec<String> {
    let pattern = |repo: &&str| ["--pattern".into(), format!("{repo}:model.bin={SIZE}")];
    repos.iter().flat_map(pattern).collect()
}

/// Equal files are one file to the cache, whichever repositories they are in.
const OTHER_SIZE: u64 = SIZE + MIB;

/// Publishes inline, for a pod whose uid is its name; the model's file.
async fn publish(node: &Node, pod: &str, attributes: &[(&str, &str)]) -> PathBuf {
    let (volume, target) = (format!("csi-{pod}"), node.target(pod));
    let named = [
        ("csi.storage.k8s.io/pod.name", pod),
        ("csi.storage.k8s.io/pod.namespace", "team"),
        ("csi.storage.k8s.io/pod.uid", pod),
    ];
    let attributes = [attributes, &named].concat();
    let kubelet = node.kubelet().await;
    let published = kubelet.publish_inline(&volume, &attributes, None, &target);
    published.await.expect("published");
    target.join("model.bin")
}

/// Reads one byte in a thread of its own; the errno, if it fails.
fn byte_at(file: &Path, at: u64) -> tokio::task::JoinHandle<Option<i32>> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let read = std::fs::File::open(file).and_then(|file| file.read_exact_at(&mut [0], at));
        read.err().and_then(|error| error.raw_os_error())
    })
}

fn fuse_mounts(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        Path::new(point).starts_with(dir) && line.contains("fuse.model-p2p")
    };
    mounts.lines().filter(ours).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_volume_reads_nothing_of_a_file_before_all_of_it_is_confirmed() {
    let mut cluster = cluster();
    let strict = [
        "--pattern".into(),
        format!("a/strict:model.bin={OTHER_SIZE}"),
    ];
    let args = [patterns(&["a/piece"]), strict.to_vec()].concat();
    let hub = cluster.hub(&args).await;
    let seed = cluster.seed(&hub, &[]).await;
    let node = cluster.node("node-1", &seed, &[]).await;
    let (piece, strict) = (("model", "hf://a/piece"), ("model", "hf://a/strict"));
    let demand = ("prefetch", "demand");
    let file = publish(&node, "piece", &[piece, demand]).await;
    assert_eq!(byte_at(&file, 5 * MIB).await.expect("a read"), None);
    assert!(hub.cost("a/piece").await.given < SIZE / 2);
    let strictly = [strict, demand, ("verify", "strict")];
    let file = publish(&node, "strict", &strictly).await;
    assert_eq!(byte_at(&file, 5 * MIB).await.expect("a read"), None);
    assert_eq!(hub.cost("a/strict").await.given, OTHER_SIZE);
    // The same revision, read otherwise, is another mount; its bytes are here.
    publish(&node, "again", &[strict, demand]).await;
    assert_eq!(fuse_mounts(&node.dir), 6, "three mounts and their binds");
    // A byte of the last piece is wrong: piece by piece the others would be served.
    let wrong =
        json!({"on": "cdn", "path": "model", "skip": 0, "times": 0, "kind": {"flip": SIZE - 1}});
    let hub = cluster.hub(&patterns(&["a/wrong"])).await;
    hub.fault(&wrong).await;
    let hub_flag = format!("hf={}", hub.url);
    let all_in_one = ["--all-in-one", "--hub", &hub_flag];
    let other = cluster.start_node("other", &all_in_one).await;
    let strictly = [("model", "hf://a/wrong"), demand, ("verify", "strict")];
    let file = publish(&other, "wrong", &strictly).await;
    let refused = byte_at(&file, 0).await.expect("a read");
    assert_eq!(refused, Some(nix::libc::EIO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_as_long_as_its_own_volume_says() {
    let mut lab = lab(&["a/short", "a/long"], &["--read-timeout", "600"]).await;
    let short = [("model", "hf://a/short"), ("readTimeout", "1s")];
    let short = publish(&lab.node, "short", &short).await;
    let long = publish(&lab.node, "long", &[("model", "hf://a/long")]).await;
    lab.seed.process.kill();
    let mut patient = byte_at(&long, 0);
    let ended = tokio::time::timeout(SOON, byte_at(&short, 0)).await;
    let ended = ended.expect("ends long before the node's own time");
    assert_eq!(ended.expect("a read"), Some(nix::libc::EIO));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut patient).await;
    assert!(early.is_err(), "the other volume's reader waits on");
    lab.node.unpublish("long").await;
    patient.await.expect("freed with its mount");
}

fn listen(seed: &Seed) -> Receiver<PodEvent> {
    let seeds = std::slice::from_ref(&seed.control);
    events::follow(seeds, None, CancellationToken::new()).expect("an address")
}

/// What a pod hears next of a kind.
async fn heard(events: &mut Receiver<PodEvent>, pod: &str, news: News) -> String {
    let heard = async {
        loop {
            let event = events.recv().await.expect("a seed");
            if (event.pod.uid.as_str(), event.news) == (pod, news) {
                return event.text;
            }
        }
    };
    let heard = tokio::time::timeout(SOON, heard).await;
    heard.unwrap_or_else(|_| panic!("{pod} never heard {news:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_hears_when_all_of_its_model_is_here_and_while_nobody_gives_it() {
    let lab = lab(&["a/whole", "a/read", "a/stuck"], &[]).await;
    let mut events = listen(&lab.seed);
    let all = [("model", "hf://a/whole"), ("prefetch", "all")];
    publish(&lab.node, "whole", &all).await;
    let text = heard(&mut events, "whole", News::Complete).await;
    let told = format!("is complete on this node: {SIZE} bytes in 1 files");
    assert!(
        text.starts_with("hf://a/whole@") && text.ends_with(&told),
        "{text}"
    );
    // Completed by its reader.
    let demand = [("model", "hf://a/read"), ("prefetch", "demand")];
    let file = publish(&lab.node, "read", &demand).await;
    std::fs::read(file).expect("a reader");
    heard(&mut events, "read", News::Complete).await;
    let limited = json!({"on": "resolve", "path": "model", "skip": 0, "times": 0,
        "kind": {"limited": {"reset_s": 5}}});
    let file = publish(&lab.node, "stuck", &[("model", "hf://a/stuck")]).await;
    lab.hub.fault(&limited).await;
    let reader = byte_at(&file, 0);
    let text = heard(&mut events, "stuck", News::Degraded).await;
    assert!(
        text.starts_with("hf://a/stuck@") && text.contains("model.bin"),
        "{text}"
    );
    assert!(text.contains("patience"), "the hub's own cause: {text}");
    let target = lab.node.target("stuck");
    let health = lab.node.kubelet().await.health("csi-stuck", &target).await;
    assert_eq!(health.expect("an answer"), ["NoSource"]);
    lab.node.unpublish("stuck").await;
    reader.await.expect("freed with its mount");
}

/// A full cache serves its readers, and their pods hear that nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_hears_that_its_nodes_cache_is_full() {
    let lab = lab(&["a/big"], &["--cache-size", "4MiB"]).await;
    let mut events = listen(&lab.seed);
    let file = publish(&lab.node, "big", &[("model", "hf://a/big")]).await;
    for piece in 0..SIZE / MIB {
        assert_eq!(byte_at(&file, piece * MIB).await.expect("a read"), None);
    }
    let text = heard(&mut events, "big", News::Degraded).await;
    assert!(text.contains("raise --cache-size"), "{text}");
    let storage = lab.node.kubelet().await.storage_health().await;
    assert_eq!(storage.expect("an answer"), ["NoRoom"]);
}

/// The same repository at two hubs, with other content: from the class to the reader they are never mixed.
#[tokio::test(flavor = "multi_thread")]
async fn a_class_may_name_another_hub_that_the_seeds_allow() {
    let mut cluster = cluster();
    let hub = cluster.hub(&patterns(&["a/model"])).await;
    let other = [
        "--pattern".into(),
        format!("a/model:model.bin={}", SIZE / 2),
    ];
    let other = cluster.hub(&other).await;
    let seed = cluster.seed(&hub, &["--allow-endpoint", &other.url]).await;
    let node = cluster.node("node-1", &seed, &[]).await;
    let (_controller, socket) = cluster.controller(&seed, &[]).await;
    let provisioner = Kubelet::connect(&socket).await.expect("a connection");
    let model = ("model", "hf://a/model");
    let mut sizes = Vec::new();
    for (name, class) in [
        ("own", vec![model]),
        ("other", vec![model, ("endpoint", &other.url)]),
    ] {
        let (id, context) = provisioner.create(name, &class).await.expect("a volume");
        assert_eq!(context["model"], "hf://a/model");
        let target = node.target(name);
        let kubelet = node.kubelet().await;
        let published = kubelet.publish(&id, context, None, &target).await;
        published.expect("published");
        sizes.push(
            std::fs::read(target.join("model.bin"))
                .expect("bytes")
                .len() as u64,
        );
    }
    assert_eq!(sizes, [SIZE, SIZE / 2]);
    assert_eq!(hub.cost("a/model").await.given, SIZE);
    assert_eq!(other.cost("a/model").await.given, SIZE / 2);
    for (endpoint, code, words) in [
        (
            "http://198.51.100.7",
            Code::PermissionDenied,
            "--allow-endpoint http://198.51.100.7",
        ),
        ("http://127.0.0.1:9", Code::InvalidArgument, "loopback"),
        (
            "http://169.254.169.254",
            Code::InvalidArgument,
            "`endpoint`",
        ),
    ] {
        let class = [model, ("endpoint", endpoint)];
        let refused = provisioner.create(endpoint, &class).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let inline = [model, ("endpoint", other.url.as_str())];
    let target = node.target("inline");
    let kubelet = node.kubelet().await;
    let refused = kubelet.publish_inline("csi-inline", &inline, None, &target);
    assert_eq!(
        refused.await.expect_err("refused").code(),
        Code::InvalidArgument
    );
}

/// A start that is expected to fail, with no shell's variables.
fn run(cluster: &Cluster, args: &[&str]) -> (Output, String) {
    let output = Command::new(cluster.program())
        .args(args)
        .args(["--cache-size", CACHE_SIZE])
        .env("HOME", &cluster.dir)
        .output()
        .expect("the program");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_default().to_owned();
    (output, last)
}

/// Overwrites an index's database, as a failing disk might.
fn damage(cache: &Path) {
    let db = cache.join("index/db");
    let len = std::fs::metadata(&db).expect("a database").len() as usize;
    std::fs::write(&db, vec![0x5a; len]).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_stops_a_seed_with_its_remedy_and_a_node_begins_a_new_one() {
    let mut lab = lab(&["a/model"], &[]).await;
    let model = [("model", "hf://a/model")];
    let file = publish(&lab.node, "pod", &model).await;
    let before = std::fs::read(&file).expect("bytes");
    lab.node.process.kill();
    let cache = lab.node.dir.join("cache");
    damage(&cache);
    lab.node.process.restart().await;
    assert!(lab.node.process.log_text().contains("index.damaged"));
    assert!(cache.join("index.damaged").is_dir());
    // kubelet repeats its publish, as it does each minute.
    publish(&lab.node, "pod", &model).await;
    assert!(std::fs::read(&file).expect("bytes") == before);
    assert_eq!(
        lab.hub.cost("a/model").await.given,
        SIZE,
        "the pieces stayed"
    );
    lab.node.unpublish("pod").await;
    assert_eq!(fuse_mounts(&lab.node.dir), 0);
    lab.seed.process.kill();
    damage(&lab.seed.cache);
    let dir = lab.seed.cache.display().to_string();
    let (output, last) = run(
        &lab.cluster,
        &[
            "seed",
            "--insecure",
            "--cache-dir",
            &dir,
            "--http",
            "127.0.0.1:0",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{last}");
    assert!(
        last.contains("index") && last.contains("is damaged"),
        "{last}"
    );
    assert!(last.contains("put a copy back"), "{last}");
    assert!(!lab.seed.cache.join("index.damaged").exists(), "untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_is_read_only_ends_the_start_with_its_remedy() {
    let cluster = cluster();
    let socket = format!("unix://{}/csi.sock", cluster.dir.display());
    for (role, own) in [
        ("seed", vec!["--insecure"]),
        ("node", vec!["--all-in-one", "--csi-endpoint", &socket]),
    ] {
        // Once empty, once with the state of an earlier process.
        for earlier in [false, true] {
            let dir = cluster.dir.join(format!("{role}-{earlier}"));
            std::fs::create_dir(&dir).expect("a folder");
            if earlier {
                let config = model_p2p::store::StoreConfig {
                    dir: dir.clone(),
                    limit_bytes: Some(MIB),
                };
                model_p2p::store::Store::open(&config).expect("a store");
            }
            let none = None::<&Path>;
            mount(Some(&dir), &dir, none, MsFlags::MS_BIND, none).expect("a mount");
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &dir, none, read_only, none).expect("a mount");
            let text = dir.display().to_string();
            let fixed = [role, "--cache-dir", &text, "--http", "127.0.0.1:0"];
            let (output, last) = run(&cluster, &[&fixed, &*own].concat());
            umount2(&dir, MntFlags::empty()).expect("unmounted");
            assert_eq!(output.status.code(), Some(1), "{role}: {last}");
            assert!(last.contains(&text) && last.contains("Read-only"), "{last}");
            assert!(last.contains("--cache-dir"), "{role}: {last}");
        }
    }
}

/// Checklist item 14 with everything behind the node gone.
#[tokio::test(flavor = "multi_thread")]
async fn statistics_match_the_manifest_and_come_at_once_with_hub_and_seed_gone() {
    let mut lab = lab(&["a/model"], &[]).await;
    publish(&lab.node, "pod", &[("model", "hf://a/model")]).await;
    lab.seed.process.kill();
    lab.hub.process.kill();
    let (kubelet, target) = (lab.node.kubelet().await, lab.node.target("pod"));
    let asked = Instant::now();
    let stats = kubelet.stats("csi-pod", &target).await.expect("statistics");
    let waited = asked.elapsed();
    assert_eq!(stats, (SIZE as i64, 1));
    assert!(waited < Duration::from_millis(100), "{waited:?}");
}

/// Checklist item 12 with a real mount behind it.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_publishes_at_once_make_one_mount() {
    let lab = lab(&["a/model"], &[]).await;
    let (kubelet, target) = (lab.node.kubelet().await, lab.node.target("pod"));
    let model = [("model", "hf://a/model")];
    let calls = (0..50).map(|_| kubelet.publish_inline("csi-pod", &model, None, &target));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.is_ok() || answer.is_err_and(|status| status.code() == Code::Aborted));
    }
    assert_eq!(fuse_mounts(&lab.node.dir), 2, "one and its bind");
    let calls = (0..50).map(|_| kubelet.unpublish("csi-pod", &target));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.is_ok() || answer.is_err_and(|status| status.code() == Code::Aborted));
    }
    assert_eq!(fuse_mounts(&lab.node.dir), 0);
    assert!(!target.exists());
}

/// Open descriptors, threads and resident MiB.
fn footprint(pid: u32) -> (usize, usize, u64) {
    let count = |what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/{what}"));
        entries.expect("a live process").count()
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    (count("fd"), count("task"), kib.expect("a number") / 1024)
}

/// Checklist item 41: a hundred volumes ten times over; fewer where time is short.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_volumes_come_and_go_and_leave_nothing() {
    let is_slow = std::env::var("MODEL_P2P_SLOW").is_ok_and(|slow| slow == "1");
    let (volumes, rounds) = if is_slow { (100, 10) } else { (20, 4) };
    let lab = lab(&["a/model"], &[]).await;
    let mut base = None;
    for round in 0..rounds {
        let pods: Vec<String> = (0..volumes).map(|pod| format!("pod-{pod}")).collect();
        for pod in &pods {
            // Each a view of its own, so each a mount of its own.
            let view = [("model", "hf://a/model"), ("exclude", pod.as_str())];
            let file = publish(&lab.node, pod, &view).await;
            assert_eq!(file.metadata().expect("a file").len(), SIZE);
        }
        assert_eq!(fuse_mounts(&lab.node.dir), 2 * volumes);
        for pod in &pods {
            lab.node.unpublish(pod).await;
            assert!(!lab.node.target(pod).exists());
        }
        assert_eq!(fuse_mounts(&lab.node.dir), 0);
        let (fds, threads, mib) = footprint(lab.node.process.pid());
        let base = base.get_or_insert((fds, threads, mib));
        assert!(
            fds <= base.0 + 4,
            "round {round}: {fds} descriptors, {} at first",
            base.0
        );
        // The runtime's own may come and go.
        assert!(
            threads <= base.1 + 16,
            "round {round}: {threads}, {} at first",
            base.1
        );
        assert!(
            mib <= base.2 + 16,
            "round {round}: {mib} MiB, {} at first",
            base.2
        );
    }
    let connections = lab.node.dir.join("mnt");
    assert_eq!(std::fs::read_dir(connections).expect("a folder").count(), 0);
}
