//! The swarm: nodes give pieces to each other, seeds give what no node has yet.
//!
//! Control is gRPC, directed by the seed as a file's tracker; pieces travel as plain HTTP/1.1 between
//! nodes, on one port with the control of neighbours. A node ([`Swarm`]) is a [`crate::source::Source`] and
//! a [`crate::source::Catalog`]; a seed runs a [`Tracker`] and the same piece server. Every piece is
//! verified before it is kept and before it is served; hashes are believed from seeds alone. Knowing a
//! hash is never a permission: who can reach these ports is a matter of certificates and networks.

mod ledger;
pub mod provider;
pub mod request;
mod respond;
pub mod server;
pub mod slots;
pub mod v1;
pub mod wire;
