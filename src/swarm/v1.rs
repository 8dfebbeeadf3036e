//! The messages of `proto/swarm/swarm.proto`, generated.
#![allow(clippy::all, clippy::unwrap_used)]

tonic::include_proto!("model_p2p.swarm.v1");
