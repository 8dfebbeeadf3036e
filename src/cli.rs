//! The command line: what users type, and nothing of how it is done.
//!
//! Every flag has an environment variable `MODEL_P2P_<FLAG>`. Only this room knows the argument parser; the
//! rest of the program gets the plain structs of [`crate::config`].

pub mod exit;

use crate::config::{
    CacheConfig, ControllerConfig, Format, GetConfig, HubsConfig, MountConfig, NodeConfig,
    PeerConfig, SeedConfig,
};
use crate::model::{Failure, FailureKind, Reference, Token, View};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Mounts AI model repositories as read-only volumes: there in seconds, read lazily, fetched once.
#[derive(Debug, Parser)]
#[command(
    name = "model-p2p",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// How log lines look on stderr (RUST_LOG chooses which)
    #[arg(long, global = true, env = "MODEL_P2P_LOG_FORMAT", value_parser = parse_format, default_value = "text", hide_env = true)]
    pub log_format: Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a model read-only at a directory; returns when it is readable
    #[command(after_help = MOUNT_EXAMPLES)]
    Mount(MountArgs),
    /// End a mount
    #[command(after_help = UNMOUNT_EXAMPLES)]
    Unmount(UnmountArgs),
    /// Download a model, resumable and verified
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Print what a reference stands for: commit, files, sizes, digests
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve(ResolveArgs),
    /// Show what a cache holds and what its owner does
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Run the node daemon: CSI node service, mounts, cache, peer
    #[command(after_help = NODE_EXAMPLES)]
    Node(NodeArgs),
    /// Run the seed daemon: the only reader of hubs, tracker, peer
    #[command(after_help = SEED_EXAMPLES)]
    Seed(SeedArgs),
    /// Run the CSI controller service
    #[command(after_help = CONTROLLER_EXAMPLES)]
    Controller(ControllerArgs),
}

const MOUNT_EXAMPLES: &str = "Examples:
  model-p2p mount hf://Qwen/Qwen3-8B /mnt/qwen
  model-p2p mount hf://Qwen/Qwen3-8B@main /mnt/qwen --seed seed-0.example:7440 --insecure";
const UNMOUNT_EXAMPLES: &str = "Examples:
  model-p2p unmount /mnt/qwen
  umount /mnt/qwen";
const GET_EXAMPLES: &str = "Examples:
  model-p2p get hf://Qwen/Qwen3-8B -o ./qwen --exclude '*.bin'
  model-p2p get hf://datasets/owner/name@refs/pr/3/data --json";
const RESOLVE_EXAMPLES: &str = "Examples:
  model-p2p resolve hf://Qwen/Qwen3-8B
  model-p2p resolve hf://owner/private --token-file ~/token --json";
const STATUS_EXAMPLES: &str = "Examples:
  model-p2p status
  model-p2p status --cache-dir /var/lib/model-p2p --json";
const NODE_EXAMPLES: &str = "Examples:
  model-p2p node --node-id $(hostname) --seed seed-0.example:7440 --insecure
  model-p2p node --node-id dev --all-in-one --csi-endpoint unix:///tmp/csi.sock";
const SEED_EXAMPLES: &str = "Examples:
  model-p2p seed --cache-dir /var/lib/model-p2p --insecure
  model-p2p seed --hub hf=https://hf-mirror.example --listen 0.0.0.0:7441 --insecure";
const CONTROLLER_EXAMPLES: &str = "Examples:
  model-p2p controller --seed seed-0.example:7440 --csi-endpoint unix:///csi/csi.sock --insecure
  MODEL_P2P_SEED=seed-0.example:7440 model-p2p controller --csi-endpoint unix:///csi/csi.sock --insecure";

/// Reads the command line; ends the process with code 2 when it is wrong.
pub fn parse() -> Cli {
    Cli::parse()
}

