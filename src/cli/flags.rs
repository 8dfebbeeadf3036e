//! Groups of flags that several commands share, and what they mean.

use crate::config::{CacheConfig, HubsConfig, PeerConfig};
use crate::model::hub_url::HubUrlError;
use crate::model::reference::ReferenceError;
use crate::model::secrets::without_secrets;
use crate::model::{Failure, FailureKind, HubUrl, Reference, Token, View};
use clap::Args;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Where pieces are kept [default: $XDG_CACHE_HOME/model-p2p]
    #[arg(long, env = "MODEL_P2P_CACHE_DIR", hide_env = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Bytes the cache may hold, e.g. 200GiB [default: 0.9 of what is free, leaving 20 % of the disk]
    #[arg(long, env = "MODEL_P2P_CACHE_SIZE", hide_env = true, value_name = "SIZE", value_parser = parse_size)]
    pub cache_size: Option<u64>,
}

#[derive(Debug, Args)]
pub struct HubArgs {
    /// Another base URL for a hub (else HF_ENDPOINT)
    #[arg(long, env = "MODEL_P2P_HUB", hide_env = true, value_name = "NAME=URL")]
    pub hub: Vec<String>,
    /// PEM file with certificates to trust beside the system's
    #[arg(long, env = "MODEL_P2P_CA_FILE", hide_env = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use only what is here; never open a connection to a hub (also HF_HUB_OFFLINE=1)
    #[arg(long, env = "MODEL_P2P_OFFLINE", hide_env = true)]
    pub offline: bool,
    /// Another hub that may be read where a reference, class or volume names it; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_ALLOW_ENDPOINT",
        hide_env = true,
        value_name = "URL",
        value_delimiter = ','
    )]
    pub allow_endpoint: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// File with the hub token (else HF_TOKEN, HF_TOKEN_PATH, ~/.cache/huggingface/token)
    #[arg(
        long,
        env = "MODEL_P2P_TOKEN_FILE",
        hide_env = true,
        value_name = "FILE"
    )]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OperationsArgs {
    /// Address for /metrics, /healthz, /readyz and /api/v1/status
    #[arg(
        long,
        env = "MODEL_P2P_HTTP",
        hide_env = true,
        default_value = "0.0.0.0:7442",
        value_name = "ADDR"
    )]
    pub http: SocketAddr,
}

#[derive(Debug, Args)]
pub struct PeerArgs {
    /// A seed to fetch through instead of reading the hub here; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_SEED",
        hide_env = true,
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub seed: Vec<String>,
    #[command(flatten)]
    pub transport: TransportArgs,
}

/// Where a process is; nothing where all are in one place.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// This node's zone: between zones a piece travels once
    #[arg(
        long,
        env = "MODEL_P2P_ZONE",
        hide_env = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    zone: String,
    /// This node's rack in its zone, whose nodes are preferred
    #[arg(
        long,
        env = "MODEL_P2P_RACK",
        hide_env = true,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    rack: String,
}

/// Exactly one of the two: nobody talks in the clear without having said so.
#[derive(Debug, Args)]
pub struct TransportArgs {
    /// ca.crt, tls.crt and tls.key for TLS between nodes, controllers and seeds
    #[arg(long, env = "MODEL_P2P_TLS_DIR", hide_env = true, value_name = "DIR")]
    pub tls_dir: Option<PathBuf>,
    /// No TLS; hub tokens then travel over loopback only
    #[arg(long, env = "MODEL_P2P_INSECURE", hide_env = true)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Only files that match; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_INCLUDE",
        hide_env = true,
        value_name = "GLOB",
        value_delimiter = ','
    )]
    pub include: Vec<String>,
    /// Not the files that match; repeatable
    #[arg(
        long,
        env = "MODEL_P2P_EXCLUDE",
        hide_env = true,
        value_name = "GLOB",
        value_delimiter = ','
    )]
    pub exclude: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// What to show, e.g. hf://owner/name@revision/folder
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Branch, tag or commit; overrides the reference's own
    #[arg(long, env = "MODEL_P2P_REVISION", hide_env = true, value_name = "REV")]
    pub revision: Option<String>,
}

