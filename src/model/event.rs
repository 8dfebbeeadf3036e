//! What happens to a pod's model, for the pod's owner to read: seen on a node, told to a seed, written by a
//! controller.

use std::time::{SystemTime, UNIX_EPOCH};

/// A pod, as kubelet names it in a publish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Which kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// The files can be read.
    Mounted,
    /// All bytes are on this node.
    Complete,
    /// What is here can be read; something that was asked for is not to be had now.
    Degraded,
}

impl News {
    /// The event's public reason.
    pub fn reason(self) -> &'static str {
        match self {
            News::Mounted => "ModelMounted",
            News::Complete => "ModelComplete",
            News::Degraded => "ModelDegraded",
        }
    }
}

/// One event of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    pub pod: PodRef,
    pub news: News,
    /// For the pod's owner; never a secret.
    pub text: String,
    /// Seconds since 1970 on the node's clock.
    pub at: u64,
}

impl PodEvent {
    /// An event of this moment.
    pub fn now(pod: PodRef, news: News, text: String) -> PodEvent {
        let at = seconds_now();
        PodEvent {
            pod,
            news,
            text,
            at,
        }
    }
}

/// What the message of an event may have in Kubernetes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The beginning of a text that an event has room for.
pub fn bounded(mut text: String) -> String {
    let fits = |at: &usize| text.is_char_boundary(*at);
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(fits);
    text.truncate(end.unwrap_or_default());
    text
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
