//! Failures across gRPC: the kind travels as metadata `x-model-p2p-failure`, whatever the code.

use crate::model::{Failure, FailureKind};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const FAILURE: &str = "x-model-p2p-failure";

/// A failure as a call's status; the kind survives, whatever code stands for it.
pub fn status_of(failure: &Failure) -> Status {
    let mut status = Status::new(code_of(failure.kind), failure.message.clone());
    if let Ok(kind) = MetadataValue::try_from(failure.kind.to_string()) {
        status.metadata_mut().insert(FAILURE, kind);
    }
    status
}

/// The failure a status carries; one that nobody put there is the transport's: unavailable.
pub fn failure_of(status: &Status) -> Failure {
    let kind = status.metadata().get(FAILURE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .map_or(FailureKind::Unavailable, FailureKind::from_name);
    Failure::new(kind, text_of(status))
}

/// The message, or what it stands for where the transport says no more than that it broke. With TLS 1.3 the
/// refusal of a certificate comes after the handshake, and its reason does not reach the call.
pub fn text_of(status: &Status) -> &str {
    match status.message() {
        // The second where the refusal came before the call was sent.
        "transport error" | "operation was canceled" => {
            "seed broke the connection off: if it is up, check --tls-dir or --insecure on both sides"
        }
        message => message,
    }
}

fn code_of(kind: FailureKind) -> Code {
    match kind {
        FailureKind::BadReference => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Unauthenticated => Code::Unauthenticated,
        FailureKind::Denied => Code::PermissionDenied,
        FailureKind::RateLimited | FailureKind::Unavailable => Code::Unavailable,
        FailureKind::Integrity => Code::DataLoss,
        FailureKind::NoRoom => Code::ResourceExhausted,
        FailureKind::Unsupported => Code::Unimplemented,
        FailureKind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        for kind in [
            FailureKind::RateLimited,
            FailureKind::Denied,
            FailureKind::Internal,
        ] {
            let failure = failure_of(&status_of(&Failure::new(kind, "why")));
            assert_eq!((failure.kind, failure.message.as_str()), (kind, "why"));
        }
        let transport = failure_of(&Status::unknown("connection reset"));
        assert_eq!(transport.kind, FailureKind::Unavailable);
    }
}
