//! The messages of `proto/swarm/swarm.proto`, generated.
#![allow(clippy::all, clippy::unwrap_used)]

tonic::include_proto!("model_p2p.swarm.v1");

/// Without the token: what prints a session's messages must not print credentials.
impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Interest");
        debug.field("pin", &self.pin).field("path", &self.path);
        debug.finish_non_exhaustive()
    }
}
