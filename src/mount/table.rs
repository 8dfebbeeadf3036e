//! Which volume is shown where: FUSE mounts shared by targets, counted, created at first use.
//!
//! Calls may repeat, overlap and be given up: each runs to its end in a blocking thread of its own, calls
//! about one target or one mount take turns, and what a failed publish made is taken down again. A dropped
//! call therefore leaves all or nothing. The table is in memory; after a crash [`Mounts::recover`] cleans
//! what the mount table still shows and the callers publish again.

use super::direct::DirectMount;
use super::locks::Locks;
use super::probe::{self, MountHealth};
use super::session::Session;
use super::{MountError, info, syscalls};
use crate::fetch::Fetcher;
use crate::fs::{FetchProvider, Follow, Mode, Provider, Tree, Volume, prefetch};
use crate::model::{Listing, Pin, Prefetch, Token, View};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

#[derive(Clone, Debug)]
pub struct MountsConfig {
    /// Where FUSE mounts live, below the plugin's directory.
    pub dir: PathBuf,
}

/// What to show.
#[derive(Clone, Debug)]
pub struct MountSpec {
    pub listing: Arc<Listing>,
    pub view: View,
    pub token: Option<Token>,
    pub prefetch: Prefetch,
}

/// A volume's size as `df` would give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    pub bytes: u64,
    pub files: u64,
}

/// One FUSE mount and who uses it.
#[derive(Clone, Debug)]
pub struct MountStatus {
    pub pin: Pin,
    pub view: View,
    pub dir: PathBuf,
    pub mode: Mode,
    pub targets: Vec<PathBuf>,
}

/// Half of what kubelet gives a call. Mounting takes milliseconds; only a filesystem that hangs takes longer.
const CALL_MAX: Duration = Duration::from_secs(60);

/// What two volumes must have in common to share a mount.
type Key = (Pin, View);

#[derive(Clone)]
struct Target {
    volume_id: String,
    key: Key,
}

#[derive(Default)]
struct Table {
    mounts: HashMap<Key, Arc<Session>>,
    targets: BTreeMap<PathBuf, Target>,
}

/// The mounts of this process.
pub struct Mounts {
    config: MountsConfig,
    provider: Arc<dyn Provider>,
    runtime: Handle,
    table: Mutex<Table>,
    target_turns: Locks<PathBuf>,
    mount_turns: Locks<Key>,
}

impl Mounts {
    /// Creates `config.dir` if need be.
    pub fn new(
        config: MountsConfig,
        fetcher: Arc<Fetcher>,
        runtime: Handle,
    ) -> Result<Arc<Mounts>, MountError> {
        Mounts::with_provider(config, Arc::new(FetchProvider(fetcher)), runtime)
    }

    /// The same on other content.
    pub fn with_provider(
        mut config: MountsConfig,
        provider: Arc<dyn Provider>,
        runtime: Handle,
    ) -> Result<Arc<Mounts>, MountError> {
        let failed = |error| MountError::io("create", &config.dir, error);
        std::fs::create_dir_all(&config.dir).map_err(failed)?;
        // As the mount table spells it.
        config.dir = config.dir.canonicalize().map_err(failed)?;
        Ok(Arc::new(Mounts {
            config,
            provider,
            runtime,
            table: Mutex::default(),
            target_turns: Locks::new(),
            mount_turns: Locks::new(),
        }))
    }

    /// Shows a volume at `target`, whose parent must exist. Again with the same volume and spec is fine, and
    /// passes a new token on.
    pub async fn publish(
        self: &Arc<Self>,
        spec: MountSpec,
        volume_id: &str,
        target: &Path,
    ) -> Result<(), MountError> {
        let (volume_id, path) = (volume_id.to_owned(), target.to_owned());
        self.blocking(target, move |mounts| {
            mounts.target_turns.hold(&path.clone(), || {
                mounts.publish_now(&spec, &volume_id, &path)
            })
        })
        .await
    }

    /// Takes a volume off `target` and removes the directory. Fine when nothing is there.
    pub async fn unpublish(
        self: &Arc<Self>,
        volume_id: &str,
        target: &Path,
    ) -> Result<(), MountError> {
        let (volume_id, path) = (volume_id.to_owned(), target.to_owned());
        self.blocking(target, move |mounts| {
            mounts
                .target_turns
                .hold(&path.clone(), || mounts.unpublish_now(&volume_id, &path))
        })
        .await
    }

    /// Mounts directly on an empty directory.
    pub async fn mount_at(
        self: &Arc<Self>,
        spec: MountSpec,
        dir: &Path,
    ) -> Result<DirectMount, MountError> {
        let path = dir.to_owned();
        self.blocking(dir, move |mounts| DirectMount::new(mounts, spec, &path))
            .await
    }

