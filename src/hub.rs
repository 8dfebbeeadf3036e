//! Hubs: where models come from.
//!
//! One client per kind of hub behind one contract, [`Hub`]. Clients keep no credential: every call brings
//! its own. Only `hub/http` knows the HTTP library.

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

    /// Whether this token may read this pin now.
    async fn authorize(&self, pin: &Pin, token: Option<&Token>) -> Result<(), HubError>;
}

/// What a hub answered, as far as somebody can act on it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{message}")]
    Final { kind: FailureKind, message: String },
    /// Try again, after `after` if given.
    #[error("{message}")]
    Transient {
        message: String,
        after: Option<Duration>,
        limited: bool,
    },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        let kind = match &error {
            HubError::Final { kind, .. } => *kind,
            HubError::Transient { limited: true, .. } => FailureKind::RateLimited,
            HubError::Transient { limited: false, .. } => FailureKind::Unavailable,
        };
        Failure::new(kind, error.to_string())
    }
}
