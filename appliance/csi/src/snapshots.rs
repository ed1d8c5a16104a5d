//! Snapshots, single ones and groups.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::SystemTime;

use cistern_client::SnapshotQuery;
use cistern_model::{
    GroupSnapshotRequest, Invalid, Snapshot, SnapshotId, SnapshotName, SnapshotRequest, SnapshotState, VolumeId,
};
use tonic::{Code, Request, Response, Status};

use crate::appliances::{self, answered};
use crate::controller::{ANSWER, Controller};
use crate::csi;
use crate::handle::{ApplianceId, Handle, SnapshotHandle, VolumeHandle, shown};
use crate::inflight::in_time;
use crate::lists::Page;
use crate::models::signed;
use crate::parameters::SIDECARS;
use crate::refusal::{Asked, invalid};
use crate::registry::Appliance;
use crate::secrets::Secrets;

/// Snapshots that were made together: `group-` and the 32 digits of their UUID. Kept in the form of a snapshot's id, which none has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GroupId(SnapshotId);

/// A group, as a cluster knows it.
type GroupHandle = Handle<GroupId>;

impl GroupId {
    fn has(self, snapshot: &Snapshot) -> bool {
        snapshot.group == Some(self.0.uuid())
    }
}

impl FromStr for GroupId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = || Invalid::new("group", text, "give group- and 32 lower-case hexadecimal digits");
        let digits = text.strip_prefix("group-").ok_or_else(refuse)?;
        let id = format!("snap-{digits}").parse::<SnapshotId>();
        id.map(GroupId).map_err(|_| refuse())
    }
}

pub(crate) fn model(appliance: &ApplianceId, snapshot: &Snapshot) -> csi::Snapshot {
    let created: SystemTime = snapshot.created.into();
    csi::Snapshot {
        size_bytes: signed(snapshot.size),
        snapshot_id: SnapshotHandle {
            appliance: appliance.clone(),
            object: snapshot.id,
        }
        .to_string(),
        source_volume_id: VolumeHandle {
            appliance: appliance.clone(),
            object: snapshot.volume,
        }
        .to_string(),
        creation_time: Some(created.into()),
        ready_to_use: snapshot.state == SnapshotState::Ready,
        group_snapshot_id: snapshot
            .group
            .map(|group| format!("{appliance}:group-{}", group.simple()))
            .unwrap_or_default(),
    }
}

/// Refuses what a snapshot class says besides what is the sidecars': a parameter that does nothing would be taken for one that does.
fn no_parameters(parameters: &HashMap<String, String>) -> Result<(), Status> {
    match parameters.keys().filter(|key| !key.starts_with(SIDECARS)).min() {
        Some(key) => Err(invalid(format!(
            "parameter {}: a class of snapshots has no parameters",
            shown(key)
        ))),
        None => Ok(()),
    }
}

pub(crate) async fn create(
    controller: &Controller,
    request: csi::CreateSnapshotRequest,
) -> Result<Response<csi::CreateSnapshotResponse>, Status> {
    if request.name.is_empty() {
        return Err(invalid("the snapshot's name is missing"));
    }
    no_parameters(&request.parameters)?;
    let handle: VolumeHandle = appliances::handle("volume", &request.source_volume_id)?;
    let name: SnapshotName = request.name.parse().map_err(invalid)?;
    let secrets = Secrets::read(&request.secrets)?;
    let (this, on) = (controller.clone(), format!("snapshot {}", request.name));
    let work = async move { make(&this, handle, name, &secrets).await };
    controller.in_flight.to_its_end(&on, ANSWER, request, work).await
}

async fn make(
    controller: &Controller,
    handle: VolumeHandle,
    name: SnapshotName,
    secrets: &Secrets,
) -> Result<csi::CreateSnapshotResponse, Status> {
    let appliance = appliances::of_id(&controller.registry, &handle.appliance, secrets)?.for_making();
    // A snapshot's name is unique among its volume's here, and in the whole driver for CSI.
    let query = SnapshotQuery {
        name: Some(name.to_string()),
        ..SnapshotQuery::default()
    };
    let same = answered(
        Asked::Snapshot,
        &appliance,
        appliance.client.all_snapshots(&query).await,
    )?;
    if let Some(other) = same
        .iter()
        .find(|there| there.volume != handle.object && there.group.is_none())
    {
        return Err(Status::already_exists(format!(
            "snapshot {name} is of volume {} already",
            other.volume_name
        )));
    }
    let wanted = SnapshotRequest { name };
    let made = appliance.client.create_snapshot(handle.object, &wanted).await;
    let made = answered(Asked::Snapshot, &appliance, made)?;
    Ok(csi::CreateSnapshotResponse {
        snapshot: Some(model(&appliance.id, &made.object)),
    })
}

