//! Certificates in Secrets: PREFIX-ca, and PREFIX-ROLE-tls for each role, all `kubernetes.io/tls`.
//!
//! When a certificate ends stands beside it as the annotation [`NOT_AFTER`]. A Secret is created, or changed
//! in the version that was seen; the API refuses the second of two writers. Labels that others put there stay.

use crate::model::{Failure, FailureKind};
use crate::tls::{CA, CA_FILE, CERT_FILE, CertSet, Held, KEY_FILE, Shelf};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use std::collections::BTreeMap;

const NOT_AFTER: &str = "model-p2p.dev/not-after";

pub struct Secrets {
    api: Api<Secret>,
    namespace: String,
    prefix: String,
}

impl Secrets {
    pub fn new(client: kube::Client, namespace: &str, prefix: &str) -> Secrets {
        Secrets {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    fn name(&self, name: &str) -> String {
        match name {
            CA => format!("{}-{CA}", self.prefix),
            role => format!("{}-{role}-tls", self.prefix),
        }
    }

    fn failure(&self, name: &str, error: &kube::Error) -> Failure {
        let subject = format!("secret {}/{}", self.namespace, self.name(name));
        match code(error) {
            Some(401 | 403) => Failure::new(
                FailureKind::Denied,
                format!(
                    "{subject}: {error}: allow get, create and patch of secrets in the namespace"
                ),
            ),
            Some(404) => Failure::new(
                FailureKind::NotFound,
                format!("{subject}: {error}: create the namespace first"),
            ),
            _ => Failure::new(FailureKind::Unavailable, format!("{subject}: {error}")),
        }
    }
}

#[async_trait]
impl Shelf for Secrets {
    async fn get(&self, name: &str) -> Result<Option<Held>, Failure> {
        let found = self.api.get_opt(&self.name(name)).await;
        let found = found.map_err(|error| self.failure(name, &error))?;
        Ok(found.map(|secret| Held {
            set: set_of(&secret),
            version: secret.metadata.resource_version.unwrap_or_default(),
        }))
    }

    async fn put(&self, name: &str, set: &CertSet, seen: Option<&str>) -> Result<bool, Failure> {
        let secret = secret(self.name(name), set, seen);
        let written = match seen {
            None => self.api.create(&PostParams::default(), &secret).await,
            Some(_) => {
                let patch = Patch::Merge(&secret);
                self.api
                    .patch(&self.name(name), &PatchParams::default(), &patch)
                    .await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(409) => Ok(false),
            Err(error) => Err(self.failure(name, &error)),
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn set_of(secret: &Secret) -> CertSet {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map_or_else(String::new, |bytes| {
            String::from_utf8_lossy(&bytes.0).into_owned()
        })
    };
    let annotations = secret.metadata.annotations.as_ref();
    let end = annotations.and_then(|all| all.get(NOT_AFTER)?.parse::<Timestamp>().ok());
    CertSet {
        ca: text(CA_FILE),
        cert: text(CERT_FILE),
        key: text(KEY_FILE),
        not_after: end.and_then(|end| u64::try_from(end.as_second()).ok()),
    }
}

fn secret(name: String, set: &CertSet, seen: Option<&str>) -> Secret {
    let end = set.not_after.and_then(|end| i64::try_from(end).ok());
    let end = end.and_then(|end| Timestamp::from_second(end).ok());
    let string_data = [
        (CA_FILE, &set.ca),
        (CERT_FILE, &set.cert),
        (KEY_FILE, &set.key),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            resource_version: seen.map(str::to_owned),
            annotations: end.map(|end| BTreeMap::from([(NOT_AFTER.to_owned(), end.to_string())])),
            ..ObjectMeta::default()
        },
        string_data: Some(
            string_data
                .map(|(key, text)| (key.to_owned(), text.clone()))
                .into(),
        ),
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    }
}
