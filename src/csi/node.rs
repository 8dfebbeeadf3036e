//! The node service: a pin becomes a read-only directory in a pod.
//!
//! Publishing reads the volume's words, asks the catalog whether this token may read the pin, and mounts;
//! content is fetched by readers. A volume without a commit in its context (inline, or written by hand) is
//! resolved once and recorded before it is mounted. What is mounted stays mounted: kubelet repeats a publish
//! every minute, and a hub or seed that cannot answer then changes nothing. Unpublishing what is not there
//! succeeds, or the pod would hang.

use super::following::Following;
use super::health::{self, Renewals};
use super::lookup::Lookup;
use super::observe::observe;
use super::publication::{Publication, Shared};
use super::publisher::{Publisher, VolumeStats};
use super::records::Records;
use super::status::{Call, Refusal, required};
use super::turns::Turns;
use super::v1::node_server::Node as Service;
use super::v1::node_service_capability::{Rpc, Type, rpc};
use super::v1::volume_usage::Unit;
use super::v1::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest,
    NodeGetInfoResponse, NodeGetStorageHealthRequest, NodeGetStorageHealthResponse,
    NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeServiceCapability, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, VolumeUsage,
};
use crate::model::{News, PodRef};
use crate::source::{Catalog, Observer};
use std::path::Path;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// A node name that kubelet would refuse.
#[derive(Debug, thiserror::Error)]
#[error("node id of {bytes} bytes: 1 to 256 are allowed: set the node's name")]
pub struct NodeIdError {
    pub bytes: usize,
}

/// The service. Clones are one.
#[derive(Clone)]
pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) turns: Arc<Turns>,
    node_id: Arc<str>,
    observer: Option<Arc<dyn Observer>>,
    following: Arc<Following>,
}

impl Node {
    /// `records` are this service's own table; `node_id` is the Kubernetes node's name.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        publisher: Arc<dyn Publisher>,
        records: Arc<dyn Records>,
        node_id: &str,
    ) -> Result<Node, NodeIdError> {
        if !(1..=256).contains(&node_id.len()) {
            return Err(NodeIdError {
                bytes: node_id.len(),
            });
        }
        let lookup = Lookup {
            catalog,
            call: Call::Publish,
        };
        Ok(Node {
            shared: Arc::new(Shared {
                lookup,
                publisher,
                records,
                renewals: Renewals::default(),
            }),
            turns: Arc::default(),
            node_id: node_id.into(),
            observer: None,
            following: Arc::default(),
        })
    }

    /// Pods' owners hear of what is mounted and of what goes wrong later.
    pub fn with_observer(self, observer: Option<Arc<dyn Observer>>) -> Node {
        Node { observer, ..self }
    }

    pub(super) async fn drained(&self) {
        self.turns.drained().await;
    }

    async fn publish(
        &self,
        request: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Refusal> {
        let publication = Publication::of(request)?;
        let (node, volume_id) = (self.clone(), publication.volume_id.clone());
        let publish = async move {
            let (pod, target) = (publication.pod.clone(), publication.target.clone());
            let volume_id = publication.volume_id.clone();
            let news = node.shared.publish(publication).await?;
            if let Some(pod) = pod {
                node.tell(&volume_id, &target, pod, news);
            }
            Ok(NodePublishVolumeResponse {})
        };
        self.turns.run(&volume_id, publish).await
    }

    /// Tells a pod's owner the news of a publish, and from then on what becomes of the volume.
    fn tell(&self, volume_id: &str, target: &Path, pod: PodRef, news: Option<(News, String)>) {
        let Some(observer) = &self.observer else {
            return;
        };
        if let Some((kind, text)) = news {
            observer.observe(&pod, kind, text);
        }
        let bulletin = || self.shared.publisher.follow(volume_id, target);
        self.following
            .start(target, observer.clone(), pod, bulletin);
    }

    async fn unpublish(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Refusal> {
        let (volume_id, target) = (request.volume_id, request.target_path);
        required("volume_id", &volume_id)?;
        required("target_path", &target)?;
        let (shared, following) = (self.shared.clone(), self.following.clone());
        self.turns
            .run(&volume_id.clone(), async move {
                following.stop(Path::new(&target));
                shared.unpublish(&volume_id, Path::new(&target)).await?;
                Ok(NodeUnpublishVolumeResponse {})
            })
            .await
    }

    /// From memory, without a turn: kubelet's metrics must not wait for a mount or a hub.
    fn stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Refusal> {
        required("volume_id", &request.volume_id)?;
        required("volume_path", &request.volume_path)?;
        let path = Path::new(&request.volume_path);
        match self.shared.publisher.stats(&request.volume_id, path) {
            Some(stats) => Ok(usage(stats)),
            None => Err(Refusal::UnknownVolume {
                volume_id: request.volume_id,
            }),
        }
    }

    /// Without a turn, like the statistics: a volume whose publish hangs is what is asked about.
    async fn volume_health(
        &self,
        request: NodeGetVolumeHealthRequest,
    ) -> Result<NodeGetVolumeHealthResponse, Refusal> {
        let (volume_id, path) = (request.volume_id, request.volume_publish_path);
        required("volume_id", &volume_id)?;
        let facts = self.shared.facts(&volume_id, &path).await?;
        let storage = self.shared.publisher.storage();
        let not_renewed = self.shared.renewals.cause(&volume_id);
        let health = health::of_volume(volume_id, &facts, &storage, not_renewed);
        Ok(NodeGetVolumeHealthResponse {
            volume_health: Some(health),
        })
    }

    fn storage_health(&self) -> NodeGetStorageHealthResponse {
        NodeGetStorageHealthResponse {
            backend_health: health::of_storage(&self.shared.publisher.storage()),
        }
    }
}

/// All of a read-only volume is used.
fn usage(stats: VolumeStats) -> NodeGetVolumeStatsResponse {
    let used = |amount: u64, unit: Unit| {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        VolumeUsage {
            available: 0,
            total: amount,
            used: amount,
            unit: unit.into(),
        }
    };
    NodeGetVolumeStatsResponse {
        usage: vec![
            used(stats.bytes, Unit::Bytes),
            used(stats.files, Unit::Inodes),
        ],
    }
}

#[tonic::async_trait]
impl Service for Node {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        observe("NodePublishVolume", &volume_id, self.publish(request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        observe("NodeUnpublishVolume", &volume_id, self.unpublish(request)).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        let call = async { self.stats(request) };
        observe("NodeGetVolumeStats", &volume_id, call).await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let volume_id = request.volume_id.clone();
        let call = self.volume_health(request);
        observe("NodeGetVolumeHealth", &volume_id, call).await
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        let answer = self.storage_health();
        observe("NodeGetStorageHealth", "", async { Ok(answer) }).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: kind.into(),
            })),
        };
        let all = [
            rpc::Type::GetVolumeStats,
            rpc::Type::GetVolumeHealth,
            rpc::Type::GetStorageHealth,
        ];
        let answer = NodeGetCapabilitiesResponse {
            capabilities: all.map(capability).into(),
        };
        observe("NodeGetCapabilities", "", async { Ok(answer) }).await
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let answer = NodeGetInfoResponse {
            node_id: self.node_id.to_string(),
            // As many as the node has room for.
            max_volumes_per_node: 0,
        };
        observe("NodeGetInfo", "", async { Ok(answer) }).await
    }
}
