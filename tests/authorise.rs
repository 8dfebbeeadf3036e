//! Who gets which bytes, in real processes: hub double, seed, nodes, kubelet's calls.
//!
//! Needs root and /dev/fuse. The hub counts requests and bytes; nothing is timed.
#![cfg(feature = "testing")]

use model_p2p::testing::cluster::{Cluster, HubProcess, Node, Seed};
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
/// Above the size from which complete files are read by the kernel, and no multiple of a piece.
const SIZE: u64 = 20 * MIB + 77;
const GOOD: &str = "hf_let_in";

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

async fn lab(hub_args: &str, seed_args: &[&str]) -> Lab {
    lab_in(cluster(), hub_args, seed_args).await
}

async fn lab_in(mut cluster: Cluster, hub_args: &str, seed_args: &[&str]) -> Lab {
    let args: Vec<String> = hub_args
        .replace("SIZE", &SIZE.to_string())
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let hub = cluster.hub(&args).await;
    let seed = cluster.seed(&hub, seed_args).await;
    let node = cluster.node("node-1", &seed, &[]).await;
    Lab {
        node,
        seed,
        hub,
        cluster,
    }
}

async fn publish(
    node: &Node,
    pod: &str,
    model: &str,
    token: Option<&str>,
) -> Result<PathBuf, Status> {
    let (volume, target) = (format!("csi-{pod}"), node.target(pod));
    let kubelet = node.kubelet().await;
    let attributes = [("model", model)];
    kubelet
        .publish_inline(&volume, &attributes, token, &target)
        .await
        .map(|()| target)
}

