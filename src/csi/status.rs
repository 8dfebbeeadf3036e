//! Refusals: everything a call can fail with, and the one table that makes it a gRPC code.
//!
//! external-provisioner reads UNAVAILABLE, ABORTED, CANCELLED and DEADLINE_EXCEEDED as "may still be under
//! way" and RESOURCE_EXHAUSTED as "move the pod to another node"; the codes are chosen by what should happen
//! next. The message is never empty and reaches the events of the claim or pod; the details are always empty.

use super::claims::ClaimError;
use super::parameters::ParameterError;
use super::publisher::PublishError;
use super::records::RecordError;
use crate::model::view::ViewError;
use crate::model::{Failure, FailureKind};
use tonic::{Code, Status};

/// Who is refused: a claim can wait, a pod can go to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Provision,
    Publish,
}

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("field `{field}` is missing")]
    Missing { field: &'static str },
    #[error("field `{field}`: {cause}")]
    Field { field: &'static str, cause: String },
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("volume {name} exists with other parameters or another size: use another name")]
    Exists { name: String },
    #[error("{volume} shows {bytes} bytes, more than the limit of {limit}: raise the limit")]
    TooLarge {
        volume: String,
        bytes: i64,
        limit: i64,
    },
    #[error("claim {claim} is not there any more")]
    NoClaim { claim: String },
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("volume {volume_id} is not known here")]
    UnknownVolume { volume_id: String },
    #[error("volume {volume_id}: {cause}: try again")]
    Busy {
        volume_id: String,
        cause: &'static str,
    },
    #[error("volume {volume_id}: the call ended early: {cause}")]
    Broken { volume_id: String, cause: String },
    #[error("the driver cannot work: {cause}: it has to be started again")]
    Unwell { cause: String },
    #[error("{failure}")]
    Failed {
        call: Call,
        #[source]
        failure: Failure,
    },
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Refusal {
    /// The table.
    pub fn code(&self) -> Code {
        match self {
            Refusal::Missing { .. }
            | Refusal::Field { .. }
            | Refusal::Parameter(_)
            | Refusal::View(ViewError::Pattern { .. }) => Code::InvalidArgument,
            Refusal::View(ViewError::NoFolder { .. })
            | Refusal::UnknownVolume { .. }
            | Refusal::NoClaim { .. } => Code::NotFound,
            // The cluster's administrator has to act first.
            Refusal::Claim(ClaimError::Denied { .. }) => Code::FailedPrecondition,
            Refusal::Claim(ClaimError::Unavailable { .. }) => Code::Unavailable,
            Refusal::Exists { .. } => Code::AlreadyExists,
            Refusal::TooLarge { .. } => Code::OutOfRange,
            Refusal::Busy { .. } => Code::Aborted,
            Refusal::Broken { .. } | Refusal::Record(_) => Code::Internal,
            Refusal::Unwell { .. } => Code::FailedPrecondition,
            Refusal::Failed { call, failure } => code_of_kind(failure.kind, *call),
            Refusal::Publish(error) => code_of_publish(error),
        }
    }
}

fn code_of_kind(kind: FailureKind, call: Call) -> Code {
    match (kind, call) {
        // UNIMPLEMENTED would say that the call itself does not exist.
        (FailureKind::BadReference | FailureKind::Unsupported, _) => Code::InvalidArgument,
        (FailureKind::NotFound, _) => Code::NotFound,
        (FailureKind::Unauthenticated, _) => Code::Unauthenticated,
        (FailureKind::Denied, _) => Code::PermissionDenied,
        (FailureKind::RateLimited | FailureKind::Unavailable, _) => Code::Unavailable,
        // Not DATA_LOSS: nothing of the user's is lost; somebody has to mend the repository first.
        (FailureKind::Integrity, _) => Code::FailedPrecondition,
        // Another node may have room; for a claim there is no other node to try.
        (FailureKind::NoRoom, Call::Publish) => Code::ResourceExhausted,
        (FailureKind::NoRoom, Call::Provision) => Code::Unavailable,
        (FailureKind::Internal, _) => Code::Internal,
    }
}

fn code_of_publish(error: &PublishError) -> Code {
    match error {
        PublishError::Target { .. } => Code::InvalidArgument,
        PublishError::OtherVolume { .. } => Code::AlreadyExists,
        PublishError::NoRoom { .. } => Code::ResourceExhausted,
        PublishError::Mount { .. } => Code::Internal,
    }
}

/// Longer messages are cut: an event holds 1,024 bytes, a gRPC trailer not much more.
const MESSAGE_CHARS_MAX: usize = 900;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let code = refusal.code();
        let message: String = refusal
            .to_string()
            .chars()
            .take(MESSAGE_CHARS_MAX)
            .collect();
        match message.trim().is_empty() {
            true => Status::new(code, code.description()),
            false => Status::new(code, message),
        }
    }
}

/// A failure of the catalog as the refusal of a call.
pub(super) fn failed(call: Call) -> impl Fn(Failure) -> Refusal {
    move |failure| Refusal::Failed { call, failure }
}

/// Refuses an empty required field.
pub(super) fn required(field: &'static str, value: &str) -> Result<(), Refusal> {
    match value.is_empty() {
        true => Err(Refusal::Missing { field }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_the_hub_has_its_code() {
        for (kind, provision, publish) in [
            (FailureKind::BadReference, 3, 3),
            (FailureKind::NotFound, 5, 5),
            (FailureKind::Unauthenticated, 16, 16),
            (FailureKind::Denied, 7, 7),
            (FailureKind::RateLimited, 14, 14),
            (FailureKind::Unavailable, 14, 14),
            (FailureKind::Integrity, 9, 9),
            (FailureKind::NoRoom, 14, 8),
            (FailureKind::Unsupported, 3, 3),
            (FailureKind::Internal, 13, 13),
        ] {
            for (call, code) in [(Call::Provision, provision), (Call::Publish, publish)] {
                let status: Status = failed(call)(Failure::new(kind, "it")).into();
                assert_eq!(status.code() as i32, code, "{kind} {call:?}");
                assert_eq!((status.message(), status.details().len()), ("it", 0));
            }
        }
    }

    #[test]
    fn every_failure_of_a_mount_has_its_code() {
        let target = std::path::PathBuf::from("/t");
        for (error, code) in [
            (
                PublishError::Target {
                    target: target.clone(),
                    cause: "is a file".into(),
                },
                3,
            ),
            (
                PublishError::OtherVolume {
                    target: target.clone(),
                },
                6,
            ),
            (
                PublishError::NoRoom {
                    volume_id: "v".into(),
                    bytes: 1,
                },
                8,
            ),
            (
                PublishError::Mount {
                    target,
                    source: std::io::ErrorKind::Other.into(),
                },
                13,
            ),
        ] {
            assert_eq!(Status::from(Refusal::from(error)).code() as i32, code);
        }
    }

    #[test]
    fn a_message_is_never_empty_and_never_endless() {
        for (text, chars) in [("", 1..100), ("é".repeat(5000).as_str(), 900..901)] {
            let failure = Failure::new(FailureKind::Denied, text);
            let status: Status = failed(Call::Publish)(failure).into();
            assert!(chars.contains(&status.message().chars().count()));
        }
    }
}