    /// Size and number of files of a published volume, from memory: never asks the mount.
    pub fn stats(&self, volume_id: &str, target: &Path) -> Option<VolumeStats> {
        let session = self.session(volume_id, target)?;
        let tree = session.volume().tree();
        Some(VolumeStats {
            bytes: tree.bytes(),
            files: tree.files(),
        })
    }

    /// How a published volume is, within 100 ms, whatever hangs.
    pub async fn health(&self, volume_id: &str, target: &Path) -> Option<MountHealth> {
        let session = self.session(volume_id, target)?;
        Some(probe::health(&session, target).await)
    }

    /// What becomes of a published volume from now on.
    pub fn follow(&self, volume_id: &str, target: &Path) -> Option<Follow> {
        let session = self.session(volume_id, target)?;
        Some(Follow::new(session.volume().clone()))
    }

    fn session(&self, volume_id: &str, target: &Path) -> Option<Arc<Session>> {
        let table = self.table();
        let found = table.targets.get(target)?;
        let session = table.mounts.get(&found.key)?;
        (found.volume_id == volume_id).then(|| session.clone())
    }

    /// Every shared mount.
    pub fn list(&self) -> Vec<MountStatus> {
        let table = self.table();
        let status = |((pin, view), session): (&Key, &Arc<Session>)| MountStatus {
            pin: pin.clone(),
            view: view.clone(),
            dir: session.dir().to_owned(),
            mode: session.volume().mode(),
            targets: table.targets_of(&(pin.clone(), view.clone())),
        };
        table.mounts.iter().map(status).collect()
    }

    /// Takes down what an earlier process left: its FUSE mounts below the directory, every bind of them, and
    /// what is dead on `recorded` targets. Returns the targets that were cleaned. Call it before any publish.
    pub async fn recover(
        self: &Arc<Self>,
        recorded: Vec<PathBuf>,
    ) -> Result<Vec<PathBuf>, MountError> {
        let dir = self.config.dir.clone();
        self.blocking(&dir, move |mounts| mounts.recover_now(&recorded))
            .await
    }

