//! The controller service: a claim becomes a pin.
//!
//! Creating a volume asks for a commit and its sizes, and writes both into the volume's context; nothing is
//! stored in a hub or on a disk, so deleting one only forgets it. What is asked for is the class's
//! parameters, the claim's annotations and, for a clone, its source's context, in this order. The same name
//! gets the same answer, also after the branch moved or this process began anew: from the records, from the
//! PersistentVolume, or from the catalog, which keeps the first pin of a volume id. With other words or an
//! unfitting size it is refused: a claim that changed its mind is made anew, for a volume that shows
//! another model than its claim names would deceive its reader.

use super::capability;
use super::claims::{self, Claims};
use super::creation::Creation;
use super::lookup::Lookup;
use super::observe::observe;
use super::parameters::{Author, Words, own_words};
use super::records::{RecordError, Records};
use super::status::{Call, Refusal, required};
use super::turns::Turns;
use super::v1::controller_server::Controller as Service;
use super::v1::controller_service_capability::{Rpc, Type, rpc};
use super::v1::validate_volume_capabilities_response::Confirmed;
use super::v1::volume_content_source::{Type as ContentType, VolumeSource};
use super::v1::volume_health_status::Status as Health;
use super::v1::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerServiceCapability, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest,
    DeleteVolumeResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    Volume, VolumeContentSource, VolumeHealth, VolumeHealthStatus,
};
use super::volume::{self, Created, Subject, Wish};
use crate::source::Catalog;
use std::sync::Arc;
use tonic::{Request, Response, Status};

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
    /// Without, class parameters are all there is.
    claims: Option<Arc<dyn Claims>>,
}

