//! Pieces from a seed's process to our client in this one, in the clear and over TLS, against iperf3 with as
//! many streams. One round is iperf3 and each of the four ways once; figures are medians of the rounds.

use super::{Figure, MIB, figure, iperf, largest, median, read, warm_memory};
use model_p2p::model::{FileKey, Geometry, PieceHash};
use model_p2p::store::{CacheFile, Store, StoreConfig};
use model_p2p::swarm::client::PieceClient;
use model_p2p::swarm::slots::Class;
use model_p2p::testing::cluster::{Cluster, HubProcess, Node, Seed};
use model_p2p::tls::{Folder, TlsDir, bootstrap};
use nix::sys::resource::{UsageWho, getrusage};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

const ROUNDS: usize = 5;
const STREAMS: u32 = 4;
const RUN_PIECES: u32 = 4;
/// A file's worth takes a third of a second: too short beside iperf3's two.
const PASSES: usize = 3;
/// Whole runs for each stream.
const SIZE: u64 = 768 * MIB;

/// A seed that has the file, and what a node must know to ask it.
struct Side {
    name: &'static str,
    tls: Option<Arc<TlsDir>>,
    pieces: String,
    key: FileKey,
    hashes: Arc<[PieceHash]>,
    seed: Seed,
    // The filler's interest keeps the file open at the seed.
    _filler: Node,
    cluster: Cluster,
}

/// What one way of reading cost.
struct Sample {
    rate: f64,
    cpu_per_gb: f64,
}

pub async fn plane(base: &Path, figures: &mut Vec<Figure>) {
    let bin = Cluster::bin_dir();
    let mut hubs = Cluster::new(base, &bin).expect("a folder below target/");
    let pattern = format!("big/plane:model.bin={SIZE}");
    let hub = hubs.hub(&["--pattern".into(), pattern]).await;
    let certificates = hubs.dir.join("tls");
    let made = bootstrap(&Folder(certificates.clone()), SystemTime::now()).await;
    made.expect("certificates");
    let sides = [
        Side::start("plain", base, &hub, None).await,
        Side::start("TLS", base, &hub, Some(&certificates)).await,
    ];
    let mut samples: [Vec<Sample>; 4] = Default::default();
    let mut bounds = Vec::new();
    for _ in 0..ROUNDS {
        let host = sides[0].pieces.split(':').next().expect("a host");
        bounds.push(iperf(host));
        for (at, side) in sides.iter().enumerate() {
            samples[2 * at].push(side.to_memory().await);
            samples[2 * at + 1].push(side.to_store().await);
        }
    }
    figure(
        figures,
        "iperf3 -P4",
        median(bounds.clone()) / 1e9,
        "GB/s",
        "",
    );
    for (at, samples) in samples.iter().enumerate() {
        let (side, end) = (
            sides[at / 2].name,
            ["to memory", "verified and written"][at % 2],
        );
        let ratios = samples
            .iter()
            .zip(&bounds)
            .map(|(one, bound)| one.rate / bound);
        let costs = samples.iter().map(|one| one.cpu_per_gb);
        let name = format!("pieces, {side}, {end}");
        figure(
            figures,
            &name,
            median(ratios.collect()),
            "ratio",
            "iperf3 -P4",
        );
        figure(
            figures,
            &format!("{name}, CPU of both ends"),
            median(costs.collect()),
            "s/GB",
            "",
        );
    }
}

