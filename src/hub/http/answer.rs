//! An answer: its head, and its body as one piece or as a stream. Every byte read is counted.

use super::{shown, wire};
use crate::hub::{ByteStream, HubError};
use crate::metrics::METRICS;
use crate::model::FailureKind;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use reqwest::header::LOCATION;
use url::Url;

/// The head of an answer, its body still to come.
pub struct Answer {
    pub(super) response: reqwest::Response,
    /// The `hub` label of the metrics.
    pub(super) label: &'static str,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn url(&self) -> &Url {
        self.response.url()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that may come several times.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.response.headers().get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok())
    }

    /// Where a redirect points, made absolute. `None` for every other answer.
    pub fn location(&self) -> Option<Url> {
        match self.status() {
            301 | 302 | 303 | 307 | 308 => {
                let target = self.header(LOCATION.as_str())?;
                self.url().join(target).ok()
            }
            _ => None,
        }
    }

    /// The whole body, at most `most` bytes.
    pub async fn body(self, most: usize) -> Result<Bytes, HubError> {
        let url = self.url().clone();
        let mut stream = self.into_stream();
        let mut body = BytesMut::new();
        while let Some(part) = stream.next().await {
            body.extend_from_slice(&part?);
            if body.len() > most {
                return Err(HubError::last(
                    FailureKind::Unavailable,
                    format!("{}: answer is larger than {most} bytes", shown(&url)),
                ));
            }
        }
        Ok(body.freeze())
    }

    /// The body as it arrives, counted.
    pub fn into_stream(self) -> ByteStream {
        let url = self.url().clone();
        let bytes = METRICS.origin_bytes.with_label_values(&[self.label]);
        self.response
            .bytes_stream()
            .inspect_ok(move |part| bytes.inc_by(part.len() as u64))
            .map_err(move |error| wire(&url, error))
            .boxed()
    }
}
