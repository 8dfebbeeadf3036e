//! Real processes on loopback: a hub double, a seed, nodes. Each cluster has addresses of its own, so that
//! tests run beside each other; everything it started ends with it, also after a panic.

use super::hub::Stats;
use super::kubelet::Kubelet;
use super::nets::Nets;
use serde_json::Value;
use std::collections::HashMap;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a process may take to be ready. A bound for broken ones, not a measure.
const START_MAX: Duration = Duration::from_secs(60);

/// Room for the largest model of the tests, twice.
pub const CACHE_SIZE: &str = "8GiB";

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// A group of processes with a folder and a /24 of loopback of their own.
pub struct Cluster {
    pub dir: PathBuf,
    net: (u8, u8),
    bin: PathBuf,
    hosts: u8,
    /// Hosts of their own instead of addresses of this one.
    pub nets: Option<Nets>,
    /// Set in every process started from now on.
    pub env: Vec<(String, String)>,
}

/// One running process; dropping it kills it.
pub struct Process {
    pub name: String,
    child: Child,
    command: Vec<String>,
    log: PathBuf,
    http: Option<SocketAddr>,
}

/// The hub double.
pub struct HubProcess {
    pub process: Process,
    pub url: String,
}

/// What a repository has cost its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub requests: u64,
    /// Bytes of content given.
    pub given: u64,
    /// Bytes of content there are, in the files that were asked for.
    pub size: u64,
}

/// A node with its CSI socket.
pub struct Node {
    pub process: Process,
    pub dir: PathBuf,
    socket: PathBuf,
}

impl Cluster {
    /// A cluster in a new folder below `base`, which must be on a filesystem that can back passthrough.
    /// `bin` is the folder of the programs.
    pub fn new(base: &Path, bin: &Path) -> std::io::Result<Cluster> {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = base.join(format!("cluster-{pid}-{number}"));
        std::fs::create_dir_all(&dir)?;
        // 127.x.y.*: x and y from pid and number; two clusters alive at once differ in one of them.
        let spread = pid.wrapping_mul(31).wrapping_add(number);
        let net = (((spread >> 8) % 200) as u8 + 10, (spread & 0xff) as u8);
        Ok(Cluster {
            dir: dir.canonicalize()?,
            net,
            bin: bin.to_owned(),
            hosts: 1,
            nets: None,
            env: Vec::new(),
        })
    }

    /// The programs beside the running test or demo.
    pub fn bin_dir() -> PathBuf {
        let exe = std::env::current_exe().unwrap_or_default();
        let dir = exe.parent().unwrap_or(Path::new(".")).to_owned();
        if dir.ends_with("deps") {
            dir.parent().map(Path::to_owned).unwrap_or(dir)
        } else {
            dir
        }
    }

    fn host(&mut self) -> Ipv4Addr {
        self.hosts += 1;
        match &self.nets {
            None => Ipv4Addr::new(127, self.net.0, self.net.1, self.hosts),
            Some(_) => Ipv4Addr::new(10, 77, 0, self.hosts),
        }
    }

    /// What a process at this address begins with.
    fn enter(&self, host: Ipv4Addr) -> Vec<String> {
        self.nets
            .as_ref()
            .map(|nets| nets.host(host))
            .unwrap_or_default()
    }

    pub fn program(&self) -> PathBuf {
        self.bin.join("model-p2p")
    }

    /// The program's command line, behind `env` where variables are set.
    fn command(&self, host: Ipv4Addr) -> Vec<String> {
        let set = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut command: Vec<String> = set.collect();
        if !command.is_empty() {
            command.insert(0, "env".into());
        }
        command.push(self.program().display().to_string());
        [self.enter(host), command].concat()
    }