impl Side {
    async fn start(
        name: &'static str,
        base: &Path,
        hub: &HubProcess,
        certificates: Option<&Path>,
    ) -> Side {
        let mut cluster = Cluster::new(base, &Cluster::bin_dir()).expect("a folder below target/");
        let dir = |role: &str| Some(certificates?.join(role).display().to_string());
        let (seed_dir, node_dir) = (dir("seed"), dir("node"));
        let flags = |dir: &Option<String>| match dir {
            Some(dir) => vec!["--tls-dir".to_owned(), dir.clone()],
            None => Vec::new(),
        };
        let (seed_flags, node_flags) = (flags(&seed_dir), flags(&node_dir));
        let seed = cluster.seed(hub, &refs(&seed_flags)).await;
        let filler = cluster.node("filler", &seed, &refs(&node_flags)).await;
        let model = filler.publish("pod", "hf://big/plane").await;
        read(None, "seq", &model.join("model.bin"));
        let data = largest(&seed.cache.join("files"));
        let key = data.file_name().expect("a name").to_string_lossy();
        let host = seed.control.split(':').next().expect("a host");
        Side {
            name,
            tls: node_dir.map(|dir| TlsDir::open(Path::new(&dir)).expect("certificates")),
            pieces: format!("{host}:7441"),
            key: FileKey::from_hex(&key).expect("a key"),
            hashes: hashes(&data),
            seed,
            _filler: filler,
            cluster,
        }
    }

    fn client(&self, dir: &Path) -> (PieceClient, Arc<CacheFile>) {
        let config = StoreConfig {
            dir: dir.to_owned(),
            limit_bytes: Some(2 * SIZE),
        };
        let store = Store::open(&config).expect("a store");
        let file = store.file(self.key, SIZE).expect("a file");
        (
            PieceClient::new(store, "bench".into(), self.tls.clone()),
            file,
        )
    }

    /// Read and dropped: what the transport costs alone.
    async fn to_memory(&self) -> Sample {
        let dir = self.cluster.dir.join("memory");
        let (client, file) = self.client(&dir);
        let sample = self.measure(PASSES, |run| {
            let (client, file, addr) = (client.clone(), file.clone(), self.pieces.clone());
            async move { client.drain(&addr, &file, run).await.map(drop) }
        });
        let sample = sample.await;
        std::fs::remove_dir_all(dir).expect("our folder");
        sample
    }

    /// As a node takes them.
    async fn to_store(&self) -> Sample {
        let dir = self.cluster.dir.join("store");
        let (client, file) = self.client(&dir);
        file.learn(0, &self.hashes);
        warm_memory(&self.cluster.dir, 2 * SIZE);
        let sample = self.measure(1, |run| {
            let (client, file, addr) = (client.clone(), file.clone(), self.pieces.clone());
            async move {
                client
                    .pieces(&addr, &file, run, Class::Window)
                    .await
                    .map(drop)
            }
        });
        let sample = sample.await;
        assert!(file.have().is_full(), "every piece has arrived");
        std::fs::remove_dir_all(dir).expect("our folder");
        sample
    }

    /// All runs of the file, each stream its own share, through `ask`.
    async fn measure<F, E: std::fmt::Debug + Send + 'static>(
        &self,
        passes: usize,
        ask: impl Fn(std::ops::Range<u32>) -> F,
    ) -> Sample
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let share = (SIZE / MIB) as u32 / STREAMS;
        let (cpu, started) = (own_cpu() + self.seed.process.usage().0, Instant::now());
        let streams = (0..STREAMS).map(|stream| {
            let starts = (0..share).step_by(RUN_PIECES as usize);
            let asks: Vec<F> = std::iter::repeat_n(starts, passes)
                .flatten()
                .map(|start| stream * share + start)
                .map(|first| ask(first..first + RUN_PIECES))
                .collect();
            tokio::spawn(async move {
                for asked in asks {
                    asked.await.expect("pieces");
                }
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("no panic");
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu = own_cpu() + self.seed.process.usage().0 - cpu;
        let bytes = (SIZE * passes as u64) as f64;
        Sample {
            rate: bytes / seconds,
            cpu_per_gb: cpu / (bytes / 1e9),
        }
    }
}

fn refs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn hashes(data: &Path) -> Arc<[PieceHash]> {
    let content = std::fs::read(data).expect("the seed's file");
    let geometry = Geometry { size: SIZE };
    let pieces = content.chunks(MIB as usize);
    (0..)
        .zip(pieces)
        .map(|(index, piece)| geometry.hash(index, piece))
        .collect()
}

fn own_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
