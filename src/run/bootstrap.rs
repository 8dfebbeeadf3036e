//! `bootstrap`: makes the certificates of a cluster, in Secrets or in folders, and says what it did.

use crate::config::BootstrapConfig;
use crate::kubernetes::{self, Secrets};
use crate::model::{Failure, FailureKind};
use crate::tls::{self, Folder, Shelf};
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

async fn shelf(config: BootstrapConfig) -> Result<Box<dyn Shelf>, Failure> {
    Ok(match config {
        BootstrapConfig::Folder(dir) => Box::new(Folder(dir)),
        BootstrapConfig::Secrets { namespace, prefix } => {
            let client = kubernetes::client().await?;
            Box::new(Secrets::new(client, &namespace, &prefix))
        }
    })
}
