//! Volumes for a cluster: made, deleted, grown, changed and listed.

use std::collections::BTreeMap;

use cistern_client::VolumeQuery;
use cistern_model::{Bytes, VolumeChange, VolumeRequest, VolumeSource};
use tonic::{Code, Status};

use crate::access::Access;
use crate::appliances::{self, answered};
use crate::controller::Controller;
use crate::csi;
use crate::csi::volume_content_source::Type as Source;
use crate::handle::{SnapshotHandle, VolumeHandle};
use crate::lists;
use crate::models::{condition, signed};
use crate::nodes::moved;
use crate::parameters::{Class, Mutable};
use crate::placement::size;
use crate::refusal::{Asked, invalid};
use crate::secrets::Secrets;

/// What a volume is where a claim says nothing.
const USUAL_SIZE: Bytes = Bytes::gib(1);

impl Controller {
    /// Makes a volume as its class says, or finds the one that was made before.
    pub(crate) async fn make(
        &self,
        request: csi::CreateVolumeRequest,
        mut class: Class,
        mutable: Mutable,
        secrets: Secrets,
    ) -> Result<csi::CreateVolumeResponse, Status> {
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
        let mut candidates = self.candidates(&class, request.accessibility_requirements.as_ref(), &secrets)?;
        let mut usual = USUAL_SIZE;
        if let Some((from, source)) = &source {
            candidates.retain(|appliance| appliance.id == *from);
            let [appliance] = candidates.as_slice() else {
                return Err(self.why_not_there(&class, from, &secrets));
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
        let below_source = source.is_some() && size < usual;
        if let Some(before) = self.made_before(&candidates, &class, &request.name).await? {
            candidates = vec![before];
        }
        let options = class.options.clone().and_then(mutable.options.clone());
        let schedule = mutable.schedule.or(class.schedule);
        let (mut full, mut lacking) = (None, None);
        for appliance in &candidates {
            // Another may have that pool. Nothing was made here, and what was made before has been looked for.
            let another = |status: &Status| {
                candidates.len() > 1 && matches!(status.code(), Code::InvalidArgument | Code::Unavailable)
            };
            let pool = match self.pool_of(appliance, &class).await {
                Err(status) if another(&status) => {
                    lacking = Some(the_hopeful(lacking, status));
                    continue;
                }
                found => found?,
            };
            let wanted = VolumeRequest {
                name: request.name.parse().map_err(invalid)?,
                pool,
                size,
                limit,
                clients: Vec::new(),
                options: options.clone(),
                source: source.as_ref().map(|(_, source)| *source),
                labels: class.labels.clone(),
                // In this same request: a volume whose schedule was refused by itself would stay when its claim goes.
                // `none` is what a new one has; an older appliance takes a class that says so.
                schedule: schedule.filter(|schedule| !schedule.is_none()),
            };
            match answered(Asked::Make, appliance, appliance.client.create_volume(&wanted).await) {
                Ok(made) => {
                    let mut volume = made.object;
                    // Only where it was there already, made otherwise.
                    if let Some(schedule) = schedule.filter(|wanted| *wanted != volume.schedule) {
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
                    return Ok(csi::CreateVolumeResponse {
                        volume: Some(self.model(appliance, &volume)),
                    });
                }
                // Another may have room.
                Err(status) if status.code() == Code::ResourceExhausted => full = Some(status),
                Err(status) if status.code() == Code::NotFound => {
                    let status = self.why_not_found(appliance, &class, status).await;
                    if !another(&status) {
                        return Err(status);
                    }
                    lacking = Some(the_hopeful(lacking, status));
                }
                // It refuses that in its own words. What was made before it gives, also where the source has grown since.
                Err(status) if below_source && status.code() == Code::InvalidArgument => {
                    return Err(Status::out_of_range(status.message()));
                }
                Err(status) => return Err(status),
            }
        }
        let none = || Status::resource_exhausted("no appliance has room");
        Err(full.or(lacking).unwrap_or_else(none))
    }

    /// Deletes a volume. What is not there is deleted.
    pub(crate) async fn unmake(
        &self,
        handle: &VolumeHandle,
        secrets: &Secrets,
    ) -> Result<csi::DeleteVolumeResponse, Status> {
        let appliance = appliances::of_id(&self.registry, &handle.appliance, secrets)?.for_deleting();
        let deleted = appliance.client.delete_volume(handle.object).await;
        appliances::gone(answered(Asked::Other, &appliance, deleted))?;
        Ok(csi::DeleteVolumeResponse {})
    }

    /// Grows a volume to at least this size.
    pub(crate) async fn grow(
        &self,
        handle: &VolumeHandle,
        range: Option<&csi::CapacityRange>,
        secrets: &Secrets,
    ) -> Result<csi::ControllerExpandVolumeResponse, Status> {
        let appliance = appliances::of_id(&self.registry, &handle.appliance, secrets)?.for_making();
        let volume = answered(Asked::Grow, &appliance, appliance.client.volume(handle.object).await)?;
        // Where nothing is said but how large it may be, it stays as it is.
        let (wanted, limit) = size(range, volume.size)?;
        if let Some(limit) = limit.filter(|limit| volume.size > *limit) {
            return Err(Status::out_of_range(format!(
                "volume {} has {:#}, more than the {limit:#} that it may at most have; volumes do not shrink",
                volume.name, volume.size
            )));
        }
        // Also for the size that it has: a growth that failed on its way has noted that, and the appliance ends it when it is asked again.
        let change = VolumeChange {
            size: Some(wanted.max(volume.size)),
            ..VolumeChange::default()
        };
        let volume = answered(
            Asked::Grow,
            &appliance,
            appliance.client.change_volume(handle.object, &change).await,
        )?;
        Ok(csi::ControllerExpandVolumeResponse {
            capacity_bytes: signed(volume.size),
            node_expansion_required: false,
        })
    }

    /// Changes of a volume what can change while it is used.
    pub(crate) async fn modify(
        &self,
        handle: &VolumeHandle,
        mutable: Mutable,
        secrets: &Secrets,
    ) -> Result<csi::ControllerModifyVolumeResponse, Status> {
        let appliance = appliances::of_id(&self.registry, &handle.appliance, secrets)?;
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
        Ok(csi::ControllerModifyVolumeResponse {})
    }

    /// The volumes of all appliances. Whole or not at all: csi-attacher takes a volume that is not in the list for one that no node has.
    pub(crate) async fn list(&self, request: csi::ListVolumesRequest) -> Result<csi::ListVolumesResponse, Status> {
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
        Ok(csi::ListVolumesResponse { entries, next_token })
    }

    /// A volume, its nodes and how it is.
    pub(crate) async fn look_up(&self, id: &str) -> Result<csi::ControllerGetVolumeResponse, Status> {
        let handle: VolumeHandle = appliances::handle("volume", id)?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance, &Secrets::default())?;
        let volume = answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await)?;
        Ok(csi::ControllerGetVolumeResponse {
            status: Some(csi::controller_get_volume_response::VolumeStatus {
                published_node_ids: volume.nodes.iter().map(|node| node.name.to_string()).collect(),
                volume_condition: Some(condition(&volume)),
            }),
            volume: Some(self.model(&appliance, &volume)),
        })
    }

    /// Whether a volume can be had in these ways, and with these parameters.
    pub(crate) async fn validate(
        &self,
        request: csi::ValidateVolumeCapabilitiesRequest,
    ) -> Result<csi::ValidateVolumeCapabilitiesResponse, Status> {
        if request.volume_capabilities.is_empty() {
            return Err(invalid("volume capabilities are missing"));
        }
        let secrets = Secrets::read(&request.secrets)?;
        let handle: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let appliance = appliances::of_id(&self.registry, &handle.appliance, &secrets)?;
        answered(Asked::Other, &appliance, appliance.client.volume(handle.object).await)?;
        let judged = Access::read_all(&request.volume_capabilities)
            .and_then(|_| Class::read(&request.parameters.clone().into_iter().collect()).map_err(invalid))
            .and_then(|_| Mutable::read(&request.mutable_parameters.clone().into_iter().collect()).map_err(invalid));
        let (confirmed, message) = match judged {
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
        Ok(csi::ValidateVolumeCapabilitiesResponse { confirmed, message })
    }
}

/// Which of two appliances' reasons not to have a pool is told: one that may end by itself is no end.
fn the_hopeful(told: Option<Status>, now: Status) -> Status {
    told.filter(|told| told.code() == Code::Unavailable).unwrap_or(now)
}
