//! What a seed answers to other seeds. Only they may call it: hashes that are kept here are believed.

use super::owner::Owners;
use crate::model::{Failure, FailureKind, Pin};
use crate::source::Catalog;
use crate::swarm::Recent;
use crate::swarm::failure::status_of;
use crate::swarm::v1::{self, fellow_server};
use crate::swarm::wire;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub struct Fellowship {
    pub owners: Arc<Owners>,
    /// Files whose hashes come in stay open between two batches.
    pub files: Recent,
    pub catalog: Arc<dyn Catalog>,
}

impl Fellowship {
    /// What tonic serves.
    pub fn into_service(self) -> fellow_server::FellowServer<Fellowship> {
        fellow_server::FellowServer::new(self)
    }
}

#[tonic::async_trait]
impl fellow_server::Fellow for Fellowship {
    async fn ownership(
        &self,
        request: Request<v1::OwnershipRequest>,
    ) -> Result<Response<v1::OwnershipReply>, Status> {
        let me = self.owners.fellows.me.clone();
        let Some(key) = wire::key_of(&request.into_inner().key) else {
            return Ok(Response::new(v1::OwnershipReply {
                seed: me,
                ..Default::default()
            }));
        };
        let bid = self.owners.bid(key);
        Ok(Response::new(v1::OwnershipReply {
            seed: bid.seed,
            claimed: bid.claimed,
            pieces: bid.pieces,
        }))
    }

    async fn keep(
        &self,
        request: Request<v1::KeepRequest>,
    ) -> Result<Response<v1::KeepReply>, Status> {
        let request = request.into_inner();
        let malformed = || Status::invalid_argument("malformed hashes");
        let key = wire::key_of(&request.key).ok_or_else(malformed)?;
        if request.size > crate::model::piece::FILE_BYTES_MAX {
            return Err(malformed());
        }
        let file = self.files.file(key, request.size);
        let file = file
            .map_err(|error| status_of(&Failure::new(FailureKind::Internal, error.to_string())))?;
        for run in &request.runs {
            let hashes = wire::hashes_of(file.geometry(), run).ok_or_else(malformed)?;
            file.learn(run.first, &hashes);
        }
        Ok(Response::new(v1::KeepReply {}))
    }

    async fn volume(
        &self,
        request: Request<v1::VolumeRequest>,
    ) -> Result<Response<v1::VolumeReply>, Status> {
        let request = request.into_inner();
        let pin: Option<Pin> = match request.pin {
            Some(pin) => Some(
                pin.parse()
                    .map_err(|_| Status::invalid_argument("malformed pin"))?,
            ),
            None => None,
        };
        let kept = self.catalog.volume(&request.volume, pin.as_ref()).await;
        let kept = kept.map_err(|failure| status_of(&failure))?;
        Ok(Response::new(v1::VolumeReply {
            pin: kept.map(|pin| pin.to_string()),
        }))
    }
}
