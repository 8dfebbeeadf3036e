//! `make demo`: a real model, a local hub, a seed and three nodes; then a fourth node that comes later.
//!
//! Every node publishes the model over its CSI socket as a kubelet does, and an unmodified reader loads it
//! with safetensors. The table says what each node saw; the last lines what the hub saw. Exits non-zero if a
//! byte is wrong, if the hub gave a byte twice, or if more nodes cost it more.

use model_p2p::testing::cluster::{Cluster, Cost, HubProcess, Loader, Node, Seed, Tools};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const REPO: &str = "gt/all-MiniLM-L6-v2-sharded";

/// What one node's user saw.
struct Seen {
    name: String,
    mount_seconds: f64,
    report: Value,
    from_peers: u64,
    from_seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(tools) = std::env::args().nth(1) else {
        eprintln!("usage: demo TOOLS-DIR (`make demo` calls it)");
        return ExitCode::from(2);
    };
    let tools = Tools::new(Path::new(&tools));
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/demo");
    let problems = run(&tools, &base).await;
    for problem in &problems {
        eprintln!("demo: {problem}");
    }
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(tools: &Tools, base: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let original = {
        let mut reader = Loader::start(tools, &tools.sample("sharded"));
        reader.go();
        reader.report()
    };
    println!("one node alone, to know what it costs the hub");
    let mut alone = World::start(tools, base).await;
    let seen = alone.load(tools, &["alone"]).await;
    let cost_alone = alone.hub_cost().await;
    check(&seen, &original, &mut problems);
    drop(alone);

    println!("three nodes, empty caches, all at the same moment; then a fourth\n");
    let mut world = World::start(tools, base).await;
    let mut seen = world.load(tools, &["node-1", "node-2", "node-3"]).await;
    let cost_three = world.hub_cost().await;
    seen.extend(world.load(tools, &["node-4"]).await);
    let cost_four = world.hub_cost().await;
    check(&seen, &original, &mut problems);
    print_table(&seen);

    println!();
    println!(
        "hub: one node cost {} requests and {:.3} of the model's bytes",
        cost_alone.requests,
        ratio(&cost_alone)
    );
    println!(
        "hub: three nodes cost {} requests and {:.3} of the model's bytes",
        cost_three.requests,
        ratio(&cost_three)
    );
    println!(
        "hub: the fourth node cost {} requests more",
        cost_four.requests - cost_three.requests
    );
    if ratio(&cost_three) != 1.0 || ratio(&cost_alone) != 1.0 {
        problems.push(format!(
            "the hub gave {:.3} of the model, not 1.000",
            ratio(&cost_three)
        ));
    }
    if cost_three.requests as f64 > cost_alone.requests as f64 * 1.1 {
        problems.push(format!(
            "three nodes cost {} requests, one node {}",
            cost_three.requests, cost_alone.requests
        ));
    }
    if cost_four.requests != cost_three.requests {
        problems.push("the fourth node cost the hub requests".into());
    }
    problems
}

/// A hub, a seed, and nodes as they come.
struct World {
    cluster: Cluster,
    hub: HubProcess,
    seed: Seed,
    nodes: Vec<Node>,
}

/// Bytes given over bytes of the model.
fn ratio(cost: &Cost) -> f64 {
    cost.given as f64 / cost.size as f64
}

impl World {
    async fn start(tools: &Tools, base: &Path) -> World {
        let mut cluster = Cluster::new(base, &Cluster::bin_dir()).expect("a folder below target/");
        let repo = format!("{REPO}={}", tools.sample("sharded").display());
        let hub = cluster.hub(&["--repo".into(), repo]).await;
        let seed = cluster.seed(&hub, &[]).await;
        World {
            cluster,
            hub,
            seed,
            nodes: Vec::new(),
        }
    }

    /// Starts nodes, publishes the model on each, and loads it on all at the same moment.
    async fn load(&mut self, tools: &Tools, names: &[&str]) -> Vec<Seen> {
        let first = self.nodes.len();
        for name in names {
            self.nodes
                .push(self.cluster.node(name, &self.seed, &[]).await);
        }
        let nodes = &self.nodes[first..];
        let published = futures::future::join_all(nodes.iter().map(|node| async {
            let started = Instant::now();
            let dir = node.publish("demo", &format!("hf://{REPO}@main")).await;
            (started.elapsed().as_secs_f64(), dir)
        }));
        let published = published.await;
        let mut readers: Vec<_> = published
            .iter()
            .map(|(_, dir)| Loader::start(tools, dir))
            .collect();
        readers.iter_mut().for_each(Loader::go);
        // In threads: they wait for each other's pieces, not for each other.
        let reports = readers
            .into_iter()
            .map(|reader| tokio::task::spawn_blocking(|| reader.report()));
        let reports = futures::future::join_all(reports).await;
        let mut seen = Vec::new();
        for ((node, (mount_seconds, _)), report) in nodes.iter().zip(published).zip(reports) {
            seen.push(Seen {
                name: node.process.name.clone(),
                mount_seconds,
                report: report.expect("the reader read everything"),
                from_peers: node
                    .process
                    .metric("fetched_bytes_total", "source=\"peer\"")
                    .await,
                from_seed: node
                    .process
                    .metric("fetched_bytes_total", "source=\"seed\"")
                    .await,
            });
        }
        seen
    }

    async fn hub_cost(&self) -> Cost {
        self.hub.cost(REPO).await
    }
}

fn check(seen: &[Seen], original: &Value, problems: &mut Vec<String>) {
    for node in seen {
        for what in ["tensors_sha256", "files"] {
            if node.report[what] != original[what] {
                problems.push(format!("{}: {what} differ from the original", node.name));
            }
        }
    }
}

fn print_table(seen: &[Seen]) {
    println!("node     mount s  first byte s  last byte s  MB from peers  MB from seed");
    for node in seen {
        println!(
            "{:<8} {:>7.3} {:>13.3} {:>12.3} {:>14.1} {:>13.1}",
            node.name,
            node.mount_seconds,
            node.report["first_byte_seconds"]
                .as_f64()
                .unwrap_or_default(),
            node.report["last_byte_seconds"]
                .as_f64()
                .unwrap_or_default(),
            node.from_peers as f64 / 1e6,
            node.from_seed as f64 / 1e6,
        );
    }
}
