//! The other seeds of a cluster: whether they answer, and what they are asked and told.
//!
//! Seeds are known by the name that each gives itself, never by address. Every second each address is asked
//! who is there; one that is lost stays known by its last name. Messages are small and idempotent; nothing is
//! queued. A seed that is alone has no fellows and asks nobody.

use crate::model::{Bitfield, Failure, FileKey};
use crate::store::CacheFile;
use crate::swarm::remote::RemoteSeed;
use crate::swarm::session::{HASHES_MAX, runs};
use crate::swarm::v1;
use crate::tls::TlsDir;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
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
    /// It answers since the last heartbeat, and did not before.
    is_back: bool,
    kept: HashMap<FileKey, Bitfield>,
}

impl Fellow {
    fn new(remote: RemoteSeed) -> Fellow {
        let standing = Standing {
            name: None,
            lost_since: Some(Instant::now()),
            refused: false,
            is_back: false,
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
        self.lock().heard(answer.as_ref().err());
        answer.map(tonic::Response::into_inner)
    }

    /// What it says about a file; without a key only who it is.
    pub async fn ownership(&self, key: Option<FileKey>) -> Result<Bid, Status> {
        let request = v1::OwnershipRequest {
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

    /// Tells it every hash of a file that it has not been told, unless it has those of `run`; returns when it
    /// has kept them.
    async fn keep(&self, file: &CacheFile, run: &Range<u32>) -> Result<(), Status> {
        let new = {
            let standing = self.lock();
            let told = standing.kept.get(&file.key());
            if told.is_some_and(|told| run.clone().all(|index| told.get(index))) {
                return Ok(());
            }
            told.map_or_else(|| file.have(), |told| file.have().minus(told))
        };
        let indices: Vec<u32> = new.iter().collect();
        for some in indices.chunks(HASHES_MAX) {
            let request = v1::KeepRequest {
                key: file.key().0.to_vec(),
                size: file.geometry().size,
                runs: runs(file, some),
            };
            self.call(self.remote.fellow().keep(request)).await?;
        }
        let mut standing = self.lock();
        if standing.kept.len() >= KEPT_MAX {
            standing.kept.clear();
        }
        let kept = standing.kept.entry(file.key());
        kept.or_insert_with(|| Bitfield::new(new.len())).add(&new);
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

impl Standing {
    /// Notes whether it answered. An error that it states itself is an answer.
    fn heard(&mut self, error: Option<&Status>) {
        use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
        let silent = [Cancelled, DeadlineExceeded, Unavailable, Unknown];
        match error.filter(|status| silent.contains(&status.code())) {
            Some(status) => {
                self.refused = is_refusal(status);
                self.lost_since.get_or_insert_with(Instant::now);
            }
            None if self.lost_since.take().is_some() => {
                self.is_back = true;
                // It may have started anew.
                self.kept.clear();
            }
            None => {}
        }
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

    /// Who is to be asked now: all but those for whom one would wait in vain. Who has a closed port says so at
    /// once, and may have opened it since.
    pub fn answering(&self) -> impl Iterator<Item = &Arc<Fellow>> {
        let is_quick = |fellow: &Fellow| fellow.lock().refused;
        self.others()
            .filter(move |fellow| is_quick(fellow) || !self.is_silent(fellow))
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

    /// Keeps every fellow's standing up to date, for ever; says so when somebody is back.
    pub async fn watch(&self, regained: impl Fn()) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        loop {
            beat.tick().await;
            let others: Vec<_> = self.others().cloned().collect();
            let calls = others.iter().map(|fellow| async {
                let was_up = fellow.is_up();
                let answer = fellow.ownership(None).await;
                if std::mem::take(&mut fellow.lock().is_back) {
                    tracing::info!(seed = ?fellow.name(), at = %fellow.remote.name, "another seed is here");
                    regained();
                } else if was_up && let Err(status) = answer {
                    tracing::warn!(seed = ?fellow.name(), cause = status.message(), "another seed is lost");
                }
            });
            futures::future::join_all(calls).await;
        }
    }

    /// Returns when every seed that answers has the hashes of `run`, and of all else that is here of the file.
    /// Who does not answer is not waited for again until it does.
    pub async fn keep(&self, file: &CacheFile, run: &Range<u32>) {
        let up = self.others().filter(|fellow| fellow.is_up());
        futures::future::join_all(up.map(|fellow| fellow.keep(file, run))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the heartbeat used to notice, and any other call that was answered first hid it: the two owners of a
    /// partition never met.
    #[tokio::test]
    async fn a_seed_that_is_back_is_noticed_whoever_calls_it_first() {
        let remote = RemoteSeed::new("127.0.0.1:1", None).expect("an address");
        let fellow = Fellow::new(remote);
        fellow.lock().heard(None);
        assert!(std::mem::take(&mut fellow.lock().is_back), "seen at first");
        fellow
            .lock()
            .heard(Some(&Status::internal("its disk is full")));
        assert!(fellow.is_up(), "it answered");
        fellow.lock().heard(Some(&Status::unavailable("gone")));
        assert!(!fellow.is_up());
        fellow.lock().heard(None);
        fellow.lock().heard(None);
        assert!(fellow.lock().is_back && fellow.is_up());
    }

    impl Fellows {
        /// One other seed that answers.
        pub fn of_two() -> Fellows {
            let peers = ["127.0.0.1:1".to_owned()];
            let fellows = Fellows::new("seed-0", &peers, None).expect("an address");
            fellows.others[0].lock().heard(None);
            fellows
        }
    }
}