#[derive(Debug, Args)]
struct CacheArgs {
    /// Where pieces are kept [default: $XDG_CACHE_HOME/model-p2p]
    #[arg(long, env = "MODEL_P2P_CACHE_DIR", hide_env = true, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Bytes the cache may hold, e.g. 200GiB [default: 0.9 of what is free, leaving 20 % of the disk]
    #[arg(long, env = "MODEL_P2P_CACHE_SIZE", hide_env = true, value_name = "SIZE", value_parser = parse_size)]
    cache_size: Option<u64>,
}

#[derive(Debug, Args)]
struct HubArgs {
    /// Another base URL for a hub (else HF_ENDPOINT)
    #[arg(long, env = "MODEL_P2P_HUB", hide_env = true, value_name = "NAME=URL")]
    hub: Vec<String>,
    /// PEM file with certificates to trust beside the system's
    #[arg(long, env = "MODEL_P2P_CA_FILE", hide_env = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Use only what is here; never open a connection to a hub (also HF_HUB_OFFLINE=1)
    #[arg(long, env = "MODEL_P2P_OFFLINE", hide_env = true)]
    offline: bool,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// File with the hub token (else HF_TOKEN, HF_TOKEN_PATH, ~/.cache/huggingface/token)
    #[arg(
        long,
        env = "MODEL_P2P_TOKEN_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// A seed to fetch through instead of reading the hub here; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_SEED",
        hide_env = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    seed: Vec<String>,
    /// Talk to seeds and peers without TLS; tokens then travel over loopback only
    #[arg(long, env = "MODEL_P2P_INSECURE", hide_env = true)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct ViewArgs {
    /// Only files that match; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_INCLUDE",
        hide_env = true,
        value_name = "GLOB",
        value_delimiter = ','
    )]
    include: Vec<String>,
    /// Not the files that match; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_EXCLUDE",
        hide_env = true,
        value_name = "GLOB",
        value_delimiter = ','
    )]
    exclude: Vec<String>,
}

#[derive(Debug, Args)]
struct ReferenceArgs {
    /// What to show, e.g. hf://owner/name@revision/folder
    #[arg(value_name = "REF")]
    reference: String,
    /// Branch, tag or commit; overrides the reference's own
    #[arg(long, env = "MODEL_P2P_REVISION", hide_env = true, value_name = "REV")]
    revision: Option<String>,
}

