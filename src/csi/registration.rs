//! Registration with kubelet: the two calls of its plugin watcher, on a socket in its directory.
//!
//! kubelet finds `csi.model-p2p.dev-reg.sock`, asks who is there and says whether it took us. A refusal
//! ends the service with kubelet's words, for a driver that kubelet does not call is of no use; the process
//! should end then and be seen to. The socket's file goes at the end, which is how kubelet learns that we
//! are gone. A restarted kubelet asks again.

use super::authority::with_authority;
use super::identity::DRIVER_NAME;
use super::socket::{Endpoint, Socket, SocketError};
use proto::registration_server::{Registration as Service, RegistrationServer};
use proto::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The generated types of `proto/pluginregistration`.
pub mod proto {
    #![allow(clippy::all, clippy::unwrap_used)]
    tonic::include_proto!("pluginregistration");
}

/// kubelet closes its connection once it has been answered; nobody waits longer for it.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Why this driver is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(
        "kubelet refused to register {DRIVER_NAME}: {cause}: remove the other driver of this name or see kubelet's log"
    )]
    Refused { cause: String },
    #[error("registration socket: {0}")]
    Listen(#[from] std::io::Error),
    #[error("registration server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A place among kubelet's plugins, listening.
pub struct Registration {
    socket: Socket,
    info: PluginInfo,
}

impl Registration {
    /// Listens in kubelet's directory for a driver that serves on `csi` already.
    pub fn bind(dir: &Path, csi: &Endpoint) -> Result<Registration, RegistrationError> {
        let path = dir.join(format!("{DRIVER_NAME}-reg.sock"));
        let endpoint: Endpoint = format!("unix://{}", path.display()).parse()?;
        let info = PluginInfo {
            r#type: "CSIPlugin".into(),
            name: DRIVER_NAME.into(),
            endpoint: csi.path().display().to_string(),
            supported_versions: vec!["1.0.0".into()],
        };
        let socket = endpoint.bind()?;
        Ok(Registration { socket, info })
    }

    /// Answers kubelet until `shutdown`, or fails when kubelet refuses.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), RegistrationError> {
        let (listener, _file) = self.socket.into_parts();
        let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?)
            .map(|stream| stream.map(with_authority));
        let (stop, refusal) = (shutdown.child_token(), Arc::default());
        let answers = Answers {
            info: self.info,
            refusal: Arc::clone(&refusal),
            stop: stop.clone(),
        };
        let server = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(answers))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::select! {
            end = server => end?,
            () = async { stop.cancelled().await; tokio::time::sleep(CLOSE_MAX).await } => {}
        }
        match refusal.get() {
            Some(cause) => Err(RegistrationError::Refused {
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }
}

struct Answers {
    info: PluginInfo,
    refusal: Arc<OnceLock<String>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl Service for Answers {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = status.into_inner();
        match status.plugin_registered {
            true => tracing::info!("registered with kubelet"),
            false => {
                let _ = self.refusal.set(status.error);
                self.stop.cancel();
            }
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
