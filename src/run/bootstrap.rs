//! `bootstrap`: makes the certificates of a cluster, in Secrets or in folders, and says what it did.

use crate::config::BootstrapConfig;
use crate::kubernetes::{self, Secrets};
use crate::model::{Failure, FailureKind};
use crate::tls::{self, Folder, Shelf};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// An API server that does not answer must not hold up an installation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps what is good, so it may run at every start and every day.
pub async fn bootstrap(config: BootstrapConfig) -> Result<(), Failure> {
    let work = async {
        let shelf = shelf(config).await?;
        tls::bootstrap(&*shelf, SystemTime::now()).await
    };
    let done = tokio::time::timeout(PATIENCE, work).await.map_err(|_| {
        let message = "Kubernetes API: no answer in 60 s: check the network and run it again";
        Failure::new(FailureKind::Unavailable, message)
    })?;
    for (name, outcome) in done? {
        println!("{name} {outcome}");
    }
    Ok(())
}

fn no_cluster() -> Failure {
    let message =
        "no cluster: run this in a pod with a ServiceAccount, set KUBECONFIG, or use --out DIR";
    Failure::new(FailureKind::BadReference, message)
}

async fn shelf(config: BootstrapConfig) -> Result<Box<dyn Shelf>, Failure> {
    Ok(match config {
        BootstrapConfig::Folder(dir) => Box::new(Folder(dir)),
        BootstrapConfig::Secrets { namespace, prefix } => {
            let file = std::env::var_os("KUBECONFIG").map(PathBuf::from);
            let client = kubernetes::client(file.as_deref()).await;
            let client = client
                .map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))?
                .ok_or_else(no_cluster)?;
            Box::new(Secrets::new(client, &namespace, &prefix))
        }
    })
}
