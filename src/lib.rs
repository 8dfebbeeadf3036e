//! model-p2p: AI model repositories as read-only volumes.
//!
//! The rooms stand in the order in which a read travels: a kubelet or a shell asks for a mount, the kernel
//! asks the mount for bytes, and what is not here comes from peers, from a seed and at last from the hub.

pub mod cli;
pub mod config;
pub mod run;

pub mod kubernetes;

pub mod csi;
pub mod mount;

pub mod fs;

pub mod fetch;
pub mod store;

pub mod swarm;

pub mod seed;

pub mod hub;

pub mod tls;

pub mod model;
pub mod source;

pub mod backoff;
pub mod carried;
pub mod memory;
pub mod metrics;
pub mod telemetry;

#[cfg(feature = "testing")]
pub mod testing;
