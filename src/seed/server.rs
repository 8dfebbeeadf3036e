//! The seed's gRPC service: revisions from its catalog, and a tracked session for each node.
//!
//! Failures keep their kind on the way ([`status_of`]). A session begins with the node's Hello within
//! 10 s and ends with its stream. Small files that are final in the seed's store travel with a listing:
//! config, tokenizer, index and the like, 4 MiB a revision.

use super::conversation::Conversation;
use super::fellowship::Fellowship;
use super::guard::guarded;
use super::owned::OwnedOrigin;
use super::owner::Owners;
use super::pages::pages;
use crate::model::{Failure, FailureKind, Pin, Reference, Token};
use crate::source::{Catalog, Origin};
use crate::store::Store;
use crate::swarm::failure::status_of;
use crate::swarm::tracker::Tracker;
use crate::swarm::v1::{self, seed_server, to_node, to_seed};
use crate::swarm::{PieceServer, Recent, Relay, SeedProvider, Slots, session, wire};
use crate::tls::TlsDir;
use futures::FutureExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const HELLO: Duration = Duration::from_secs(10);
/// How long calls may go on after the shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// A seed's two ports: control for nodes and the controller, pieces for nodes.
pub struct SeedServer {
    tracker: Arc<Tracker>,
    pieces: SeedProvider,
    service: SeedService,
    fellowship: Option<Fellowship>,
}

impl SeedServer {
    /// A seed that is alone. `name` tells seeds apart: the StatefulSet's ordinal name, or one from a list.
    pub fn new(
        name: String,
        store: Store,
        origin: Arc<dyn Origin>,
        catalog: Arc<dyn Catalog>,
    ) -> SeedServer {
        let tracker = Tracker::new(&name, store);
        SeedServer {
            service: SeedService::new(tracker.clone(), catalog, origin.clone()),
            pieces: SeedProvider::new(tracker.clone(), origin),
            tracker,
            fellowship: None,
        }
    }

    /// One seed of several.
    pub fn among(
        owners: Arc<Owners>,
        tracker: Arc<Tracker>,
        origin: OwnedOrigin,
        catalog: Arc<dyn Catalog>,
    ) -> SeedServer {
        let shared: Arc<dyn Origin> = Arc::new(origin.clone());
        let mut service = SeedService::new(tracker.clone(), catalog.clone(), shared.clone());
        service.owned = Some(origin);
        SeedServer {
            service,
            pieces: SeedProvider::new(tracker.clone(), shared),
            fellowship: Some(Fellowship {
                owners,
                files: Recent::new(tracker.store().clone()),
                catalog,
            }),
            tracker,
        }
    }

    /// Says where the seed is, for nodes that have a zone.
    pub fn in_zone(self, zone: &str) -> SeedServer {
        self.tracker.set_zone(zone);
        self
    }

    /// Serves on two bound sockets until `shutdown`, over TLS where there are certificates. Nodes reach
    /// the pieces at the host of the control port, or at the address `pieces` is bound to if that is a
    /// specific one.
    pub async fn run(
        self,
        control: TcpListener,
        tls: Option<Arc<TlsDir>>,
        pieces: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let internal = |error: &dyn std::error::Error| {
            Failure::new(FailureKind::Internal, format!("seed server: {error}"))
        };
        let addr = pieces.local_addr().map_err(|error| internal(&error))?;
        self.tracker.set_piece_addr(addr);
        let (server, _no_grpc) =
            PieceServer::new(Arc::new(self.pieces), Slots::of_seed(), tls.clone());
        let serving = tokio::spawn(server.run(pieces, shutdown.clone()));
        let mut routes = Routes::new(self.service.into_service());
        if let Some(fellowship) = self.fellowship {
            tokio::spawn(watch(fellowship.owners.clone(), shutdown.clone()));
            routes = routes.add_service(fellowship.into_service());
        }
        let served = serve(routes, control, tls, shutdown.clone());
        // Nodes' sessions and controllers' event streams have no end of their own.
        let drained = shutdown.cancelled().then(|()| tokio::time::sleep(DRAIN));
        let served = tokio::select! {
            served = served => served,
            () = drained => Ok(()),
        };
        shutdown.cancel();
        let _ = serving.await;
        served.map_err(|error| internal(&error))
    }
}

/// Keeps an eye on the other seeds.
async fn watch(owners: Arc<Owners>, shutdown: CancellationToken) {
    let regained = || owners.doubt.notify_one();
    let watching = async { tokio::join!(owners.fellows.watch(regained), owners.watch()) };
    shutdown.run_until_cancelled(watching).await;
}

