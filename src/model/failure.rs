//! What a failed operation means to the person or program that asked for it.
//!
//! Every room has its own errors; those that reach a user are told apart only by these kinds. The kinds
//! cross the wire between node and seed, and three tables hang on them: exit codes (`cli`), gRPC codes
//! (`csi/status`) and errno (`fs/errno`).

use std::fmt;

/// The kinds a caller can act on. The wire name of each is its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The reference or a parameter is malformed.
    BadReference,
    /// The repository, revision or file does not exist, or is hidden from this token.
    NotFound,
    /// A token is missing or wrong.
    Unauthenticated,
    /// The token is good and may not read this (gated, disabled).
    Denied,
    /// The hub asked for patience.
    RateLimited,
    /// A hub, seed or peer cannot be reached or gave no usable answer.
    Unavailable,
    /// Content differs from its digest.
    Integrity,
    /// The cache has no room.
    NoRoom,
    /// What this build or this hub cannot do.
    Unsupported,
    /// Anything else: a bug or a broken machine.
    Internal,
}

const NAMES: [(FailureKind, &str); 10] = [
    (FailureKind::BadReference, "bad-reference"),
    (FailureKind::NotFound, "not-found"),
    (FailureKind::Unauthenticated, "unauthenticated"),
    (FailureKind::Denied, "denied"),
    (FailureKind::RateLimited, "rate-limited"),
    (FailureKind::Unavailable, "unavailable"),
    (FailureKind::Integrity, "integrity"),
    (FailureKind::NoRoom, "no-room"),
    (FailureKind::Unsupported, "unsupported"),
    (FailureKind::Internal, "internal"),
];

impl FailureKind {
    /// The kind of a wire name; what a newer release may send and we do not know is `Internal`.
    pub fn from_name(name: &str) -> FailureKind {
        NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(FailureKind::Internal, |(kind, _)| *kind)
    }

    /// Whether asking again later may succeed without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, FailureKind::RateLimited | FailureKind::Unavailable)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES
            .iter()
            .find(|(kind, _)| kind == self)
            .map(|(_, name)| *name);
        f.write_str(name.unwrap_or("internal"))
    }
}

/// A kind and one line for the user: object, cause, value, and the remedy where there is one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for (kind, name) in NAMES {
            assert_eq!(kind.to_string(), name);
            assert_eq!(FailureKind::from_name(name), kind);
        }
        assert_eq!(FailureKind::from_name("of tomorrow"), FailureKind::Internal);
    }
}