    /// Starts the hub double with these arguments (see `testhub`).
    pub async fn hub(&mut self, args: &[String]) -> HubProcess {
        let host = self.host();
        // On a host of its own the hub and its CDN share one link.
        let cdn = if self.nets.is_some() {
            host
        } else {
            self.host()
        };
        let mut command = self.enter(host);
        command.push(self.bin.join("testhub").display().to_string());
        command.extend([
            "--listen".into(),
            format!("{host}:0"),
            "--cdn".into(),
            format!("{cdn}:0"),
        ]);
        command.extend(args.iter().cloned());
        let mut process = Process::start("hub", command, &self.dir, None, Stdio::piped());
        let stdout = process.child.stdout.take().expect("a piped stdout");
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = line.await.expect("no panic").expect("the hub's first line");
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("hub: {}", process.log_text()));
        HubProcess {
            process,
            url: ready["url"].as_str().expect("a url").to_owned(),
        }
    }

    /// Starts a seed on `cache` that reads from `hub`; `extra` arguments go last.
    pub async fn seed(&mut self, hub: &HubProcess, extra: &[&str]) -> Seed {
        let host = self.host();
        self.start_seed("seed-0", host, hub, extra).await
    }

    /// Starts several seeds that know of each other.
    pub async fn seeds(&mut self, hub: &HubProcess, count: usize) -> Vec<Seed> {
        let hosts: Vec<_> = (0..count).map(|_| self.host()).collect();
        let all: Vec<_> = hosts.iter().map(|host| format!("{host}:7440")).collect();
        let peers = all.join(",");
        let mut seeds = Vec::new();
        for (number, host) in hosts.into_iter().enumerate() {
            let name = format!("seed-{number}");
            seeds.push(
                self.start_seed(&name, host, hub, &["--peers", &peers])
                    .await,
            );
        }
        seeds
    }

    async fn start_seed(
        &mut self,
        name: &str,
        host: Ipv4Addr,
        hub: &HubProcess,
        extra: &[&str],
    ) -> Seed {
        let (control, http) = (
            SocketAddr::from((host, 7440)),
            SocketAddr::from((host, 7442)),
        );
        let cache = self.dir.join(name);
        let mut command = self.command(host);
        for arg in ["seed", "--name", name] {
            command.push(arg.into());
        }
        command.extend([
            "--control".into(),
            control.to_string(),
            "--listen".into(),
            format!("{host}:7441"),
        ]);
        command.extend([
            "--http".into(),
            http.to_string(),
            "--hub".into(),
            format!("hf={}", hub.url),
        ]);
        command.extend(["--cache-dir".into(), cache.display().to_string()]);
        command.extend(transport(extra).map(str::to_owned));
        finish(&mut command, extra);
        let mut process = Process::start(name, command, &self.dir, Some(http), Stdio::null());
        process.ready().await;
        Seed {
            process,
            control: control.to_string(),
            cache,
        }
    }

    /// Starts a controller without a disk; its CSI socket comes with it.
    pub async fn controller(&mut self, seed: &Seed, extra: &[&str]) -> (Process, PathBuf) {
        let http = SocketAddr::from((self.host(), 7442));
        let socket = self.dir.join("controller.sock");
        let (program, endpoint) = (self.program(), format!("unix://{}", socket.display()));
        let mut command = vec![program.display().to_string()];
        let address = http.to_string();
        let seeds = ["controller", "--seed", &seed.control];
        let own = ["--csi-endpoint", &endpoint, "--http", &address];
        let all = seeds.into_iter().chain(own).chain(transport(extra));
        command.extend(all.chain(extra.iter().copied()).map(str::to_owned));
        let mut process =
            Process::start("controller", command, &self.dir, Some(http), Stdio::null());
        process.ready().await;
        (process, socket)
    }

    /// Starts a node that reads through `seed`.
    pub async fn node(&mut self, name: &str, seed: &Seed, extra: &[&str]) -> Node {
        let mut args = vec!["--seed", &seed.control];
        args.extend(transport(extra));
        args.extend(extra);
        self.start_node(name, &args).await
    }

    /// Starts a node that knows several seeds.
    pub async fn node_of(&mut self, name: &str, seeds: &[Seed]) -> Node {
        let all: Vec<_> = seeds.iter().map(|seed| seed.control.as_str()).collect();
        self.start_node(name, &["--seed", &all.join(","), "--insecure"])
            .await
    }

    /// The same below a supervisor.
    pub async fn supervised_node(&mut self, name: &str, seed: &Seed, extra: &[&str]) -> Node {
        let seeds = ["--seed", &seed.control, "--insecure"];
        let args = [&seeds, extra].concat();
        self.launch(name, &["supervise", "--", "node"], &args).await
    }

    /// Starts a node with these arguments beside its own addresses and folders.
    pub async fn start_node(&mut self, name: &str, args: &[&str]) -> Node {
        self.launch(name, &["node"], args).await
    }

    async fn launch(&mut self, name: &str, role: &[&str], args: &[&str]) -> Node {
        let host = self.host();
        let http = SocketAddr::from((host, 7442));
        let dir = self.dir.join(name);
        std::fs::create_dir_all(dir.join("pods")).expect("a folder for the node");
        let socket = dir.join("csi.sock");
        let mut command = self.command(host);
        command.extend(role.iter().map(|word| word.to_string()));
        command.extend([
            "--node-id".into(),
            name.into(),
            "--listen".into(),
            format!("{host}:7441"),
        ]);
        command.extend(["--http".into(), http.to_string()]);
        command.extend([
            "--csi-endpoint".into(),
            format!("unix://{}", socket.display()),
        ]);
        command.extend([
            "--cache-dir".into(),
            dir.join("cache").display().to_string(),
        ]);
        finish(&mut command, args);
        let mut process = Process::start(name, command, &self.dir, Some(http), Stdio::null());
        process.ready().await;
        Node {
            process,
            dir,
            socket,
        }
    }
}

