//! The operations port: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`.

use super::engine::bind;
use super::status::StatusSource;
use crate::csi;
use crate::metrics::METRICS;
use crate::model::Failure;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Whether the role serves its users already, and how its health is found out.
#[derive(Clone, Default)]
pub struct Ready {
    is_ready: Arc<AtomicBool>,
    csi: Option<Arc<Path>>,
}

impl Ready {
    /// Of a driver: healthy is what answers a probe on this socket.
    pub fn of_csi(socket: &Path) -> Ready {
        Ready {
            csi: Some(socket.into()),
            ..Ready::default()
        }
    }

    pub fn set(&self) {
        self.is_ready.store(true, Ordering::Release);
    }
}

/// Binds and serves in the background until shutdown.
pub async fn serve(
    addr: SocketAddr,
    status: StatusSource,
    ready: Ready,
    shutdown: CancellationToken,
) -> Result<SocketAddr, Failure> {
    let listener = bind(addr).await?;
    let bound = listener.local_addr().unwrap_or(addr);
    let app = Router::new()
        .route("/metrics", get(metrics).with_state(status.clone()))
        .route("/healthz", get(healthz).with_state(ready.clone()))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/api/v1/status", get(api_status).with_state(status));
    tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "operations port ended");
        }
    });
    Ok(bound)
}

async fn metrics(State(status): State<StatusSource>) -> impl IntoResponse {
    status.measure();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        METRICS.render(),
    )
}

/// A driver that still recovers is healthy: to kill it then would begin the recovery anew.
async fn healthz(State(ready): State<Ready>) -> (StatusCode, String) {
    let Some(socket) = &ready.csi else {
        return (StatusCode::OK, "ok\n".into());
    };
    match csi::probe(socket).await {
        Ok(true) => (StatusCode::OK, "ok\n".into()),
        Ok(false) => (StatusCode::OK, "recovering\n".into()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn readyz(State(ready): State<Ready>) -> impl IntoResponse {
    match ready.is_ready.load(Ordering::Acquire) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn api_status(State(status): State<StatusSource>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        status.json().to_string(),
    )
}