/// Reads a pattern in a process of its own; true when every byte is right.
fn reads(file: &Path) -> bool {
    let status = Command::new(Cluster::bin_dir().join("reader"))
        .arg("seq")
        .arg(file)
        .args(["--pattern", "model.bin"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    status.expect("the reader program").success()
}

fn errno(file: &Path) -> Option<i32> {
    let read = std::fs::read(file).map(|bytes| bytes.len());
    read.expect_err("refused").raw_os_error()
}

/// Digests of private models are public. A repository that lists one as its own was once given the bytes that
/// the cache held through their owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_states_a_private_files_digest_gets_an_error_and_a_true_twin_costs_no_byte()
 {
    let mut lab = lab(
        "--token hf_let_in --private owner/model --pattern owner/model:model.bin=SIZE
         --pattern evil/model:stolen.bin=SIZE --claim evil/model:stolen.bin=owner/model:model.bin
         --pattern twin/model:model.bin=SIZE",
        &[],
    )
    .await;
    let owner = publish(&lab.node, "owner", "hf://owner/model", Some(GOOD)).await;
    let owner = owner.expect("published").join("model.bin");
    assert!(reads(&owner));
    let other = lab.cluster.node("node-2", &lab.seed, &[]).await;
    for node in [&lab.node, &other] {
        let evil = publish(node, "evil", "hf://evil/model", None).await;
        let stolen = evil.expect("published").join("stolen.bin");
        assert_eq!(errno(&stolen), Some(nix::libc::EIO));
        assert_eq!(errno(&stolen), Some(nix::libc::EIO), "and again");
    }
    let twin = publish(&lab.node, "twin", "hf://twin/model", None).await;
    assert!(reads(&twin.expect("published").join("model.bin")));
    assert_eq!(lab.hub.cost("twin/model").await.given, 0);
    assert!(reads(&owner), "nothing was revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_seed_down_what_is_pinned_and_public_is_published_and_nothing_else() {
    let mut lab = lab(
        "--token hf_let_in --private owner/model --pattern owner/model:model.bin=SIZE
         --pattern open/model:model.bin=SIZE",
        &[],
    )
    .await;
    let open = publish(&lab.node, "open", "hf://open/model", None).await;
    let owner = publish(&lab.node, "owner", "hf://owner/model", Some(GOOD)).await;
    for dir in [open, owner] {
        assert!(reads(&dir.expect("published").join("model.bin")));
    }
    let commit = lab.hub.commit("open/model").await;
    lab.seed.process.kill();
    lab.node.process.terminate().await;
    lab.node.process.restart().await;
    let node = &lab.node;
    let open = publish(node, "open", "hf://open/model", None).await;
    assert!(reads(&open.expect("its pin is recorded").join("model.bin")));
    if node.process.metric("mounts", "mode=\"passthrough\"").await > 0 {
        let by_us = node.process.metric("read_bytes_total", "").await;
        assert_eq!(
            by_us, 0,
            "the kernel reads what was proven before the restart"
        );
    }
    let at_commit = format!("hf://open/model@{commit}");
    let new = publish(node, "new", &at_commit, Some(GOOD)).await;
    assert!(reads(
        &new.expect("a commit is its own pin").join("model.bin")
    ));
    for (pod, model) in [
        ("owner", "hf://owner/model"),
        ("later", "hf://open/model@main"),
    ] {
        let refused = publish(node, pod, model, Some(GOOD)).await;
        assert_eq!(refused.expect_err(pod).code(), Code::Unavailable, "{pod}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_token_is_refused_gets_nothing_of_a_model_that_is_mounted_beside_it() {
    let lab = lab(
        "--token hf_let_in --stranger hf_other --gated gated/model --pattern gated/model:model.bin=SIZE",
        &[],
    )
    .await;
    let (node, model) = (&lab.node, "hf://gated/model");
    let first = publish(node, "first", model, Some(GOOD)).await;
    let first = first.expect("let in").join("model.bin");
    assert!(reads(&first));
    let before = lab.hub.cost("gated/model").await.given;
    for (pod, token, code) in [
        ("other", Some("hf_other"), Code::PermissionDenied),
        ("wrong", Some("hf_wrong"), Code::Unauthenticated),
        ("none", None, Code::Unauthenticated),
    ] {
        let refused = publish(node, pod, model, token).await;
        assert_eq!(refused.expect_err(pod).code(), code, "{pod}");
        assert!(!node.target(pod).exists(), "{pod}: nothing is left behind");
    }
    assert!(reads(&first), "the first reads on");
    assert_eq!(lab.hub.cost("gated/model").await.given, before);
    let asked = lab
        .seed
        .process
        .metric("origin_requests_total", "operation=\"authorize\"");
    assert!(asked.await >= 3, "each token was asked for");
}

/// The token of the first opener was once used as long as the file stayed open.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_reads_on_in_files_that_were_open_before() {
    let lab = lab(
        "--token hf_old --token hf_new --gated gated/model --pattern gated/model:model.bin=SIZE",
        &[],
    )
    .await;
    let dir = publish(&lab.node, "pod", "hf://gated/model", Some("hf_old")).await;
    let file = std::fs::File::open(dir.expect("published").join("model.bin")).expect("open");
    let mut byte = [0; 1];
    file.read_exact_at(&mut byte, 0).expect("the old token");
    lab.hub.revoke("hf_old").await;
    let renewed = publish(&lab.node, "pod", "hf://gated/model", Some("hf_new")).await;
    renewed.expect("a republish");
    // What the old token had signed is refused from now on.
    lab.hub
        .fault(&json!({"on": "cdn", "times": 1, "kind": {"status": 403}}))
        .await;
    let read = tokio::task::spawn_blocking(move || file.read_exact_at(&mut byte, 13 * MIB));
    read.await.expect("no panic").expect("the new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_neither_on_disk_nor_in_the_most_talkative_log() {
    let mut cluster = cluster();
    cluster.env.push(("RUST_LOG".into(), "trace".into()));
    let lab = lab_in(
        cluster,
        "--token hf_let_in --gated gated/model --pattern gated/model:model.bin=SIZE
         --pattern gated/model:config.json=99",
        &["--auth-grace", "3600"],
    )
    .await;
    let dir = publish(&lab.node, "pod", "hf://gated/model", Some(GOOD)).await;
    assert!(reads(&dir.expect("published").join("model.bin")));
    lab.node.unpublish("pod").await;
    let mut lab = lab;
    lab.node.process.terminate().await;
    lab.seed.process.terminate().await;
    let mut folders = vec![lab.cluster.dir.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            files += 1;
            let found = bytes
                .windows(GOOD.len())
                .any(|part| part == GOOD.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(files > 5, "index, content and logs were looked through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_leaves_its_volume_or_names_a_thing_twice_is_refused_at_publish() {
    let lab = lab(
        "--pattern evil/dots:../../x.bin=9 --pattern evil/root:/etc/x.bin=9
         --pattern evil/twice:a=9 --pattern evil/twice:a/b=9",
        &[],
    )
    .await;
    for repo in ["evil/dots", "evil/root", "evil/twice"] {
        let refused = publish(&lab.node, "pod", &format!("hf://{repo}"), None).await;
        let refused = refused.expect_err(repo);
        assert!(
            matches!(
                refused.code(),
                Code::InvalidArgument | Code::FailedPrecondition
            ),
            "{repo}: {refused:?}"
        );
        assert!(!lab.node.target("pod").exists(), "{repo}");
    }
}
