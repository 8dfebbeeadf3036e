//! The operations port: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`.

use super::engine::bind;
use super::status::StatusSource;
use crate::metrics::METRICS;
use crate::model::Failure;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// Whether the role serves its users already.
#[derive(Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
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
        .route("/healthz", get(|| async { "ok\n" }))
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

async fn readyz(State(ready): State<Ready>) -> impl IntoResponse {
    match ready.0.load(Ordering::Acquire) {
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
