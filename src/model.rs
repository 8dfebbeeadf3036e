//! The words of the trade: references, revisions, listings, pieces.
//!
//! Plain values, immutable once made, and the rules that make them valid. A [`Revision`] cannot be a
//! branch name, a [`Listing`] cannot hold a path that leaves its volume, [`Verified`] bytes have been
//! hashed. This room imports nothing of the program and does no I/O.

pub mod bitfield;
pub mod event;
pub mod failure;
pub mod hub_url;
pub mod listing;
pub mod piece;
pub mod reads;
pub mod reference;
pub mod revision;
pub mod secrets;
pub mod token;
pub mod view;

pub use bitfield::Bitfield;
pub use event::{News, PodEvent, PodRef};
pub use failure::{Failure, FailureKind};
pub use hub_url::HubUrl;
pub use listing::{Digest, Entry, FileKey, Listing};
pub use piece::{Geometry, PIECE_BYTES, PieceHash, Verified};
pub use reads::{Reads, Verify};
pub use reference::{Kind, Reference, Scheme};
pub use revision::{Pin, Revision};
pub use token::{Credential, Token};
pub use view::{Prefetch, View};
