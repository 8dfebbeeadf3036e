//! Seeds: the only readers of hubs.

pub mod server;