pub(crate) async fn delete(controller: &Controller, id: String, secrets: Secrets) -> Result<(), Status> {
    if id.is_empty() {
        return Err(invalid("the snapshot's id is missing"));
    }
    let Ok(handle) = id.parse::<SnapshotHandle>() else {
        return Ok(());
    };
    let (this, asked) = (controller.clone(), secrets.clone());
    let work = async move {
        let appliance = appliances::of_id(&this.registry, &handle.appliance, &secrets)?.for_deleting();
        let deleted = appliance.client.delete_snapshot(handle.object).await;
        appliances::gone(answered(Asked::Other, &appliance, deleted))
    };
    let on = format!("snapshot {id}");
    controller
        .in_flight
        .to_its_end(&on, ANSWER, asked, work)
        .await
        .map(drop)
}

pub(crate) async fn show(controller: &Controller, id: &str, secrets: &Secrets) -> Result<csi::Snapshot, Status> {
    let handle: SnapshotHandle = appliances::handle("snapshot", id)?;
    let appliance = appliances::of_id(&controller.registry, &handle.appliance, secrets)?;
    let found = answered(
        Asked::Other,
        &appliance,
        appliance.client.snapshot(handle.object, false).await,
    )?;
    Ok(model(&appliance.id, &found))
}

pub(crate) async fn list(
    controller: &Controller,
    request: csi::ListSnapshotsRequest,
) -> Result<csi::ListSnapshotsResponse, Status> {
    let entry = |snapshot: csi::Snapshot| csi::list_snapshots_response::Entry {
        snapshot: Some(snapshot),
    };
    let secrets = Secrets::read(&request.secrets)?;
    if !request.snapshot_id.is_empty() {
        let found = match show(controller, &request.snapshot_id, &secrets).await {
            Err(status) if status.code() == Code::NotFound => None,
            other => Some(other?),
        };
        let of =
            |s: &csi::Snapshot| request.source_volume_id.is_empty() || s.source_volume_id == request.source_volume_id;
        return Ok(csi::ListSnapshotsResponse {
            entries: found.into_iter().filter(of).map(entry).collect(),
            next_token: String::new(),
        });
    }
    let (of, all): (Option<VolumeId>, Vec<Appliance>) = match request.source_volume_id.as_str() {
        "" => (None, appliances::of_class(&controller.registry, None, &secrets)?),
        text => match text.parse::<VolumeHandle>() {
            Ok(handle) => (
                Some(handle.object),
                vec![appliances::of_id(&controller.registry, &handle.appliance, &secrets)?],
            ),
            // A volume that is none of ours has no snapshots.
            Err(_) => return Ok(csi::ListSnapshotsResponse::default()),
        },
    };
    let mut page = Page::begin(request.max_entries, &request.starting_token, &all)?;
    while let Some((appliance, limit, from)) = page.next_part() {
        let query = SnapshotQuery {
            volume: of,
            ..SnapshotQuery::default()
        };
        let got = appliance.client.snapshots(&query, limit, from.as_deref()).await;
        let got = crate::lists::answered(appliance, from.as_deref(), got)?;
        page.add(got.items.iter().map(|s| entry(model(&appliance.id, s))), got.next);
    }
    let (entries, next_token) = page.end();
    Ok(csi::ListSnapshotsResponse { entries, next_token })
}

/// The group controller.
#[tonic::async_trait]
impl csi::group_controller_server::GroupController for Controller {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::GroupControllerGetCapabilitiesResponse>, Status> {
        use csi::group_controller_service_capability::{Rpc, Type, rpc};
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse {
            capabilities: vec![csi::GroupControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc {
                    r#type: rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into(),
                })),
            }],
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::CreateVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() || request.source_volume_ids.is_empty() {
            return Err(invalid("the group's name or its volumes are missing"));
        }
        no_parameters(&request.parameters)?;
        let handles = request
            .source_volume_ids
            .iter()
            .map(|id| appliances::handle("volume", id));
        let handles: Vec<VolumeHandle> = handles.collect::<Result<_, _>>()?;
        let first = handles[0].appliance.clone();
        if let Some(other) = handles.iter().find(|handle| handle.appliance != first) {
            return Err(invalid(format!(
                "a group's volumes lie on one appliance; {} is on {}, not on {first}",
                other.object, other.appliance
            )));
        }
        let secrets = Secrets::read(&request.secrets)?;
        let wanted = GroupSnapshotRequest {
            name: request.name.parse().map_err(invalid)?,
            volumes: handles.iter().map(|handle| handle.object).collect(),
        };
        let this = self.clone();
        let work = async move {
            let appliance = appliances::of_id(&this.registry, &first, &secrets)?.for_making();
            let made = appliance.client.create_group_snapshot(&wanted).await;
            let made = answered(Asked::Snapshot, &appliance, made)?;
            Ok(csi::CreateVolumeGroupSnapshotResponse {
                group_snapshot: Some(group_model(&appliance, &made.object)?),
            })
        };
        let on = format!("group {}", request.name);
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::DeleteVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        if request.group_snapshot_id.is_empty() {
            return Err(invalid("the group's id is missing"));
        }
        let Ok(group) = request.group_snapshot_id.parse::<GroupHandle>() else {
            return Ok(Response::new(csi::DeleteVolumeGroupSnapshotResponse {}));
        };
        let secrets = Secrets::read(&request.secrets)?;
        // What was never ours is gone, as a member that was deleted by itself is.
        let ours = |id: &&String| id.is_empty() || id.parse::<SnapshotHandle>().is_ok();
        let named = named(&group, request.snapshot_ids.iter().filter(ours))?;
        let (this, on) = (self.clone(), format!("group {}", request.group_snapshot_id));
        let work = async move {
            let appliance = appliances::of_id(&this.registry, &group.appliance, &secrets)?.for_deleting();
            let (members, _) = members(&appliance, group.object, &named).await?;
            for member in members {
                let deleted = appliance.client.delete_snapshot(member.id).await;
                appliances::gone(answered(Asked::Other, &appliance, deleted))?;
            }
            Ok(csi::DeleteVolumeGroupSnapshotResponse {})
        };
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::GetVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        if request.group_snapshot_id.is_empty() {
            return Err(invalid("the group's id is missing"));
        }
        let secrets = Secrets::read(&request.secrets)?;
        in_time(ANSWER, show_group(self, &request, &secrets)).await
    }
}

