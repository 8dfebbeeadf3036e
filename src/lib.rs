//! model-p2p: AI model repositories as read-only volumes.
//!
//! The rooms stand in the order in which a read travels: a kubelet or a shell asks for a mount, the kernel
//! asks the mount for bytes, and what is not here comes from peers, from a seed and at last from the hub.

pub mod backoff;
pub mod fetch;
pub mod hub;
pub mod metrics;
pub mod model;
pub mod source;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
