//! What becomes of a checked publish: subject, permission, record, mount, in this order.

use super::capability;
use super::health::Renewals;
use super::lookup::{Lookup, pin_key, token};
use super::parameters::{Author, Words, own_words};
use super::publisher::{PublishError, PublishRequest, Publisher, VolumeFacts};
use super::records::{RecordError, Records};
use super::status::{Refusal, required};
use super::v1::NodePublishVolumeRequest;
use super::volume::{self, Published, Subject, Wish};
use crate::model::{Failure, News, Pin, PodRef, Token, View};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Shared {
    pub(super) lookup: Lookup,
    pub(super) publisher: Arc<dyn Publisher>,
    /// [`Published`] by volume id.
    pub(super) records: Arc<dyn Records>,
    pub(super) renewals: Renewals,
}

/// A checked publish.
pub(super) struct Publication {
    pub(super) volume_id: String,
    pub(super) target: PathBuf,
    pub(super) words: Words,
    pub(super) wish: Wish,
    /// A pod wrote the words.
    pub(super) is_inline: bool,
    pub(super) token: Option<Token>,
    pub(super) pod: Option<PodRef>,
    /// See [`Published`].
    pub(super) kept_as: Option<String>,
}

impl Publication {
    pub(super) fn of(request: NodePublishVolumeRequest) -> Result<Publication, Refusal> {
        required("volume_id", &request.volume_id)?;
        required("target_path", &request.target_path)?;
        capability::check(request.volume_capability.as_ref())?;
        let target = PathBuf::from(request.target_path);
        if !target.is_absolute() {
            return Err(Refusal::Field {
                field: "target_path",
                cause: "is not absolute".into(),
            });
        }
        let author = Author::of_context(&request.volume_context);
        let pod = pod(&request.volume_context);
        let words = own_words(request.volume_context);
        let wish = Wish::of_context(&words, author)?;
        let kept_as = match (&wish.subject, author) {
            (Subject::Reference(reference), Author::Pod) => {
                Some(pin_key(&request.volume_id, reference))
            }
            _ => None,
        };
        Ok(Publication {
            volume_id: request.volume_id,
            target,
            wish,
            kept_as,
            words,
            is_inline: author == Author::Pod,
            token: token(&request.secrets),
            pod,
        })
    }
}

impl Shared {
    /// With what the pod's owner should hear of it.
    pub(super) async fn publish(
        &self,
        publication: Publication,
    ) -> Result<Option<(News, String)>, Refusal> {
        let (volume_id, target) = (&publication.volume_id, &publication.target);
        let known = self.known(&publication).await?;
        let mounted = self.publisher.stats(volume_id, target).is_some();
        if mounted && matches!(known, Known::Other) {
            return Err(PublishError::OtherVolume {
                target: target.clone(),
            }
            .into());
        }
        let ready = match self.prepare(&publication, &known).await {
            Err(Refusal::Failed { failure, .. }) if mounted => {
                let kind = failure.kind;
                tracing::warn!(volume = ?volume_id, %kind, "republish: not renewed, the mount stays");
                self.renewals.failed(volume_id, failure.to_string());
                return Ok(Some((News::Degraded, not_renewed(&failure))));
            }
            ready => ready?,
        };
        let news = (!mounted).then(|| mounted_news(&ready)).transpose()?;
        let end = self.publisher.publish(volume_id, ready, target).await;
        let was_recorded = matches!(&known, Known::Same(_, targets) if targets.contains(target));
        if end.is_err() && !was_recorded {
            // kubelet may never call again for a target whose first publish failed.
            self.forget(volume_id, target).await?;
        }
        self.renewals.clear(volume_id);
        end?;
        Ok(news)
    }

    pub(super) async fn unpublish(&self, volume_id: &str, target: &Path) -> Result<(), Refusal> {
        self.publisher.unpublish(volume_id, target).await?;
        self.renewals.clear(volume_id);
        Ok(self.forget(volume_id, target).await?)
    }

    /// Takes a target off a volume's record; the last one takes the record.
    async fn forget(&self, volume_id: &str, target: &Path) -> Result<(), RecordError> {
        // One that cannot be read is of no use to anyone.
        let record = self.record(volume_id).await.ok().flatten();
        let mut record = record.unwrap_or_default();
        record.targets.retain(|known| known != target);
        if !record.targets.is_empty() {
            let record = volume::encode(volume_id, &record)?;
            return self.records.put(volume_id, record).await;
        }
        if let Some(kept_as) = record.kept_as {
            // Nobody waits: a pin that stays is the seeds' to bound.
            tokio::spawn(self.lookup.clone().forget(kept_as));
        }
        self.records.remove(volume_id).await
    }

    pub(super) async fn record(&self, volume_id: &str) -> Result<Option<Published>, RecordError> {
        let bytes = self.records.get(volume_id).await?;
        bytes
            .map(|bytes| volume::decode(volume_id, &bytes))
            .transpose()
    }

