//! Is this answer the range that was asked for? Nothing else becomes a [`Body`].

use super::errors::Object;
use crate::hub::http::Answer;
use crate::hub::{ByteStream, HubError};
use crate::model::{Digest, FailureKind};
use FailureKind::{Integrity, Unavailable};
use std::ops::Range;

/// A host that ignores ranges makes every read the whole file; up to here that is bearable.
const IGNORED_RANGE_BYTES_MAX: u64 = 16 << 20;

/// A git-lfs pointer is some 130 bytes of text; no file of weights is this small.
const POINTER_BYTES_MAX: u64 = 1024;
const POINTER_START: &[u8] = b"version https://git-lfs";

/// Bytes on their way. They may start before what is wanted; `exact` says that nothing may come after it.
pub struct Body {
    pub stream: ByteStream,
    /// The place in the file of the next byte.
    pub at: u64,
    pub exact: bool,
}

/// Accepts 206 with a Content-Range that starts where it should, and 200 for a whole or a small file.
pub fn accept(
    answer: Answer,
    object: &Object<'_>,
    size: u64,
    wanted: &Range<u64>,
) -> Result<Body, HubError> {
    let host = answer.url().host_str().unwrap_or_default();
    let unusable =
        |cause: String| HubError::last(Unavailable, format!("{}: {host} {cause}", object.name()));
    if let Some(encoding) = answer.header("content-encoding")
        && encoding != "identity"
    {
        return Err(unusable(format!(
            "compressed the answer ({encoding}), which makes ranges meaningless: check for a proxy that does this"
        )));
    }
    if answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("multipart/"))
    {
        return Err(unusable("answered one range with many parts".into()));
    }
    if answer.status() == 206 {
        let text = answer.header("content-range").unwrap_or_default();
        let (given, total) = content_range(text)
            .ok_or_else(|| unusable(format!("answered a range with Content-Range `{text}`")))?;
        check_size(total, size, object, host)?;
        if given.start != wanted.start || given.end > wanted.end {
            return Err(unusable(format!(
                "gave bytes {given:?} where {wanted:?} were asked"
            )));
        }
        return Ok(body(answer, given.start, true));
    }
    let length = answer
        .header("content-length")
        .and_then(|text| text.parse().ok());
    check_size(length, size, object, host)?;
    if *wanted == (0..size) {
        return Ok(body(answer, 0, true));
    }
    if size > IGNORED_RANGE_BYTES_MAX {
        return Err(unusable(format!(
            "ignores ranges and the file has {size} bytes, more than {IGNORED_RANGE_BYTES_MAX}: use a hub or mirror that serves ranges"
        )));
    }
    Ok(body(answer, 0, false))
}

fn body(answer: Answer, at: u64, exact: bool) -> Body {
    Body {
        stream: answer.into_stream(),
        at,
        exact,
    }
}

fn check_size(
    said: Option<u64>,
    listed: u64,
    object: &Object<'_>,
    host: &str,
) -> Result<(), HubError> {
    let Some(said) = said.filter(|said| *said != listed) else {
        return Ok(());
    };
    let pointer = is_lfs(object) && said <= POINTER_BYTES_MAX;
    let cause = match pointer {
        true => ", which looks like an LFS pointer: the mirror lacks the LFS objects",
        false => ": the hub is inconsistent, list the revision again",
    };
    Err(HubError::last(
        Integrity,
        format!(
            "{}: {host} has {said} bytes where {listed} were listed{cause}",
            object.name()
        ),
    ))
}

/// Refuses the text that git keeps in place of a large file. Small git files may hold it rightly.
pub fn check_start(part: &[u8], object: &Object<'_>) -> Result<(), HubError> {
    match is_lfs(object) && part.starts_with(POINTER_START) {
        true => Err(HubError::last(
            Integrity,
            format!(
                "{}: {} gave an LFS pointer instead of the content: the mirror lacks the LFS objects",
                object.name(),
                object.endpoint.host()
            ),
        )),
        false => Ok(()),
    }
}

fn is_lfs(object: &Object<'_>) -> bool {
    object.file.is_some_and(|file| {
        matches!(file.digest, Digest::Sha256(_)) && file.size > POINTER_BYTES_MAX
    })
}

/// `bytes A-B/TOTAL` as a half-open range and the total, which `*` leaves out.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last).then(|| (first..last.saturating_add(1), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_or_refused() {
        let range = |text| content_range(text);
        assert_eq!(range("bytes 0-0/1"), Some((0..1, Some(1))));
        assert_eq!(
            range("bytes 5368709120-5368709121/*"),
            Some((5_368_709_120..5_368_709_122, None))
        );
        for bad in [
            "",
            "bytes */9",
            "bytes 5-4/9",
            "items 0-1/2",
            "bytes 0-1",
            "bytes a-b/c",
        ] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
