//! The Kubernetes API: the only room that knows its client.
//!
//! [`client`] is this process's access, by its service account or by a file. Each call ends within
//! [`CALL_MAX`]; an error says what was asked and what is lacking.

mod claims;
mod secrets;

pub use claims::ClusterClaims;
pub use secrets::Secrets;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The API answers in milliseconds or is in trouble.
const CALL_MAX: Duration = Duration::from_secs(5);

/// No access to a cluster that should be there.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("kubeconfig {path}: {cause}: give a readable one with --kubeconfig")]
    File { path: PathBuf, cause: String },
    #[error("service account: {cause}: mount its token into this pod")]
    Account { cause: String },
}

/// Access by `kubeconfig` or, inside a cluster, by the pod's service account; `None` where neither is.
/// Connects when it is first used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Option<Client>, AccessError> {
    let account = |cause: String| AccessError::Account { cause };
    let config = match kubeconfig {
        Some(path) => read(path).await.map_err(|cause| AccessError::File {
            path: path.to_owned(),
            cause,
        })?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => return Ok(None),
        None => Config::incluster().map_err(|error| account(error.to_string()))?,
    };
    let client = Client::try_from(config).map_err(|error| account(error.to_string()))?;
    Ok(Some(client))
}

async fn read(path: &Path) -> Result<Config, String> {
    let file = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.map_err(|error| error.to_string())
}
