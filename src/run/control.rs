//! The control socket of a cache's owner: `control.sock` in the cache directory, for its own user only.

use super::command::{self, Done, Request};
use super::engine::Engine;
use super::status::StatusSource;
use crate::model::{Failure, FailureKind, Reads, Token, View};
use crate::mount::{DirectMount, Mounts};
use crate::swarm::failure::{self, status_of};
use proto::control_server::{Control, ControlServer};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

/// Generated from proto/control/control.proto.
#[allow(clippy::all, unreachable_pub)]
pub mod proto {
    tonic::include_proto!("model_p2p.control.v1");
}

/// Where a cache's owner listens.
pub fn socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

pub fn failure_of(status: Status) -> Failure {
    failure::failure_of(&status)
}

/// What the owner of a cache lets other commands do.
pub struct ControlService {
    pub engine: Engine,
    pub status: StatusSource,
    /// Takes the mounts that other commands ask for; `None` for an owner that will not live long enough.
    pub mounts: Option<(Arc<Mounts>, mpsc::Sender<DirectMount>)>,
}

/// Listens in the background until shutdown. The caller owns the directory, so an old socket is dead.
pub fn serve(
    dir: &Path,
    service: ControlService,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let path = socket_path(dir);
    let listener = bind(&path).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            format!("cannot listen on {}: {error}", path.display()),
        )
    })?;
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(ControlServer::new(service));
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
        {
            tracing::error!(%error, "control socket ended");
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

type ProgressStream = ReceiverStream<Result<proto::Progress, Status>>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn resolve(
        &self,
        request: tonic::Request<proto::Request>,
    ) -> Result<Response<proto::Json>, Status> {
        let request = read(request.into_inner())?;
        let resolved = command::resolve(&self.engine, &request)
            .await
            .map_err(|failure| status_of(&failure))?;
        let done = resolved.describe(&request.view);
        let json = serde_json::json!({"text": done.text, "json": done.json}).to_string();
        Ok(Response::new(proto::Json { json }))
    }

    type GetStream = ProgressStream;

    async fn get(
        &self,
        request: tonic::Request<proto::Request>,
    ) -> Result<Response<ProgressStream>, Status> {
        let request = read(request.into_inner())?;
        let engine = self.engine.clone();
        let (progress, receiver) = watch::channel((0, 0));
        let (sender, stream) = mpsc::channel(8);
        tokio::spawn(report(receiver, sender.clone()));
        tokio::spawn(async move {
            // A client that goes away ends its download; what came stays in the cache.
            tokio::select! {
                done = command::get(&engine, &request, progress) => finish(&sender, done).await,
                () = sender.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type MountStream = ProgressStream;

    async fn mount(
        &self,
        request: tonic::Request<proto::Request>,
    ) -> Result<Response<ProgressStream>, Status> {
        let request = read(request.into_inner())?;
        let (sender, stream) = mpsc::channel(8);
        finish(&sender, self.mount_for(&request).await).await;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn status(
        &self,
        _: tonic::Request<proto::StatusRequest>,
    ) -> Result<Response<proto::Json>, Status> {
        Ok(Response::new(proto::Json {
            json: self.status.json().to_string(),
        }))
    }
}

impl ControlService {
    async fn mount_for(&self, request: &Request) -> Result<Done, Failure> {
        let Some((mounts, keep)) = &self.mounts else {
            let message = "the cache is in use by a command that will end: wait for it, or use another --cache-dir";
            return Err(Failure::new(FailureKind::Unavailable, message));
        };
        let (mounted, done) = command::mount(&self.engine, mounts, request).await?;
        let ending = || {
            Failure::new(
                FailureKind::Unavailable,
                "the cache's owner is ending: try again",
            )
        };
        keep.send(mounted).await.map_err(|_| ending())?;
        Ok(done)
    }
}

fn read(wire: proto::Request) -> Result<Request, Status> {
    let bad = |cause: String| status_of(&Failure::new(FailureKind::BadReference, cause));
    let reference: crate::model::Reference = wire
        .reference
        .parse()
        .map_err(|error: crate::model::reference::ReferenceError| bad(error.to_string()))?;
    let subdir = reference.subdir.clone();
    Ok(Request {
        reference,
        view: View {
            subdir,
            include: wire.include,
            exclude: wire.exclude,
            reads: Reads {
                verify: wire.verify.parse().map_err(bad)?,
                timeout: wire.read_timeout_ms.map(Duration::from_millis),
            },
        },
        token: Token::new(&wire.token),
        dir: wire.dir.into(),
        prefetch: wire.prefetch.parse().map_err(bad)?,
    })
}

async fn report(
    mut progress: watch::Receiver<(u64, u64)>,
    sender: mpsc::Sender<Result<proto::Progress, Status>>,
) {
    while progress.changed().await.is_ok() {
        let (done_bytes, total_bytes) = *progress.borrow_and_update();
        let message = proto::Progress {
            done_bytes,
            total_bytes,
            ..proto::Progress::default()
        };
        if sender.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

async fn finish(
    sender: &mpsc::Sender<Result<proto::Progress, Status>>,
    done: Result<Done, Failure>,
) {
    let message = done
        .map_err(|failure| status_of(&failure))
        .map(|done| proto::Progress {
            result: done.text,
            result_json: done.json.to_string(),
            ..proto::Progress::default()
        });
    // A client that is gone needs no answer.
    let _ = sender.send(message).await;
}
