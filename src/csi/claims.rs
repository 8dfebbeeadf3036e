//! The contract with the cluster: what a claim says, what its volumes say, and events on both and on pods.
//!
//! A claim's annotations are words like a class's, written by whoever may create a claim: trusted as a
//! pod's are. They win over the class's words of the same name. The context of a volume that was created
//! stands in its PersistentVolume, so a controller needs no disk to find an earlier answer.
//!
//! Every call ends within seconds; a failure says what the controller lacks.

use super::parameters::{self, Author, ParameterError, Words};
use super::volume::Wish;
use crate::model::event::seconds_now;
use crate::model::{News, PodEvent};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};

/// What annotations of ours begin with.
pub(super) const ANNOTATION: &str = "model-p2p.dev/";

/// What we write on a claim ourselves.
const WRITTEN: [&str; 3] = ["commit", "bytes", "files"];

/// The cluster did not answer a question.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("{verb} {what}: not allowed: let the controller's ClusterRole {verb} {what}")]
    Denied {
        verb: &'static str,
        what: &'static str,
    },
    #[error("{verb} {what}: the Kubernetes API gave no answer: {cause}: try again")]
    Unavailable {
        verb: &'static str,
        what: &'static str,
        cause: String,
    },
}

/// A claim as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub uid: String,
    pub annotations: BTreeMap<String, String>,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `Pod` or `PersistentVolumeClaim`
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// An event on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub object: Object,
    pub reason: &'static str,
    pub is_warning: bool,
    pub text: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// A cluster's claims, volumes and events.
#[async_trait]
pub trait Claims: Send + Sync + 'static {
    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<Claim>, ClaimError>;

    /// The context of this driver's volume. With `name`, only the PersistentVolume of that name is looked
    /// at; without, all are.
    async fn context(
        &self,
        volume_id: &str,
        name: Option<&str>,
    ) -> Result<Option<HashMap<String, String>>, ClaimError>;

    /// Writes an event, once a minute, object and reason, whoever calls how often.
    async fn record(&self, event: &Event) -> Result<(), ClaimError>;
}

impl Event {
    /// Names the event: the same for each replica that tells the same.
    pub fn name(&self) -> String {
        let told = format!("{}\n{}\n{}", self.object.uid, self.reason, self.at / 60);
        let digest = blake3::derive_key("model-p2p 2026 event", told.as_bytes());
        format!("model-p2p-{}", hex::encode(&digest[..16]))
    }
}

impl From<PodEvent> for Event {
    fn from(event: PodEvent) -> Event {
        Event {
            object: Object {
                kind: "Pod",
                namespace: event.pod.namespace,
                name: event.pod.name,
                uid: event.pod.uid,
            },
            reason: event.news.reason(),
            is_warning: event.news == News::Degraded,
            text: event.text,
            at: event.at,
        }
    }
}

/// The claim that a volume is created for, as the provisioner names it.
#[derive(Clone, Debug)]
pub(super) struct ClaimRef {
    namespace: String,
    name: String,
    /// Known once the claim was read.
    pub(super) uid: Option<String>,
}

impl std::fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ClaimRef {
    pub(super) fn of(parameters: &HashMap<String, String>) -> Option<ClaimRef> {
        let get = |key: &str| parameters.get(&format!("csi.storage.k8s.io/pvc/{key}"));
        Some(ClaimRef {
            namespace: get("namespace")?.clone(),
            name: get("name")?.clone(),
            uid: None,
        })
    }

    pub(super) async fn read(&self, claims: &dyn Claims) -> Result<Option<Claim>, ClaimError> {
        claims.claim(&self.namespace, &self.name).await
    }

    /// What the claim's owner is told of its volume's pin; `None` while the claim was not read.
    pub(super) fn resolved(&self, text: String) -> Option<Event> {
        Some(Event {
            object: Object {
                kind: "PersistentVolumeClaim",
                namespace: self.namespace.clone(),
                name: self.name.clone(),
                uid: self.uid.clone()?,
            },
            reason: "ModelResolved",
            is_warning: false,
            text,
            at: seconds_now(),
        })
    }
}

/// The words of a claim's annotations, each allowed to a claim's author.
pub(super) fn words(annotations: BTreeMap<String, String>) -> Result<Words, ParameterError> {
    let own = annotations.into_iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(ANNOTATION)?;
        (!WRITTEN.contains(&name)).then(|| (name.to_owned(), value))
    });
    let words: Words = own.collect();
    check(&words).map_err(|source| ParameterError::Annotation {
        name: source.name().to_owned(),
        source: Box::new(source),
    })?;
    Ok(words)
}

fn check(words: &Words) -> Result<(), ParameterError> {
    match words.contains_key("model") {
        true => Wish::of_parameters(words, Author::Pod).map(drop),
        false => {
            parameters::check_words(words, &[])?;
            parameters::endpoint(words, Author::Pod)?;
            parameters::options(words).map(drop)
        }
    }
}

/// The class's words under the claim's. A claim that names its model with a revision does not want the
/// class's.
pub(super) fn merge(mut class: Words, claim: Words) -> Words {
    let names_revision = |model: &String| {
        let reference = model.parse::<crate::model::Reference>();
        reference.is_ok_and(|reference| reference.revision.is_some())
    };
    if claim.get("model").is_some_and(names_revision) {
        class.remove("revision");
    }
    class.extend(claim);
    class
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodRef;

    #[test]
    fn an_events_name_hangs_on_object_reason_and_minute_alone() {
        let pod = PodRef {
            namespace: "ns".into(),
            name: "pod".into(),
            uid: "u".into(),
        };
        let event = |news, text: &str, at| {
            let (pod, text) = (pod.clone(), text.to_owned());
            Event::from(PodEvent {
                pod,
                news,
                text,
                at,
            })
        };
        let first = event(News::Mounted, "a", 60).name();
        assert_eq!(event(News::Mounted, "b", 119).name(), first);
        assert_ne!(event(News::Mounted, "a", 120).name(), first);
        assert_ne!(event(News::Degraded, "a", 60).name(), first);
        assert!(event(News::Degraded, "a", 60).is_warning);
    }

    #[test]
    fn a_claims_own_revision_wins_over_the_classs() {
        let words = |pairs: &[(&str, &str)]| -> Words {
            let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
            pairs.iter().map(own).collect()
        };
        let class = || {
            words(&[
                ("model", "hf://o/a"),
                ("revision", "v1"),
                ("prefetch", "all"),
            ])
        };
        let at = merge(class(), words(&[("model", "hf://o/b@v2")]));
        assert_eq!(at, words(&[("model", "hf://o/b@v2"), ("prefetch", "all")]));
        let bare = merge(
            class(),
            words(&[("model", "hf://o/b"), ("prefetch", "auto")]),
        );
        assert_eq!(
            bare,
            words(&[
                ("model", "hf://o/b"),
                ("revision", "v1"),
                ("prefetch", "auto")
            ])
        );
    }
}
