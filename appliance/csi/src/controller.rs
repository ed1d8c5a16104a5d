//! The controller: what is asked of appliances for a cluster. Invariant: each call can be repeated, and what is answered was
//! done; nothing is kept here between two calls but the wish not to do one thing twice at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cistern_client::VolumeQuery;
use cistern_model::{Bytes, MINIMUM_VOLUME, NodeName, Pool, PoolState, VolumeChange, VolumeRequest, VolumeSource};
use tonic::{Code, Request, Response, Status};

use crate::access::Access;
use crate::appliances::{self, answered};
use crate::csi;
use crate::csi::controller_service_capability::rpc::Type as Capability;
use crate::csi::volume_content_source::Type as Source;
use crate::handle::{SnapshotHandle, VolumeHandle};
use crate::inflight::InFlight;
use crate::lists;
use crate::models::{condition, signed};
use crate::nodes::{Addresses, moved};
use crate::parameters::{Class, Mutable};
use crate::placement::size;
use crate::refusal::{Asked, invalid};
use crate::registry::Registry;
use crate::snapshots;

/// What a volume is where a claim says nothing.
const USUAL_SIZE: Bytes = Bytes::gib(1);
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
        Access::read_all(&request.volume_capabilities)?;
        let mut class = Class::read(&request.parameters.into_iter().collect()).map_err(invalid)?;
        let mutable = Mutable::read(&request.mutable_parameters.into_iter().collect()).map_err(invalid)?;
        let _working = self.in_flight.begin(&format!("volume {}", request.name))?;
        let source = request
            .volume_content_source
            .and_then(|source| source.r#type)
            .map(|source| match source {
                Source::Snapshot(from) => {
                    let handle: SnapshotHandle = appliances::handle("snapshot", &from.snapshot_id)?;
                    Ok((handle.appliance, VolumeSource::Snapshot(handle.object)))
                }
                Source::Volume(from) => {
                    let handle: VolumeHandle = appliances::handle("volume", &from.volume_id)?;
                    Ok::<_, Status>((handle.appliance, VolumeSource::Volume(handle.object)))
                }
            });
        let source = source.transpose()?;
        let mut candidates = self.candidates(&class, request.accessibility_requirements.as_ref())?;
        let mut usual = USUAL_SIZE;
        if let Some((from, source)) = &source {
            candidates.retain(|appliance| appliance.id == *from);
            let [appliance] = candidates.as_slice() else {
                return Err(invalid(format!(
                    "what it is to be made of lies on appliance {from}, which is not this class's; use a class of that appliance"
                )));
            };
            let (size, pool) = match source {
                VolumeSource::Snapshot(id) => {
                    let there = answered(Asked::Make, appliance, appliance.client.snapshot(*id, false).await)?;
                    (there.size, there.pool_name)
                }
                VolumeSource::Volume(id) => {
                    let there = answered(Asked::Make, appliance, appliance.client.volume(*id).await)?;
                    (there.size, there.pool_name)
                }
            };
            if let Some(named) = class.pool.as_ref().filter(|named| **named != pool) {
                return Err(invalid(format!(
                    "parameter pool: what it is to be made of lies in pool {pool}, and {named} is named; a copy lies where its source does"
                )));
            }
            class.pool = Some(pool);
            usual = size;
        }
        let (size, limit) = size(request.capacity_range.as_ref(), usual)?;
        if let Some(before) = self.made_before(&candidates, &class, &request.name).await? {
            candidates = vec![before];
        }
        let options = class.options.clone().and_then(mutable.options.clone());
        let (mut full, mut lacking) = (None, None);
        for appliance in &candidates {
            let pool = match self.pool(appliance, &class).await {
                // Another may have that pool.
                Err(status) if candidates.len() > 1 && status.code() == Code::InvalidArgument => {
                    lacking = Some(status);
                    continue;
                }
                found => found?,
            };
            let wanted = VolumeRequest {
                name: request.name.parse().map_err(invalid)?,
                pool: pool.name.clone(),
                size,
                limit,
                clients: Vec::new(),
                options: options.clone(),
                source: source.as_ref().map(|(_, source)| *source),
                labels: class.labels.clone(),
            };
            match answered(Asked::Make, appliance, appliance.client.create_volume(&wanted).await) {
                Ok(made) => {
                    let mut volume = made.object;
                    if let Some(schedule) = mutable
                        .schedule
                        .or(class.schedule)
                        .filter(|wanted| *wanted != volume.schedule)
                    {
                        let change = VolumeChange {
                            schedule: Some(schedule),
                            ..VolumeChange::default()
                        };
                        volume = answered(
                            Asked::Make,
                            appliance,
                            appliance.client.change_volume(volume.id, &change).await,
                        )?;
                    }
                    return Ok(Response::new(csi::CreateVolumeResponse {
                        volume: Some(self.model(appliance, &volume)),
                    }));
                }
                // Another may have room.
                Err(status) if status.code() == Code::ResourceExhausted => full = Some(status),
                Err(status) => return Err(status),
            }
        }
        let none = || Status::resource_exhausted("no appliance has room");
        Err(full.or(lacking).unwrap_or_else(none))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        if id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        // What was never ours is gone: an error would be asked again for ever.
        if let Ok(handle) = id.parse::<VolumeHandle>() {
            let _working = self.in_flight.begin(&format!("volume {id}"))?;
            let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
            let deleted = appliance.client.delete_volume(handle.object).await;
            appliances::gone(answered(Asked::Other, &appliance, deleted))?;
        }
        Ok(Response::new(csi::DeleteVolumeResponse {}))
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
            .map_err(|_| Status::not_found(format!("there is no node {:?}", request.node_id)))?;
        let _working = self
            .in_flight
            .begin(&format!("volume {} on node {node}", request.volume_id))?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
        let addresses: Vec<IpAddr> = self.nodes.of(&node).await?;
        let wanted = access.for_node(addresses, request.readonly);
        let published = appliance.client.publish_to_node(handle.object, &node, &wanted).await;
        let volume = answered(Asked::Other, &appliance, published)?;
        let context = [
            (SERVER.to_owned(), appliance.nfs.clone()),
            (PATH.to_owned(), volume.export.path),
        ];
        Ok(Response::new(csi::ControllerPublishVolumeResponse {
            publish_context: context.into_iter().collect(),
        }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        if let Ok(handle) = request.volume_id.parse::<VolumeHandle>() {
            let _working = self
                .in_flight
                .begin(&format!("volume {} on node {}", request.volume_id, request.node_id))?;
            let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
            let nodes = match request.node_id.parse::<NodeName>() {
                Ok(node) => vec![node],
                // From all, if none is named.
                Err(_) if request.node_id.is_empty() => {
                    let there = answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await);
                    match there {
                        Ok(volume) => volume.nodes.into_iter().map(|node| node.name).collect(),
                        Err(status) if status.code() == Code::NotFound => Vec::new(),
                        Err(status) => return Err(status),
                    }
                }
                Err(_) => Vec::new(),
            };
            for node in nodes {
                let gone = appliance.client.unpublish_from_node(handle.object, &node).await;
                appliances::gone(answered(Asked::Other, &appliance, gone.map(drop)))?;
            }
        }
        Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        if request.volume_capabilities.is_empty() {
            return Err(invalid("volume capabilities are missing"));
        }
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
        answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await)?;
        let (confirmed, message) = match Access::read_all(&request.volume_capabilities) {
            Ok(_) => (
                Some(csi::validate_volume_capabilities_response::Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                String::new(),
            ),
            Err(why) => (None, why.message().to_owned()),
        };
        Ok(Response::new(csi::ValidateVolumeCapabilitiesResponse {
            confirmed,
            message,
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let appliances = appliances::all(&self.registry)?;
        // Without an answer nobody has moved.
        let nodes = self.nodes.all().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "whether nodes have moved is not known");
            BTreeMap::new()
        });
        let mut page = lists::Page::begin(request.max_entries, &request.starting_token, &appliances)?;
        while let Some((appliance, limit, from)) = page.next_part() {
            let got = appliance
                .client
                .volumes(&VolumeQuery::default(), limit, from.as_deref())
                .await;
            let got = lists::answered(appliance, from.as_deref(), got)?;
            let entries = got.items.iter().map(|volume| csi::list_volumes_response::Entry {
                volume: Some(self.model(appliance, volume)),
                status: Some(csi::list_volumes_response::VolumeStatus {
                    published_node_ids: volume
                        .nodes
                        .iter()
                        .filter(|node| !moved(&nodes, &node.name, &node.addresses))
                        .map(|node| node.name.to_string())
                        .collect(),
                    volume_condition: Some(condition(volume)),
                }),
            });
            page.add(entries, got.next);
        }
        let (entries, next_token) = page.end();
        Ok(Response::new(csi::ListVolumesResponse { entries, next_token }))
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
        snapshots::create(self, request.into_inner()).await.map(Response::new)
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Result<Response<csi::DeleteSnapshotResponse>, Status> {
        snapshots::delete(self, &request.into_inner().snapshot_id).await?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Result<Response<csi::ListSnapshotsResponse>, Status> {
        snapshots::list(self, request.into_inner()).await.map(Response::new)
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Result<Response<csi::GetSnapshotResponse>, Status> {
        let snapshot = snapshots::show(self, &request.into_inner().snapshot_id).await?;
        Ok(Response::new(csi::GetSnapshotResponse {
            snapshot: Some(snapshot),
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Result<Response<csi::ControllerGetVolumeResponse>, Status> {
        let handle: VolumeHandle = appliances::handle("volume", &request.into_inner().volume_id)?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
        let volume = answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await)?;
        Ok(Response::new(csi::ControllerGetVolumeResponse {
            status: Some(csi::controller_get_volume_response::VolumeStatus {
                published_node_ids: volume.nodes.iter().map(|node| node.name.to_string()).collect(),
                volume_condition: Some(condition(&volume)),
            }),
            volume: Some(self.model(&appliance, &volume)),
        }))
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
        let (wanted, limit) = size(request.capacity_range.as_ref(), USUAL_SIZE)?;
        let _working = self.in_flight.begin(&format!("volume {}", request.volume_id))?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
        let mut volume = answered(Asked::Grow, &appliance, appliance.client.volume(handle.object).await)?;
        if let Some(limit) = limit.filter(|limit| volume.size > *limit) {
            return Err(Status::out_of_range(format!(
                "volume {} has {:#}, more than the {limit:#} that it may at most have; volumes do not shrink",
                volume.name, volume.size
            )));
        }
        if volume.size < wanted {
            let change = VolumeChange {
                size: Some(wanted),
                ..VolumeChange::default()
            };
            volume = answered(
                Asked::Grow,
                &appliance,
                appliance.client.change_volume(handle.object, &change).await,
            )?;
        }
        Ok(Response::new(csi::ControllerExpandVolumeResponse {
            capacity_bytes: signed(volume.size),
            node_expansion_required: false,
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Result<Response<csi::ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let mutable = Mutable::read(&request.mutable_parameters.into_iter().collect()).map_err(invalid)?;
        let _working = self.in_flight.begin(&format!("volume {}", request.volume_id))?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance)?;
        let set = appliance.client.set_options(handle.object, &mutable.options).await;
        answered(Asked::Other, &appliance, set)?;
        if mutable.schedule.is_some() {
            let change = VolumeChange {
                schedule: mutable.schedule,
                ..VolumeChange::default()
            };
            answered(
                Asked::Other,
                &appliance,
                appliance.client.change_volume(handle.object, &change).await,
            )?;
        }
        Ok(Response::new(csi::ControllerModifyVolumeResponse {}))
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let none = csi::GetCapacityResponse {
            minimum_volume_size: Some(signed(MINIMUM_VOLUME)),
            ..csi::GetCapacityResponse::default()
        };
        if !request.volume_capabilities.is_empty() && Access::read_all(&request.volume_capabilities).is_err() {
            return Ok(Response::new(none));
        }
        let class = Class::read(&request.parameters.into_iter().collect()).map_err(invalid)?;
        let segments: Option<BTreeMap<String, String>> = request
            .accessible_topology
            .map(|topology| topology.segments.into_iter().collect());
        let (mut sum, mut largest) = (Bytes::ZERO, Bytes::ZERO);
        for appliance in appliances::of_class(&self.registry, class.endpoint.as_deref())? {
            let near = segments
                .as_ref()
                .is_none_or(|segments| appliances::is_in(&appliance, segments));
            if !near {
                continue;
            }
            let pools = answered(Asked::Other, &appliance, appliance.client.pools().await)?;
            let meant = |pool: &&Pool| class.pool.as_ref().is_none_or(|name| *name == pool.name);
            for pool in pools.iter().filter(meant).filter(|pool| serves(pool.state)) {
                sum = sum.saturating_add(pool.available);
                largest = largest.max(pool.available);
            }
        }
        Ok(Response::new(csi::GetCapacityResponse {
            available_capacity: signed(sum),
            maximum_volume_size: Some(signed(largest)),
            ..none
        }))
    }
}

fn serves(state: PoolState) -> bool {
    matches!(state, PoolState::Ready | PoolState::Degraded)
}
