//! The files of a commit: pages of the tree, joined. Complete, or an error.

use super::answer::Json;
use super::errors::Object;
use super::{Shared, resolve};
use crate::hub::HubError;
use crate::hub::http::Operation;
use crate::model::{Digest, Entry, FailureKind, Listing, Pin, Token};
use serde::Deserialize;
use std::collections::HashSet;
use url::Url;

/// A million files in the smallest pages the hub gives (50 rows).
const PAGES_MAX: usize = 20_000;

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    size: Option<u64>,
    oid: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// What a listing is made of.
type File = (String, u64, Digest);

pub async fn list(hub: &Shared, pin: &Pin, token: Option<&Token>) -> Result<Listing, HubError> {
    let object = resolve::object(hub, pin);
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(first(hub, pin)?);
    while let Some(url) = next {
        if seen.len() == PAGES_MAX || !seen.insert(url.clone()) {
            return Err(endless(&object));
        }
        let page = hub.json(Operation::List, &url, token, &object).await?;
        files.extend(rows(&page, &object)?);
        next = follow(hub, &page)?;
    }
    accept(pin, files)
}

/// A file to try a token on, from the first page: one of the weights where there is one.
pub async fn some_file(
    hub: &Shared,
    pin: &Pin,
    token: Option<&Token>,
) -> Result<Option<Entry>, HubError> {
    let object = resolve::object(hub, pin);
    let url = first(hub, pin)?;
    let page = hub.json(Operation::Authorize, &url, token, &object).await?;
    let listing = accept(pin, rows(&page, &object)?)?;
    let files = listing.files().iter();
    Ok(files.max_by_key(|entry| entry.size).cloned())
}

fn first(hub: &Shared, pin: &Pin) -> Result<Url, HubError> {
    let mut url = hub
        .endpoint
        .api(&pin.repository, "tree", pin.revision.as_str())?;
    url.set_query(Some("recursive=true&expand=false"));
    Ok(url)
}

fn accept(pin: &Pin, files: Vec<File>) -> Result<Listing, HubError> {
    Listing::new(pin.clone(), files)
        .map_err(|error| HubError::last(FailureKind::Unsupported, error.to_string()))
}

fn endless(object: &Object<'_>) -> HubError {
    HubError::last(
        FailureKind::Unavailable,
        format!(
            "listing of {}: the pages of {} do not end: check the endpoint",
            object.name(),
            object.endpoint.host()
        ),
    )
}

fn rows(page: &Json, object: &Object<'_>) -> Result<Vec<File>, HubError> {
    let rows: Vec<Row> = page.parse(object)?;
    let files = rows.into_iter().filter(|row| row.kind == "file");
    files.map(|row| file(row, object)).collect()
}

fn file(row: Row, object: &Object<'_>) -> Result<File, HubError> {
    // In unexpanded rows of LFS files `size` may be the pointer's and `oid` is the pointer's.
    let (size, digest) = match &row.lfs {
        Some(lfs) => (Some(lfs.size), stated("sha256", &lfs.oid)),
        None => (
            row.size,
            stated("git-sha1", row.oid.as_deref().unwrap_or_default()),
        ),
    };
    let size = size.ok_or_else(|| {
        HubError::last(
            FailureKind::Unavailable,
            format!("listing of {}: {:?} has no size", object.name(), row.path),
        )
    })?;
    Ok((row.path, size, digest))
}

/// The digest of a row. Mirrors that state none, or none that we know, still pin the content by commit and
/// path, which a [`Digest::Version`] key includes.
fn stated(algorithm: &str, oid: &str) -> Digest {
    let hex = oid.strip_prefix("sha256:").unwrap_or(oid);
    format!("{algorithm}:{hex}")
        .parse()
        .unwrap_or_else(|()| Digest::Version(*blake3::hash(oid.as_bytes()).as_bytes()))
}

/// The next page, on this endpoint whatever host the link names.
fn follow(hub: &Shared, page: &Json) -> Result<Option<Url>, HubError> {
    let Some(target) = page.links.iter().find_map(|header| next_link(header)) else {
        return Ok(None);
    };
    let url = page.url.join(target).map_err(|_| {
        HubError::last(
            FailureKind::Unavailable,
            format!("listing: `{target}` is no link to a next page"),
        )
    })?;
    hub.endpoint.own(url).map(Some)
}

/// The target of `rel="next"` in a Link header, which may hold several links.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, tail)) = rest.split_once('<') {
        let (target, tail) = tail.split_once('>')?;
        let parameters = tail.split_once('<').map_or(tail, |(head, _)| head);
        let next = parameters.split([';', ',']).any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=\"next\"" || parameter == "rel=next"
        });
        if next {
            return Some(target);
        }
        rest = tail;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_several() {
        let url = "https://h/api?a=1,2;3&cursor=x";
        for header in [
            format!("<{url}>; rel=\"next\""),
            format!("<https://h/first>; rel=\"first\", <{url}>; REL=next"),
            format!("<{url}>; title=\"x\"; rel=\"next\", <https://h/last>; rel=\"last\""),
        ] {
            assert_eq!(next_link(&header), Some(url), "{header}");
        }
        assert_eq!(next_link("<https://h/>; rel=\"prev\""), None);
        assert_eq!(next_link("nonsense"), None);
        assert_eq!(next_link("<unclosed"), None);
    }

    #[test]
    fn a_digest_nobody_knows_still_tells_contents_apart() {
        let hex = "ab".repeat(32);
        assert_eq!(stated("sha256", &hex), Digest::Sha256([0xab; 32]));
        assert_eq!(
            stated("sha256", &format!("sha256:{hex}")),
            Digest::Sha256([0xab; 32])
        );
        assert!(matches!(stated("git-sha1", ""), Digest::Version(_)));
        assert_ne!(stated("git-sha1", "x"), stated("git-sha1", "y"));
    }
}
