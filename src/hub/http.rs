//! HTTP as hubs need it: single GETs, redirects in our own hands, bodies counted.
//!
//! The only place that knows the HTTP library. It promises that a credential is sent to the origin it was
//! given for and nowhere else, that no error or log line holds a signed URL's query, and that nothing is
//! decompressed. Statuses are the caller's to judge; errors here are about the wire and are transient.

use super::HubError;
use crate::metrics::METRICS;
use crate::model::hub_url::is_local;
use crate::model::{FailureKind, Token};
use crate::tls::{hub_client, is_untrusted};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, RANGE};
use reqwest::{Client, redirect};
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

mod answer;
mod limit;
mod waiting;

pub use answer::Answer;
pub use limit::patience;
pub use waiting::{Gate, pause};

/// A renamed repository and a cache route make two; more than this is a loop.
const REDIRECTS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// PEM certificates to trust beside the public roots and the system's.
    pub ca_file: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// The longest silence inside an answer.
    pub idle_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// What a request is for: the `operation` label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Resolve,
    List,
    Read,
    Authorize,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Resolve => "resolve",
            Operation::List => "list",
            Operation::Read => "read",
            Operation::Authorize => "authorize",
        }
    }
}

/// A GET, or a HEAD.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    pub operation: Operation,
    pub url: &'a Url,
    pub token: Option<&'a Token>,
    /// Never empty.
    pub range: Option<&'a Range<u64>>,
    /// Without the content.
    pub head: bool,
}

/// Two clients, so that gigabytes under way never hold up a question.
#[derive(Debug)]
pub struct Http {
    api: Client,
    data: Client,
    /// The `hub` label of the metrics.
    label: &'static str,
}

impl Http {
    pub fn new(label: &'static str, config: &HttpConfig) -> Result<Http, HubError> {
        let builder = |protocols| {
            let tls = hub_client(config.ca_file.as_deref(), protocols)
                .map_err(|error| HubError::last(FailureKind::BadReference, error.to_string()))?;
            Ok::<_, HubError>(
                Client::builder()
                    .tls_backend_preconfigured(tls)
                    .user_agent(concat!("model-p2p/", env!("CARGO_PKG_VERSION")))
                    .redirect(redirect::Policy::none())
                    .connect_timeout(config.connect_timeout)
                    .read_timeout(config.idle_timeout),
            )
        };
        let broken = |error: reqwest::Error| {
            HubError::last(
                FailureKind::Internal,
                format!("HTTP client: {}", causes(&error)),
            )
        };
        Ok(Http {
            api: builder(&["h2", "http/1.1"])?.build().map_err(broken)?,
            // One connection a stream: with HTTP/2 all bulk reads would share one flow-control window.
            data: builder(&["http/1.1"])?
                .http1_only()
                .build()
                .map_err(broken)?,
            label,
        })
    }

    /// One request and its answer's head, whatever its status. Redirects are answers.
    pub async fn get(&self, get: Get<'_>) -> Result<Answer, HubError> {
        let client = match get.operation {
            Operation::Read => &self.data,
            _ => &self.api,
        };
        let url = get.url.clone();
        let request = match get.head {
            true => client.head(url),
            false => client.get(url),
        };
        let answer = request.headers(headers(&get)?).send().await;
        let code = match &answer {
            Ok(response) => response.status().as_str().to_owned(),
            Err(_) => "error".to_owned(),
        };
        METRICS
            .origin_requests
            .with_label_values(&[self.label, get.operation.name(), &code])
            .inc();
        let response = answer.map_err(|error| wire(get.url, error))?;
        Ok(Answer {
            response,
            label: self.label,
        })
    }

