//! The gRPC server on a unix socket: a controller, a node, or both.
//!
//! It runs until its shutdown future ends, then lets calls finish for a bounded time. Mounts outlive it.

use super::controller::Controller;
use super::identity::{Identity, Readiness};
use super::node::Node;
use super::redact;
use super::socket::Socket;
use super::v1::controller_server::ControllerServer;
use super::v1::identity_server::IdentityServer;
use super::v1::node_server::NodeServer;
use std::future::Future;
use std::time::Duration;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug)]
pub struct Config {
    /// How long calls under way may go on after the shutdown. Below the pod's grace period of 30 s.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            drain: Duration::from_secs(20),
        }
    }
}

/// Why the server is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("csi socket: {0}")]
    Listen(#[from] std::io::Error),
    #[error("csi server: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// What is served; Identity always is.
#[derive(Clone)]
pub struct Services {
    identity: Identity,
    controller: Option<Controller>,
    node: Option<Node>,
}

impl Services {
    /// Identity alone, for the other two to be added.
    pub fn new(readiness: Readiness) -> Services {
        Services {
            identity: Identity { readiness },
            controller: None,
            node: None,
        }
    }

    pub fn with_controller(self, controller: Controller) -> Services {
        Services {
            controller: Some(controller),
            ..self
        }
    }

    pub fn with_node(self, node: Node) -> Services {
        Services {
            node: Some(node),
            ..self
        }
    }

    /// Waits for the calls that went on without their clients.
    async fn drained(&self) {
        if let Some(controller) = &self.controller {
            controller.drained().await;
        }
        if let Some(node) = &self.node {
            node.drained().await;
        }
    }
}

/// Serves until `shutdown` ends, then drains. The socket's file is gone afterwards.
pub async fn serve(
    config: Config,
    services: Services,
    socket: Socket,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (listener, _file) = socket.into_parts();
    let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
    let stop = CancellationToken::new();
    let all = services.clone();
    let server = tonic::transport::Server::builder()
        .layer(tower::layer::layer_fn(redact::layer))
        .add_service(IdentityServer::new(all.identity))
        .add_optional_service(all.controller.map(ControllerServer::new))
        .add_optional_service(all.node.map(NodeServer::new))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        end = &mut server => return Ok(end?),
        () = shutdown => stop.cancel(),
    }
    let drain = async {
        let end = server.await;
        services.drained().await;
        end
    };
    match tokio::time::timeout(config.drain, drain).await {
        Ok(end) => Ok(end?),
        Err(_) => {
            tracing::warn!(after = ?config.drain, "csi calls still under way at the end");
            Ok(())
        }
    }
}
