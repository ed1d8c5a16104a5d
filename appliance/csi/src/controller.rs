//! The controller: what is asked of appliances for a cluster. Invariant: each call can be repeated, and what is answered was
//! done; nothing is kept here between two calls but the wish not to do one thing twice at once.
//!
//! One call at a time, by these keys: a volume that is made by its name; its growth, change and deletion by its id; letting a node in and
//! cutting it off by volume and node. So publishing goes on beside a growth, and cutting a node off waits neither for another node that
//! hangs nor for a deletion. That is safe because the appliance does one thing after another on each volume, in the order of coming: a volume
//! that was published first is not deleted, one that was deleted first is not there to be published.

use std::sync::Arc;
use std::time::Duration;

use cistern_model::{NodeName, VolumeName};
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::appliances;
use crate::csi;
use crate::csi::controller_service_capability::rpc::Type as Capability;
use crate::handle::{VolumeHandle, shown};
use crate::inflight::{InFlight, in_time};
use crate::nodes::Addresses;
use crate::parameters::{Class, Mutable};
use crate::refusal::invalid;
use crate::registry::Registry;
use crate::secrets::Secrets;
use crate::snapshots;

/// After how long a sidecar, which waits for 60 s, is told that something goes on: so it stands in a claim's events.
pub(crate) const ANSWER: Duration = Duration::from_secs(50);
/// Under which key a node is told from which server it mounts.
pub const SERVER: &str = "csi.cistern.storage/server";
/// Under which key it is told what.
pub const PATH: &str = "csi.cistern.storage/path";

const CAPABILITIES: &[Capability] = &[
    Capability::CreateDeleteVolume,
    Capability::PublishUnpublishVolume,
    Capability::PublishReadonly,
    Capability::ListVolumes,
    Capability::ListVolumesPublishedNodes,
    Capability::VolumeCondition,
    Capability::GetVolume,
    Capability::GetCapacity,
    Capability::CreateDeleteSnapshot,
    Capability::ListSnapshots,
    Capability::GetSnapshot,
    Capability::CloneVolume,
    Capability::ExpandVolume,
    Capability::ModifyVolume,
    Capability::SingleNodeMultiWriter,
];

/// The controller service.
#[derive(Clone)]
pub struct Controller {
    pub(crate) registry: Arc<Registry>,
    pub(crate) nodes: Arc<dyn Addresses>,
    pub(crate) in_flight: InFlight,
    /// Whether appliances are near to some nodes only.
    pub(crate) zones: bool,
}

impl Controller {
    /// With these appliances and nodes. `zones`: appliances are near to the nodes of their zone only.
    pub fn new(registry: Registry, nodes: Arc<dyn Addresses>, zones: bool) -> Self {
        Controller {
            registry: Arc::new(registry),
            nodes,
            in_flight: InFlight::default(),
            zones,
        }
    }
}

#[tonic::async_trait]
impl csi::controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(invalid("the volume's name is missing"));
        }
        let _: VolumeName = request.name.parse().map_err(invalid)?;
        Access::read_all(&request.volume_capabilities)?;
        let class = Class::read(&request.parameters.clone().into_iter().collect()).map_err(invalid)?;
        let mutable = Mutable::read(&request.mutable_parameters.clone().into_iter().collect()).map_err(invalid)?;
        let secrets = Secrets::read(&request.secrets)?;
        let (this, on, asked) = (self.clone(), format!("volume {}", request.name), request.clone());
        let work = async move { this.make(request, class, mutable, secrets).await };
        self.in_flight.to_its_end(&on, ANSWER, asked, work).await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id;
        if id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        // What was never ours is gone: an error would be asked again for ever.
        let Ok(handle) = id.parse::<VolumeHandle>() else {
            return Ok(Response::new(csi::DeleteVolumeResponse {}));
        };
        let secrets = Secrets::read(&request.secrets)?;
        let this = self.clone();
        let work = async move { this.unmake(&handle, &secrets).await };
        let on = format!("volume {id}");
        self.in_flight.to_its_end(&on, ANSWER, request.secrets, work).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.node_id.is_empty() {
            return Err(invalid("the node's id is missing"));
        }
        let access = Access::read(request.volume_capability.as_ref())?;
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let node: NodeName = request
            .node_id
            .parse()
            .map_err(|_| Status::not_found(format!("there is no node {}", shown(&request.node_id))))?;
        let secrets = Secrets::read(&request.secrets)?;
        let on = format!("volume {} on node {node}", request.volume_id);
        let (this, asked) = (self.clone(), request.clone());
        let work = async move { this.publish(&handle, &node, &access, request.readonly, &secrets).await };
        self.in_flight.to_its_end(&on, ANSWER, asked, work).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let Ok(handle) = request.volume_id.parse::<VolumeHandle>() else {
            return Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}));
        };
        let secrets = Secrets::read(&request.secrets)?;
        let on = format!("volume {} on node {}", request.volume_id, request.node_id);
        let (this, asked) = (self.clone(), request.clone());
        let work = async move { this.unpublish(&handle, &request.node_id, &secrets).await };
        self.in_flight.to_its_end(&on, ANSWER, asked, work).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        in_time(ANSWER, self.validate(request.into_inner())).await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        in_time(ANSWER, self.list(request.into_inner())).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES.iter().map(|capability| csi::ControllerServiceCapability {
            r#type: Some(csi::controller_service_capability::Type::Rpc(
                csi::controller_service_capability::Rpc {
                    r#type: (*capability).into(),
                },
            )),
        });
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities: capabilities.collect(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Result<Response<csi::CreateSnapshotResponse>, Status> {
        snapshots::create(self, request.into_inner()).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Result<Response<csi::DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        let secrets = Secrets::read(&request.secrets)?;
        snapshots::delete(self, request.snapshot_id, secrets).await?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Result<Response<csi::ListSnapshotsResponse>, Status> {
        in_time(ANSWER, snapshots::list(self, request.into_inner())).await
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Result<Response<csi::GetSnapshotResponse>, Status> {
        let request = request.into_inner();
        let secrets = Secrets::read(&request.secrets)?;
        let asked = async {
            let snapshot = snapshots::show(self, &request.snapshot_id, &secrets).await?;
            Ok(csi::GetSnapshotResponse {
                snapshot: Some(snapshot),
            })
        };
        in_time(ANSWER, asked).await
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Result<Response<csi::ControllerGetVolumeResponse>, Status> {
        in_time(ANSWER, self.look_up(&request.into_inner().volume_id)).await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.capacity_range.is_none() {
            return Err(invalid("the capacity is missing"));
        }
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let secrets = Secrets::read(&request.secrets)?;
        let (this, on, asked) = (self.clone(), format!("volume {}", request.volume_id), request.clone());
        let work = async move { this.grow(&handle, request.capacity_range.as_ref(), &secrets).await };
        self.in_flight.to_its_end(&on, ANSWER, asked, work).await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Result<Response<csi::ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let mutable = Mutable::read(&request.mutable_parameters.clone().into_iter().collect()).map_err(invalid)?;
        let secrets = Secrets::read(&request.secrets)?;
        let (this, on) = (self.clone(), format!("volume {}", request.volume_id));
        let work = async move { this.modify(&handle, mutable, &secrets).await };
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        in_time(ANSWER, self.capacity(request.into_inner())).await
    }
}
