//! Who may call what on a seed's control port.
//!
//! One table, by role. A call that is not in it is refused to everybody but nodes and admins, and so is one
//! that comes without a role. What seeds say to each other no one else may say. Guards TLS only: in the clear everybody who reaches the port may do everything.

use crate::model::{Failure, FailureKind};
use crate::swarm::failure::status_of;
use crate::tls::{Peer, Role};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tonic::Status;
use tonic::service::Routes;

/// What a controller may call; nodes and admins may call everything that is not among seeds.
const CONTROLLER: [&str; 3] = ["Resolve", "Listing", "Events"];

/// Among seeds: what is said there is believed. Beside it a seed copies as a node does.
const SEED: [&str; 4] = ["Ownership", "Keep", "Volume", "Session"];

fn may(role: Role, method: &str) -> bool {
    let among_seeds = SEED[..3].contains(&method);
    match role {
        Role::Node | Role::Admin => !among_seeds,
        Role::Controller => CONTROLLER.contains(&method),
        Role::Seed => SEED.contains(&method),
    }
}

/// The same services, for those who may call them.
pub fn guarded(routes: Routes) -> Routes {
    Routes::from(routes.into_axum_router().layer(from_fn(guard)))
}

async fn guard(mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    match peer {
        Some(peer) if may(peer.role, method) => {
            // What tonic looks for when a service asks where a request comes from.
            request.extensions_mut().insert(peer.tcp);
            next.run(request).await
        }
        peer => refusal(method, peer.map(|peer| peer.role)).into_http(),
    }
}

fn refusal(method: &str, role: Option<Role>) -> Status {
    let needed: Vec<_> = Role::ALL
        .into_iter()
        .filter(|role| may(*role, method))
        .map(Role::name)
        .collect();
    let message = format!(
        "{method} needs a certificate with the role {}, this one has {}: check --tls-dir",
        needed.join(" or "),
        role.map_or("none", Role::name),
    );
    status_of(&Failure::new(FailureKind::Denied, message))
}
