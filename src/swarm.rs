//! The swarm: nodes give pieces to each other, seeds give what no node has yet.
//!
//! Control is gRPC, directed by the seed as a file's tracker; pieces travel as HTTP/1.1 between
//! nodes, on one port with the control of neighbours. A node ([`Swarm`]) is a [`crate::source::Source`] and
//! a [`crate::source::Catalog`]; a seed runs a [`Tracker`] and the same piece server. Every piece is
//! verified before it is kept and before it is served; hashes are believed from seeds alone. Knowing a
//! hash is never a permission: who can reach these ports is a matter of certificates and networks.

pub mod availability;
pub mod background;
mod buffer;
mod catalog;
pub mod client;
mod connection;
mod demand;
pub mod events;
pub mod failure;
mod have;
pub mod ledger;
pub mod link;
mod neighbours;
pub mod node;
mod observer;
pub mod peers;
pub mod planner;
pub mod provider;
mod recent;
pub mod remote;
pub mod request;
mod respond;
pub mod seeding;
pub mod server;
pub mod session;
pub mod slots;
mod surroundings;
pub mod tracker;
pub mod v1;
pub mod vicinity;
pub mod wire;
mod wishes;

pub use events::Relay;
pub use ledger::Ledger;
pub use node::{Swarm, SwarmConfig};
pub use recent::Recent;
pub use remote::RemoteCatalog;
pub use seeding::SeedProvider;
pub use server::PieceServer;
pub use slots::Slots;
pub use tracker::Tracker;

use std::net::{IpAddr, SocketAddr};

/// `addr` as others reach it: an unspecified host is the one the peer was seen at.
fn reachable(addr: &str, seen: Option<IpAddr>) -> String {
    match (addr.parse::<SocketAddr>(), seen) {
        (Ok(addr), Some(seen)) if addr.ip().is_unspecified() => {
            SocketAddr::new(seen, addr.port()).to_string()
        }
        _ => addr.to_owned(),
    }
}

#[cfg(test)]
mod tests;
