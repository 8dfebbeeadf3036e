//! The roles: each reads its configuration, starts its rooms, says what listens where, and ends in order.

mod attach;
mod bootstrap;
mod command;
mod control;
mod controller;
mod engine;
mod get;
mod mount;
mod node;
mod ops;
mod progress;
mod seed;
mod signal;
mod status;
mod supervise;

pub use bootstrap::bootstrap;
pub use controller::controller;
pub use get::{get, resolve};
pub use mount::{mount, unmount};
pub use node::node;
pub use seed::seed;
pub use status::status;
pub use supervise::supervise;
