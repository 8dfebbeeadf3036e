//! The services over a real unix socket, with twins behind them. Each test is a line of the driver's
//! checklist: what the specification, kubelet and the provisioner expect.

pub(crate) mod claims;
mod controller;
mod health;
mod node;
mod sanity;
mod server;
mod twins;

use super::v1::controller_client::ControllerClient;
use super::v1::identity_client::IdentityClient;
use super::v1::node_client::NodeClient;
use super::v1::volume_capability::access_mode::Mode;
use super::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use super::v1::{CreateVolumeRequest, NodePublishVolumeRequest, VolumeCapability};
use super::{
    Claims, Config, Controller, Endpoint, MemoryRecords, Node, Readiness, Records, Services, serve,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use twins::{TwinCatalog, TwinObserver, TwinPublisher};

const MODEL: &str = "hf://owner/name@main";

fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn mount(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn block() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..mount(Mode::SingleNodeWriter)
    }
}

fn creation<const N: usize>(name: &str, parameters: [(&str, &str); N]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        volume_capabilities: vec![mount(Mode::MultiNodeReaderOnly)],
        parameters: map(parameters),
        ..CreateVolumeRequest::default()
    }
}

/// A driver, the things behind it that survive a restart, and clients of it.
struct Driver {
    dir: tempfile::TempDir,
    catalog: Arc<TwinCatalog>,
    publisher: Arc<TwinPublisher>,
    created: Arc<dyn Records>,
    published: Arc<dyn Records>,
    claims: Option<Arc<dyn Claims>>,
    observer: Arc<TwinObserver>,
    readiness: Readiness,
    stop: CancellationToken,
    served: Option<tokio::task::JoinHandle<()>>,
    channel: Channel,
}

impl Driver {
    async fn start() -> Driver {
        let dir = tempfile::tempdir().expect("a directory");
        let channel = tonic::transport::Endpoint::from_static("http://localhost").connect_lazy();
        let mut driver = Driver {
            dir,
            catalog: TwinCatalog::new(),
            publisher: Arc::default(),
            created: MemoryRecords::new(100),
            published: MemoryRecords::new(100),
            claims: None,
            observer: Arc::default(),
            readiness: Readiness::default(),
            stop: CancellationToken::new(),
            served: None,
            channel,
        };
        driver.restart().await;
        driver
    }

    fn endpoint(&self) -> Endpoint {
        let text = format!("unix://{}/csi.sock", self.dir.path().display());
        text.parse().expect("an endpoint")
    }

    /// A new process with the old one's records, mounts and catalog.
    async fn restart(&mut self) {
        self.stop().await;
        self.stop = CancellationToken::new();
        let services = Services::new(self.readiness.clone())
            .with_controller(self.new_controller())
            .with_node(self.new_node());
        let socket = self.endpoint().bind().expect("a socket");
        let stop = self.stop.clone().cancelled_owned();
        let server = serve(Config::default(), services, socket, stop);
        self.served = Some(tokio::spawn(async {
            server.await.expect("a clean end");
        }));
        self.channel = connect(self.endpoint().path()).await;
    }

    fn new_controller(&self) -> Controller {
        Controller::new(
            self.catalog.clone(),
            self.created.clone(),
            self.claims.clone(),
        )
    }

    fn new_node(&self) -> Node {
        let (catalog, publisher) = (self.catalog.clone(), self.publisher.clone());
        Node::new(catalog, publisher, self.published.clone(), "node-1")
            .expect("a node")
            .with_observer(Some(self.observer.clone()))
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            served.await.expect("no panic");
        }
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    fn target(&self, pod: &str) -> PathBuf {
        self.dir.path().join(pod)
    }

    /// A pod's inline volume.
    fn inline<const N: usize>(
        &self,
        volume_id: &str,
        attributes: [(&str, &str); N],
    ) -> NodePublishVolumeRequest {
        let mut context = map(attributes);
        context.extend(map([
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "pod"),
        ]));
        NodePublishVolumeRequest {
            volume_id: volume_id.into(),
            target_path: self.target(volume_id).display().to_string(),
            volume_capability: Some(mount(Mode::SingleNodeWriter)),
            volume_context: context,
            ..NodePublishVolumeRequest::default()
        }
    }

    /// A claim's volume, created and asked for.
    async fn claim(&self, name: &str, pod: &str) -> NodePublishVolumeRequest {
        let created = self
            .controller()
            .create_volume(creation(name, [("model", MODEL)]))
            .await
            .expect("a volume")
            .into_inner();
        let volume = created.volume.expect("a volume");
        let mut context = volume.volume_context;
        context.extend(map([(
            "storage.kubernetes.io/csiProvisionerIdentity",
            "1-2-csi",
        )]));
        NodePublishVolumeRequest {
            volume_id: volume.volume_id,
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(mount(Mode::MultiNodeReaderOnly)),
            volume_context: context,
            ..NodePublishVolumeRequest::default()
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// As kubelet does: authority `localhost`, whatever the path.
async fn connect(path: &Path) -> Channel {
    super::connect(path).await.expect("a connection")
}

/// The code of a refused call, as the specification numbers them; its message names `about`.
fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, about: &str) -> i32 {
    let status = answer.expect_err("a refusal");
    assert!(status.message().contains(about), "{}", status.message());
    assert!(status.details().is_empty());
    status.code() as i32
}
