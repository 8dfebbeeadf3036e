//! Hubs: where models come from.
//!
//! One client per kind of hub behind one contract, [`Hub`]. Clients keep no credential: every call brings
//! its own. Transient errors are retried inside, five times without progress; what comes out is worth
//! reporting. Every future and stream may be dropped at any time. Only `hub/http` knows the HTTP library.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod file;
mod http;
mod huggingface;
mod offline;
mod set;

pub use file::FileHub;
pub use http::HttpConfig;
pub use huggingface::HuggingFace;
pub use set::{Hubs, HubsConfig};

use crate::model::{Entry, Failure, FailureKind, Listing, Pin, Reference, Token};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::ops::Range;
use std::time::Duration;

/// The body of a range as it arrives. Ends after exactly the bytes asked for, or with an error.
pub type ByteStream = BoxStream<'static, Result<Bytes, HubError>>;

#[async_trait]
pub trait Hub: Send + Sync + 'static {
    /// Turns a reference into an immutable pin with the hub's canonical name.
    async fn resolve(&self, reference: &Reference, token: Option<&Token>) -> Result<Pin, HubError>;

    /// All files of a pin; complete, or an error.
    async fn list(&self, pin: &Pin, token: Option<&Token>) -> Result<Listing, HubError>;

    /// Reads `bytes` (never empty) of one file. Errors before the first byte come from the call, later ones from the stream.
    async fn read(
        &self,
        pin: &Pin,
        entry: &Entry,
        bytes: Range<u64>,
        token: Option<&Token>,
    ) -> Result<ByteStream, HubError>;

    /// Whether the hub states by itself that it holds the content `entry` lists at that path: `false` when it
    /// says nothing, `Integrity` when it says otherwise. Reads of the file that follow need no request more.
    async fn states(
        &self,
        pin: &Pin,
        entry: &Entry,
        token: Option<&Token>,
    ) -> Result<bool, HubError> {
        let _ = (pin, entry, token);
        Ok(false)
    }

    /// Which of all hubs of its kind this one is.
    fn endpoint(&self) -> &str {
        ""
    }

    /// Whether this token may read this pin now.
    async fn authorize(&self, pin: &Pin, token: Option<&Token>) -> Result<(), HubError>;
}

/// What a hub answered, as far as somebody can act on it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{message}")]
    Final { kind: FailureKind, message: String },
    /// Try again, after `after` if given; `limited` when the hub itself asked for patience. A hub's client
    /// has retried already.
    #[error("{message}")]
    Transient {
        message: String,
        after: Option<Duration>,
        limited: bool,
    },
}

impl HubError {
    /// An answer that no retry changes.
    pub fn last(kind: FailureKind, message: impl Into<String>) -> HubError {
        HubError::Final {
            kind,
            message: message.into(),
        }
    }

    /// A trouble that may pass.
    pub fn passing(message: impl Into<String>) -> HubError {
        HubError::Transient {
            message: message.into(),
            after: None,
            limited: false,
        }
    }

    /// What the error means to the user.
    pub fn kind(&self) -> FailureKind {
        match self {
            HubError::Final { kind, .. } => *kind,
            HubError::Transient { limited: true, .. } => FailureKind::RateLimited,
            HubError::Transient { limited: false, .. } => FailureKind::Unavailable,
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::new(error.kind(), error.to_string())
    }
}