async fn serve(
    routes: Routes,
    control: TcpListener,
    tls: Option<Arc<TlsDir>>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder();
    let ended = shutdown.cancelled_owned();
    match tls {
        None => {
            let incoming = TcpIncoming::from(control).with_nodelay(Some(true));
            let server = server.add_routes(routes);
            server.serve_with_incoming_shutdown(incoming, ended).await
        }
        Some(tls) => {
            let incoming = Box::pin(tls.accept(control));
            let server = server.add_routes(guarded(routes));
            server.serve_with_incoming_shutdown(incoming, ended).await
        }
    }
}

/// The service; serve it with [`SeedService::into_service`].
pub struct SeedService {
    tracker: Arc<Tracker>,
    catalog: Arc<dyn Catalog>,
    origin: Arc<dyn Origin>,
    relay: Arc<Relay>,
    /// Where there are several seeds.
    owned: Option<OwnedOrigin>,
}

impl SeedService {
    pub fn new(
        tracker: Arc<Tracker>,
        catalog: Arc<dyn Catalog>,
        origin: Arc<dyn Origin>,
    ) -> SeedService {
        SeedService {
            tracker,
            catalog,
            origin,
            relay: Arc::default(),
            owned: None,
        }
    }

    /// What tonic serves.
    pub fn into_service(self) -> seed_server::SeedServer<SeedService> {
        seed_server::SeedServer::new(self)
    }
}

#[tonic::async_trait]
impl seed_server::Seed for SeedService {
    type ListingStream = BoxStream<'static, Result<v1::ListingPage, Status>>;
    type SessionStream = ReceiverStream<Result<v1::ToNode, Status>>;
    type EventsStream = BoxStream<'static, Result<v1::Event, Status>>;

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveReply>, Status> {
        let request = request.into_inner();
        let reference: Reference = request.reference.parse().map_err(malformed)?;
        let token = token(request.token);
        let pin = self
            .catalog
            .resolve(&reference, request.volume.as_deref(), token.as_ref())
            .await;
        let pin = pin.map_err(|failure| status_of(&failure))?.to_string();
        Ok(Response::new(v1::ResolveReply { pin }))
    }

    async fn listing(
        &self,
        request: Request<v1::ListingRequest>,
    ) -> Result<Response<Self::ListingStream>, Status> {
        let request = request.into_inner();
        let pin: Pin = request.pin.parse().map_err(malformed)?;
        let token = token(request.token);
        let listing = self.catalog.listing(&pin, token.as_ref()).await;
        let listing = listing.map_err(|failure| status_of(&failure))?;
        let (store, public) = (self.tracker.store().clone(), self.catalog.is_public(&pin));
        let pages = tokio::task::spawn_blocking(move || pages(&listing, &store, public)).await;
        let pages = pages.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Box::pin(futures::stream::iter(
            pages.into_iter().map(Ok),
        ))))
    }

    async fn events(
        &self,
        _: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        Ok(Response::new(self.relay.events()))
    }

    async fn prove(
        &self,
        request: Request<v1::Interest>,
    ) -> Result<Response<v1::ProveReply>, Status> {
        let file = wire::file_of(&request.into_inner());
        let file = file.ok_or_else(|| Status::invalid_argument("malformed claim"))?;
        let proven = self.origin.prove(&file).await;
        proven.map_err(|failure| status_of(&failure))?;
        Ok(Response::new(v1::ProveReply {}))
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetReply>, Status> {
        self.catalog.forget(&request.into_inner().volume).await;
        Ok(Response::new(v1::ForgetReply {}))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::ToSeed>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let from = request.remote_addr().map(|addr| addr.ip());
        let mut inbound = request.into_inner();
        let first = timeout(HELLO, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello"))??;
        let Some(to_seed::Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message is no hello"));
        };
        let session = self.tracker.join(&hello, from);
        let session = session.ok_or_else(|| Status::resource_exhausted("too many sessions"))?;
        let (sender, receiver) = mpsc::channel(session::QUEUE);
        let welcome = Some(to_node::Message::Welcome(self.tracker.welcome()));
        let _ = sender.send(Ok(v1::ToNode { message: welcome })).await;
        let conversation = Conversation {
            tracker: self.tracker.clone(),
            origin: self.origin.clone(),
            relay: self.relay.clone(),
            owned: self.owned.clone(),
            session,
        };
        tokio::spawn(conversation.run(inbound, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn malformed(error: impl std::error::Error) -> Status {
    status_of(&Failure::new(FailureKind::BadReference, error.to_string()))
}

fn token(text: Option<String>) -> Option<Token> {
    text.as_deref().and_then(Token::new)
}