impl Controller {
    /// `records` are this service's own table; `claims` is the cluster, where there is one.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        records: Arc<dyn Records>,
        claims: Option<Arc<dyn Claims>>,
    ) -> Controller {
        let lookup = Lookup {
            catalog,
            call: Call::Provision,
        };
        Controller {
            shared: Arc::new(Shared {
                lookup,
                records,
                claims,
            }),
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

    /// A volume is what its seeds can give: with one of them there it is healthy, with none readers have
    /// what their nodes hold.
    async fn health(
        &self,
        request: ControllerGetVolumeHealthRequest,
    ) -> Result<ControllerGetVolumeHealthResponse, Refusal> {
        let volume_id = request.volume_id;
        required("volume_id", &volume_id)?;
        self.shared.context(&volume_id).await?;
        let reached = self.shared.lookup.catalog.reach().await;
        let degraded = reached.err().map(|failure| VolumeHealthStatus {
            status: Health::Degraded.into(),
            reason: "SeedUnreachable".into(),
            message: failure.to_string(),
        });
        Ok(ControllerGetVolumeHealthResponse {
            volume_health: Some(VolumeHealth {
                volume_id,
                health_statuses: degraded.into_iter().collect(),
            }),
        })
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
        self.shared.context(&volume_id).await?;
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

impl Shared {
    async fn create(&self, mut creation: Creation) -> Result<CreateVolumeResponse, Refusal> {
        self.hear_claim(&mut creation).await?;
        let wish = self.wish(&mut creation).await?;
        let created = match self.earlier(&creation, &wish).await? {
            Some(created) => created,
            None => self.pin(&creation, &wish).await?,
        };
        let same = created.parameters == creation.words && created.source == creation.source;
        if !same || !creation.fits(created.capacity_bytes) {
            return Err(Refusal::Exists {
                name: creation.name,
            });
        }
        Ok(CreateVolumeResponse {
            volume: Some(Volume {
                volume_id: creation.volume_id,
                capacity_bytes: created.capacity_bytes,
                volume_context: created.context.into_iter().collect(),
                content_source: creation.source.map(|volume_id| VolumeContentSource {
                    r#type: Some(ContentType::Volume(VolumeSource { volume_id })),
                }),
            }),
        })
    }

    /// Puts the words of the claim's annotations over the class's.
    async fn hear_claim(&self, creation: &mut Creation) -> Result<(), Refusal> {
        let (Some(claims), Some(asker)) = (&self.claims, &mut creation.claim) else {
            return Ok(());
        };
        let claim = asker.read(claims.as_ref()).await?;
        let claim = claim.ok_or_else(|| Refusal::NoClaim {
            claim: asker.to_string(),
        })?;
        asker.uid = Some(claim.uid);
        let class = std::mem::take(&mut creation.words);
        creation.words = claims::merge(class, claims::words(claim.annotations)?);
        Ok(())
    }

    /// What the words ask for; a clone's are its source's with its own on top.
    async fn wish(&self, creation: &mut Creation) -> Result<Wish, Refusal> {
        let Some(source) = &creation.source else {
            return Ok(Wish::of_parameters(&creation.words, Author::Admin)?);
        };
        let context = self.context(source).await?;
        let own = std::mem::take(&mut creation.words);
        creation.words = volume::cloned(&context, own)?;
        Ok(Wish::of_context(&creation.words, Author::Admin)?)
    }

    /// The answer to an earlier call of this name, from the records or from the cluster.
    async fn earlier(&self, creation: &Creation, wish: &Wish) -> Result<Option<Created>, Refusal> {
        let (volume_id, name) = (&creation.volume_id, &creation.name);
        if let Some(created) = self.created(volume_id).await? {
            return Ok(Some(created));
        }
        let Some(context) = self.persisted(volume_id, Some(name)).await? else {
            return Ok(None);
        };
        if !volume::answers(&creation.words, wish, &context)? {
            return Err(Refusal::Exists { name: name.clone() });
        }
        Ok(Some(Created {
            parameters: creation.words.clone(),
            source: creation.source.clone(),
            capacity_bytes: creation.capacity(volume::bytes(&context))?,
            context,
        }))
    }

    /// Resolves, measures, records and tells. Another instance may have been faster: its record counts.
    async fn pin(&self, creation: &Creation, wish: &Wish) -> Result<Created, Refusal> {
        let (volume_id, token) = (&creation.volume_id, creation.token.as_ref());
        let (reference, pin, view) = match &wish.subject {
            Subject::Pinned(pin, view) => (&pin.repository, pin.clone(), view.clone()),
            Subject::Reference(reference) => {
                let pin = self.lookup.pin(reference, volume_id, token).await?;
                let view = volume::view(reference, &pin, &wish.options);
                (reference, pin, view)
            }
        };
        let listing = self.lookup.listing(&pin, token).await?;
        let size = volume::measure(&listing, &view)?;
        let created = Created {
            parameters: creation.words.clone(),
            source: creation.source.clone(),
            capacity_bytes: creation.capacity(size.0)?,
            context: volume::context(&creation.words, reference, &pin, &view, size)?,
        };
        let record = volume::encode(volume_id, &created)?;
        let kept = self.records.put_once(volume_id, record).await?;
        let (commit, (bytes, files)) = (&pin.revision, size);
        self.tell(
            creation,
            format!("{reference} is {commit}: {bytes} bytes in {files} files"),
        )
        .await;
        Ok(volume::decode(volume_id, &kept)?)
    }

    /// An event that cannot be written takes no volume away.
    async fn tell(&self, creation: &Creation, text: String) {
        let event = creation
            .claim
            .as_ref()
            .and_then(|claim| claim.resolved(text));
        if let (Some(claims), Some(event)) = (&self.claims, event)
            && let Err(error) = claims.record(&event).await
        {
            tracing::warn!(%error, "event not written");
        }
    }

    async fn created(&self, volume_id: &str) -> Result<Option<Created>, RecordError> {
        let record = self.records.get(volume_id).await?;
        record
            .map(|bytes| volume::decode(volume_id, &bytes))
            .transpose()
    }

    async fn persisted(
        &self,
        volume_id: &str,
        name: Option<&str>,
    ) -> Result<Option<Words>, Refusal> {
        let Some(claims) = &self.claims else {
            return Ok(None);
        };
        Ok(claims.context(volume_id, name).await?.map(own_words))
    }

    /// The context of a volume that exists.
    async fn context(&self, volume_id: &str) -> Result<Words, Refusal> {
        let context = match self.created(volume_id).await? {
            Some(created) => Some(created.context),
            None => self.persisted(volume_id, None).await?,
        };
        context.ok_or_else(|| Refusal::UnknownVolume {
            volume_id: volume_id.to_owned(),
        })
    }
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

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Result<Response<ControllerGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        let call = self.health(request);
        observe("ControllerGetVolumeHealth", &volume_id, call).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let served = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::CloneVolume,
            rpc::Type::GetVolumeHealth,
        ];
        let capability = |served: rpc::Type| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: served.into(),
            })),
        };
        let answer = ControllerGetCapabilitiesResponse {
            capabilities: served.map(capability).into(),
        };
        observe("ControllerGetCapabilities", "", async { Ok(answer) }).await
    }
}
