//! A revision as a filesystem: an immutable tree whose files fill themselves as they are read.
//!
//! The path of a read: [`fuse`] takes it from the kernel, [`volume`] finds the file and its content, the
//! content answers at once or later. Everything but `fuse` is plain Rust and is tested without a kernel.
//! This room knows no network: content comes through [`Opener`], which `fetch` implements.
//!
//! What readers may rely on: names, sizes and node numbers never change; a read inside a file is complete
//! and verified or it is an error ([`errno`]), never short and never zeros; nothing can be written.

pub mod errno;
mod follow;
pub mod fuse;
mod handles;
mod idle;
pub mod open;
pub mod prefetch;
mod survey;
pub mod tree;
pub mod volume;

#[cfg(test)]
pub mod twin;

pub use errno::FsError;
pub use follow::{Change, Follow};
pub use open::{Content, FetchProvider, Opener, Provider};
pub use survey::Survey;
pub use tree::Tree;
pub use volume::{Mode, Volume};