    /// Follows redirects as long as they stay on the origin of `get`, keeping the token; the first answer
    /// that is no redirect or points elsewhere is the result. `seen` judges every answer on the way.
    pub async fn follow(
        &self,
        get: Get<'_>,
        seen: impl Fn(&Answer) -> Result<(), HubError>,
    ) -> Result<Answer, HubError> {
        let mut url = get.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.get(Get { url: &url, ..get }).await?;
            seen(&answer)?;
            match answer.location() {
                Some(next) if next.origin() == get.url.origin() => url = next,
                _ => return Ok(answer),
            }
        }
        Err(HubError::last(
            FailureKind::Unavailable,
            format!(
                "{}: more than {REDIRECTS_MAX} redirects: check the endpoint",
                shown(get.url)
            ),
        ))
    }

    /// Reads from a host that is not the hub: no token, redirects to anywhere but back into a private place.
    pub async fn get_foreign(&self, url: &Url, range: &Range<u64>) -> Result<Answer, HubError> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self
                .get(Get {
                    operation: Operation::Read,
                    url: &url,
                    token: None,
                    range: Some(range),
                    head: false,
                })
                .await?;
            match answer.location() {
                Some(next) => {
                    check_foreign(&url, &next)?;
                    url = next;
                }
                None => return Ok(answer),
            }
        }
        Err(HubError::last(
            FailureKind::Unavailable,
            format!("{}: more than {REDIRECTS_MAX} redirects", shown(&url)),
        ))
    }
}

/// Refuses redirects that a hub has no business with: a step down from TLS, or to where no hub may be either.
pub fn check_foreign(from: &Url, to: &Url) -> Result<(), HubError> {
    let is_local = to.host().is_some_and(|host| is_local(&host));
    let downgrade = from.scheme() == "https" && to.scheme() != "https";
    match is_local || downgrade || !matches!(to.scheme(), "http" | "https") {
        true => Err(HubError::last(
            FailureKind::Unavailable,
            format!(
                "{}: redirect to {} refused: it leaves TLS or names an address of one machine or segment alone",
                shown(from),
                shown(to)
            ),
        )),
        false => Ok(()),
    }
}

fn headers(get: &Get<'_>) -> Result<HeaderMap, HubError> {
    let mut headers = HeaderMap::new();
    // Without it the hub gzips text on the fly, drops its length and ignores ranges.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(token) = get.token {
        let text = format!("Bearer {}", token.reveal());
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            HubError::last(
                FailureKind::Unauthenticated,
                "token holds characters that no token has: check the file or variable it comes from",
            )
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if let Some(range) = get.range {
        let text = format!("bytes={}-{}", range.start, range.end - 1);
        headers.extend(HeaderValue::from_str(&text).map(|value| (RANGE, value)));
    }
    Ok(headers)
}

fn wire(url: &Url, error: reqwest::Error) -> HubError {
    let error = error.without_url();
    let text = format!("{}: {}", shown(url), causes(&error));
    match is_untrusted(&error) {
        true => HubError::last(
            FailureKind::Unavailable,
            format!("{text}: give the certificate of the hub's CA with --ca-file"),
        ),
        false => HubError::passing(text),
    }
}

/// An error with its causes on one line: the library's own text stops at "error sending request".
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A URL as it may be shown: the query of a signed one is a credential.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither can fail on a URL that has a host.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hub_url::LOCAL;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn a_signed_query_and_a_password_are_never_shown() {
        let signed = url("https://u:pw@cdn.example/x?Signature=secret#f");
        assert_eq!(shown(&signed), "https://cdn.example/x");
    }

    #[test]
    fn redirects_out_of_tls_or_to_metadata_addresses_are_refused() {
        let from = url("https://huggingface.co/a");
        for bad in [
            "http://cdn.example/x",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "file:///etc/passwd",
        ] {
            assert!(check_foreign(&from, &url(bad)).is_err(), "{bad}");
        }
        // An allowed hub without TLS could send a seed to most of these.
        for bad in LOCAL {
            let from = url("http://hub.example.com");
            assert!(check_foreign(&from, &url(bad)).is_err(), "{bad}");
        }
        assert!(check_foreign(&from, &url("https://cdn.example/x")).is_ok());
        assert!(check_foreign(&url("http://127.0.0.1/"), &url("http://127.0.0.2/x")).is_ok());
    }

    #[test]
    fn a_broken_ca_file_is_named() {
        let config = HttpConfig {
            ca_file: Some("/nonexistent/ca.pem".into()),
            ..HttpConfig::default()
        };
        let error = Http::new("hf", &config).expect_err("no such file");
        assert!(error.to_string().contains("/nonexistent/ca.pem"));
    }
}