#[derive(Debug, Args)]
pub struct MountArgs {
    #[command(flatten)]
    reference: ReferenceArgs,
    /// An empty directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Stay until Ctrl-C, then unmount
    #[arg(long, env = "MODEL_P2P_FOREGROUND", hide_env = true)]
    foreground: bool,
    /// What to bring unasked: demand (nothing), auto (ahead of readers), all
    #[arg(
        long,
        env = "MODEL_P2P_PREFETCH",
        hide_env = true,
        default_value = "auto",
        value_name = "MODE"
    )]
    prefetch: String,
    /// How long a read may wait without progress, in seconds
    #[arg(
        long,
        env = "MODEL_P2P_READ_TIMEOUT",
        hide_env = true,
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    read_timeout: u64,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    peer: PeerArgs,
    /// Address for peers to fetch from, with --seed [default: a free port]
    #[arg(long, env = "MODEL_P2P_LISTEN", hide_env = true, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for /metrics, /healthz and /api/v1/status [default: off]
    #[arg(long, env = "MODEL_P2P_HTTP", hide_env = true, value_name = "ADDR")]
    http: Option<SocketAddr>,
    #[command(flatten)]
    cache: CacheArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct UnmountArgs {
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    reference: ReferenceArgs,
    /// Where to put the files [default: ./NAME]
    #[arg(
        short,
        long,
        env = "MODEL_P2P_OUTPUT",
        hide_env = true,
        value_name = "DIR"
    )]
    output: Option<PathBuf>,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    peer: PeerArgs,
    /// Address for peers to fetch from, with --seed [default: a free port]
    #[arg(long, env = "MODEL_P2P_LISTEN", hide_env = true, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for /metrics, /healthz and /api/v1/status [default: off]
    #[arg(long, env = "MODEL_P2P_HTTP", hide_env = true, value_name = "ADDR")]
    http: Option<SocketAddr>,
    #[command(flatten)]
    cache: CacheArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    reference: ReferenceArgs,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    cache: CacheArgs,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Where kubelet finds the CSI service
    #[arg(
        long,
        env = "MODEL_P2P_CSI_ENDPOINT",
        hide_env = true,
        default_value = "unix:///var/lib/kubelet/plugins/csi.model-p2p.dev/csi.sock",
        value_name = "URL"
    )]
    csi_endpoint: String,
    /// Where FUSE mounts live [default: mnt/ beside the CSI socket]
    #[arg(long, env = "MODEL_P2P_MOUNT_DIR", hide_env = true, value_name = "DIR")]
    mount_dir: Option<PathBuf>,
    /// This node's name [default: the host name]
    #[arg(long, env = "MODEL_P2P_NODE_ID", hide_env = true, value_name = "NAME")]
    node_id: Option<String>,
    /// Also serve the controller service and be one's own seed: for development and conformance tests
    #[arg(long, env = "MODEL_P2P_ALL_IN_ONE", hide_env = true)]
    all_in_one: bool,
    /// Address for peers to fetch from
    #[arg(
        long,
        env = "MODEL_P2P_LISTEN",
        hide_env = true,
        default_value = "0.0.0.0:7441",
        value_name = "ADDR"
    )]
    listen: SocketAddr,
    /// Address that peers are told, where it is not the one listened on
    #[arg(
        long,
        env = "MODEL_P2P_ADVERTISE",
        hide_env = true,
        value_name = "ADDR"
    )]
    advertise: Option<SocketAddr>,
    /// Address for /metrics, /healthz, /readyz and /api/v1/status
    #[arg(
        long,
        env = "MODEL_P2P_HTTP",
        hide_env = true,
        default_value = "0.0.0.0:7442",
        value_name = "ADDR"
    )]
    http: SocketAddr,
    /// How long a read may wait without progress, in seconds
    #[arg(
        long,
        env = "MODEL_P2P_READ_TIMEOUT",
        hide_env = true,
        default_value_t = 600,
        value_name = "SECONDS"
    )]
    read_timeout: u64,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct SeedArgs {
    /// This seed's name among the seeds [default: the host name]
    #[arg(long, env = "MODEL_P2P_NAME", hide_env = true, value_name = "NAME")]
    name: Option<String>,
    /// Address for nodes and controllers (gRPC)
    #[arg(
        long,
        env = "MODEL_P2P_CONTROL",
        hide_env = true,
        default_value = "0.0.0.0:7440",
        value_name = "ADDR"
    )]
    control: SocketAddr,
    /// Address for pieces (HTTP/1.1)
    #[arg(
        long,
        env = "MODEL_P2P_LISTEN",
        hide_env = true,
        default_value = "0.0.0.0:7441",
        value_name = "ADDR"
    )]
    listen: SocketAddr,
    /// Address for /metrics, /healthz, /readyz and /api/v1/status
    #[arg(
        long,
        env = "MODEL_P2P_HTTP",
        hide_env = true,
        default_value = "0.0.0.0:7442",
        value_name = "ADDR"
    )]
    http: SocketAddr,
    /// Talk to nodes without TLS; tokens are then accepted over loopback only
    #[arg(long, env = "MODEL_P2P_INSECURE", hide_env = true)]
    insecure: bool,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Where the provisioner finds the CSI service
    #[arg(
        long,
        env = "MODEL_P2P_CSI_ENDPOINT",
        hide_env = true,
        default_value = "unix:///csi/csi.sock",
        value_name = "URL"
    )]
    csi_endpoint: String,
    /// Where volume names are remembered [default: $XDG_CACHE_HOME/model-p2p]
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    peer: PeerArgs,
}

impl CacheArgs {
    fn config(self) -> Result<CacheConfig, Failure> {
        let dir = match self.cache_dir {
            Some(dir) => dir,
            None => default_cache_dir()?,
        };
        Ok(CacheConfig {
            dir,
            limit_bytes: self.cache_size,
        })
    }
}

