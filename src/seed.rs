//! The seed: the only origin reader, and what it knows about revisions.
//!
//! [`Ingest`] brings pieces from hubs into the store, each once, and lets a file become final only when the
//! hub's own digest has been checked. [`LocalCatalog`] resolves references and lists revisions, each once.
//! [`LocalSource`] gives both to a process that is its own seed. The seed mounts nothing.

mod answers;
mod body;
mod catalog;
mod conversation;
mod digest;
mod fellows;
mod fellowship;
mod guard;
mod ingest;
mod intake;
mod local;
mod origins;
mod owned;
mod owner;
mod pages;
mod permissions;
mod proofs;
pub mod server;

pub use catalog::LocalCatalog;
pub use fellows::Fellows;
pub use ingest::Ingest;
pub use local::LocalSource;
pub use origins::Lead;
pub use owned::OwnedOrigin;
pub use owner::Owners;
pub use server::SeedServer;

#[cfg(test)]
mod tests;
