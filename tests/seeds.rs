//! Several seeds: who reads a file, who goes on with it when that one dies, and what it costs the hub.

use model_p2p::testing::cluster::{Cluster, HubProcess, Node, Seed};
use model_p2p::testing::kubelet::Kubelet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 192 * MIB;
const REPO: &str = "big/pattern";

fn cluster() -> Cluster {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Cluster::new(base, &Cluster::bin_dir()).expect("a folder for the cluster")
}

/// Reads the whole file in order in a process of its own, and compares it with what it should be.
fn reader(file: &Path) -> Child {
    Command::new(Cluster::bin_dir().join("reader"))
        .args([
            "seq".as_ref(),
            file.as_os_str(),
            "--pattern".as_ref(),
            "model.bin".as_ref(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the reader program")
}

fn finish(readers: Vec<Child>) {
    for reader in readers {
        let output = reader.wait_with_output().expect("the reader");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A slow hub, seeds and nodes that all read one file.
struct Swarm {
    nodes: Vec<Node>,
    seeds: Vec<Seed>,
    hub: HubProcess,
    cluster: Cluster,
    readers: Vec<Child>,
}

async fn swarm(seeds: usize, nodes: usize, rate: u64) -> Swarm {
    let mut cluster = cluster();
    let args = [
        "--pattern".into(),
        format!("{REPO}:model.bin={SIZE}"),
        "--rate".into(),
        rate.to_string(),
    ];
    let hub = cluster.hub(&args).await;
    let seeds = cluster.seeds(&hub, seeds).await;
    let mut swarm = Swarm {
        nodes: Vec::new(),
        seeds,
        hub,
        cluster,
        readers: Vec::new(),
    };
    for number in 0..nodes {
        swarm.add(&format!("node-{number}")).await;
    }
    swarm
}

impl Swarm {
    async fn add(&mut self, name: &str) {
        let node = self.cluster.node_of(name, &self.seeds).await;
        let file = node
            .publish("pod", &format!("hf://{REPO}"))
            .await
            .join("model.bin");
        self.readers.push(reader(&file));
        self.nodes.push(node);
    }

    /// The seed that reads the hub: the one with origin bytes.
    async fn owner(&self) -> usize {
        for (number, seed) in self.seeds.iter().enumerate() {
            if seed.process.metric("fetched_bytes_total", "origin").await > MIB {
                return number;
            }
        }
        panic!("no seed reads the hub");
    }

    /// A new node publishes the one volume that all share; the names in it.
    async fn publish_same(&mut self, name: &str) -> Vec<String> {
        let node = self.cluster.node_of(name, &self.seeds).await;
        let target = node.target("pod");
        let model = format!("hf://{REPO}");
        let publish = |kubelet: Kubelet| {
            let (model, target) = (model.clone(), target.clone());
            async move {
                kubelet
                    .publish_inline("csi-same", &[("model", &model)], None, &target)
                    .await
            }
        };
        node.until_done(publish).await;
        let names = names(&target);
        self.nodes.push(node);
        names
    }

    async fn given(&self) -> u64 {
        self.hub.cost(REPO).await.given
    }

    async fn until_given(&self, bytes: u64) {
        while self.given().await < bytes {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn readers_finish(&mut self) {
        let readers = std::mem::take(&mut self.readers);
        tokio::task::spawn_blocking(|| finish(readers))
            .await
            .expect("readers that are right");
    }
}

/// Each file is read by one seed, whichever the nodes ask, and costs one copy.
#[tokio::test(flavor = "multi_thread")]
async fn three_seeds_read_the_hub_as_one() {
    let mut swarm = swarm(3, 3, 100 * MIB).await;
    swarm.readers_finish().await;
    assert_eq!(swarm.given().await, SIZE);
    let mut reading = 0;
    for seed in &swarm.seeds {
        reading +=
            usize::from(seed.process.metric("fetched_bytes_total", "origin").await > 64 * 1024);
    }
    assert_eq!(reading, 1, "seeds that read the hub");
}

async fn owner_killed_at(percent: u64) {
    let mut swarm = swarm(2, 4, 40 * MIB).await;
    kill_owner_at(&mut swarm, percent).await;
}

async fn kill_owner_at(swarm: &mut Swarm, percent: u64) {
    swarm.until_given(SIZE * percent / 100).await;
    let owner = swarm.owner().await;
    swarm.seeds[owner].process.kill();
    swarm.readers_finish().await;
    let given = swarm.given().await;
    // What the owner alone had: 16 MiB of lead and a piece in each of its streams.
    assert!(
        given <= SIZE + 20 * MIB,
        "{} MiB given twice",
        (given - SIZE) / MIB
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_at_a_quarter_is_replaced_by_the_other_seed() {
    owner_killed_at(25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_at_half_is_replaced_by_the_other_seed() {
    owner_killed_at(50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_at_nine_tenths_is_replaced_by_the_other_seed() {
    owner_killed_at(90).await;
}

/// What nodes gave back counted as read ahead: with another seed alive the new owner read on piece by piece.
#[tokio::test(flavor = "multi_thread")]
async fn of_three_seeds_the_next_owner_reads_on_in_runs() {
    let mut swarm = swarm(3, 3, 40 * MIB).await;
    let before = swarm.hub.cost(REPO).await.requests;
    kill_owner_at(&mut swarm, 50).await;
    let requests = swarm.hub.cost(REPO).await.requests - before;
    assert!(
        requests < 96,
        "{requests} requests for {} pieces",
        SIZE / MIB
    );
}

/// The first pin of a volume is kept by every seed: whichever dies, the branch may move meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_keeps_its_commit_whichever_seed_dies() {
    let mut swarm = swarm(2, 0, 40 * MIB).await;
    swarm.publish_same("before").await;
    swarm.hub.move_branch(REPO).await;
    for (dead, alive) in [(0, 1), (1, 0)] {
        swarm.seeds[dead].process.kill();
        let files = swarm.publish_same(&format!("with-{alive}")).await;
        assert_eq!(files, ["model.bin"], "seed {dead} is dead");
        swarm.seeds[dead].process.restart().await;
    }
    // What a volume of its own gets.
    let node = swarm.cluster.node_of("new", &swarm.seeds).await;
    let target = node.publish("pod", &format!("hf://{REPO}@refs/pr/1")).await;
    assert_eq!(names(&target), ["model.bin", "moved.txt"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A seed that comes back does not read what another one has taken over meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_returning_seed_leaves_the_file_to_its_new_owner() {
    let mut swarm = swarm(2, 2, 20 * MIB).await;
    swarm.until_given(SIZE / 4).await;
    let owner = swarm.owner().await;
    swarm.seeds[owner].process.kill();
    let other = 1 - owner;
    let before = swarm.seeds[other]
        .process
        .metric("fetched_bytes_total", "origin")
        .await;
    while swarm.seeds[other]
        .process
        .metric("fetched_bytes_total", "origin")
        .await
        <= before + MIB
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    swarm.seeds[owner].process.restart().await;
    swarm.add("late").await;
    swarm.readers_finish().await;
    let again = swarm.seeds[owner]
        .process
        .metric("fetched_bytes_total", "origin")
        .await;
    assert!(again <= MIB, "the returning seed read {again} bytes");
    let given = swarm.given().await;
    assert!(
        given <= SIZE + 20 * MIB,
        "{} MiB given twice",
        (given - SIZE) / MIB
    );
}
