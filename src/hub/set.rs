//! The hubs of this process: one client a scheme.

use super::file::FileHub;
use super::http::HttpConfig;
use super::huggingface::HuggingFace;
use super::offline::Offline;
use super::{Hub, HubError};
use crate::model::{FailureKind, Scheme};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct HubsConfig {
    /// The Hugging Face endpoint; may carry a path prefix.
    pub huggingface: String,
    /// PEM certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// No network: only what the cache holds can be read.
    pub offline: bool,
}

impl Default for HubsConfig {
    fn default() -> HubsConfig {
        HubsConfig {
            huggingface: "https://huggingface.co".into(),
            ca_file: None,
            offline: false,
        }
    }
}

#[derive(Clone)]
pub struct Hubs {
    huggingface: Arc<dyn Hub>,
    file: Arc<dyn Hub>,
}

impl Hubs {
    /// Checks endpoints and certificates; asks nobody.
    pub fn new(config: HubsConfig) -> Result<Hubs, HubError> {
        let http = HttpConfig {
            ca_file: config.ca_file,
            ..HttpConfig::default()
        };
        let huggingface: Arc<dyn Hub> = match config.offline {
            true => Arc::new(Offline),
            false => Arc::new(HuggingFace::new(&config.huggingface, &http)?),
        };
        Ok(Hubs {
            huggingface,
            file: Arc::new(FileHub),
        })
    }

    /// The client of a scheme. `Unsupported` for those this release does not have.
    pub fn for_scheme(&self, scheme: Scheme) -> Result<Arc<dyn Hub>, HubError> {
        match scheme {
            Scheme::HuggingFace => Ok(self.huggingface.clone()),
            Scheme::File => Ok(self.file.clone()),
            Scheme::ModelScope
            | Scheme::S3
            | Scheme::Gcs
            | Scheme::Azure
            | Scheme::Oci
            | Scheme::Https => Err(HubError::last(
                FailureKind::Unsupported,
                format!(
                    "{}:// references are not available in this release: hf:// and file:// are",
                    scheme.name()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pin, Reference};

    #[test]
    fn schemes_to_come_say_so() {
        let hubs = Hubs::new(HubsConfig::default()).expect("the defaults are good");
        assert!(hubs.for_scheme(Scheme::HuggingFace).is_ok());
        assert!(hubs.for_scheme(Scheme::File).is_ok());
        let error = hubs.for_scheme(Scheme::S3).err().expect("not built yet");
        assert_eq!(error.kind(), FailureKind::Unsupported);
        assert!(error.to_string().contains("s3://"));
    }

    #[tokio::test]
    async fn offline_says_what_is_missing_and_still_knows_commits() {
        let config = HubsConfig {
            offline: true,
            ..HubsConfig::default()
        };
        let hubs = Hubs::new(config).expect("needs nothing");
        let hub = hubs.for_scheme(Scheme::HuggingFace).expect("a hub");
        let branch: Reference = "hf://o/n@main".parse().expect("a reference");
        let error = hub.resolve(&branch, None).await.expect_err("no network");
        assert!(error.to_string().contains("`main`"), "{error}");
        let commit = branch.at(&"a".repeat(40));
        let pin: Pin = hub.resolve(&commit, None).await.expect("needs no network");
        let error = hub.list(&pin, None).await.expect_err("no network");
        assert!(error.to_string().contains("listing of hf://o/n@aaaa"));
    }
}