async fn show_group(
    controller: &Controller,
    request: &csi::GetVolumeGroupSnapshotRequest,
    secrets: &Secrets,
) -> Result<csi::GetVolumeGroupSnapshotResponse, Status> {
    let group: GroupHandle = appliances::handle("group", &request.group_snapshot_id)?;
    let named = named(&group, &request.snapshot_ids)?;
    let appliance = appliances::of_id(&controller.registry, &group.appliance, secrets)?;
    let (members, gone) = members(&appliance, group.object, &named).await?;
    let shown = shown(&request.group_snapshot_id);
    match gone {
        _ if members.is_empty() => Err(Status::not_found(format!("there is no group {shown}"))),
        Some(gone) => Err(Status::not_found(format!("of group {shown}, {gone} is gone"))),
        None => Ok(csi::GetVolumeGroupSnapshotResponse {
            group_snapshot: Some(group_model(&appliance, &members)?),
        }),
    }
}

/// What was named as a group's snapshots.
///
/// # Errors
/// `INVALID_ARGUMENT` for one that lies on another appliance than the group, `NOT_FOUND` for one that is none of this driver's.
fn named<'a>(group: &GroupHandle, ids: impl IntoIterator<Item = &'a String>) -> Result<Vec<SnapshotId>, Status> {
    let one = |id: &String| {
        let handle: SnapshotHandle = appliances::handle("snapshot", id)?;
        match handle.appliance == group.appliance {
            true => Ok(handle.object),
            false => Err(invalid(format!(
                "snapshot {} is none of the group's, which is on appliance {}",
                shown(id),
                group.appliance
            ))),
        }
    };
    ids.into_iter().map(one).collect()
}

/// All of a group's snapshots, whichever of them were named, and one of those that were and are gone.
///
/// # Errors
/// `INVALID_ARGUMENT` if one that was named is there, and none of the group's; `UNAVAILABLE` if there may be more in a pool that is away:
/// a list does not say so, and an appliance that does not find what it is asked for does.
async fn members(
    appliance: &Appliance,
    group: GroupId,
    named: &[SnapshotId],
) -> Result<(Vec<Snapshot>, Option<SnapshotId>), Status> {
    let all = appliance.client.all_snapshots(&SnapshotQuery::default()).await;
    let mut members = answered(Asked::Other, appliance, all)?;
    members.retain(|snapshot| group.has(snapshot));
    if named.is_empty() {
        // Nobody says how many there are to be; so it is asked for what it cannot find.
        let nothing = appliance.client.snapshot(group.0, false).await;
        appliances::gone(answered(Asked::Other, appliance, nothing).map(drop))?;
    }
    let mut gone = None;
    for id in named {
        if members.iter().any(|member| member.id == *id) {
            continue;
        }
        let found = appliance.client.snapshot(*id, false).await;
        match answered(Asked::Other, appliance, found) {
            Ok(found) if group.has(&found) => members.push(found),
            Ok(found) => {
                return Err(invalid(format!(
                    "snapshot {} ({id}) of volume {} is none of the group's",
                    found.name, found.volume_name
                )));
            }
            Err(status) if status.code() == Code::NotFound => gone = Some(*id),
            Err(status) => return Err(status),
        }
    }
    Ok((members, gone))
}

fn group_model(appliance: &Appliance, all: &[Snapshot]) -> Result<csi::VolumeGroupSnapshot, Status> {
    let models: Vec<csi::Snapshot> = all.iter().map(|snapshot| model(&appliance.id, snapshot)).collect();
    let first = models
        .first()
        .ok_or_else(|| Status::internal("the appliance made a group without snapshots"))?;
    Ok(csi::VolumeGroupSnapshot {
        group_snapshot_id: first.group_snapshot_id.clone(),
        creation_time: first.creation_time,
        ready_to_use: models.iter().all(|snapshot| snapshot.ready_to_use),
        snapshots: models,
    })
}
