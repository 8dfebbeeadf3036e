//! What the hub's refusals mean, in words that name the object, the cause and the remedy.

use super::endpoint::Endpoint;
use crate::hub::HubError;
use crate::hub::http::{Answer, patience, shown};
use crate::model::{Digest, FailureKind, Reference};
use FailureKind::{Denied, Integrity, NotFound, Unauthenticated, Unavailable, Unsupported};

/// What a request was about.
pub struct Object<'a> {
    pub endpoint: &'a Endpoint,
    pub repository: &'a Reference,
    pub revision: &'a str,
    pub file: Option<File<'a>>,
}

/// One file of it, as the listing has it.
#[derive(Clone, Copy)]
pub struct File<'a> {
    pub path: &'a str,
    pub size: u64,
    pub digest: Digest,
}

impl Object<'_> {
    pub fn repo(&self) -> &str {
        &self.repository.repo
    }

    /// `owner/name` or `file of owner/name`, at its revision, for error texts.
    pub fn name(&self) -> String {
        let revision: String = self.revision.chars().take(12).collect();
        let whole = format!("{}@{revision}", self.repo());
        match self.file {
            Some(file) => format!("{} of {whole}", file.path),
            None => whole,
        }
    }
}

/// Some of the answer's text, for causes that only the text tells apart.
const TEXT_BYTES_MAX: usize = 4096;

/// Turns an answer that is no success into an error. Reads some of its body.
pub async fn explain(answer: Answer, object: &Object<'_>, token: bool) -> HubError {
    let status = answer.status();
    if let 300..=399 = status {
        return redirected(&answer, object);
    }
    if let 408 | 429 | 500..=599 = status {
        return transient(&answer, object);
    }
    let header = |name| answer.header(name).unwrap_or_default().to_owned();
    let (code, mut message) = (header("x-error-code"), header("x-error-message"));
    if message.is_empty() {
        let body = answer.body(TEXT_BYTES_MAX).await.unwrap_or_default();
        message = String::from_utf8_lossy(&body).into_owned();
    }
    refused(status, &code, &message, object, token)
}

fn transient(answer: &Answer, object: &Object<'_>) -> HubError {
    let status = answer.status();
    let host = answer.url().host_str().unwrap_or_default();
    let cause = match status {
        429 => "asks for patience: too many requests",
        _ => "has a trouble that may pass",
    };
    HubError::Transient {
        message: format!("{}: {host} {cause} (HTTP {status})", object.name()),
        after: patience(answer.header("ratelimit"), answer.header("retry-after")),
        limited: status == 429,
    }
}

fn redirected(answer: &Answer, object: &Object<'_>) -> HubError {
    let target = answer.location().map(|url| shown(&url));
    HubError::last(
        Unsupported,
        format!(
            "{}: {} redirects to {}, where no token is sent: set the endpoint to that host if it is the hub",
            object.name(),
            object.endpoint.host(),
            target.unwrap_or_else(|| "nowhere".into()),
        ),
    )
}

/// The table of refusals; `token` says whether one was sent.
fn refused(status: u16, code: &str, message: &str, object: &Object<'_>, token: bool) -> HubError {
    let (repo, host) = (object.repo(), object.endpoint.host());
    let (kind, text) = match (status, code) {
        (401 | 403, "GatedRepo") => gated(object, token),
        (401 | 404, "RepoNotFound") => (NotFound, missing(object, token)),
        (401, _) if token => (
            Unauthenticated,
            format!("token rejected by {host} for {repo}: check that it is current and complete"),
        ),
        (401, _) => (
            Unauthenticated,
            format!("{host} wants a token for {repo}: give one with --token-file or HF_TOKEN"),
        ),
        (403, _) if message.contains("disabled") => (
            Denied,
            format!("repository {repo} is disabled by {host}: choose another model"),
        ),
        (403, _) => (
            Denied,
            format!(
                "{host} denies {}: give a token with read access to {repo}",
                object.name()
            ),
        ),
        (404, _) => (NotFound, absent(code, object)),
        (416, _) => (
            Integrity,
            format!(
                "{}: {host} has another size than its listing says: list the revision again",
                object.name()
            ),
        ),
        _ => (
            Unavailable,
            format!(
                "{}: {host} gave no usable answer (HTTP {status})",
                object.name()
            ),
        ),
    };
    HubError::last(kind, text)
}

/// What a repository that is there does not have.
fn absent(code: &str, object: &Object<'_>) -> String {
    let (name, host) = (object.name(), object.endpoint.host());
    let (repo, revision) = (object.repo(), object.revision);
    match code {
        "RevisionNotFound" => format!(
            "revision `{revision}` of {repo} not found on {host}: check the branch, tag or full commit"
        ),
        "EntryNotFound" => format!("{name} not found on {host}: check the path"),
        _ => format!("{name} not found on {host}: check the name and the endpoint"),
    }
}

fn missing(object: &Object<'_>, token: bool) -> String {
    let (repo, host) = (object.repo(), object.endpoint.host());
    match token {
        true => format!(
            "repository {repo} on {host} not found, or hidden from this token: check the name and the token's access"
        ),
        false => format!(
            "repository {repo} on {host} not found, or hidden without a token: check the name, or give a token with --token-file or HF_TOKEN"
        ),
    }
}

fn gated(object: &Object<'_>, token: bool) -> (FailureKind, String) {
    let repo = object.repo();
    let page = object.endpoint.page(object.repository);
    match token {
        true => (
            Denied,
            format!(
                "repository {repo} is gated and this token may not read it: accept the terms at {page}"
            ),
        ),
        false => (
            Unauthenticated,
            format!(
                "repository {repo} is gated: accept the terms at {page} and give a token with --token-file or HF_TOKEN"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_the_object_the_cause_and_the_remedy() {
        let endpoint = Endpoint::new("https://huggingface.co").expect("an endpoint");
        let repository = "hf://o/n".parse().expect("a reference");
        let object = Object {
            endpoint: &endpoint,
            repository: &repository,
            revision: "main",
            file: None,
        };
        for (status, code, message, token, kind, part) in [
            (401, "RepoNotFound", "", false, NotFound, "HF_TOKEN"),
            (
                404,
                "RepoNotFound",
                "",
                true,
                NotFound,
                "hidden from this token",
            ),
            (
                401,
                "",
                "Invalid credentials in Authorization header",
                true,
                Unauthenticated,
                "token rejected",
            ),
            (401, "", "", false, Unauthenticated, "--token-file"),
            (
                403,
                "GatedRepo",
                "",
                true,
                Denied,
                "https://huggingface.co/o/n",
            ),
            (
                401,
                "GatedRepo",
                "",
                false,
                Unauthenticated,
                "https://huggingface.co/o/n",
            ),
            (
                403,
                "",
                "Access to this resource is disabled.",
                true,
                Denied,
                "disabled",
            ),
            (403, "", "", true, Denied, "read access"),
            (
                404,
                "RevisionNotFound",
                "",
                false,
                NotFound,
                "revision `main`",
            ),
            (404, "EntryNotFound", "", false, NotFound, "check the path"),
            (404, "", "", false, NotFound, "endpoint"),
            (416, "", "", false, Integrity, "another size"),
            (402, "", "", false, Unavailable, "HTTP 402"),
        ] {
            let error = refused(status, code, message, &object, token);
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains("o/n"), "{text}");
        }
    }
}
