//! The controller service: a claim becomes a pin.
//!
//! Creating a volume asks for a commit and its sizes, and writes both into the volume's context; nothing is
//! stored in a hub or on a disk, so deleting one only forgets it. The same name gets the same answer, also
//! after the branch moved: the catalog keeps the first pin of a volume id. With other parameters or an
//! unfitting size it is refused, as long as the records reach back.

use super::capability;
use super::lookup::{Lookup, token};
use super::observe::observe;
use super::parameters::{Author, Words, own_words};
use super::records::{RecordError, Records};
use super::status::{Call, Refusal, required};
use super::turns::Turns;
use super::v1::controller_server::Controller as Service;
use super::v1::controller_service_capability::{Rpc, Type, rpc};
use super::v1::validate_volume_capabilities_response::Confirmed;
use super::v1::{
    CapacityRange, ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerServiceCapability, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest,
    DeleteVolumeResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    Volume,
};
use super::volume::{self, Created, Subject, Wish};
use crate::model::{Reference, Token};
use crate::source::Catalog;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The specification's bound for a volume's name.
const NAME_BYTES_MAX: usize = 128;

/// The service. Clones are one.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
    turns: Arc<Turns>,
}

struct Shared {
    lookup: Lookup,
    /// [`Created`] by volume id.
    records: Arc<dyn Records>,
}

/// A checked creation.
struct Creation {
    name: String,
    volume_id: String,
    words: Words,
    wish: Wish,
    range: CapacityRange,
    token: Option<Token>,
}

impl Controller {
    /// `records` are this service's own table.
    pub fn new(catalog: Arc<dyn Catalog>, records: Arc<dyn Records>) -> Controller {
        let lookup = Lookup {
            catalog,
            call: Call::Provision,
        };
        Controller {
            shared: Arc::new(Shared { lookup, records }),
            turns: Arc::default(),
        }
    }

    pub(super) async fn drained(&self) {
        self.turns.drained().await;
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<CreateVolumeResponse, Refusal> {
        let creation = Creation::of(request)?;
        let shared = self.shared.clone();
        self.turns
            .run(&creation.volume_id.clone(), async move {
                shared.create(creation).await
            })
            .await
    }

    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Refusal> {
        let volume_id = request.volume_id;
        required("volume_id", &volume_id)?;
        let shared = self.shared.clone();
        self.turns
            .run(&volume_id.clone(), async move {
                shared.records.remove(&volume_id).await?;
                Ok(DeleteVolumeResponse {})
            })
            .await
    }

    /// Confirms what exists and can be shown; what cannot is a message, not an error.
    async fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Refusal> {
        let volume_id = request.volume_id;
        required("volume_id", &volume_id)?;
        if request.volume_capabilities.is_empty() {
            capability::check_all(&[])?;
        }
        if self.shared.created(&volume_id).await?.is_none() {
            return Err(Refusal::UnknownVolume { volume_id });
        }
        if let Err(refusal) = capability::check_all(&request.volume_capabilities) {
            return Ok(ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message: refusal.to_string(),
            });
        }
        Ok(ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                ..Confirmed::default()
            }),
            message: String::new(),
        })
    }
}

impl Creation {
    fn of(request: CreateVolumeRequest) -> Result<Creation, Refusal> {
        check_name(&request.name)?;
        capability::check_all(&request.volume_capabilities)?;
        check_unsupported(&request)?;
        let words = own_words(request.parameters);
        Ok(Creation {
            volume_id: volume::volume_id(&request.name),
            name: request.name,
            wish: Wish::of_parameters(&words, Author::Admin)?,
            words,
            range: check_range(request.capacity_range.unwrap_or_default())?,
            token: token(&request.secrets),
        })
    }

    fn reference(&self) -> Result<&Reference, Refusal> {
        match &self.wish.subject {
            Subject::Reference(reference) => Ok(reference),
            Subject::Pinned(..) => Err(Refusal::Missing { field: "model" }),
        }
    }

