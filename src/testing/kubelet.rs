//! What kubelet and the provisioner do with a CSI socket, as the tests and the demo need it.

use crate::csi::v1;
use std::collections::HashMap;
use std::path::Path;
use tonic::Status;
use tonic::transport::Channel;
use v1::controller_client::ControllerClient;
use v1::node_client::NodeClient;

/// A client of one CSI socket.
#[derive(Clone)]
pub struct Kubelet {
    channel: Channel,
}

impl Kubelet {
    /// Connects once the socket is there.
    pub async fn connect(socket: &Path) -> Result<Kubelet, tonic::transport::Error> {
        Ok(Kubelet {
            channel: crate::csi::connect(socket).await?,
        })
    }

    /// Publishes an inline volume of a model.
    pub async fn publish_inline(
        &self,
        volume: &str,
        attributes: &[(&str, &str)],
        token: Option<&str>,
        target: &Path,
    ) -> Result<(), Status> {
        let mut context: HashMap<String, String> = attributes
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        context.insert("csi.storage.k8s.io/ephemeral".into(), "true".into());
        self.publish(volume, context, token, target).await
    }

    /// Publishes a volume with this context.
    pub async fn publish(
        &self,
        volume: &str,
        volume_context: HashMap<String, String>,
        token: Option<&str>,
        target: &Path,
    ) -> Result<(), Status> {
        let secrets = token
            .map(|token| ("token".to_owned(), token.to_owned()))
            .into_iter()
            .collect();
        let request = v1::NodePublishVolumeRequest {
            volume_id: volume.into(),
            target_path: target.display().to_string(),
            volume_capability: Some(reader()),
            readonly: true,
            secrets,
            volume_context,
            ..Default::default()
        };
        NodeClient::new(self.channel.clone())
            .node_publish_volume(request)
            .await
            .map(|_| ())
    }

    pub async fn unpublish(&self, volume: &str, target: &Path) -> Result<(), Status> {
        let request = v1::NodeUnpublishVolumeRequest {
            volume_id: volume.into(),
            target_path: target.display().to_string(),
        };
        NodeClient::new(self.channel.clone())
            .node_unpublish_volume(request)
            .await
            .map(|_| ())
    }

    /// What is wrong with a volume at a target: the reasons.
    pub async fn health(&self, volume: &str, target: &Path) -> Result<Vec<String>, Status> {
        let request = v1::NodeGetVolumeHealthRequest {
            volume_id: volume.into(),
            volume_publish_path: target.display().to_string(),
            ..Default::default()
        };
        let mut node = NodeClient::new(self.channel.clone());
        let answer = node.node_get_volume_health(request).await?.into_inner();
        let statuses = answer.volume_health.map(|health| health.health_statuses);
        let reasons = statuses.unwrap_or_default().into_iter();
        Ok(reasons.map(|status| status.reason).collect())
    }

    /// Bytes and files of a volume.
    pub async fn stats(&self, volume: &str, target: &Path) -> Result<(i64, i64), Status> {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: volume.into(),
            volume_path: target.display().to_string(),
            ..Default::default()
        };
        let mut node = NodeClient::new(self.channel.clone());
        let answer = node.node_get_volume_stats(request).await?.into_inner();
        let total = |at: usize| answer.usage.get(at).map_or(-1, |usage| usage.total);
        Ok((total(0), total(1)))
    }

    /// What is wrong with the storage behind all volumes: the reasons.
    pub async fn storage_health(&self) -> Result<Vec<String>, Status> {
        let request = v1::NodeGetStorageHealthRequest::default();
        let mut node = NodeClient::new(self.channel.clone());
        let answer = node.node_get_storage_health(request).await?.into_inner();
        let reasons = answer.backend_health.into_iter();
        Ok(reasons.map(|health| health.reason).collect())
    }

    /// Creates a volume of a model as the provisioner does for a claim; returns its id and context.
    pub async fn create(
        &self,
        name: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(String, HashMap<String, String>), Status> {
        let request = v1::CreateVolumeRequest {
            name: name.into(),
            volume_capabilities: vec![reader()],
            parameters: parameters
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            ..Default::default()
        };
        let answer = ControllerClient::new(self.channel.clone())
            .create_volume(request)
            .await?
            .into_inner();
        let volume = answer
            .volume
            .ok_or_else(|| Status::internal("no volume in the answer"))?;
        Ok((volume.volume_id, volume.volume_context))
    }
}

fn reader() -> v1::VolumeCapability {
    use v1::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
    v1::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: access_mode::Mode::MultiNodeReaderOnly.into(),
        }),
    }
}
