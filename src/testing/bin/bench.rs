//! `make bench`: the figures of the README, each as a ratio to what it is measured against in the same run.
//!
//! Runs in a network namespace of its own with cubic. Prints a table, then one JSON line a figure. Rounds
//! interleave the two sides; medians are of the rounds' ratios. Machines differ and are noisy: ratios and
//! CPU-seconds per GB travel, GB/s do not.

mod plane;
#[path = "bench/swarm.rs"]
mod swarm;

use model_p2p::testing::cluster::{Cluster, HubProcess, Node};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const MIB: u64 = 1 << 20;
/// 3 GiB less a bit.
const SIZE: u64 = 3 * 1024 * MIB - 12_345;
const ROUNDS: usize = 5;

/// One line of the result.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// Against what, where it is a ratio.
    against: &'static str,
}

fn main() -> ExitCode {
    if std::env::var_os("MODEL_P2P_BENCH_NETNS").is_none() {
        return in_own_network();
    }
    model_p2p::memory::settle();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let figures = runtime.block_on(run());
    print(&figures);
    ExitCode::SUCCESS
}

/// Starts itself again where only loopback is, with the congestion control that datacentres use.
fn in_own_network() -> ExitCode {
    let exe = std::env::current_exe().expect("this program");
    // A namespace may only choose among what the machine allows.
    let tcp = Path::new("/proc/sys/net/ipv4");
    let known = std::fs::read(tcp.join("tcp_available_congestion_control")).unwrap_or_default();
    let _ = std::fs::write(tcp.join("tcp_allowed_congestion_control"), known);
    let script =
        "ip link set lo up; sysctl -qw net.ipv4.tcp_congestion_control=cubic; exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env("MODEL_P2P_BENCH_NETNS", "1")
        .status();
    if status.is_ok_and(|status| status.success()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Every group of figures, or the one named behind the tools' folder: `swarm`, `reads` or `plane`.
async fn run() -> Vec<Figure> {
    let only = std::env::args().nth(2);
    let wanted = |group: &str| only.as_deref().is_none_or(|only| only == group);
    let mut figures = Vec::new();
    if wanted("swarm") {
        swarm::simulated(&mut figures);
    }
    if only.as_deref() == Some("swarm") {
        return figures;
    }
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let mut cluster = Cluster::new(&base, &Cluster::bin_dir()).expect("a folder below target/");
    warm_memory(&cluster.dir, 7 << 30);
    let hub = cluster
        .hub(&["--pattern".into(), format!("big/pattern:model.bin={SIZE}")])
        .await;
    if wanted("reads") {
        first_byte(&mut cluster, &mut figures).await;
        reads(&mut cluster, &hub, &mut figures).await;
    }
    if wanted("plane") {
        plane::plane(&base, &mut figures).await;
    }
    figures
}

/// A node that is its own seed, cold and then complete.
async fn reads(cluster: &mut Cluster, hub: &HubProcess, figures: &mut Vec<Figure>) {
    let flag = format!("hf={}", hub.url);
    let node = cluster
        .start_node("node", &["--all-in-one", "--hub", &flag])
        .await;
    let file = node
        .publish("pod", "hf://big/pattern")
        .await
        .join("model.bin");
    cold(&node, hub, &file, figures);
    let native = largest(&node.dir.join("cache/files"));
    // A new lookup after completion finds the file that the kernel serves itself.
    for (state, prepare) in [
        ("warm", None),
        ("cold page cache", Some(drop_page_cache as fn())),
    ] {
        for mode in ["seq", "mmap", "random"] {
            against_native(&node, state, prepare, mode, &file, &native, figures);
        }
    }
}

/// One read's seconds and CPU-seconds, the daemon's included.
struct Read {
    seconds: f64,
    cpu: f64,
    bytes: f64,
}

fn read(node: Option<&Node>, mode: &str, file: &Path) -> Read {
    let before = node.map_or(0.0, |node| node.process.usage().0);
    let output = Command::new(Cluster::bin_dir().join("reader"))
        .arg(mode)
        .arg(file)
        .output()
        .expect("the reader");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let after = node.map_or(0.0, |node| node.process.usage().0);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let number = |name: &str| report[name].as_f64().expect("a number");
    Read {
        seconds: number("seconds"),
        cpu: number("cpu_seconds") + after - before,
        bytes: number("bytes"),
    }
}

/// A virtual machine gets its memory from the host at the first touch, ten times slower than later ones, and
/// some give it back when it has been free for seconds: the touch is done here, not in a measurement.
fn warm_memory(dir: &Path, bytes: u64) {
    let path = dir.join("warm");
    let mut file = std::fs::File::create(&path).expect("a file");
    for _ in 0..bytes / MIB {
        std::io::Write::write_all(&mut file, &[1; MIB as usize]).expect("room");
    }
    std::fs::remove_file(path).expect("our file");
}

/// The first 4 KiB of a cold 3 GiB file through a hub whose every answer takes 100 ms.
async fn first_byte(cluster: &mut Cluster, figures: &mut Vec<Figure>) {
    let pattern = format!("big/pattern:model.bin={SIZE}");
    let args = ["--latency-ms", "100", "--pattern", &pattern].map(str::to_owned);
    let hub = cluster.hub(&args).await;
    let flag = format!("hf={}", hub.url);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let node = cluster
            .start_node(&format!("slow-{round}"), &["--all-in-one", "--hub", &flag])
            .await;
        let file = node
            .publish("pod", "hf://big/pattern")
            .await
            .join("model.bin");
        times.push(read(None, "first", &file).seconds);
    }
    figure(
        figures,
        "first byte, hub answers in 100 ms",
        median(times) * 1e3,
        "ms",
        "",
    );
}

/// From the hub through everything to the reader, against curl in 8 ranges from the same hub.
fn cold(node: &Node, hub: &HubProcess, file: &Path, figures: &mut Vec<Figure>) {
    let read = read(Some(node), "seq", file);
    let rate = read.bytes / read.seconds;
    let curl = curl_ranges(&format!("{}/big/pattern/resolve/main/model.bin", hub.url));
    figure(
        figures,
        "cold through the hub, sequential",
        rate / 1e6,
        "MB/s",
        "",
    );
    figure(
        figures,
        "cold through the hub, sequential",
        rate / curl,
        "ratio",
        "curl, 8 ranges",
    );
    figure(
        figures,
        "cold through the hub, CPU",
        read.cpu / (read.bytes / 1e9),
        "s/GB",
        "",
    );
    figure(
        figures,
        "peak memory after 3 GiB",
        node.process.usage().1 as f64 / 1e6,
        "MB",
        "",
    );
}

fn curl_ranges(url: &str) -> f64 {
    let started = std::time::Instant::now();
    let share = SIZE.div_ceil(8);
    let children: Vec<_> = (0..8)
        .map(|part| format!("{}-{}", part * share, ((part + 1) * share).min(SIZE) - 1))
        .map(|range| {
            let mut curl = Command::new("curl");
            curl.args(["-sSfL", "-o", "/dev/null", "-r", &range, url])
                .spawn()
                .expect("curl")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("curl").success());
    }
    SIZE as f64 / started.elapsed().as_secs_f64()
}

fn against_native(
    node: &Node,
    state: &str,
    prepare: Option<fn()>,
    mode: &str,
    file: &Path,
    native: &Path,
    figures: &mut Vec<Figure>,
) {
    let (mut rates, mut costs, mut native_rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        prepare.inspect(|prepare| prepare());
        let ours = read(Some(node), mode, file);
        prepare.inspect(|prepare| prepare());
        let theirs = read(None, mode, native);
        if round > 0 {
            rates.push(theirs.seconds / ours.seconds);
            costs.push(ours.cpu / theirs.cpu.max(1e-6));
            native_rates.push(theirs.bytes / theirs.seconds / 1e6);
        }
    }
    figure(
        figures,
        &format!("{mode}, {state}, throughput"),
        median(rates),
        "ratio",
        "the native file",
    );
    figure(
        figures,
        &format!("{mode}, {state}, CPU"),
        median(costs),
        "ratio",
        "the native file",
    );
    figure(
        figures,
        &format!("{mode}, {state}, native"),
        median(native_rates),
        "MB/s",
        "",
    );
}

fn drop_page_cache() {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("root may drop caches");
}

/// Bytes per second of iperf3 with four streams on the same address.
fn iperf(host: &str) -> f64 {
    let mut server = Command::new("iperf3")
        .args(["-s", "-1", "--forceflush", "-B", host])
        .stdout(Stdio::piped())
        .spawn()
        .expect("iperf3");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(server.stdout.take().expect("a pipe"));
    while !line.contains("listening") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut out, &mut line).expect("a line") > 0,
            "iperf3 ended"
        );
    }
    let client = Command::new("iperf3")
        .args(["-c", host, "-P", "4", "-t", "2", "-J"])
        .output()
        .expect("iperf3");
    let _ = server.wait();
    let report: Value = serde_json::from_slice(&client.stdout).expect("JSON");
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .expect("a rate")
        / 8.0
}

fn largest(dir: &Path) -> PathBuf {
    let folders = std::fs::read_dir(dir).expect("a folder").flatten();
    let files = folders.flat_map(|folder| {
        std::fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
    });
    files
        .max_by_key(|file| file.metadata().map(|meta| meta.len()).unwrap_or_default())
        .expect("a file")
        .path()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figure(
    figures: &mut Vec<Figure>,
    name: &str,
    value: f64,
    unit: &'static str,
    against: &'static str,
) {
    eprintln!("{name}: {value:.3} {unit} {against}");
    figures.push(Figure {
        name: name.to_owned(),
        value,
        unit,
        against,
    });
}

fn print(figures: &[Figure]) {
    println!("{:<44} {:>10}  {:<6} against", "figure", "value", "unit");
    for figure in figures {
        println!(
            "{:<44} {:>10.3}  {:<6} {}",
            figure.name, figure.value, figure.unit, figure.against
        );
    }
    for figure in figures {
        let line = json!({"figure": figure.name, "value": figure.value, "unit": figure.unit, "against": figure.against});
        println!("{line}");
    }
}
