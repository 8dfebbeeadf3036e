//! Why a read failed.

use crate::model::{Failure, FailureKind};
use crate::store::StoreError;

/// Why a read failed. A reader gets one of these or all its bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("piece {piece} of {path}: no progress for {seconds} s: {cause}")]
    Timeout {
        path: String,
        piece: u32,
        seconds: u64,
        cause: String,
    },
    #[error("{path}: content does not match the hub's digest and was revoked")]
    Revoked { path: String },
    #[error("{path}: {cause}")]
    Denied { path: String, cause: String },
    #[error("{path}: {cause}")]
    Failed {
        path: String,
        kind: FailureKind,
        cause: String,
    },
    #[error("{path}: {source}")]
    Store {
        path: String,
        #[source]
        source: StoreError,
    },
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let kind = match &error {
            ReadError::Timeout { .. } => FailureKind::Unavailable,
            ReadError::Revoked { .. } => FailureKind::Integrity,
            ReadError::Denied { .. } => FailureKind::Denied,
            ReadError::Failed { kind, .. } => *kind,
            ReadError::Store {
                source: StoreError::NoRoom { .. },
                ..
            } => FailureKind::NoRoom,
            ReadError::Store { .. } => FailureKind::Internal,
        };
        Failure::new(kind, error.to_string())
    }
}
