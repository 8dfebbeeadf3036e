//! Health as the specification words it, from what the rooms below know at this moment.
//!
//! Nothing is remembered here but refused renewals, so whatever is mended is healthy at the next question.
//! DATA_LOSS is never said: a volume is a copy, and what cannot be read today can be fetched tomorrow.

use super::publisher::{StorageFacts, VolumeFacts};
use super::v1::backend_health::Status as Backend;
use super::v1::volume_health_status::Status;
use super::v1::{BackendHealth, VolumeHealth, VolumeHealthStatus};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong with a volume; each reason at most once.
pub(super) fn of_volume(
    volume_id: String,
    facts: &VolumeFacts,
    storage: &StorageFacts,
    not_renewed: Option<String>,
) -> VolumeHealth {
    let cut_off = storage.is_cut_off() && !facts.is_complete;
    let found = [
        (!facts.is_served).then(|| {
            let message = "the mount is dead or gone: start the pod again".to_owned();
            (Status::Inaccessible, "MountDead", message)
        }),
        cut_off.then(|| {
            let message = "no seed is connected and parts of the revision are not on this node: look at the seeds";
            (Status::Degraded, "NoSeed", message.to_owned())
        }),
        (facts.starving.clone()).map(|cause| (Status::Degraded, "NoSource", cause)),
        (facts.revoked.clone()).map(|path| {
            let message = format!("{path}: content differs from the pinned digest: mend the repository");
            (Status::Degraded, "ContentMismatch", message)
        }),
        not_renewed.map(|cause| (Status::Degraded, "NotRenewed", cause)),
    ];
    let status = |(status, reason, message): (Status, &str, String)| VolumeHealthStatus {
        status: status.into(),
        reason: reason.into(),
        message,
    };
    VolumeHealth {
        volume_id,
        health_statuses: found.into_iter().flatten().map(status).collect(),
    }
}

/// What is wrong with what stands behind all volumes of this node.
pub(super) fn of_storage(facts: &StorageFacts) -> Vec<BackendHealth> {
    let (connected, seeds) = (facts.connected, facts.seeds);
    let reach = match connected {
        _ if connected == seeds => None,
        0 => Some(Backend::StorageUnreachable),
        _ => Some(Backend::StorageDegraded),
    };
    let seeds = reach.map(|status| {
        let message = format!("{connected} of {seeds} seeds are connected: look at the others");
        (status, "SeedUnreachable", message)
    });
    let room = facts.is_full.then(|| {
        let message =
            "the cache is full of what is in use and keeps nothing more: raise --cache-size";
        (Backend::StorageDegraded, "NoRoom", message.to_owned())
    });
    let health = |(status, reason, message): (Backend, &str, String)| BackendHealth {
        status: status.into(),
        reason: reason.into(),
        message,
        volume_capability: None,
    };
    [seeds, room].into_iter().flatten().map(health).collect()
}

/// Volumes whose last republish was not authorised; at most those that are mounted.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashMap<String, String>>);

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, volume_id: &str, cause: String) {
        self.lock().insert(volume_id.to_owned(), cause);
    }

    pub(super) fn clear(&self, volume_id: &str) {
        self.lock().remove(volume_id);
    }

    pub(super) fn cause(&self, volume_id: &str) -> Option<String> {
        self.lock().get(volume_id).cloned()
    }
}
