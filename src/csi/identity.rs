//! Who we are and whether we are ready.
//!
//! A probe is about this process alone. A lost hub or seed never fails it: a restart would not bring them
//! back, and for a node it would be dear.

use super::observe::observe;
use super::status::Refusal;
use super::v1::identity_server::Identity as Service;
use super::v1::plugin_capability::{Service as Kind, Type, service};
use super::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::{Request, Response, Status};

/// The driver's public name, as it stands in CSIDriver and StorageClass.
pub const DRIVER_NAME: &str = "csi.model-p2p.dev";

/// Says `ready = false` until whoever starts the program has recovered its mounts.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Starting,
    Ready,
    Broken(String),
}

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.put(if ready { State::Ready } else { State::Starting });
    }

    /// From now on probes fail: only a new process can help.
    pub fn fail(&self, cause: impl ToString) {
        self.put(State::Broken(cause.to_string()));
    }

    fn put(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn get(&self) -> Result<bool, Refusal> {
        match self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            State::Broken(cause) => Err(Refusal::Unwell { cause }),
            state => Ok(state == State::Ready),
        }
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
        let ready = self.readiness.get();
        observe("Probe", "", async {
            ready.map(|ready| ProbeResponse { ready: Some(ready) })
        })
        .await
    }
}
