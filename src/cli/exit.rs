//! The table from what went wrong to the exit code that scripts see.

use crate::model::FailureKind;
use std::process::ExitCode;

/// 0 is success; 1 is whatever has no code of its own.
pub fn code(kind: FailureKind) -> ExitCode {
    ExitCode::from(match kind {
        FailureKind::BadReference => 2,
        FailureKind::NotFound => 3,
        FailureKind::Unauthenticated | FailureKind::Denied => 4,
        FailureKind::RateLimited | FailureKind::Unavailable => 5,
        FailureKind::Integrity => 6,
        FailureKind::NoRoom => 7,
        FailureKind::Unsupported | FailureKind::Internal => 1,
    })
}
