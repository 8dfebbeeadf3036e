//! The hub of an air-gapped node: every call says what would have been needed.
//!
//! What a cache holds is read without asking here; a full commit is its own pin even without a network.

use super::{ByteStream, Hub, HubError};
use crate::model::{Entry, FailureKind, Listing, Pin, Reference, Token};
use async_trait::async_trait;
use std::ops::Range;

#[derive(Clone, Copy, Debug, Default)]
pub struct Offline;

fn missing(what: String) -> HubError {
    HubError::last(
        FailureKind::Unavailable,
        format!(
            "{what} is not in the cache and --offline forbids to ask the hub: pull it while online"
        ),
    )
}

#[async_trait]
impl Hub for Offline {
    async fn resolve(&self, reference: &Reference, _: Option<&Token>) -> Result<Pin, HubError> {
        let revision = reference.revision.as_deref().unwrap_or("the default");
        match revision.parse() {
            Ok(revision) => Ok(Pin {
                repository: reference.repository(),
                revision,
            }),
            Err(_) => Err(missing(format!(
                "{}: the commit of revision `{revision}`",
                reference.repository()
            ))),
        }
    }

    async fn list(&self, pin: &Pin, _: Option<&Token>) -> Result<Listing, HubError> {
        Err(missing(format!("listing of {pin}")))
    }

    async fn read(
        &self,
        pin: &Pin,
        entry: &Entry,
        bytes: Range<u64>,
        _: Option<&Token>,
    ) -> Result<ByteStream, HubError> {
        Err(missing(format!(
            "{} of {pin}, bytes {bytes:?},",
            entry.path
        )))
    }

    async fn states(&self, pin: &Pin, entry: &Entry, _: Option<&Token>) -> Result<bool, HubError> {
        Err(missing(format!("the digest of {} of {pin}", entry.path)))
    }

    async fn authorize(&self, pin: &Pin, _: Option<&Token>) -> Result<(), HubError> {
        Err(missing(format!("permission to read {pin}")))
    }
}
