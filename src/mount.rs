//! Mounts: FUSE sessions, the bind mounts that show them to pods, and what is left when they end.
//!
//! [`Mounts`] is the face: one FUSE mount per (pin, view) below one directory, bound read-only to as many
//! targets as volumes ask for, gone with the last. [`session`] is one connection to the kernel, [`info`]
//! reads the mount table. Mountedness is always read from there, never from `stat`, which waits for ever
//! on a mount whose server hangs.

mod direct;
mod error;
pub mod info;
mod locks;
mod probe;
pub mod session;
pub mod syscalls;
pub mod table;

pub use direct::DirectMount;
pub use error::MountError;
pub use probe::MountHealth;
pub use table::{MountSpec, MountStatus, Mounts, MountsConfig, VolumeStats};

#[cfg(test)]
mod tests;