    /// The facts at a path, or without one at the volume's worst target. What is recorded but not mounted
    /// lost its process.
    pub(super) async fn facts(&self, volume_id: &str, path: &str) -> Result<VolumeFacts, Refusal> {
        let target = Path::new(path);
        if let Some(facts) = self.publisher.health(volume_id, target).await {
            return Ok(facts);
        }
        let record = self.record(volume_id).await?;
        let mut targets = record.map(|record| record.targets).unwrap_or_default();
        targets.retain(|known| path.is_empty() || known == target);
        let mut worst = None;
        for target in &targets {
            let facts = self.publisher.health(volume_id, target).await;
            let facts = facts.unwrap_or_default();
            let is_served = facts.is_served;
            worst = Some(facts);
            if !is_served {
                break;
            }
        }
        worst.ok_or_else(|| Refusal::UnknownVolume {
            volume_id: volume_id.to_owned(),
        })
    }

    /// Everything the mount needs, after the catalog let this token read it.
    async fn prepare(
        &self,
        publication: &Publication,
        known: &Known,
    ) -> Result<PublishRequest, Refusal> {
        let token = publication.token.as_ref();
        let (pin, view) = self.subject(publication, known).await?;
        let listing = self.lookup.listing(&pin, token).await?;
        view.select(&listing)?;
        self.remember(publication, known, &pin).await?;
        Ok(PublishRequest {
            listing,
            view,
            token: publication.token.clone(),
            prefetch: publication.wish.options.prefetch,
        })
    }

    /// The pin: the context's, else the recorded one, else the catalog's for this volume id.
    async fn subject(
        &self,
        publication: &Publication,
        known: &Known,
    ) -> Result<(Pin, View), Refusal> {
        let reference = match &publication.wish.subject {
            Subject::Pinned(pin, view) => return Ok((pin.clone(), view.clone())),
            Subject::Reference(reference) => reference,
        };
        let pin = match known {
            Known::Same(pin, _) => pin.clone(),
            Known::Nothing | Known::Other => {
                let (volume_id, token) = (&publication.volume_id, publication.token.as_ref());
                self.lookup.pin(reference, volume_id, token).await?
            }
        };
        let view = volume::view(reference, &pin, &publication.wish.options);
        Ok((pin, view))
    }

    /// Before the mount, so that a restart between the two finds the same commit.
    async fn remember(
        &self,
        publication: &Publication,
        known: &Known,
        pin: &Pin,
    ) -> Result<(), RecordError> {
        let (volume_id, target) = (&publication.volume_id, &publication.target);
        let mut targets = match known {
            Known::Same(_, targets) => targets.clone(),
            // The volume was made anew under its old name.
            Known::Nothing | Known::Other => Vec::new(),
        };
        if targets.contains(target) {
            return Ok(());
        }
        targets.push(target.clone());
        let record = Published {
            words: publication.words.clone(),
            pin: pin.to_string(),
            targets,
            is_inline: publication.is_inline,
            kept_as: publication.kept_as.clone(),
        };
        let record = volume::encode(volume_id, &record)?;
        self.records.put(volume_id, record).await
    }

    async fn known(&self, publication: &Publication) -> Result<Known, RecordError> {
        let volume_id = &publication.volume_id;
        let Some(record) = self.record(volume_id).await? else {
            return Ok(Known::Nothing);
        };
        if record.words != publication.words {
            return Ok(Known::Other);
        }
        let unreadable = |cause| volume::unreadable(volume_id, cause);
        record
            .pin
            .parse()
            .map(|pin| Known::Same(pin, record.targets))
            .map_err(|cause: crate::model::revision::PinError| unreadable(cause))
    }
}

/// What is recorded of a volume that is asked for.
enum Known {
    Nothing,
    /// The same words, what they stand for, and where that is shown.
    Same(Pin, Vec<PathBuf>),
    /// Other words.
    Other,
}

/// The pod that kubelet publishes for.
fn pod(context: &HashMap<String, String>) -> Option<PodRef> {
    let get = |key: &str| {
        context
            .get(&format!("csi.storage.k8s.io/pod.{key}"))
            .cloned()
    };
    Some(PodRef {
        namespace: get("namespace")?,
        name: get("name")?,
        uid: get("uid")?,
    })
}

fn mounted_news(ready: &PublishRequest) -> Result<(News, String), Refusal> {
    let (bytes, files) = volume::measure(&ready.listing, &ready.view)?;
    let pin = ready.listing.pin();
    let text = format!("{pin} is mounted: {bytes} bytes in {files} files");
    Ok((News::Mounted, text))
}

fn not_renewed(failure: &Failure) -> String {
    format!("the mount stays, but its permission could not be renewed: {failure}")
}
