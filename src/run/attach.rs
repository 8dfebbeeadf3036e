//! The client of a cache owner's control socket.

use super::command::{Done, ProgressSender, Request};
use super::control::{failure_of, proto, socket_path};
use crate::model::{Failure, FailureKind};
use hyper_util::rt::TokioIo;
use proto::control_client::ControlClient;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint, Uri};

async fn connect(dir: &Path) -> Result<ControlClient<Channel>, Failure> {
    let path = socket_path(dir);
    let unreachable = |error: &dyn std::fmt::Display| {
        let message = format!(
            "cache {} is owned by a process that does not answer on {}: {error}: wait for it, or use another --cache-dir",
            dir.display(),
            path.display()
        );
        Failure::new(FailureKind::Unavailable, message)
    };
    let socket = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let socket: PathBuf = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    // The address is never looked up: the connector goes to the socket.
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| unreachable(&error))?;
    Ok(ControlClient::new(channel))
}

fn wire(request: &Request) -> proto::Request {
    proto::Request {
        reference: request.reference.to_string(),
        dir: request.dir.display().to_string(),
        include: request.view.include.clone(),
        exclude: request.view.exclude.clone(),
        token: request
            .token
            .as_ref()
            .map(|token| token.reveal().to_owned())
            .unwrap_or_default(),
        prefetch: request.prefetch.to_string(),
        verify: request.view.reads.verify.name().to_owned(),
        read_timeout_ms: request
            .view
            .reads
            .timeout
            .map(|timeout| timeout.as_millis() as u64),
    }
}

/// Asks the owner to resolve.
pub async fn resolve(dir: &Path, request: &Request) -> Result<Done, Failure> {
    let answer = connect(dir)
        .await?
        .resolve(wire(request))
        .await
        .map_err(failure_of)?;
    let json: serde_json::Value = parse(&answer.into_inner().json)?;
    Ok(Done {
        text: json["text"].as_str().unwrap_or_default().to_owned(),
        json: json["json"].clone(),
    })
}

/// Asks the owner to download.
pub async fn get(dir: &Path, request: &Request, progress: ProgressSender) -> Result<Done, Failure> {
    let stream = connect(dir)
        .await?
        .get(wire(request))
        .await
        .map_err(failure_of)?;
    follow(stream.into_inner(), Some(progress)).await
}

/// Asks the owner to mount.
pub async fn mount(dir: &Path, request: &Request) -> Result<Done, Failure> {
    let stream = connect(dir)
        .await?
        .mount(wire(request))
        .await
        .map_err(failure_of)?;
    follow(stream.into_inner(), None).await
}

/// Asks the owner how it is.
pub async fn status(dir: &Path) -> Result<serde_json::Value, Failure> {
    let answer = connect(dir)
        .await?
        .status(proto::StatusRequest {})
        .await
        .map_err(failure_of)?;
    parse(&answer.into_inner().json)
}

async fn follow(
    mut stream: tonic::Streaming<proto::Progress>,
    progress: Option<ProgressSender>,
) -> Result<Done, Failure> {
    while let Some(message) = stream.next().await {
        let message = message.map_err(failure_of)?;
        if !message.result.is_empty() {
            return Ok(Done {
                text: message.result,
                json: parse(&message.result_json)?,
            });
        }
        if let Some(progress) = &progress {
            progress.send_replace((message.done_bytes, message.total_bytes));
        }
    }
    Err(Failure::new(
        FailureKind::Unavailable,
        "the cache's owner ended before the command was done: run it again",
    ))
}

fn parse(json: &str) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(json)
        .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}
