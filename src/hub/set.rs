//! The hubs of this process: one client a scheme.

use super::file::FileHub;
use super::http::HttpConfig;
use super::huggingface::HuggingFace;
use super::offline::Offline;
use super::{Hub, HubError};
use crate::model::{FailureKind, HubUrl, Reference, Scheme};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct HubsConfig {
    /// The Hugging Face endpoint; may carry a path prefix.
    pub huggingface: String,
    /// PEM certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Further Hugging Face endpoints that references may name.
    pub allowed: Vec<HubUrl>,
    /// No network: only what the cache holds can be read.
    pub offline: bool,
}

impl Default for HubsConfig {
    fn default() -> HubsConfig {
        HubsConfig {
            huggingface: "https://huggingface.co".into(),
            ca_file: None,
            allowed: Vec::new(),
            offline: false,
        }
    }
}

#[derive(Clone)]
pub struct Hubs {
    huggingface: Arc<dyn Hub>,
    allowed: HashMap<HubUrl, Arc<dyn Hub>>,
    file: Arc<dyn Hub>,
}

impl Hubs {
    /// Checks endpoints and certificates; asks nobody.
    pub fn new(config: HubsConfig) -> Result<Hubs, HubError> {
        let http = HttpConfig {
            ca_file: config.ca_file,
            ..HttpConfig::default()
        };
        let client = |endpoint: &str| -> Result<Arc<dyn Hub>, HubError> {
            Ok(match config.offline {
                true => Arc::new(Offline),
                false => Arc::new(HuggingFace::new(endpoint, &http)?),
            })
        };
        let named = |url: &HubUrl| Ok((url.clone(), client(url.as_str())?));
        Ok(Hubs {
            huggingface: client(&config.huggingface)?,
            allowed: config
                .allowed
                .iter()
                .map(named)
                .collect::<Result<_, HubError>>()?,
            file: Arc::new(FileHub),
        })
    }

    /// The client of a reference's hub. `Unsupported` for schemes that this release does not have; one that
    /// the reference names must be allowed.
    pub fn for_reference(&self, reference: &Reference) -> Result<Arc<dyn Hub>, HubError> {
        match (reference.scheme, &reference.hub) {
            (Scheme::HuggingFace, None) => Ok(self.huggingface.clone()),
            (Scheme::HuggingFace, Some(url)) => {
                let client = self.allowed.get(url).cloned();
                client.ok_or_else(|| not_allowed(url))
            }
            (Scheme::File, _) => Ok(self.file.clone()),
            (scheme, _) => Err(HubError::last(
                FailureKind::Unsupported,
                format!(
                    "{}:// references are not available in this release: hf:// and file:// are",
                    scheme.name()
                ),
            )),
        }
    }
}

/// What nobody allowed is denied; that the reader's own machine is no hub is the asker's to know.
fn not_allowed(url: &HubUrl) -> HubError {
    match url.is_loopback() {
        true => HubError::last(
            FailureKind::BadReference,
            format!(
                "hub {url}: is a loopback address: name one that the seeds can reach, or give --allow-endpoint {url} to what reads it itself"
            ),
        ),
        false => HubError::last(
            FailureKind::Denied,
            format!(
                "hub {url}: is not allowed: give --allow-endpoint {url} to the seeds, or without seeds to this command"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pin;

    fn reference(text: &str) -> Reference {
        text.parse().expect(text)
    }

    #[test]
    fn schemes_to_come_say_so() {
        let hubs = Hubs::new(HubsConfig::default()).expect("the defaults are good");
        assert!(hubs.for_reference(&reference("hf://o/n")).is_ok());
        assert!(hubs.for_reference(&reference("file:///srv/o")).is_ok());
        let error = hubs.for_reference(&reference("s3://bucket/key"));
        let error = error.err().expect("not built yet");
        assert_eq!(error.kind(), FailureKind::Unsupported);
        assert!(error.to_string().contains("s3://"));
    }

    #[test]
    fn a_named_hub_is_read_only_if_it_is_allowed_to_the_letter() {
        let allowed = ["https://hub.example.com/hf/", "http://127.0.0.1:80"];
        let hubs = Hubs::new(HubsConfig {
            allowed: allowed.map(|url| url.parse().expect(url)).into(),
            ..HubsConfig::default()
        });
        let hubs = hubs.expect("good addresses");
        let endpoint = |text: &str| {
            let hub = hubs.for_reference(&reference(text));
            hub.map(|hub| hub.endpoint().to_owned())
        };
        let own = endpoint("hf://o/n").expect("the configured one");
        assert_eq!(own, "https://huggingface.co");
        let named = endpoint("hf(https://hub.example.com:443/hf)://o/n").expect("allowed");
        assert_eq!(named, "https://hub.example.com/hf");
        assert!(endpoint("hf(http://127.0.0.1)://o/n").is_ok());
        for (text, kind) in [
            ("hf(https://hub.example.com)://o/n", FailureKind::Denied),
            ("hf(http://hub.example.com/hf)://o/n", FailureKind::Denied),
            ("hf(https://huggingface.co)://o/n", FailureKind::Denied),
            ("hf(http://127.0.0.1:81)://o/n", FailureKind::BadReference),
        ] {
            let error = endpoint(text).expect_err(text);
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[tokio::test]
    async fn offline_says_what_is_missing_and_still_knows_commits() {
        let config = HubsConfig {
            offline: true,
            ..HubsConfig::default()
        };
        let hubs = Hubs::new(config).expect("needs nothing");
        let branch = reference("hf://o/n@main");
        let hub = hubs.for_reference(&branch).expect("a hub");
        let error = hub.resolve(&branch, None).await.expect_err("no network");
        assert!(error.to_string().contains("`main`"), "{error}");
        let commit = branch.at(&"a".repeat(40));
        let pin: Pin = hub.resolve(&commit, None).await.expect("needs no network");
        let error = hub.list(&pin, None).await.expect_err("no network");
        assert!(error.to_string().contains("listing of hf://o/n@aaaa"));
    }
}
