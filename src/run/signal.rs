//! How a process is asked to end.

use crate::model::{Failure, FailureKind};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGINT and SIGTERM cancel.
pub fn shutdown() -> Result<CancellationToken, Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(FailureKind::Internal, error.to_string()));
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted, ending"),
            _ = terminate.recv() => tracing::info!("asked to end"),
        }
        cancel.cancel();
    });
    Ok(token)
}
