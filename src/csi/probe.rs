//! A probe of one's own socket: what `/healthz` answers is what the driver answers those who call it.

use super::socket::connect;
use super::v1::ProbeRequest;
use super::v1::identity_client::IdentityClient;
use std::path::Path;
use std::time::Duration;

/// livenessprobe's own default is 3 s.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why the driver is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no answer on the csi socket within {} s", ANSWER_MAX.as_secs())]
    Late,
    #[error("csi socket: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Unwell(#[from] tonic::Status),
}

/// Asks the driver on a socket how it is: whether it is ready, or why it never will be.
pub async fn probe(socket: &Path) -> Result<bool, ProbeError> {
    let ask = async {
        let mut identity = IdentityClient::new(connect(socket).await?);
        let answer = identity.probe(ProbeRequest {}).await?;
        Ok(answer.into_inner().ready.unwrap_or(true))
    };
    let late = |_| Err(ProbeError::Late);
    tokio::time::timeout(ANSWER_MAX, ask)
        .await
        .unwrap_or_else(late)
}
