//! Questions to the catalog, with an end.
//!
//! kubelet gives a publish two minutes and external-provisioner a creation one. A question that takes longer
//! is answered UNAVAILABLE, so that the volume's next call, perhaps its removal, gets its turn.

use super::status::{Call, Refusal, failed};
use crate::model::{Failure, FailureKind, Listing, Pin, Reference, Token};
use crate::source::Catalog;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Two questions fit into the provisioner's minute.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(25);

#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) call: Call,
}

impl Lookup {
    /// The pin of a reference: for one volume always the first answer.
    pub(super) async fn pin(
        &self,
        reference: &Reference,
        volume_id: &str,
        token: Option<&Token>,
    ) -> Result<Pin, Refusal> {
        let key = pin_key(volume_id, reference);
        let question = self.catalog.resolve(reference, Some(&key), token);
        self.within(reference, question).await
    }

    /// The files of a pin, if this token may read it.
    pub(super) async fn listing(
        &self,
        pin: &Pin,
        token: Option<&Token>,
    ) -> Result<Arc<Listing>, Refusal> {
        self.within(pin, self.catalog.listing(pin, token)).await
    }

    /// Tells the catalog that the volume of this [`pin_key`] is gone. Best effort.
    pub(super) async fn forget(self, key: String) {
        let _ = tokio::time::timeout(ANSWER_MAX, self.catalog.forget(&key)).await;
    }

    async fn within<T>(
        &self,
        what: &impl ToString,
        question: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Refusal> {
        let late = |_| {
            let message = format!(
                "{}: no answer from a seed within {} s: try again or look at the seeds",
                what.to_string(),
                ANSWER_MAX.as_secs()
            );
            Failure::new(FailureKind::Unavailable, message)
        };
        let answer = tokio::time::timeout(ANSWER_MAX, question).await;
        answer
            .map_err(late)
            .and_then(|answer| answer)
            .map_err(failed(self.call))
    }
}

/// The name under which the catalog keeps a volume's pin. The reference is part of it: a volume that was
/// refused, or made anew under its old name, with another model must not be given the first one's pin.
pub(super) fn pin_key(volume_id: &str, reference: &Reference) -> String {
    let text = reference.to_string();
    let digest = blake3::derive_key("model-p2p 2026 volume reference", text.as_bytes());
    format!("{volume_id}-{}", hex::encode(&digest[..8]))
}

/// The keys of a Secret that hold a hub token, in the order they are tried.
const TOKEN_KEYS: [&str; 2] = ["token", "HF_TOKEN"];

/// The token among a call's secrets.
pub(super) fn token(secrets: &HashMap<String, String>) -> Option<Token> {
    TOKEN_KEYS
        .iter()
        .find_map(|key| Token::new(secrets.get(*key)?))
}
