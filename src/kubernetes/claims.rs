//! The cluster behind the CSI controller: claims and volumes read, events written.

use super::CALL_MAX;
use crate::csi::{Claim, ClaimError, Claims, DRIVER_NAME, Event};
use crate::model::event::bounded;
use async_trait::async_trait;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error};
use std::collections::HashMap;
use std::future::Future;

/// PersistentVolumes a page; a page with 500 has about 1 MiB.
const PAGE: u32 = 500;
/// Pages that are looked through for one volume.
const PAGES_MAX: usize = 100;

/// The API server as [`Claims`].
pub struct ClusterClaims {
    client: Client,
}

impl ClusterClaims {
    pub fn new(client: Client) -> ClusterClaims {
        ClusterClaims { client }
    }

    async fn find(&self, volume_id: &str) -> Result<Option<HashMap<String, String>>, ClaimError> {
        let volumes: Api<core::PersistentVolume> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE);
        for _ in 0..PAGES_MAX {
            let list = ask("list", "persistentvolumes", volumes.list(&page)).await?;
            let found = list.items.into_iter();
            if let Some(context) = found.filter_map(|one| context_of(one, volume_id)).next() {
                return Ok(Some(context));
            }
            page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                break;
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Claims for ClusterClaims {
    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<Claim>, ClaimError> {
        let claims: Api<core::PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), namespace);
        let question = claims.get_metadata_opt(name);
        let found = ask("get", "persistentvolumeclaims", question).await?;
        Ok(found.map(|claim| Claim {
            uid: claim.metadata.uid.unwrap_or_default(),
            annotations: claim.metadata.annotations.unwrap_or_default(),
        }))
    }

    async fn context(
        &self,
        volume_id: &str,
        name: Option<&str>,
    ) -> Result<Option<HashMap<String, String>>, ClaimError> {
        let Some(name) = name.filter(|name| is_object_name(name)) else {
            return self.find(volume_id).await;
        };
        let volumes: Api<core::PersistentVolume> = Api::all(self.client.clone());
        let found = ask("get", "persistentvolumes", volumes.get_opt(name)).await?;
        Ok(found.and_then(|volume| context_of(volume, volume_id)))
    }

    async fn record(&self, event: &Event) -> Result<(), ClaimError> {
        let events: Api<core::Event> =
            Api::namespaced(self.client.clone(), &event.object.namespace);
        let post = PostParams::default();
        let event = as_core(event);
        let written = async {
            match events.create(&post, &event).await {
                // Another replica told it, or the same thing happened this minute.
                Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
                written => written.map(drop),
            }
        };
        ask("create", "events", written).await
    }
}

/// Asks within [`CALL_MAX`].
async fn ask<T>(
    verb: &'static str,
    what: &'static str,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, ClaimError> {
    let unavailable = |cause: String| ClaimError::Unavailable { verb, what, cause };
    match tokio::time::timeout(CALL_MAX, question).await {
        Err(_) => Err(unavailable(format!("{} s have passed", CALL_MAX.as_secs()))),
        Ok(Err(Error::Api(status))) if status.is_forbidden() => {
            Err(ClaimError::Denied { verb, what })
        }
        Ok(Err(Error::Api(status))) => Err(unavailable(status.message)),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Ok(Ok(answer)) => Ok(answer),
    }
}

/// A volume name that the provisioner did not choose may be any text; such a PersistentVolume cannot be.
fn is_object_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

fn context_of(volume: core::PersistentVolume, volume_id: &str) -> Option<HashMap<String, String>> {
    let source = volume.spec?.csi?;
    let ours = source.driver == DRIVER_NAME && source.volume_handle == volume_id;
    ours.then(|| {
        source
            .volume_attributes
            .unwrap_or_default()
            .into_iter()
            .collect()
    })
}

fn as_core(event: &Event) -> core::Event {
    let object = event.object.clone();
    let at = Timestamp::from_second(event.at as i64).ok().map(Time);
    let kind = if event.is_warning {
        "Warning"
    } else {
        "Normal"
    };
    core::Event {
        metadata: ObjectMeta {
            name: Some(event.name()),
            namespace: Some(object.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: core::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(object.kind.into()),
            namespace: Some(object.namespace),
            name: Some(object.name),
            uid: Some(object.uid),
            ..core::ObjectReference::default()
        },
        reason: Some(event.reason.into()),
        message: Some(bounded(event.text.clone())),
        type_: Some(kind.into()),
        count: Some(1),
        first_timestamp: at.clone(),
        last_timestamp: at,
        source: Some(core::EventSource {
            component: Some(DRIVER_NAME.into()),
            ..core::EventSource::default()
        }),
        reporting_component: Some(DRIVER_NAME.into()),
        ..core::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Needs a cluster with what [`crate::csi::tests::claims::conforms`] asks for, and in the kubeconfig the
    /// controller's own rights, no more.
    #[tokio::test]
    async fn a_real_cluster_conforms() {
        let Some(kubeconfig) = std::env::var_os("MODEL_P2P_TEST_KUBECONFIG").map(PathBuf::from)
        else {
            eprintln!("skipped: MODEL_P2P_TEST_KUBECONFIG names no cluster");
            return;
        };
        let client = super::super::client(Some(&kubeconfig)).await;
        let client = client.expect("access").expect("a cluster");
        crate::csi::tests::claims::conforms(&ClusterClaims::new(client)).await;
    }

    #[tokio::test]
    async fn an_api_that_is_away_is_named_with_what_was_asked() {
        // Nobody listens on a port that was closed a moment ago.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", closed.local_addr().expect("an address"));
        drop(closed);
        let config = kube::Config::new(url.parse().expect("a url"));
        let cluster = ClusterClaims::new(Client::try_from(config).expect("a client"));
        let error = cluster.claim("team", "claim").await.expect_err("nobody");
        let text = error.to_string();
        assert!(
            text.starts_with("get persistentvolumeclaims: the Kubernetes API"),
            "{text}"
        );
        assert!(text.ends_with("try again"), "{text}");
    }
}
