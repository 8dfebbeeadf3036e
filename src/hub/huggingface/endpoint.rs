//! The hub's address and the URLs under it, each name percent-encoded so that it stays one name.

use crate::hub::HubError;
use crate::model::secrets::without_secrets;
use crate::model::{FailureKind, Kind, Pin, Reference};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

/// All but RFC 3986's unreserved characters.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[derive(Debug)]
pub struct Endpoint {
    base: Url,
    /// The base as text, without a slash at its end.
    text: String,
}

impl Endpoint {
    pub fn new(text: &str) -> Result<Endpoint, HubError> {
        let bad = |cause: &str| {
            HubError::last(
                FailureKind::BadReference,
                format!(
                    "hub endpoint `{}`: {cause}: an example that works: https://huggingface.co",
                    without_secrets(text)
                ),
            )
        };
        let base: Url = text.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(bad("is neither http:// nor https://"));
        }
        let has_credentials = !base.username().is_empty() || base.password().is_some();
        if base.query().is_some() || base.fragment().is_some() || has_credentials {
            return Err(bad("holds a query or credentials"));
        }
        let text = base.as_str().trim_end_matches('/').to_owned();
        Ok(Endpoint { base, text })
    }

    /// As configured, without a slash at its end.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// Whether a URL is the hub's own: only there the token goes.
    pub fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// A page for humans: where terms are accepted.
    pub fn page(&self, repository: &Reference) -> String {
        format!("{}/{}", self.text, web_path(repository))
    }

    /// `/api/{kind}s/{id}/{call}[/{revision}]`.
    pub fn api(&self, repository: &Reference, call: &str, revision: &str) -> Result<Url, HubError> {
        let id = path(&repository.repo);
        let mut text = format!("{}/api/{}/{id}/{call}", self.text, repository.kind.plural());
        if !revision.is_empty() {
            text = format!("{text}/{}", utf8_percent_encode(revision, NAME));
        }
        self.parse(&text)
    }

    /// `/{prefix}{id}/resolve/{revision}/{file}`.
    pub fn file(&self, pin: &Pin, file: &str) -> Result<Url, HubError> {
        let repository = web_path(&pin.repository);
        self.parse(&format!(
            "{}/{repository}/resolve/{}/{}",
            self.text,
            pin.revision,
            path(file)
        ))
    }

    /// A link from an answer, put on this endpoint: mirrors pass on links that name the original, and the
    /// token must not follow them there.
    pub fn own(&self, link: Url) -> Result<Url, HubError> {
        if self.owns(&link) {
            return Ok(link);
        }
        let prefix = self.base.path().trim_end_matches('/');
        let path = link.path().strip_prefix(prefix).unwrap_or(link.path());
        let query = link.query().map(|query| format!("?{query}"));
        self.parse(&format!("{}{path}{}", self.text, query.unwrap_or_default()))
    }

    fn parse(&self, text: &str) -> Result<Url, HubError> {
        text.parse().map_err(|_| {
            HubError::last(
                FailureKind::BadReference,
                format!("`{text}` is not a URL that {} understands", self.host()),
            )
        })
    }
}

fn web_path(repository: &Reference) -> String {
    match repository.kind {
        Kind::Model => path(&repository.repo),
        kind => format!("{}/{}", kind.plural(), path(&repository.repo)),
    }
}

/// Encodes each segment and keeps the slashes.
fn path(text: &str) -> String {
    let segments: Vec<String> = text
        .split('/')
        .map(|segment| utf8_percent_encode(segment, NAME).to_string())
        .collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(text).expect(text)
    }

    fn reference(text: &str) -> Reference {
        text.parse().expect(text)
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for text in [
            "https://u:SECRET@hub",
            "https://:SECRET@hub",
            "u:SECRET@hub",
        ] {
            let error = Endpoint::new(text).expect_err(text).to_string();
            assert!(
                error.contains("…@hub") && !error.contains("SECRET"),
                "{error}"
            );
        }
    }

    #[test]
    fn revisions_are_encoded_whole_and_paths_by_segment() {
        let hub = endpoint("https://hub.example/hf/");
        let data = reference("hf://datasets/o/n");
        let url = hub.api(&data, "revision", "refs/pr/1").expect("a URL");
        assert_eq!(
            url.as_str(),
            "https://hub.example/hf/api/datasets/o/n/revision/refs%2Fpr%2F1"
        );
        let pin: Pin = format!("hf://o/n@{}", "a".repeat(40)).parse().expect("pin");
        let url = hub.file(&pin, "a b/#1?%+[é].bin").expect("a URL");
        assert!(
            url.as_str()
                .ends_with("/a%20b/%231%3F%25%2B%5B%C3%A9%5D.bin"),
            "{url}"
        );
    }

    #[test]
    fn links_to_other_hosts_come_back_to_this_endpoint() {
        let hub = endpoint("http://127.0.0.1:80/hf");
        let own = |text: &str| hub.own(text.parse().expect(text)).expect("a URL");
        assert_eq!(
            own("https://huggingface.co/api/models/o/n/tree/x?cursor=2").as_str(),
            "http://127.0.0.1/hf/api/models/o/n/tree/x?cursor=2"
        );
        assert_eq!(
            own("https://mirror/hf/api/x").as_str(),
            "http://127.0.0.1/hf/api/x"
        );
        assert!(!hub.owns(&"http://127.0.0.1:81/hf".parse().expect("a URL")));
    }

    #[test]
    fn endpoints_are_plain_http_addresses() {
        for bad in [
            "huggingface.co",
            "ftp://h/",
            "https://u:p@h/",
            "https://h/?x=1",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
    }
}
