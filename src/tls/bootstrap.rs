//! Makes the certificates of a cluster, and renews what is old: as often as one likes, by as many as one likes.
//!
//! Where they are kept is a [`Shelf`]. A set is replaced only in the version that was seen; when somebody else
//! was first, everything is looked at anew, so that two who start together end with one CA.

use super::authority::{CertSet, renew_ca, renew_leaf};
use super::{Role, TlsError};
use crate::model::{Failure, FailureKind};
use async_trait::async_trait;
use std::fmt;
use std::time::SystemTime;

/// The name of the CA's own set; the others have their role's.
pub const CA: &str = "ca";

/// Each lost race is somebody else's progress: a few are plenty.
const ATTEMPTS: usize = 5;

/// Where sets of certificates are kept, by name.
#[async_trait]
pub trait Shelf: Send + Sync {
    async fn get(&self, name: &str) -> Result<Option<Held>, Failure>;

    /// Keeps a set in the place of the version `seen`, or of none. `false`: that is not what is there now.
    async fn put(&self, name: &str, set: &CertSet, seen: Option<&str>) -> Result<bool, Failure>;
}

/// A set as it is kept.
pub struct Held {
    pub set: CertSet,
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept,
    Made,
    Renewed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Kept => "kept",
            Outcome::Made => "made",
            Outcome::Renewed => "renewed",
        })
    }
}

/// What was done, by name, the CA first.
pub type Done = Vec<(&'static str, Outcome)>;

pub async fn bootstrap(shelf: &dyn Shelf, now: SystemTime) -> Result<Done, Failure> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt(shelf, now).await? {
            return Ok(done);
        }
    }
    Err(Failure::new(
        FailureKind::Unavailable,
        "certificates change faster than they can be read: another bootstrap is at work, run it again",
    ))
}

async fn attempt(shelf: &dyn Shelf, now: SystemTime) -> Result<Option<Done>, Failure> {
    let Some((ca, outcome)) = settle(shelf, CA, |held| renew_ca(held, now)).await? else {
        return Ok(None);
    };
    let mut done = vec![(CA, outcome)];
    for role in Role::ALL {
        let renew = |held: Option<&CertSet>| renew_leaf(role, &ca, held, now);
        let Some((_, outcome)) = settle(shelf, role.name(), renew).await? else {
            return Ok(None);
        };
        done.push((role.name(), outcome));
    }
    Ok(Some(done))
}

/// One set, as it is kept from now on; `None` when somebody else was first.
async fn settle(
    shelf: &dyn Shelf,
    name: &str,
    renew: impl FnOnce(Option<&CertSet>) -> Result<Option<CertSet>, TlsError>,
) -> Result<Option<(CertSet, Outcome)>, Failure> {
    let (held, version) = match shelf.get(name).await? {
        Some(held) => (Some(held.set), Some(held.version)),
        None => (None, None),
    };
    let outcome = match version {
        None => Outcome::Made,
        Some(_) => Outcome::Renewed,
    };
    match (renew(held.as_ref())?, held) {
        (None, Some(held)) => Ok(Some((held, Outcome::Kept))),
        (None, None) => Ok(None),
        (Some(new), _) => {
            let is_first = shelf.put(name, &new, version.as_deref()).await?;
            Ok(is_first.then_some((new, outcome)))
        }
    }
}
