//! The other seeds of a cluster: whether they answer, and what they are asked and told.
//!
//! Seeds are known by the name that each gives itself, never by address. Every second each address is asked
//! who is there; one that is lost stays known by its last name. Messages are small and idempotent; nothing is
//! queued. A seed that is alone has no fellows and asks nobody.

use crate::model::{Bitfield, Failure, FileKey};
use crate::store::CacheFile;
use crate::swarm::remote::RemoteSeed;
use crate::swarm::v1;
use crate::tls::TlsDir;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A call takes less than a millisecond between neighbours; who is silent for so long is lost.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Lost for less than this, a seed may come back before anybody takes its files.
pub const LOST: Duration = Duration::from_secs(3);
/// At start nobody is taken for gone before they had this long to answer.
const START: Duration = Duration::from_secs(5);
/// Files whose hashes a fellow is known to have kept. What is forgotten is told again.
const KEPT_MAX: usize = 4096;

/// What a seed says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bid {
    pub seed: String,
    /// It reads the file from its hub, or has all of it.
    pub claimed: bool,
    pub pieces: u32,
}

/// One other seed.
pub struct Fellow {
    pub remote: RemoteSeed,
    standing: Mutex<Standing>,
}

struct Standing {
    name: Option<String>,
    lost_since: Option<Instant>,
    /// Its port was closed when it was last called.
    refused: bool,
    kept: HashMap<FileKey, Bitfield>,
}

impl Fellow {
    fn new(remote: RemoteSeed) -> Fellow {
        let standing = Standing {
            name: None,
            lost_since: Some(Instant::now()),
            refused: false,
            kept: HashMap::new(),
        };
        Fellow {
            remote,
            standing: Mutex::new(standing),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it calls itself, once it has answered.
    pub fn name(&self) -> Option<String> {
        self.lock().name.clone()
    }

    pub fn is_up(&self) -> bool {
        self.lock().lost_since.is_none()
    }

    /// Since when it does not answer, and whether it ever has.
    fn lost(&self) -> Option<(Duration, bool)> {
        let standing = self.lock();
        let since = standing.lost_since?.elapsed();
        Some((since, standing.name.is_some()))
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = timeout(ANSWER_MAX, call).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in 1 s")));
        let mut standing = self.lock();
        match &answer {
            Ok(_) => standing.lost_since = None,
            Err(status) => {
                standing.refused = is_refusal(status);
                let now = Instant::now();
                standing.lost_since.get_or_insert(now);
            }
        }
        answer.map(tonic::Response::into_inner)
    }

    /// What it says about a file; without a key only who it is.
    pub async fn ownership(&self, me: &str, key: Option<FileKey>) -> Result<Bid, Status> {
        let request = v1::OwnershipRequest {
            seed: me.to_owned(),
            key: key.map(|key| key.0.to_vec()).unwrap_or_default(),
        };
        let reply = self.call(self.remote.fellow().ownership(request)).await?;
        self.lock().name = Some(reply.seed.clone());
        Ok(Bid {
            seed: reply.seed,
            claimed: reply.claimed,
            pieces: reply.pieces,
        })
    }

    /// Tells it every hash of a file that it has not been told; returns when it has kept them.
    async fn keep(&self, me: &str, file: &CacheFile) -> Result<(), Status> {
        let pieces = file.geometry().pieces();
        let here = file.have();
        let told = self.lock().kept.get(&file.key()).cloned();
        let new = told.map_or(here.clone(), |told| here.minus(&told));
        if new.is_empty() {
            return Ok(());
        }
        let indices: Vec<u32> = new.iter().collect();
        for some in indices.chunks(crate::swarm::session::HASHES_MAX) {
            let request = v1::KeepRequest {
                seed: me.to_owned(),
                key: file.key().0.to_vec(),
                size: file.geometry().size,
                runs: crate::swarm::session::runs(file, some),
            };
            self.call(self.remote.fellow().keep(request)).await?;
        }
        let mut standing = self.lock();
        if standing.kept.len() >= KEPT_MAX {
            standing.kept.clear();
        }
        let kept = standing.kept.entry(file.key());
        let kept = kept.or_insert_with(|| Bitfield::new(pieces));
        new.iter().for_each(|index| kept.set(index, true));
        Ok(())
    }

    pub async fn volume(
        &self,
        volume: &str,
        pin: Option<String>,
    ) -> Result<Option<String>, Status> {
        let request = v1::VolumeRequest {
            volume: volume.to_owned(),
            pin,
        };
        let reply = self.call(self.remote.fellow().volume(request)).await?;
        Ok(reply.pin)
    }
}

fn is_refusal(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

/// All other seeds, as configured.
pub struct Fellows {
    pub me: String,
    others: Vec<Arc<Fellow>>,
    started: Instant,
}

impl Fellows {
    /// `peers`: host:port of every seed's control port; an own one among them is found out.
    pub fn new(me: &str, peers: &[String], tls: Option<&Arc<TlsDir>>) -> Result<Fellows, Failure> {
        let fellow =
            |peer: &String| RemoteSeed::new(peer, tls).map(|seed| Arc::new(Fellow::new(seed)));
        Ok(Fellows {
            me: me.to_owned(),
            others: peers.iter().map(fellow).collect::<Result<_, _>>()?,
            started: Instant::now(),
        })
    }

    /// Who else there is; this seed's own address is none of them once it is known.
    pub fn others(&self) -> impl Iterator<Item = &Arc<Fellow>> {
        let is_me = |fellow: &&Arc<Fellow>| fellow.lock().name.as_ref() == Some(&self.me);
        self.others.iter().filter(move |fellow| !is_me(fellow))
    }

    pub fn is_alone(&self) -> bool {
        self.others().next().is_none()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Fellow>> {
        self.others()
            .find(|fellow| fellow.lock().name.as_deref() == Some(name))
    }

    /// Whether this one has been silent for long enough. One that was never seen has had its time when its port
    /// is closed, or five seconds after the start.
    pub fn is_silent(&self, fellow: &Fellow) -> bool {
        match fellow.lost() {
            None => false,
            Some((since, true)) => since >= LOST,
            Some((_, false)) => fellow.lock().refused || self.started.elapsed() >= START,
        }
    }

    /// Keeps every fellow's standing up to date; `regained` is told who is back.
    pub async fn watch(
        self: Arc<Fellows>,
        regained: impl Fn(&Fellow),
        shutdown: CancellationToken,
    ) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        while shutdown.run_until_cancelled(beat.tick()).await.is_some() {
            let others: Vec<_> = self.others().cloned().collect();
            let calls = others.iter().map(|fellow| async {
                let was_up = fellow.is_up();
                let answer = fellow.ownership(&self.me, None).await;
                if answer.is_ok() && !was_up {
                    fellow.lock().kept.clear();
                    tracing::info!(seed = ?fellow.name(), at = %fellow.remote.name, "another seed is here");
                    regained(fellow);
                } else if was_up && let Err(status) = answer {
                    tracing::warn!(seed = ?fellow.name(), cause = status.message(), "another seed is lost");
                }
            });
            futures::future::join_all(calls).await;
        }
    }

    /// Returns when every seed that answers has the hashes of all that is here of a file. Who does not answer
    /// is not waited for again until it does.
    pub async fn keep(&self, file: &CacheFile) {
        let up = self.others().filter(|fellow| fellow.is_up());
        let told = up.map(|fellow| fellow.keep(&self.me, file));
        futures::future::join_all(told).await;
    }
}