fn default_cache_dir() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("model-p2p"))
        .ok_or_else(|| usage("neither XDG_CACHE_HOME nor HOME is set: give --cache-dir"))
}

impl HubArgs {
    fn config(self) -> Result<HubsConfig, Failure> {
        let mut config = HubsConfig {
            huggingface: env("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            ca_file: self.ca_file,
            offline: self.offline || env("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
        };
        for hub in &self.hub {
            match hub.split_once('=') {
                Some(("hf", url)) => config.huggingface = url.to_owned(),
                Some((name, _)) => {
                    return Err(usage(format!(
                        "--hub {hub}: hub `{name}` is not known; known: hf"
                    )));
                }
                None => {
                    return Err(usage(format!(
                        "--hub {hub}: NAME=URL is expected, e.g. hf=https://huggingface.co"
                    )));
                }
            }
        }
        Ok(config)
    }
}

impl TokenArgs {
    /// As huggingface_hub looks for it; a file that was named must be readable.
    fn token(self) -> Result<Option<Token>, Failure> {
        if let Some(path) = self.token_file {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| usage(format!("--token-file {}: {error}", path.display())))?;
            return match Token::new(&text) {
                Some(token) => Ok(Some(token)),
                None => Err(usage(format!("--token-file {} is empty", path.display()))),
            };
        }
        if let Some(token) = env("HF_TOKEN").and_then(|text| Token::new(&text)) {
            return Ok(Some(token));
        }
        let home = || {
            env("HF_HOME").or_else(|| env("HOME").map(|home| format!("{home}/.cache/huggingface")))
        };
        let path = env("HF_TOKEN_PATH").or_else(|| home().map(|home| format!("{home}/token")));
        Ok(path
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| Token::new(&text)))
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ReferenceArgs {
    fn reference(self) -> Result<Reference, Failure> {
        let bad = |error: crate::model::reference::ReferenceError| {
            Failure::new(FailureKind::BadReference, error.to_string())
        };
        let reference: Reference = self.reference.parse().map_err(bad)?;
        match self.revision {
            // Parsed with the reference, so that a bad revision is refused the same way.
            Some(revision) => reference.at(&revision).to_string().parse().map_err(bad),
            None => Ok(reference),
        }
    }
}

impl ViewArgs {
    fn view(self, reference: &Reference) -> Result<View, Failure> {
        let view = View {
            subdir: reference.subdir.clone(),
            include: self.include,
            exclude: self.exclude,
        };
        view.check().map_err(|error| usage(error.to_string()))?;
        Ok(view)
    }
}

impl PeerArgs {
    fn config(
        self,
        listen: Option<SocketAddr>,
        advertise: Option<SocketAddr>,
    ) -> Result<Option<PeerConfig>, Failure> {
        if self.seed.is_empty() {
            return Ok(None);
        }
        secure(self.insecure)?;
        if let Some(seed) = self.seed.iter().find(|seed| !seed.contains(':')) {
            return Err(usage(format!(
                "--seed {seed}: HOST:PORT is expected, e.g. seed-0.example:7440"
            )));
        }
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        Ok(Some(PeerConfig {
            seeds: self.seed,
            listen,
            advertise,
        }))
    }
}

fn secure(insecure: bool) -> Result<(), Failure> {
    match insecure {
        true => Ok(()),
        false => Err(usage(
            "TLS between nodes and seeds is not in this release: on a trusted network add --insecure",
        )),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadReference, message)
}

impl MountArgs {
    pub fn config(self) -> Result<MountConfig, Failure> {
        let reference = self.reference.reference()?;
        Ok(MountConfig {
            view: self.view.view(&reference)?,
            reference,
            dir: self.dir,
            foreground: self.foreground,
            prefetch: self.prefetch,
            read_timeout: std::time::Duration::from_secs(self.read_timeout),
            token: self.token.token()?,
            hubs: self.hubs.config()?,
            peer: self.peer.config(self.listen, None)?,
            http: self.http,
            cache: self.cache.config()?,
            json: self.json,
        })
    }
}

impl GetArgs {
    pub fn config(self) -> Result<GetConfig, Failure> {
        let reference = self.reference.reference()?;
        let name = reference
            .repo
            .rsplit('/')
            .next()
            .unwrap_or("model")
            .to_owned();
        Ok(GetConfig {
            view: self.view.view(&reference)?,
            reference,
            dir: self.output.unwrap_or_else(|| PathBuf::from(name)),
            token: self.token.token()?,
            hubs: self.hubs.config()?,
            peer: self.peer.config(self.listen, None)?,
            http: self.http,
            cache: self.cache.config()?,
            json: self.json,
        })
    }
}

impl ResolveArgs {
    /// A `get` that stops before the files.
    pub fn config(self) -> Result<GetConfig, Failure> {
        let reference = self.reference.reference()?;
        Ok(GetConfig {
            view: View {
                subdir: reference.subdir.clone(),
                ..View::default()
            },
            reference,
            dir: PathBuf::new(),
            token: self.token.token()?,
            hubs: self.hubs.config()?,
            peer: self.peer.config(None, None)?,
            http: None,
            cache: self.cache.config()?,
            json: self.json,
        })
    }
}

impl StatusArgs {
    pub fn config(self) -> Result<(CacheConfig, bool), Failure> {
        Ok((self.cache.config()?, self.json))
    }
}

impl NodeArgs {
    pub fn config(self) -> Result<NodeConfig, Failure> {
        let peer = self.peer.config(Some(self.listen), self.advertise)?;
        if peer.is_none() && !self.all_in_one {
            return Err(usage(
                "a node needs --seed HOST:PORT, or --all-in-one to be its own seed",
            ));
        }
        Ok(NodeConfig {
            csi_endpoint: self.csi_endpoint,
            mount_dir: self.mount_dir,
            node_id: self.node_id.unwrap_or_else(host_name),
            all_in_one: self.all_in_one,
            http: self.http,
            read_timeout: std::time::Duration::from_secs(self.read_timeout),
            peer,
            hubs: self.hubs.config()?,
            cache: self.cache.config()?,
        })
    }
}

impl SeedArgs {
    pub fn config(self) -> Result<SeedConfig, Failure> {
        secure(self.insecure)?;
        Ok(SeedConfig {
            name: self.name.unwrap_or_else(host_name),
            control: self.control,
            listen: self.listen,
            http: self.http,
            hubs: self.hubs.config()?,
            cache: self.cache.config()?,
        })
    }
}

impl ControllerArgs {
    pub fn config(self) -> Result<ControllerConfig, Failure> {
        let peer = self.peer.config(None, None)?;
        let peer = peer.ok_or_else(|| usage("a controller needs --seed HOST:PORT"))?;
        Ok(ControllerConfig {
            csi_endpoint: self.csi_endpoint,
            seeds: peer.seeds,
            cache: self.cache.config()?,
        })
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json is expected".into()),
    }
}

/// Bytes, with an optional K, M, G or T and an optional `iB` (powers of 1024) or `B` (powers of 1000).
fn parse_size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a size, e.g. 200GiB"))?;
    let (step, letters): (u64, _) = match unit.strip_suffix("iB") {
        Some(letters) => (1024, letters),
        None => match unit.strip_suffix('B') {
            Some(letters) => (1000, letters),
            None => (1024, unit),
        },
    };
    let power = match letters {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => {
            return Err(format!(
                "`{unit}` is not a unit of size: K, M, G, T, KiB, GB ... are"
            ));
        }
    };
    number
        .checked_mul(step.pow(power))
        .ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_well_formed_and_its_help_fits_a_screen() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(
                help.lines().count() <= 60,
                "{}: {} lines",
                command.get_name(),
                help.lines().count()
            );
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("2K", 2048),
            ("3GiB", 3 << 30),
            ("5GB", 5_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "GiB", "1X", "-1", "99999999999T", "1.5G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
