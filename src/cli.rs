//! The command line: what users type, and nothing of how it is done.
//!
//! Every flag has an environment variable `MODEL_P2P_<FLAG>`. Only this room knows the argument parser; the
//! rest of the program gets the plain structs of [`crate::config`].

mod commands;
mod daemons;
pub mod exit;
mod flags;

use crate::config::Format;
use clap::{Parser, Subcommand};
use commands::{GetArgs, MountArgs, ResolveArgs, StatusArgs, UnmountArgs};
use daemons::{BootstrapArgs, ControllerArgs, NodeArgs, SeedArgs, SuperviseArgs};

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
    /// Make the certificates for TLS between seeds, nodes and controllers, or renew old ones
    #[command(after_help = BOOTSTRAP_EXAMPLES)]
    Bootstrap(BootstrapArgs),
    /// Run a daemon as a container's first process: start it again whenever it dies
    #[command(after_help = SUPERVISE_EXAMPLES)]
    Supervise(SuperviseArgs),
}

const MOUNT_EXAMPLES: &str = "Examples:
  model-p2p mount hf://Qwen/Qwen3-8B /mnt/qwen
  model-p2p mount hf://Qwen/Qwen3-8B@main /mnt/qwen --seed seed-0.example:7440 --tls-dir /etc/model-p2p/node";
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
  model-p2p node --node-id $(hostname) --seed seed-0.example:7440 --tls-dir /etc/model-p2p/node
  model-p2p node --node-id dev --all-in-one --csi-endpoint unix:///tmp/csi.sock";
const SEED_EXAMPLES: &str = "Examples:
  model-p2p seed --cache-dir /var/lib/model-p2p --tls-dir /etc/model-p2p/seed
  model-p2p seed --hub hf=https://hf-mirror.example --listen 0.0.0.0:7441 --insecure";
const CONTROLLER_EXAMPLES: &str = "Examples:
  model-p2p controller --seed seed-0.example:7440 --csi-endpoint unix:///csi/csi.sock --tls-dir /tls
  MODEL_P2P_SEED=seed-0.example:7440 model-p2p controller --csi-endpoint unix:///csi/csi.sock --insecure";
const SUPERVISE_EXAMPLES: &str = "Examples:
  model-p2p supervise -- node --seed seed-0.example:7440 --insecure
  model-p2p supervise -- seed --cache-dir /var/lib/model-p2p --insecure";

const BOOTSTRAP_EXAMPLES: &str = "Examples:
  model-p2p bootstrap --namespace model-p2p
  model-p2p bootstrap --out /etc/model-p2p";

/// Reads the command line; ends the process with code 2 when it is wrong.
pub fn parse() -> Cli {
    Cli::parse()
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Only `seed` had the flag that every refusal names.
    #[test]
    fn every_command_that_may_read_hubs_may_be_allowed_another() {
        let cli = Cli::command();
        for name in ["seed", "node", "mount", "get", "resolve"] {
            let command = cli.find_subcommand(name).expect(name);
            let mut flags = command.get_arguments().filter_map(clap::Arg::get_long);
            assert!(flags.any(|flag| flag == "allow-endpoint"), "{name}");
        }
    }

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
}
