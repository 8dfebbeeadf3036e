//! `mount`: a model at a directory, held by a process of its own or by the cache's owner.

use super::command::{self, Request};
use super::control::{self, ControlService};
use super::engine::{Engine, open_store};
use super::get::{TIMEOUT, print};
use super::status::StatusSource;
use super::{attach, node, ops, signal};
use crate::config::MountConfig;
use crate::model::{Failure, FailureKind};
use crate::mount::{DirectMount, Mounts, MountsConfig, info, syscalls};
use crate::store::{Store, StoreError};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Mounts over the control socket waiting to be watched; more wait for their turn.
const MOUNTS_WAITING: usize = 16;

/// Mounts a model. Without `--foreground` a background process holds the mount, and this one returns when
/// it is readable.
pub async fn mount(config: MountConfig) -> Result<ExitCode, Failure> {
    let request = request(&config)?;
    match open_store(&config.shown.cache) {
        Ok(store) if config.foreground => hold(store, &config, request)
            .await
            .map(|()| ExitCode::SUCCESS),
        // The background process takes the lock that goes with this handle.
        Ok(store) => {
            drop(store);
            in_background(&config)
        }
        Err(StoreError::Owned { dir }) => {
            print(attach::mount(&dir, &request).await?, config.shown.json);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error.into()),
    }
}

fn request(config: &MountConfig) -> Result<Request, Failure> {
    let dir = std::fs::canonicalize(&config.shown.dir).map_err(|error| {
        let message = format!(
            "mount point {}: {error}: create the directory first",
            config.shown.dir.display()
        );
        Failure::new(FailureKind::BadReference, message)
    })?;
    Ok(Request {
        reference: config.shown.reference.clone(),
        view: config.shown.view.clone(),
        token: config.shown.token.clone(),
        dir,
        prefetch: config
            .prefetch
            .parse()
            .map_err(|cause: String| Failure::new(FailureKind::BadReference, cause))?,
    })
}

/// Runs the same command line in the foreground of a new session and waits for its first line.
fn in_background(config: &MountConfig) -> Result<ExitCode, Failure> {
    let internal = |error: std::io::Error| {
        Failure::new(
            FailureKind::Internal,
            format!("cannot start the mount process: {error}"),
        )
    };
    let log_path = config.shown.cache.dir.join("mount.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(internal)?;
    let start = log.metadata().map(|meta| meta.len()).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().map_err(internal)?);
    command
        .args(std::env::args_os().skip(1))
        .arg("--foreground");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(internal)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(internal)?;
    }
    if !line.is_empty() {
        print!("{line}");
        return Ok(ExitCode::SUCCESS);
    }
    let code = child
        .wait()
        .map_err(internal)?
        .code()
        .and_then(|code| u8::try_from(code).ok());
    eprint!("{}", last_line(&log_path, start));
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// What the background process said last before it failed.
fn last_line(log: &Path, start: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(start as usize..).unwrap_or_default()).into_owned();
    text.lines()
        .last()
        .map(|line| format!("{line}\n"))
        .unwrap_or_default()
}

/// Holds the mount, and those that other commands ask for, until the last has ended or a signal comes.
async fn hold(store: Store, config: &MountConfig, request: Request) -> Result<(), Failure> {
    let shutdown = signal::shutdown()?;
    let patience = config.shown.view.reads.timeout;
    let read_timeout = patience.unwrap_or(TIMEOUT);
    let engine = match &config.shown.peer {
        None => Engine::local(store.clone(), &config.shown.hubs, read_timeout)?,
        Some(peer) => {
            Engine::peer(
                store.clone(),
                peer,
                node::unique_id(),
                read_timeout,
                shutdown.clone(),
            )
            .await?
        }
    };
    let mounts = Mounts::new(
        MountsConfig {
            dir: store.dir().join("mnt"),
        },
        engine.fetcher.clone(),
        tokio::runtime::Handle::current(),
    )?;
    let status = StatusSource {
        role: "mount",
        store: Some(store.clone()),
        mounts: Some(mounts.clone()),
    };
    if let Some(addr) = config.shown.http {
        ops::serve(
            addr,
            status.clone(),
            ops::Ready::default(),
            shutdown.clone(),
        )
        .await?;
    }
    let (mounted, done) = command::mount(&engine, &mounts, &request).await?;
    let (keep, asked) = mpsc::channel(MOUNTS_WAITING);
    let service = ControlService {
        engine,
        status,
        mounts: Some((mounts.clone(), keep)),
    };
    control::serve(store.dir(), service, shutdown.clone())?;
    print(done, config.shown.json);
    watch(mounted, asked, &shutdown).await;
    shutdown.cancel();
    Ok(())
}

/// Waits for all mounts to end; on a signal ends them.
async fn watch(
    first: DirectMount,
    mut asked: mpsc::Receiver<DirectMount>,
    shutdown: &CancellationToken,
) {
    let mut held = JoinSet::new();
    held.spawn(until_ended(first, shutdown.clone()));
    while !held.is_empty() {
        tokio::select! {
            Some(mounted) = asked.recv() => {
                held.spawn(until_ended(mounted, shutdown.clone()));
            }
            _ = held.join_next() => {}
        }
    }
}

/// Holds what other commands mount, for a daemon that goes on without them.
pub async fn hold_until_ended(mut asked: mpsc::Receiver<DirectMount>, shutdown: CancellationToken) {
    let mut held = JoinSet::new();
    while let Some(mounted) = asked.recv().await {
        held.spawn(until_ended(mounted, shutdown.clone()));
        while held.try_join_next().is_some() {}
    }
    held.join_all().await;
}

async fn until_ended(mounted: DirectMount, shutdown: CancellationToken) {
    tokio::select! {
        () = mounted.ended() => {}
        () = shutdown.cancelled() => {}
    }
    mounted.unmount().await;
}

/// Ends a mount of this program. Its owner notices and goes when it was the last.
pub fn unmount(dir: &Path) -> Result<(), Failure> {
    let fail = |message: String| Failure::new(FailureKind::NotFound, message);
    let dir =
        std::path::absolute(dir).map_err(|error| fail(format!("{}: {error}", dir.display())))?;
    let ours = |line: &info::MountLine| line.fstype == info::FSTYPE;
    match info::on(&dir)?.filter(ours) {
        Some(_) => Ok(syscalls::detach(&dir)?),
        None => Err(fail(format!(
            "{} is not a mount of model-p2p: see `model-p2p status`",
            dir.display()
        ))),
    }
}
