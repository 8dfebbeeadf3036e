//! The Hugging Face Hub, its mirrors and its test double.
//!
//! One call pins a revision, some pages list it, one `resolve` per file opens it: the signed URL it gives is
//! remembered and every range is read there, without the token. So a 140 GB model costs the hub's quota
//! some forty calls, not one per piece. What the hub says about a file is compared with the listing before
//! a byte is passed on; where they differ the failure is `Integrity`. Transient errors are retried, a body
//! cut short goes on from its last byte.

use super::http::{Answer, Gate, Get, Http, HttpConfig, Operation, pause};
use super::{ByteStream, Hub, HubError};
use crate::backoff::{Backoff, Retries};
use crate::model::{Entry, Listing, Pin, Reference, Token};
use async_trait::async_trait;
use endpoint::Endpoint;
use errors::{Object, explain};
use signed::Signed;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use url::Url;

mod answer;
mod body;
mod claim;
mod endpoint;
mod errors;
mod list;
mod read;
mod resolve;
mod signed;
#[cfg(all(test, feature = "testing"))]
mod tests;

/// The `hub` label of the metrics.
const LABEL: &str = "hf";

/// Cheap to clone; keeps no credential, only signed URLs under their token's fingerprint.
#[derive(Clone)]
pub struct HuggingFace {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    endpoint: Endpoint,
    backoff: Backoff,
    gate: Gate,
    signed: Signed,
}

impl HuggingFace {
    /// A client of the hub at `endpoint`, which may carry a path prefix.
    pub fn new(endpoint: &str, http: &HttpConfig) -> Result<HuggingFace, HubError> {
        HuggingFace::with_backoff(endpoint, http, Backoff::default())
    }

    pub fn with_backoff(
        endpoint: &str,
        http: &HttpConfig,
        backoff: Backoff,
    ) -> Result<HuggingFace, HubError> {
        let shared = Shared {
            http: Http::new(LABEL, http)?,
            endpoint: Endpoint::new(endpoint)?,
            backoff,
            gate: Gate::default(),
            signed: Signed::default(),
        };
        Ok(HuggingFace {
            shared: Arc::new(shared),
        })
    }
}

#[async_trait]
impl Hub for HuggingFace {
    async fn resolve(&self, reference: &Reference, token: Option<&Token>) -> Result<Pin, HubError> {
        resolve::resolve(&self.shared, reference, token).await
    }

    async fn list(&self, pin: &Pin, token: Option<&Token>) -> Result<Listing, HubError> {
        list::list(&self.shared, pin, token).await
    }

    async fn read(
        &self,
        pin: &Pin,
        entry: &Entry,
        bytes: Range<u64>,
        token: Option<&Token>,
    ) -> Result<ByteStream, HubError> {
        read::read(self.shared.clone(), pin, entry, bytes, token.cloned()).await
    }

    async fn states(
        &self,
        pin: &Pin,
        entry: &Entry,
        token: Option<&Token>,
    ) -> Result<bool, HubError> {
        claim::states(&self.shared, pin, entry, token).await
    }

    fn endpoint(&self) -> &str {
        self.shared.endpoint.text()
    }

    async fn authorize(&self, pin: &Pin, token: Option<&Token>) -> Result<(), HubError> {
        resolve::authorize(&self.shared, pin, token).await
    }
}

impl Shared {
    /// One GET on the hub, redirects on its own origin followed. Any status but 429 is the caller's to judge.
    async fn ask(&self, get: Get<'_>, object: &Object<'_>) -> Result<Answer, HubError> {
        self.gate.pass(LABEL, get.token).await;
        let seen = |answer: &Answer| answer::check_head(answer, object);
        let answer = self.http.follow(get, seen).await?;
        if answer.status() != 429 {
            return Ok(answer);
        }
        let error = explain(answer, object, get.token.is_some()).await;
        if let HubError::Transient {
            after: Some(wait), ..
        } = &error
        {
            self.gate.close(get.token, *wait);
        }
        Err(error)
    }

    /// A JSON answer of the hub's API, retried while the trouble is transient.
    async fn json(
        &self,
        operation: Operation,
        url: &Url,
        token: Option<&Token>,
        object: &Object<'_>,
    ) -> Result<answer::Json, HubError> {
        let get = Get {
            operation,
            url,
            token,
            range: None,
            head: false,
        };
        self.retried(|| async {
            let answer = self.ask(get, object).await?;
            match answer.status() {
                200 => answer::json(answer, object).await,
                _ => Err(explain(answer, object, token.is_some()).await),
            }
        })
        .await
    }

    /// Tries `work` until it succeeds, fails for good or has used its tries.
    async fn retried<T, F, W>(&self, work: F) -> Result<T, HubError>
    where
        F: Fn() -> W,
        W: Future<Output = Result<T, HubError>>,
    {
        let mut retries = Retries::new(self.backoff);
        loop {
            match work().await {
                Ok(value) => return Ok(value),
                Err(error) => pause(LABEL, &mut retries, error).await?,
            }
        }
    }
}
