//! A range of one file, from the signed URL of its last `resolve` or from a new one.
//!
//! The stream gives exactly the bytes asked for or ends with an error. A body that breaks off is asked for
//! again from its last byte; a URL that a foreign host refuses is replaced once. Bytes that arrive reset
//! both counts.

use super::answer;
use super::body::{self, Body};
use super::errors::explain;
use super::resolve::file_object;
use super::signed::{Key, SignedUrl, Slot};
use super::{LABEL, Shared, pause};
use crate::backoff::Retries;
use crate::hub::http::{Answer, Get, Operation, check_foreign};
use crate::hub::{ByteStream, HubError};
use crate::model::{Entry, FailureKind, Pin, Token};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::ops::Range;
use std::sync::Arc;
use url::Url;

pub async fn read(
    hub: Arc<Shared>,
    pin: &Pin,
    entry: &Entry,
    bytes: Range<u64>,
    token: Option<Token>,
) -> Result<ByteStream, HubError> {
    if bytes.is_empty() || bytes.end > entry.size {
        let message = format!("{}: no bytes {bytes:?} in {}", entry.path, entry.size);
        return Err(HubError::last(FailureKind::Internal, message));
    }
    let mut reader = Reader {
        retries: Retries::new(hub.backoff),
        hub,
        pin: pin.clone(),
        entry: entry.clone(),
        token,
        left: bytes,
        body: None,
        refused: false,
    };
    reader.connect().await?;
    let parts = stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|part| (part, reader)))
    });
    Ok(parts.boxed())
}

struct Reader {
    hub: Arc<Shared>,
    pin: Pin,
    entry: Entry,
    token: Option<Token>,
    /// What the caller has not got yet.
    left: Range<u64>,
    body: Option<Body>,
    retries: Retries,
    /// A foreign host has refused a URL since the last byte.
    refused: bool,
}

/// What one try to open the range gave.
enum Opened {
    Body(Body),
    /// A foreign host refuses the signed URL: it has expired, or this is a real denial.
    Refused(HubError),
}

impl Reader {
    /// The next bytes; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, HubError> {
        while !self.left.is_empty() {
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            let error = match body.stream.next().await {
                Some(Ok(part)) => match self.take(part)? {
                    Some(part) => return Ok(Some(part)),
                    None => continue,
                },
                Some(Err(error)) => error,
                None => HubError::passing(format!(
                    "{}: body ended {} bytes early",
                    self.entry.path,
                    self.left.end - self.left.start
                )),
            };
            self.body = None;
            pause(LABEL, &mut self.retries, error).await?;
        }
        self.check_end().await?;
        Ok(None)
    }

    /// Takes what is wanted of a part and moves on.
    fn take(&mut self, mut part: Bytes) -> Result<Option<Bytes>, HubError> {
        let wanted = self.left.end - self.left.start;
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        if body.at == 0 {
            body::check_start(&part, &file_object(&self.hub, &self.pin, &self.entry))?;
        }
        let early = (self.left.start - body.at).min(part.len() as u64);
        body.at += part.len() as u64;
        let _ = part.split_to(early as usize);
        if part.is_empty() {
            return Ok(None);
        }
        if part.len() as u64 > wanted {
            if body.exact {
                return Err(self.too_long());
            }
            part.truncate(wanted as usize);
        }
        self.left.start += part.len() as u64;
        self.retries.progress();
        self.refused = false;
        Ok(Some(part))
    }

    /// Nothing may follow an exact range; asking also gives the connection back to its pool.
    async fn check_end(&mut self) -> Result<(), HubError> {
        match self.body.take() {
            Some(mut body) if body.exact => match body.stream.next().await {
                Some(Ok(part)) if !part.is_empty() => Err(self.too_long()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn too_long(&self) -> HubError {
        HubError::last(
            FailureKind::Unavailable,
            format!(
                "{}: body is longer than the range asked for",
                self.entry.path
            ),
        )
    }

    /// Opens what is left, with all the patience there is.
    async fn connect(&mut self) -> Result<(), HubError> {
        loop {
            match self.open().await {
                Ok(Opened::Body(body)) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Ok(Opened::Refused(error)) if self.refused => return Err(error),
                Ok(Opened::Refused(_)) => self.refused = true,
                Err(error) => pause(LABEL, &mut self.retries, error).await?,
            }
        }
    }

    /// One try: on the signed URL if there is a fresh one, else through the hub.
    async fn open(&mut self) -> Result<Opened, HubError> {
        let key = Key::new(&self.pin, &self.entry.path, self.token.as_ref());
        let slot = self.hub.signed.slot(key);
        let mut place = slot.lock().await;
        if let Some(signed) = place.as_ref().filter(|signed| signed.is_fresh()) {
            let url = signed.url.clone();
            drop(place);
            return self.open_signed(&slot, &url).await;
        }
        // Others who want this file wait at the lock: one resolve serves them all.
        let answer = self.resolve().await?;
        if let Some(url) = answer.location() {
            check_foreign(answer.url(), &url)?;
            let object = file_object(&self.hub, &self.pin, &self.entry);
            let stated = answer::states(&answer, &object)?;
            *place = Some(SignedUrl::new(url.clone(), stated));
            drop(place);
            return self.open_signed(&slot, &url).await;
        }
        drop(place);
        self.accept(answer).await
    }

    /// The hub's answer for the range: the bytes themselves, or the way to them.
    async fn resolve(&mut self) -> Result<Answer, HubError> {
        let url = self.hub.endpoint.file(&self.pin, &self.entry.path)?;
        let object = file_object(&self.hub, &self.pin, &self.entry);
        let get = Get {
            operation: Operation::Read,
            url: &url,
            token: self.token.as_ref(),
            range: Some(&self.left),
            head: false,
        };
        self.hub.ask(get, &object).await
    }

    async fn open_signed(&mut self, slot: &Slot, url: &Url) -> Result<Opened, HubError> {
        let answer = self.hub.http.get_foreign(url, &self.left).await?;
        if !matches!(answer.status(), 400 | 401 | 403 | 404 | 410) {
            return self.accept(answer).await;
        }
        let mut place = slot.lock().await;
        // Another range may have opened the file again meanwhile: its URL is not the one refused.
        if place.as_ref().is_some_and(|signed| signed.url == *url) {
            *place = None;
        }
        Ok(Opened::Refused(HubError::last(
            FailureKind::Denied,
            format!(
                "{}: {} refuses the hub's signed URL (HTTP {}): check the clock and that the host may be reached",
                self.entry.path,
                url.host_str().unwrap_or_default(),
                answer.status()
            ),
        )))
    }

    async fn accept(&mut self, answer: Answer) -> Result<Opened, HubError> {
        let object = file_object(&self.hub, &self.pin, &self.entry);
        match answer.status() {
            200 | 206 => {
                body::accept(answer, &object, self.entry.size, &self.left).map(Opened::Body)
            }
            _ => Err(explain(answer, &object, self.token.is_some()).await),
        }
    }
}
