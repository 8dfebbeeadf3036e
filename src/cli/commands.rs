//! The flags of commands that come and go, and the configuration each makes of them.

use super::flags::{CacheArgs, HubArgs, PeerArgs, PlaceArgs, ReferenceArgs, TokenArgs, ViewArgs};
use crate::config::{CacheConfig, GetConfig, MountConfig};
use crate::model::{Failure, Reads, Reference, Verify, View};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What part of a model comes here, and which way.
#[derive(Debug, Args)]
struct FetchArgs {
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    hubs: HubArgs,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    place: PlaceArgs,
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
    /// When bytes are believed: piece (each by its hash), strict (once the hub's digest of the file is checked)
    #[arg(
        long,
        env = "MODEL_P2P_VERIFY",
        hide_env = true,
        default_value = "piece",
        value_name = "MODE"
    )]
    verify: Verify,
    #[command(flatten)]
    fetch: FetchArgs,
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
    fetch: FetchArgs,
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

impl FetchArgs {
    fn config(
        self,
        reference: Reference,
        dir: PathBuf,
        reads: Reads,
    ) -> Result<GetConfig, Failure> {
        Ok(GetConfig {
            view: View {
                reads,
                ..self.view.view(&reference)?
            },
            reference,
            dir,
            token: self.token.token()?,
            hubs: self.hubs.config()?,
            peer: self.place.place(self.peer.config(self.listen, None)?),
            http: self.http,
            cache: self.cache.config()?,
            json: self.json,
        })
    }
}

impl MountArgs {
    pub fn config(self) -> Result<MountConfig, Failure> {
        let reference = self.reference.reference()?;
        let reads = Reads {
            verify: self.verify,
            timeout: Some(std::time::Duration::from_secs(self.read_timeout)),
        };
        Ok(MountConfig {
            shown: self.fetch.config(reference, self.dir, reads)?,
            foreground: self.foreground,
            prefetch: self.prefetch,
        })
    }
}

impl GetArgs {
    pub fn config(self) -> Result<GetConfig, Failure> {
        let reference = self.reference.reference()?;
        let name = reference.repo.rsplit('/').next().unwrap_or("model");
        let dir = self.output.unwrap_or_else(|| PathBuf::from(name));
        self.fetch.config(reference, dir, Reads::default())
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
