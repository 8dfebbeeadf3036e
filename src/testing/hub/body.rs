//! Content on its way out: ranges, counting, the rate limit, and bodies that go wrong on purpose.

use super::fault::FaultKind;
use super::repo::{Content, HubFile};
use super::server::State;
use super::stats::Giver;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use futures::stream;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// One write to a connection: large enough that benches measure the reader.
const PART_BYTES: u64 = 256 << 10;

/// A token bucket without a store: each taker waits for the end of the one before.
pub struct Bucket {
    rate: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Bucket {
    pub fn new(rate: Option<u64>) -> Bucket {
        Bucket {
            rate: rate.filter(|rate| *rate > 0),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// What to send at once: a twentieth of a second of a slow link, so that it stays smooth.
    fn part_bytes(&self) -> u64 {
        self.rate
            .map_or(PART_BYTES, |rate| (rate / 20).clamp(1024, PART_BYTES))
    }

    async fn take(&self, bytes: u64) {
        let Some(rate) = self.rate else {
            return;
        };
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*free_at).max(Instant::now());
            *free_at = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at
        };
        sleep_until(until).await;
    }
}

/// A file to give out and who gives it.
pub struct Giving {
    pub state: Arc<State>,
    pub giver: Giver,
    pub repo: String,
    pub path: String,
    pub file: HubFile,
    /// The number of the signed URL, for [`FaultKind::ExpireAfter`].
    pub signed: u64,
    pub fault: Option<FaultKind>,
}

impl Giving {
    /// 200, 206 or 416 with the headers of content; the caller adds its own.
    pub fn answer(mut self, headers: &HeaderMap) -> Response<Body> {
        if self.fault == Some(FaultKind::Pointer) {
            self.file.content = Content::Bytes(pointer(&self.file));
        }
        let size = self.file.content.size();
        let asked = headers.get("range").and_then(|value| value.to_str().ok());
        let asked = asked.filter(|_| self.fault != Some(FaultKind::IgnoreRange));
        let (status, range) = match asked.map(|text| parse_range(text, size)) {
            None => (StatusCode::OK, 0..size),
            Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
            Some(None) => return out_of_range(size),
        };
        let mut answer = Response::builder()
            .status(status)
            .header("accept-ranges", "bytes")
            .header("content-type", "application/octet-stream")
            .header("content-length", range.end - range.start);
        if status == StatusCode::PARTIAL_CONTENT {
            let late = u64::from(self.fault == Some(FaultKind::WrongRange));
            let (first, last) = (range.start + late, range.end - 1);
            answer = answer.header("content-range", format!("bytes {first}-{last}/{size}"));
        }
        if self.fault == Some(FaultKind::Gzip) {
            answer = answer.header("content-encoding", "gzip");
        }
        answer.body(self.body(range)).unwrap_or_default()
    }

    fn body(self, range: Range<u64>) -> Body {
        let start = range.start;
        Body::from_stream(stream::try_unfold(
            (self, range),
            move |(giving, left)| async move {
                match giving.part(start, &left).await? {
                    Some(part) => {
                        let rest = left.start + part.len() as u64..left.end;
                        Ok::<_, io::Error>(Some((part, (giving, rest))))
                    }
                    None => Ok(None),
                }
            },
        ))
    }

    /// The next part of what is left of a body that began at `start`.
    async fn part(&self, start: u64, left: &Range<u64>) -> io::Result<Option<Bytes>> {
        let state = &self.state;
        if left.is_empty() {
            return Ok(None);
        }
        let mut end = left.end.min(left.start + state.bucket.part_bytes());
        if let Some(FaultKind::Truncate(after) | FaultKind::ExpireAfter(after)) = self.fault {
            end = end.min(start + after);
            if left.start >= end {
                if let Some(FaultKind::ExpireAfter(_)) = self.fault {
                    state.expire(self.signed);
                }
                // What was given must leave first: an error drops what the connection has not sent.
                sleep(Duration::from_millis(5)).await;
                return Err(io::Error::other("cut off on order"));
            }
        }
        tokio::select! {
            () = state.bucket.take(end - left.start) => {}
            () = state.stop.cancelled() => return Err(io::Error::other("stopped")),
        }
        let part = self
            .file
            .content
            .read(left.start, (end - left.start) as usize)?;
        let size = self.file.content.size();
        state
            .stats
            .gave(self.giver, &self.repo, &self.path, size, left.start..end);
        Ok(Some(self.flip(left.start, part)))
    }

    fn flip(&self, start: u64, part: Bytes) -> Bytes {
        let Some(FaultKind::Flip(at)) = self.fault else {
            return part;
        };
        let mut bytes = part.to_vec();
        if let Some(byte) = at
            .checked_sub(start)
            .and_then(|at| bytes.get_mut(at as usize))
        {
            *byte ^= 1;
        }
        bytes.into()
    }
}

/// What git keeps in place of a large file.
fn pointer(file: &HubFile) -> Bytes {
    format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        file.digest,
        file.content.size()
    )
    .into()
}

fn out_of_range(size: u64) -> Response<Body> {
    Response::builder()
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
        .header("content-range", format!("bytes */{size}"))
        .body(Body::empty())
        .unwrap_or_default()
}

/// One range of RFC 9110, cut at the end of the file. `None` when nothing of it is in the file.
pub fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..last.checked_add(1)?.min(size),
        (Ok(first), Err(_)) => first..size,
        (Err(_), Ok(suffix)) => size.saturating_sub(suffix)..size,
        _ => return None,
    };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_or_refused() {
        assert_eq!(parse_range("bytes=0-0", 10), Some(0..1));
        assert_eq!(parse_range("bytes=5-99", 10), Some(5..10));
        assert_eq!(parse_range("bytes=5-", 10), Some(5..10));
        assert_eq!(parse_range("bytes=-3", 10), Some(7..10));
        for bad in ["bytes=10-", "bytes=5-4", "bytes=-", "5-6", "bytes=-0"] {
            assert_eq!(parse_range(bad, 10), None, "{bad}");
        }
    }
}