    /// Runs `work` to its end even if the caller goes away, and lets the caller go when it takes too long.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        path: &Path,
        work: impl FnOnce(&Mounts) -> Result<T, MountError> + Send + 'static,
    ) -> Result<T, MountError> {
        let mounts = self.clone();
        let done = self.runtime.spawn_blocking(move || work(&mounts));
        match tokio::time::timeout(CALL_MAX, done).await {
            Ok(done) => done.unwrap_or_else(|_| Err(MountError::Interrupted { path: path.into() })),
            Err(_) => Err(MountError::Hung { path: path.into() }),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_now(
        &self,
        spec: &MountSpec,
        volume_id: &str,
        target: &Path,
    ) -> Result<(), MountError> {
        let wanted = Target {
            volume_id: volume_id.to_owned(),
            key: (spec.listing.pin().clone(), spec.view.clone()),
        };
        let known = self.table().targets.get(target).cloned();
        if let Some(known) = known
            && (known.volume_id != wanted.volume_id || known.key != wanted.key)
        {
            let (target, volume) = (target.to_owned(), known.volume_id);
            return Err(MountError::OtherVolume { target, volume });
        }
        let session = self.acquire(spec, &wanted, target)?;
        let shown = show(&session, target);
        if shown.is_err() {
            self.release(&wanted.key, target);
        }
        shown
    }

    fn unpublish_now(&self, volume_id: &str, target: &Path) -> Result<(), MountError> {
        let known = self.table().targets.get(target).cloned();
        if known
            .as_ref()
            .is_some_and(|known| known.volume_id != volume_id)
        {
            return Ok(());
        }
        hide(target)?;
        if let Some(known) = known {
            self.release(&known.key, target);
        }
        Ok(())
    }

    /// The shared mount of a spec, made if need be, with `target` counted as its user.
    fn acquire(
        &self,
        spec: &MountSpec,
        wanted: &Target,
        target: &Path,
    ) -> Result<Arc<Session>, MountError> {
        self.mount_turns.hold(&wanted.key, || {
            let known = self.table().mounts.get(&wanted.key).cloned();
            let session = match known.filter(|session| session.is_mounted()) {
                Some(session) => {
                    apply(spec.prefetch, &session);
                    if let Some(token) = &spec.token {
                        session.volume().opener().set_token(token.clone());
                    }
                    session
                }
                None => self.create(spec, &wanted.key)?,
            };
            let mut table = self.table();
            table.mounts.insert(wanted.key.clone(), session.clone());
            table.targets.insert(target.to_owned(), wanted.clone());
            Ok(session)
        })
    }

    /// Counts a user less; the last one ends the mount.
    fn release(&self, key: &Key, target: &Path) {
        self.mount_turns.hold(key, || {
            let last = {
                let mut table = self.table();
                table.targets.remove(target);
                match table.targets_of(key).is_empty() {
                    true => table.mounts.remove(key),
                    false => None,
                }
            };
            // Ended outside the table's lock, before another publish may mount here again.
            if let Some(session) = last {
                let dir = session.dir().to_owned();
                session.end();
                if let Err(error) = syscalls::remove_dir(&dir) {
                    tracing::warn!(%error, "directory stays");
                }
            }
        })
    }

    fn create(&self, spec: &MountSpec, key: &Key) -> Result<Arc<Session>, MountError> {
        let dir = self.config.dir.join(short_digest(key));
        syscalls::detach(&dir)?;
        std::fs::create_dir_all(&dir).map_err(|error| MountError::io("create", &dir, error))?;
        let session = self.start(spec, &dir);
        if session.is_err() {
            let _ = syscalls::remove_dir(&dir);
        }
        session.map(Arc::new)
    }

    /// Mounts a spec on an existing directory.
    pub(super) fn start(&self, spec: &MountSpec, dir: &Path) -> Result<Session, MountError> {
        let tree = Tree::new(spec.listing.clone(), &spec.view)?;
        let (listing, token) = (spec.listing.clone(), spec.token.clone());
        let opener = self.provider.opener(listing, token, spec.view.reads);
        let volume = Volume::new(tree, opener, self.runtime.clone());
        let session = Session::mount(volume, dir, self.provider.data_dir())?;
        apply(spec.prefetch, &session);
        Ok(session)
    }

    fn recover_now(&self, recorded: &[PathBuf]) -> Result<Vec<PathBuf>, MountError> {
        let ours: Vec<_> = info::mounts()?
            .into_iter()
            .filter(|line| line.fstype == info::FSTYPE)
            .collect();
        let alive: Vec<_> = self.table().mounts.values().map(|s| s.device()).collect();
        let below = |line: &&info::MountLine| line.point.starts_with(&self.config.dir);
        let mut dead: Vec<_> = ours.iter().filter(below).map(|line| line.device).collect();
        dead.retain(|device| !alive.contains(device));
        let mut cleaned = Vec::new();
        // The latest first: it lies on top.
        for line in ours.iter().rev() {
            let is_dead = dead.contains(&line.device)
                || (recorded.contains(&line.point) && !alive.contains(&line.device));
            if is_dead {
                syscalls::detach(&line.point)?;
                if !line.point.starts_with(&self.config.dir) {
                    cleaned.push(line.point.clone());
                }
            }
        }
        self.remove_empty_dirs();
        Ok(cleaned)
    }

    /// Directories of mounts that are gone; one that is in use is not empty or busy.
    fn remove_empty_dirs(&self) {
        let alive = self.list();
        let entries = std::fs::read_dir(&self.config.dir).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            if !alive.iter().any(|mount| mount.dir == path) {
                let _ = std::fs::remove_dir(path);
            }
        }
    }
}

impl Table {
    fn targets_of(&self, key: &Key) -> Vec<PathBuf> {
        let users = self.targets.iter().filter(|(_, target)| target.key == *key);
        users.map(|(path, _)| path.clone()).collect()
    }
}

/// Binds a mount to a target, unless it is there already.
fn show(session: &Session, target: &Path) -> Result<(), MountError> {
    match info::on(target)? {
        Some(line) if line.device == session.device() => return Ok(()),
        // Left by an earlier process, or by a mount that died.
        Some(line) if line.fstype == info::FSTYPE => syscalls::detach(target)?,
        Some(_) | None => {}
    }
    match std::fs::create_dir(target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(MountError::io("create", target, error));
        }
        _ => {}
    }
    syscalls::bind(session.dir(), target).inspect_err(|_| {
        let _ = syscalls::remove_dir(target);
    })
}

/// Takes everything of ours off a target and removes it.
fn hide(target: &Path) -> Result<(), MountError> {
    /// Binds that pile up on one target after failed calls; each round takes one off.
    const PILED_MAX: usize = 16;
    for _ in 0..PILED_MAX {
        match info::on(target)? {
            Some(line) if line.fstype == info::FSTYPE => syscalls::detach(target)?,
            Some(_) | None => break,
        }
    }
    syscalls::remove_dir(target)
}

/// Of the volumes that share a mount the one that wants most decides.
fn apply(wanted: Prefetch, session: &Session) {
    if wanted != Prefetch::Demand {
        session.volume().opener().run_ahead();
    }
    if wanted == Prefetch::All {
        prefetch::start(session.volume());
    }
}

/// A directory name for a mount. Parts are told apart by their debug quotes.
fn short_digest(key: &Key) -> String {
    let digest = blake3::hash(format!("{}\n{:?}", key.0, key.1).as_bytes());
    hex::encode(&digest.as_bytes()[..8])
}