/// In the clear, unless the caller has certificates.
fn transport(extra: &[&str]) -> Option<&'static str> {
    (!extra.contains(&"--tls-dir")).then_some("--insecure")
}

/// Adds the caller's arguments, and a cache size of our own where they name none: the default depends on how
/// full this machine's disk is.
fn finish(command: &mut Vec<String>, extra: &[&str]) {
    if !extra.contains(&"--cache-size") {
        command.extend(["--cache-size".into(), CACHE_SIZE.into()]);
    }
    command.extend(extra.iter().map(|arg| arg.to_string()));
}

impl Drop for Cluster {
    /// Mounts that a killed node left are taken down: nothing of a test outlives it.
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(&self.dir)) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A seed process.
pub struct Seed {
    pub process: Process,
    pub control: String,
    pub cache: PathBuf,
}

impl Process {
    fn start(
        name: &str,
        command: Vec<String>,
        dir: &Path,
        http: Option<SocketAddr>,
        stdout: Stdio,
    ) -> Process {
        let log = dir.join(format!("{name}.log"));
        let child = spawn(&command, &log, stdout);
        Process {
            name: name.into(),
            child,
            command,
            log,
            http,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that a supervisor keeps running; `None` between two of them.
    pub fn worker(&self) -> Option<u32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the process says it is ready.
    pub async fn ready(&mut self) {
        let started = Instant::now();
        while self
            .get("/readyz")
            .await
            .is_none_or(|(code, _)| code != 200)
        {
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{} ended: {}", self.name, self.log_text());
            assert!(
                started.elapsed() < START_MAX,
                "{} is not ready: {}",
                self.name,
                self.log_text()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A GET on the operations port: status and body.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.http?);
        http_get(&url).await
    }

    pub async fn status(&self) -> Value {
        let (_, body) = self.get("/api/v1/status").await.expect("a status");
        serde_json::from_str(&body).expect("JSON")
    }

    /// One counter from `/metrics`, summed over the label sets that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> u64 {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("model_p2p_{name}")) && line.contains(labels));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let started = Instant::now();
        loop {
            match self.child.try_wait().expect("our child") {
                Some(status) => return status.code(),
                None if started.elapsed() > START_MAX => {
                    panic!("{} does not end: {}", self.name, self.log_text())
                }
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Starts the same command again.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.command, &self.log, Stdio::null());
        self.ready().await;
    }

    /// User and system CPU seconds so far, and the peak resident set in bytes.
    pub fn usage(&self) -> (f64, u64) {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or_default()
        };
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = status.lines().find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        // USER_HZ is 100 on every Linux.
        (
            (ticks(11) + ticks(12)) / 100.0,
            peak.unwrap_or_default() * 1024,
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(command: &[String], log: &Path, stdout: Stdio) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log file");
    let mut spawned = Command::new(&command[0]);
    spawned
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log);
    spawned
        .env_remove("HF_TOKEN")
        .env_remove("HF_ENDPOINT")
        .env("HOME", "/nonexistent");
    spawned
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: build the programs first", command[0]))
}

impl HubProcess {
    /// What the hub has counted since its last reset.
    pub async fn stats(&self) -> Stats {
        let (_, body) = http_get(&format!("{}/_test/stats", self.url))
            .await
            .expect("the hub's statistics");
        serde_json::from_str(&body).expect("JSON")
    }

    /// What one repository has cost: all requests, bytes given, and the bytes it has.
    pub async fn cost(&self, repo: &str) -> Cost {
        let repo = self.stats().await.repo(repo);
        Cost {
            requests: repo.requests.values().sum(),
            given: repo.hub_bytes + repo.cdn_bytes,
            size: repo.files.values().map(|file| file.size).sum(),
        }
    }

    /// Sets counters to zero.
    pub async fn reset(&self) {
        http_post(&format!("{}/_test/reset", self.url), "").await;
    }

    /// The commit at which a public repository's branch stands.
    pub async fn commit(&self, repo: &str) -> String {
        let url = format!("{}/api/models/{repo}/revision/main", self.url);
        let (_, body) = http_get(&url).await.expect("the hub answers");
        let info: Value = serde_json::from_str(&body).expect("JSON");
        info["sha"].as_str().expect("a commit").to_owned()
    }

    /// A new commit on a repository's branch, with a file `moved.txt` more.
    pub async fn move_branch(&self, repo: &str) {
        let body = serde_json::json!({ "repo": repo }).to_string();
        http_post(&format!("{}/_test/move", self.url), &body).await;
    }

    /// Takes a token from everything it opened.
    pub async fn revoke(&self, token: &str) {
        http_post(&format!("{}/_test/revoke", self.url), token).await;
    }

    /// Makes the hub misbehave; see the double's documentation for the names.
    pub async fn fault(&self, fault: &Value) {
        http_post(&format!("{}/_test/faults", self.url), &fault.to_string()).await;
    }
}

async fn http_get(url: &str) -> Option<(u16, String)> {
    let answer = reqwest::get(url).await.ok()?;
    let code = answer.status().as_u16();
    Some((code, answer.text().await.ok()?))
}

async fn http_post(url: &str, body: &str) {
    let request = reqwest::Client::new()
        .post(url)
        .header("content-type", "application/json");
    let answer = request
        .body(body.to_owned())
        .send()
        .await
        .expect("the hub answers");
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
}

impl Node {
    /// Calls as kubelet does: again and again until it is done, whoever answers.
    pub async fn until_done<F>(&self, call: impl Fn(Kubelet) -> F)
    where
        F: Future<Output = Result<(), tonic::Status>>,
    {
        let started = Instant::now();
        loop {
            if let Ok(kubelet) = Kubelet::connect(&self.socket).await {
                let end = tokio::time::timeout(START_MAX, call(kubelet)).await;
                if matches!(end, Ok(Ok(()))) {
                    return;
                }
                let log = || self.process.log_text();
                assert!(started.elapsed() < 5 * START_MAX, "{end:?}: {}", log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn kubelet(&self) -> Kubelet {
        Kubelet::connect(&self.socket).await.expect("a CSI socket")
    }

    /// Where kubelet would want a pod's volume.
    pub fn target(&self, pod: &str) -> PathBuf {
        let dir = self.dir.join("pods").join(pod);
        std::fs::create_dir_all(&dir).expect("a pod folder");
        dir.join("mount")
    }

    /// Publishes a model inline for a pod.
    pub async fn publish(&self, pod: &str, model: &str) -> PathBuf {
        let target = self.target(pod);
        let volume = format!("csi-{pod}");
        let published = self
            .kubelet()
            .await
            .publish_inline(&volume, &[("model", model)], None, &target)
            .await;
        published.unwrap_or_else(|status| {
            panic!("publish {model}: {status:?}\n{}", self.process.log_text())
        });
        target
    }

    pub async fn unpublish(&self, pod: &str) {
        let target = self.target(pod);
        self.kubelet()
            .await
            .unpublish(&format!("csi-{pod}"), &target)
            .await
            .expect("unpublish");
    }
}

/// The folder with the readers that are not ours and the sample model, from `scripts/tools.sh`.
pub struct Tools {
    pub dir: PathBuf,
}

impl Tools {
    pub fn new(dir: &Path) -> Tools {
        Tools {
            dir: dir.to_owned(),
        }
    }

    pub fn sample(&self, layout: &str) -> PathBuf {
        self.dir.join("sample").join(layout)
    }

    pub fn python(&self) -> PathBuf {
        self.dir.join("venv/bin/python")
    }

    pub fn hf(&self) -> PathBuf {
        self.dir.join("venv/bin/hf")
    }
}

/// A reader process that has its libraries loaded and waits for the word.
pub struct Loader {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Loader {
    /// Starts `scripts/load.py` on a directory and waits until it is ready.
    pub fn start(tools: &Tools, dir: &Path) -> Loader {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/load.py");
        let mut child = Command::new(tools.python())
            .args([script.as_os_str(), dir.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let mut stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Loader { child, stdout }
    }

    /// Lets it go.
    pub fn go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What it saw; panics with its own words when it failed.
    pub fn report(mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "the reader failed: {line}");
        serde_json::from_str(&line).expect("JSON")
    }
}

/// The SHA-256 of every file below a directory, by relative path.
pub fn digests(root: &Path) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(root)
                .expect("below")
                .display()
                .to_string();
            found.insert(name, sha256(&path));
        }
    }
    found
}

/// The SHA-256 of a file, read in steps.
pub fn sha256(path: &Path) -> String {
    use sha2::Digest;
    let mut file = std::fs::File::open(path).expect("a file");
    let mut hasher = sha2::Sha256::new();
    std::io::copy(&mut file, &mut hasher).expect("a readable file");
    hex::encode(hasher.finalize())
}
