//! Judges answers: is this JSON, is this the file we listed.

use super::errors::Object;
use crate::hub::HubError;
use crate::hub::http::{Answer, shown};
use crate::model::{Digest, FailureKind};
use bytes::Bytes;
use url::Url;

/// A listing page of 1000 rows is some 300 KiB; a hundred times that is no page.
const JSON_BYTES_MAX: usize = 32 << 20;

/// A JSON answer and what else is wanted of it.
#[derive(Debug)]
pub struct Json {
    pub body: Bytes,
    /// Where it came from after redirects.
    pub url: Url,
    /// The `Link` headers.
    pub links: Vec<String>,
}

/// Reads a JSON body. Anything else under status 200 is a proxy's or portal's page, not the hub's word.
pub async fn json(answer: Answer, object: &Object<'_>) -> Result<Json, HubError> {
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    if !content_type.contains("json") {
        return Err(not_the_hub(answer.url(), &content_type, object));
    }
    let url = answer.url().clone();
    let links = answer.headers("link").map(str::to_owned).collect();
    let body = answer.body(JSON_BYTES_MAX).await?;
    Ok(Json { body, url, links })
}

impl Json {
    /// The answer in the shape it should have.
    pub fn parse<'a, T: serde::Deserialize<'a>>(
        &'a self,
        object: &Object<'_>,
    ) -> Result<T, HubError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            HubError::last(
                FailureKind::Unavailable,
                format!(
                    "{}: {} answered JSON of another shape ({error}): check that the endpoint is a Hugging Face hub",
                    object.name(),
                    shown(&self.url)
                ),
            )
        })
    }
}

fn not_the_hub(url: &Url, content_type: &str, object: &Object<'_>) -> HubError {
    HubError::last(
        FailureKind::Unavailable,
        format!(
            "{}: {} answered `{content_type}` where JSON belongs: check the endpoint, and that no proxy or login page stands before it",
            object.name(),
            shown(url)
        ),
    )
}

/// Compares what the hub says beside a file with the pin and the listing. Silent where it says nothing:
/// proxies drop headers.
pub fn check_head(answer: &Answer, object: &Object<'_>) -> Result<(), HubError> {
    let Some(file) = object.file else {
        return Ok(());
    };
    // A missing file's answer carries the commit too, errors of other kinds say nothing about the content.
    if answer.status() >= 400 {
        return Ok(());
    }
    let changed = |what, said: &str, listed: &str| changed(object, what, said, listed);
    if let Some(commit) = answer.header("x-repo-commit")
        && commit != object.revision
    {
        return Err(changed("commit", commit, object.revision));
    }
    if let Some(size) = answer.header("x-linked-size")
        && size.parse() != Ok(file.size)
    {
        return Err(changed("size", size, &file.size.to_string()));
    }
    match answer.header("x-linked-etag").and_then(etag_digest) {
        Some(digest) if contradicts(&digest, &file.digest) => Err(changed(
            "digest",
            &digest.to_string(),
            &file.digest.to_string(),
        )),
        _ => Ok(()),
    }
}

fn changed(object: &Object<'_>, what: &str, said: &str, listed: &str) -> HubError {
    HubError::last(
        FailureKind::Integrity,
        format!(
            "{}: {} says {what} {said} where {listed} was listed: the hub is inconsistent, list the revision again",
            object.name(),
            object.endpoint.host()
        ),
    )
}

/// Whether the hub itself states the listed digest: beside a redirect, or as the ETag of what it gives.
pub fn states(answer: &Answer, object: &Object<'_>) -> Result<bool, HubError> {
    let Some(file) = object.file.filter(|_| answer.status() < 400) else {
        return Ok(false);
    };
    let own = || answer.header("etag").filter(|_| answer.status() < 300);
    let stated = answer.header("x-linked-etag").or_else(own);
    match stated.and_then(etag_digest) {
        Some(digest) if contradicts(&digest, &file.digest) => Err(changed(
            object,
            "digest",
            &digest.to_string(),
            &file.digest.to_string(),
        )),
        digest => Ok(digest == Some(file.digest)),
    }
}

/// Two digests of one algorithm that differ.
fn contradicts(said: &Digest, listed: &Digest) -> bool {
    std::mem::discriminant(said) == std::mem::discriminant(listed) && said != listed
}

/// The digest that an ETag is: 64 hex digits are a sha256, 40 a git sha1, weak and unquoted ones alike.
fn etag_digest(etag: &str) -> Option<Digest> {
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
    match etag.len() {
        64 => format!("sha256:{etag}").parse().ok(),
        40 => format!("git-sha1:{etag}").parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_digests_by_their_length() {
        let sha256 = "ab".repeat(32);
        for etag in [format!("\"{sha256}\""), format!("W/\"{sha256}\""), sha256] {
            assert_eq!(etag_digest(&etag), Some(Digest::Sha256([0xab; 32])));
        }
        let git = format!("\"{}\"", "cd".repeat(20));
        assert_eq!(etag_digest(&git), Some(Digest::GitSha1([0xcd; 20])));
        assert_eq!(etag_digest("\"d41d8cd9-2\""), None);
    }

    #[test]
    fn only_digests_of_one_algorithm_contradict() {
        let (a, b) = (Digest::Sha256([1; 32]), Digest::Sha256([2; 32]));
        assert!(contradicts(&a, &b));
        assert!(!contradicts(&a, &a));
        assert!(!contradicts(&a, &Digest::GitSha1([1; 20])));
    }
}
