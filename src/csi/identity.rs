//! Who we are and whether we are ready.
//!
//! A probe is about this process alone. A lost hub or seed never fails it: a restart would not bring them
//! back, and for a node it would be dear.

use super::observe::observe;
use super::v1::identity_server::Identity as Service;
use super::v1::plugin_capability::{Service as Kind, Type, service};
use super::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::{Request, Response, Status};

/// The driver's public name, as it stands in CSIDriver and StorageClass.
pub const DRIVER_NAME: &str = "csi.model-p2p.dev";

/// Says `ready = false` until whoever starts the program has recovered its mounts.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
pub(super) struct Identity {
    pub(super) readiness: Readiness,
}

#[tonic::async_trait]
impl Service for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let info = GetPluginInfoResponse {
            name: DRIVER_NAME.into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
            ..GetPluginInfoResponse::default()
        };
        observe("GetPluginInfo", "", async { Ok(info) }).await
    }

    /// The same on every instance, as the specification wants it: the sum of what the plugin can do.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let controller = PluginCapability {
            r#type: Some(Type::Service(Kind {
                r#type: service::Type::ControllerService.into(),
            })),
        };
        let answer = GetPluginCapabilitiesResponse {
            capabilities: vec![controller],
        };
        observe("GetPluginCapabilities", "", async { Ok(answer) }).await
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = Some(self.readiness.get());
        observe("Probe", "", async { Ok(ProbeResponse { ready }) }).await
    }
}
