//! Who the plugin is. Invariant: nothing here asks an appliance: a sidecar ends when these calls fail.

use tonic::{Request, Response, Status};

use crate::csi;

/// The driver's name, in a StorageClass' `provisioner`.
pub const DRIVER: &str = "csi.cistern.storage";

/// The identity service.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Whether the controller is here too.
    pub controller: bool,
    /// Whether appliances are near to some nodes only.
    pub zones: bool,
}

#[tonic::async_trait]
impl csi::identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..csi::GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        use csi::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let service = |kind: service::Type| Type::Service(Service { r#type: kind.into() });
        let mut all = Vec::new();
        if self.controller {
            all.push(service(service::Type::ControllerService));
            all.push(service(service::Type::GroupControllerService));
        }
        if self.zones {
            all.push(service(service::Type::VolumeAccessibilityConstraints));
        }
        all.push(Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        }));
        let capabilities = all.into_iter().map(|kind| csi::PluginCapability { r#type: Some(kind) });
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities: capabilities.collect(),
        }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}