    /// At least what was asked for, for the provisioner deletes a smaller volume again.
    fn capacity(&self, bytes: u64) -> Result<i64, Refusal> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let capacity = bytes.max(self.range.required_bytes);
        match fits(&self.range, capacity) {
            true => Ok(capacity),
            false => Err(Refusal::TooLarge {
                volume: self.name.clone(),
                bytes: capacity,
                limit: self.range.limit_bytes,
            }),
        }
    }
}

impl Shared {
    async fn create(&self, creation: Creation) -> Result<CreateVolumeResponse, Refusal> {
        let created = match self.created(&creation.volume_id).await? {
            Some(created) => created,
            None => self.pin(&creation).await?,
        };
        if created.parameters != creation.words || !fits(&creation.range, created.capacity_bytes) {
            return Err(Refusal::Exists {
                name: creation.name,
            });
        }
        Ok(CreateVolumeResponse {
            volume: Some(Volume {
                volume_id: creation.volume_id,
                capacity_bytes: created.capacity_bytes,
                volume_context: created.context.into_iter().collect(),
                content_source: None,
            }),
        })
    }

    /// Resolves, measures and records. Another instance may have been faster: its record counts.
    async fn pin(&self, creation: &Creation) -> Result<Created, Refusal> {
        let (volume_id, token) = (&creation.volume_id, creation.token.as_ref());
        let reference = creation.reference()?;
        let pin = self.lookup.pin(reference, volume_id, token).await?;
        let listing = self.lookup.listing(&pin, token).await?;
        let view = volume::view(reference, &pin, &creation.wish.options);
        let size = volume::measure(&listing, &view)?;
        let created = Created {
            capacity_bytes: creation.capacity(size.0)?,
            context: volume::context(&creation.words, reference, &pin, &view, size)?,
            parameters: creation.words.clone(),
        };
        let record = volume::encode(volume_id, &created)?;
        let kept = self.records.put_once(volume_id, record).await?;
        Ok(volume::decode(volume_id, &kept)?)
    }

    async fn created(&self, volume_id: &str) -> Result<Option<Created>, RecordError> {
        let record = self.records.get(volume_id).await?;
        record
            .map(|bytes| volume::decode(volume_id, &bytes))
            .transpose()
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    required("name", name)?;
    let cause = match name {
        _ if name.len() > NAME_BYTES_MAX => "is longer than 128 bytes",
        _ if name.chars().any(char::is_control) => "holds a control character",
        _ => return Ok(()),
    };
    Err(Refusal::Field {
        field: "name",
        cause: cause.into(),
    })
}

fn check_unsupported(request: &CreateVolumeRequest) -> Result<(), Refusal> {
    let (field, cause) = if request.volume_content_source.is_some() {
        (
            "volume_content_source",
            "clones and snapshots are not supported: name the same model in a new claim",
        )
    } else if !request.mutable_parameters.is_empty() {
        ("mutable_parameters", "a volume cannot be modified")
    } else {
        return Ok(());
    };
    Err(Refusal::Field {
        field,
        cause: cause.into(),
    })
}

fn check_range(range: CapacityRange) -> Result<CapacityRange, Refusal> {
    match range.required_bytes < 0 || range.limit_bytes < 0 {
        true => Err(Refusal::Field {
            field: "capacity_range",
            cause: "is negative".into(),
        }),
        false => Ok(range),
    }
}

/// A limit of 0 is none.
fn fits(range: &CapacityRange, capacity: i64) -> bool {
    capacity >= range.required_bytes && (range.limit_bytes == 0 || capacity <= range.limit_bytes)
}

#[tonic::async_trait]
impl Service for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume_id = volume::volume_id(&request.name);
        observe("CreateVolume", &volume_id, self.create(request)).await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        observe("DeleteVolume", &volume_id, self.delete(request)).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        let call = self.validate(request);
        observe("ValidateVolumeCapabilities", &volume_id, call).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let create = ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: rpc::Type::CreateDeleteVolume.into(),
            })),
        };
        let answer = ControllerGetCapabilitiesResponse {
            capabilities: vec![create],
        };
        observe("ControllerGetCapabilities", "", async { Ok(answer) }).await
    }
}