impl CacheArgs {
    pub fn config(self) -> Result<CacheConfig, Failure> {
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
    pub fn config(self) -> Result<HubsConfig, Failure> {
        let mut config = HubsConfig {
            huggingface: env("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            ca_file: self.ca_file,
            allowed: allowed(&self.allow_endpoint)?,
            offline: self.offline || env("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
        };
        for hub in &self.hub {
            match hub.split_once('=') {
                Some(("hf", url)) => config.huggingface = url.to_owned(),
                Some((name, _)) => {
                    return Err(usage(format!(
                        "--hub {name}=...: hub `{name}` is not known; known: hf"
                    )));
                }
                None => {
                    return Err(usage(format!(
                        "--hub {}: NAME=URL is expected, e.g. hf=https://huggingface.co",
                        without_secrets(hub)
                    )));
                }
            }
        }
        Ok(config)
    }
}

/// Parsed here, for the argument parser's own error would repeat a password.
fn allowed(urls: &[String]) -> Result<Vec<HubUrl>, Failure> {
    let bad = |error: HubUrlError| usage(format!("--allow-endpoint {error}"));
    urls.iter().map(|url| url.parse().map_err(bad)).collect()
}

impl TokenArgs {
    /// As huggingface_hub looks for it; a file that was named must be readable.
    pub fn token(self) -> Result<Option<Token>, Failure> {
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
    pub fn reference(self) -> Result<Reference, Failure> {
        let bad =
            |error: ReferenceError| Failure::new(FailureKind::BadReference, error.to_string());
        let reference: Reference = self.reference.parse().map_err(bad)?;
        match self.revision {
            // Parsed with the reference, so that a bad revision is refused the same way.
            Some(revision) => reference.at(&revision).to_string().parse().map_err(bad),
            None => Ok(reference),
        }
    }
}

impl ViewArgs {
    pub fn view(self, reference: &Reference) -> Result<View, Failure> {
        let view = View {
            subdir: reference.subdir.clone(),
            include: self.include,
            exclude: self.exclude,
            ..View::default()
        };
        view.check().map_err(|error| usage(error.to_string()))?;
        Ok(view)
    }
}

impl PeerArgs {
    pub fn config(
        self,
        listen: Option<SocketAddr>,
        advertise: Option<SocketAddr>,
    ) -> Result<Option<PeerConfig>, Failure> {
        if self.seed.is_empty() {
            return Ok(None);
        }
        let tls_dir = self.transport.tls_dir()?;
        if let Some(seed) = self.seed.iter().find(|seed| !seed.contains(':')) {
            return Err(usage(format!(
                "--seed {seed}: HOST:PORT is expected, e.g. seed-0.example:7440"
            )));
        }
        let listen = listen.unwrap_or_else(|| any_port(&self.seed));
        Ok(Some(PeerConfig {
            seeds: self.seed,
            listen,
            advertise,
            zone: String::new(),
            rack: String::new(),
            tls_dir,
        }))
    }
}

/// A free port where peers can be: on all addresses, unless the whole swarm is on this machine.
fn any_port(seeds: &[String]) -> SocketAddr {
    let is_here = |seed: &String| {
        let host = seed.rsplit_once(':').map_or(&**seed, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    match seeds.iter().all(is_here) {
        true => ([127, 0, 0, 1], 0).into(),
        false => ([0, 0, 0, 0], 0).into(),
    }
}

impl PlaceArgs {
    /// The peer at this place.
    pub fn place(self, peer: Option<PeerConfig>) -> Option<PeerConfig> {
        peer.map(|peer| PeerConfig {
            zone: self.zone,
            rack: self.rack,
            ..peer
        })
    }
}

impl TransportArgs {
    /// The directory of certificates, or none for plain traffic.
    pub fn tls_dir(self) -> Result<Option<PathBuf>, Failure> {
        match (self.tls_dir, self.insecure) {
            (Some(dir), false) => Ok(Some(dir)),
            (None, true) => Ok(None),
            (Some(_), true) => Err(usage(
                "--tls-dir and --insecure contradict each other: give one of them",
            )),
            (None, false) => Err(usage(
                "traffic is TLS, and no certificates are given: run `model-p2p bootstrap --out tls` once, then give the seed `--tls-dir tls/seed`, every node, mount and get a copy of tls/node with `--tls-dir node`, and a controller tls/controller; or give all of them --insecure on a trusted network",
            )),
        }
    }
}

pub fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadReference, message)
}

pub fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
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

    #[test]
    fn every_reader_of_hubs_may_be_allowed_another_and_no_error_repeats_a_password() {
        let config = |allow_endpoint: &str, hub: &str| {
            let args = HubArgs {
                hub: vec![hub.to_owned()],
                ca_file: None,
                offline: false,
                allow_endpoint: vec![allow_endpoint.to_owned()],
            };
            args.config().map_err(|failure| failure.to_string())
        };
        let (url, hf) = ("https://hub.example.com", "hf=https://hub.example.com");
        let allowed = config(url, hf).expect("a hub").allowed;
        assert_eq!(allowed, [url.parse().expect("a hub")]);
        for (url, hub) in [
            ("https://u:SECRET@hub", hf),
            (url, "https://u:SECRET@hub"),
            (url, "x=https://u:SECRET@hub"),
        ] {
            let error = config(url, hub).expect_err("credentials");
            assert!(error.contains("--") && !error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn peers_listen_where_their_swarm_is() {
        let listens = |seeds: &[&str]| {
            let seeds: Vec<_> = seeds.iter().map(|seed| seed.to_string()).collect();
            any_port(&seeds).ip().to_string()
        };
        assert_eq!(
            listens(&["127.0.0.2:7440", "localhost:1", "[::1]:7440"]),
            "127.0.0.1"
        );
        assert_eq!(listens(&["127.0.0.1:7440", "10.0.0.1:7440"]), "0.0.0.0");
        assert_eq!(listens(&["seed-0.example:7440"]), "0.0.0.0");
    }
}
