//! The swarm on hosts of its own: how long a file takes to reach every node, and what that costs.
//!
//! Every process lives in a network namespace behind its own link. Groups: `shaped` (links of 20 Mbit/s, the hub
//! as fast as one or ten times slower, against one curl over such a link) and `open` (links as fast as the
//! machine). The clock runs from the first publish to the last verified byte on the last node. One JSON line a
//! run, and one a process.

use model_p2p::store::{bytes_of, keys_on_disk};
use model_p2p::testing::cluster::{Cluster, HubProcess, Node, Process, Seed};
use model_p2p::testing::nets::Nets;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const REPO: &str = "big/pattern";
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// One run.
#[derive(Clone, Copy)]
struct Plan {
    name: &'static str,
    nodes: usize,
    size: u64,
    /// Of every link, in Mbit/s.
    link: Option<u64>,
    /// Of the hub's link, where it is another.
    hub_link: Option<u64>,
}

fn plans(group: &str) -> Vec<Plan> {
    let shaped = |name, size, hub_link| Plan {
        name,
        nodes: 20,
        size,
        link: Some(20),
        hub_link,
    };
    let open = |nodes| Plan {
        name: "open",
        nodes,
        size: 1024 * MIB,
        link: None,
        hub_link: None,
    };
    match group {
        "shaped" => vec![
            shaped("hub as fast as a link", 128 * MIB, None),
            shaped("hub ten times slower", 32 * MIB, Some(2)),
        ],
        "open" => [1, 2, 3, 8].map(open).to_vec(),
        "ratio" => vec![open(8); 20],
        "all" => ["shaped", "open"].into_iter().flat_map(plans).collect(),
        _ => Vec::new(),
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let group = args.next().unwrap_or_else(|| "all".into());
    let number: Option<usize> = args.next().and_then(|number| number.parse().ok());
    if plans(&group).is_empty() {
        eprintln!("usage: swarmbench [shaped|open|ratio|all] [NUMBER OF ONE RUN]");
        return ExitCode::from(2);
    }
    let Some(number) = number else {
        // Each run in a network of its own, so that nothing of one is left in the next.
        let ended = (0..plans(&group).len()).map(|number| in_own_network(&group, number));
        return if ended.fold(true, |fine, one| fine & one) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(plans(&group)[number]));
    ExitCode::SUCCESS
}

fn in_own_network(group: &str, number: usize) -> bool {
    let exe = std::env::current_exe().expect("this program");
    let tcp = Path::new("/proc/sys/net/ipv4");
    let known = std::fs::read(tcp.join("tcp_available_congestion_control")).unwrap_or_default();
    let _ = std::fs::write(tcp.join("tcp_allowed_congestion_control"), known);
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(exe)
        .args([group, &number.to_string()])
        .status();
    status.is_ok_and(|status| status.success())
}

/// Memory that holds every cache, so that no disk is measured.
fn folder() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("swarmbench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&dir)
        .status();
    assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs");
    dir
}

async fn run(plan: Plan) {
    let dir = folder();
    let mut cluster = Cluster::new(&dir, &Cluster::bin_dir()).expect("a folder");
    let nets = Nets::new(plan.link);
    cluster.nets = Some(nets);
    let hub = cluster
        .hub(&[
            "--pattern".into(),
            format!("{REPO}:model.bin={}", plan.size),
        ])
        .await;
    if let Some(nets) = &cluster.nets {
        nets.shape(HUB, plan.hub_link);
    }
    let bound = plan.link.map(|_| curl(&cluster, &hub));
    let seed = cluster.seed(&hub, &[]).await;
    let mut nodes = Vec::new();
    for number in 0..plan.nodes {
        nodes.push(
            cluster
                .node(&format!("node-{number}"), &seed, &["--cache-size", "4GiB"])
                .await,
        );
    }
    hub.reset().await;
    let idle: Vec<f64> = nodes.iter().map(|node| resident(&node.process)).collect();
    let (hub_before, seed_before) = (hub.process.usage().0, seed.process.usage().0);
    let before: Vec<f64> = nodes.iter().map(|node| node.process.usage().0).collect();
    let seconds = makespan(&nodes, plan.size).await;
    let cost = hub.cost(REPO).await;
    let gib = plan.size as f64 / (1024 * MIB) as f64;
    let cpu: Vec<f64> = nodes
        .iter()
        .zip(&before)
        .map(|(node, before)| (node.process.usage().0 - before) / gib)
        .collect();
    let peak = nodes
        .iter()
        .map(|node| node.process.usage().1)
        .max()
        .unwrap_or_default();
    println!(
        "{}",
        json!({
            "run": plan.name, "nodes": plan.nodes, "mib": plan.size / MIB, "seconds": seconds,
            "curl_seconds": bound, "over_bound": bound.map(|bound| seconds / bound),
            "origin_ratio": cost.given as f64 / cost.size as f64, "hub_requests": cost.requests,
            "node_cpu_s_per_gib": median(cpu), "seed_cpu_s_per_gib": (seed.process.usage().0 - seed_before) / gib,
            "hub_cpu_s": hub.process.usage().0 - hub_before,
            "node_peak_mb": peak as f64 / 1e6, "node_idle_mb": median(idle), "seed_peak_mb": seed.process.usage().1 as f64 / 1e6,
        })
    );
    tell_each(&nodes, &seed);
    drop((nodes, seed, hub));
    drop(cluster);
    let _ = Command::new("umount").arg("--lazy").arg(&dir).status();
    let _ = std::fs::remove_dir(&dir);
}

fn tell_each(nodes: &[Node], seed: &Seed) {
    let processes = nodes
        .iter()
        .map(|node| &node.process)
        .chain([&seed.process]);
    for process in processes {
        let (cpu, peak) = process.usage();
        println!(
            "{}",
            json!({"process": process.name, "cpu_s": cpu, "peak_mb": peak as f64 / 1e6})
        );
    }
}

/// The seconds that one curl on a host of its own takes for the file.
fn curl(cluster: &Cluster, hub: &HubProcess) -> f64 {
    let nets = cluster.nets.as_ref().expect("hosts");
    let enter = nets.host(Ipv4Addr::new(10, 77, 0, 250));
    let url = format!("{}/{REPO}/resolve/main/model.bin", hub.url);
    let started = Instant::now();
    let status = Command::new(&enter[0])
        .args(&enter[1..])
        .args(["curl", "-sSfL", "-o", "/dev/null", &url])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "curl");
    started.elapsed().as_secs_f64()
}

/// From the first publish until every node has the whole file.
async fn makespan(nodes: &[Node], size: u64) -> f64 {
    let started = Instant::now();
    let published = nodes.iter().map(|node| async move {
        let target = node.target("pod");
        let attributes = [("model", "hf://big/pattern"), ("prefetch", "all")];
        let kubelet = node.kubelet().await;
        kubelet
            .publish_inline("csi-pod", &attributes, None, &target)
            .await
            .expect("a volume");
    });
    futures::future::join_all(published).await;
    for node in nodes {
        while verified(&node.dir.join("cache")) < size {
            assert!(
                started.elapsed() < Duration::from_secs(900),
                "{}",
                node.process.log_text()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    started.elapsed().as_secs_f64()
}

/// The bytes that a cache's maps say are here: a piece is hashed before its bit is set.
fn verified(cache: &Path) -> u64 {
    keys_on_disk(cache)
        .into_iter()
        .map(|key| bytes_of(cache, key))
        .sum()
}

/// Resident bytes now, in MB.
fn resident(process: &Process) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
