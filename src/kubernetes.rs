//! The Kubernetes API, as far as the program needs it.
//!
//! The only room that knows the API's client and types. Errors say what was asked, and which right is missing
//! where one is.

mod secrets;

pub use secrets::Secrets;

use crate::model::{Failure, FailureKind};

/// The cluster this process runs in, or the one that KUBECONFIG names.
pub async fn client() -> Result<kube::Client, Failure> {
    kube::Client::try_default().await.map_err(|error| {
        let message = format!(
            "Kubernetes API: {error}: run this in a pod with a ServiceAccount, or set KUBECONFIG"
        );
        Failure::new(FailureKind::Unavailable, message)
    })
}
