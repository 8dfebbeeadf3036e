//! The Container Storage Interface: what kubelet and external-provisioner call.
//!
//! Three gRPC services on one unix socket turn volumes into mounts. [`controller`] pins a reference when a
//! claim is made, [`node`] shows the pinned revision in a pod, [`identity`] says who we are. None of them
//! fetches content: a call resolves, lists, mounts and returns, well inside kubelet's two minutes. Every
//! call may be repeated, doubled or dropped by its client, and each leaves all or nothing behind.
//!
//! The room sees the rest of the program through contracts: `source::Catalog` looks revisions up,
//! [`Publisher`] mounts, [`Records`] remembers, [`Claims`] is the cluster, `source::Observer` tells pods'
//! owners. Failures become gRPC codes in [`status`] alone. Only this
//! room knows CSI types.

mod authority;
mod capability;
pub mod claims;
pub mod controller;
mod creation;
mod following;
mod health;
pub mod identity;
mod lookup;
mod mounts;
pub mod node;
mod observe;
pub mod parameters;
mod probe;
mod publication;
pub mod publisher;
pub mod records;
mod redact;
pub mod registration;
mod restore;
pub mod server;
pub mod socket;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
mod turns;
pub mod v1;
mod volume;

pub use claims::{Claim, ClaimError, Claims, Event, Object};
pub use controller::Controller;
pub use identity::{DRIVER_NAME, Readiness};
pub use mounts::MountPublisher;
pub use node::Node;
pub use probe::{ProbeError, probe};
pub use publisher::{
    Bulletin, PublishError, PublishRequest, Publisher, StorageFacts, VolumeFacts, VolumeStats,
};
pub use records::{IndexRecords, MemoryRecords, RecordError, Records};
pub use registration::{Registration, RegistrationError};
pub use server::{Config, Services, serve};
pub use socket::{Endpoint, Socket, SocketError, connect};
