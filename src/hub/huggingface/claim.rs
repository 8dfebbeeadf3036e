//! Whether a repository holds what its listing states, by the hub's own word and without the bytes.
//!
//! A HEAD of the file, no redirect followed: the hub computes the digests it states there. The signed URL
//! that comes along is kept for the reads that follow, so asking costs a large file no request more.

use super::errors::explain;
use super::resolve::file_object;
use super::signed::{Key, SignedUrl};
use super::{Shared, answer};
use crate::hub::HubError;
use crate::hub::http::{Answer, Get, Operation, check_foreign};
use crate::model::{Entry, Pin, Token};

/// `true` when the hub states the listed digest, `false` when it states none; another one is `Integrity`.
pub async fn states(
    hub: &Shared,
    pin: &Pin,
    entry: &Entry,
    token: Option<&Token>,
) -> Result<bool, HubError> {
    hub.retried(|| ask(hub, pin, entry, token)).await
}

async fn ask(
    hub: &Shared,
    pin: &Pin,
    entry: &Entry,
    token: Option<&Token>,
) -> Result<bool, HubError> {
    let slot = hub.signed.slot(Key::new(pin, &entry.path, token));
    let mut place = slot.lock().await;
    if place
        .as_ref()
        .is_some_and(|signed| signed.stated && signed.is_fresh())
    {
        return Ok(true);
    }
    let object = file_object(hub, pin, entry);
    let answer = head(hub, pin, entry, token, Operation::Read).await?;
    let stated = answer::states(&answer, &object)?;
    match answer.location() {
        Some(url) => {
            check_foreign(answer.url(), &url)?;
            *place = Some(SignedUrl::new(url, stated));
            Ok(stated)
        }
        None if (200..300).contains(&answer.status()) => Ok(stated),
        None => Err(explain(answer, &object, token.is_some()).await),
    }
}

/// The hub's answer for a file, whatever its status, without the content: one byte of it where the hub or a
/// proxy does not take HEAD.
pub async fn head(
    hub: &Shared,
    pin: &Pin,
    entry: &Entry,
    token: Option<&Token>,
    operation: Operation,
) -> Result<Answer, HubError> {
    let (url, object) = (
        hub.endpoint.file(pin, &entry.path)?,
        file_object(hub, pin, entry),
    );
    let get = Get {
        operation,
        url: &url,
        token,
        range: None,
        head: true,
    };
    let answer = hub.ask(get, &object).await?;
    let untaken = match answer.status() {
        405 | 501 => true,
        403 => answer.header("x-error-code").is_none(),
        _ => false,
    };
    match untaken {
        false => Ok(answer),
        true => {
            let (head, range) = (false, Some(&(0..1)));
            hub.ask(Get { head, range, ..get }, &object).await
        }
    }
}
