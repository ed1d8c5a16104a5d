//! The node: what a kubelet asks for. Invariant: each call comes back in time also if an appliance does not; nothing of a
//! volume's files is touched but by its pod.
//!
//! One call at a time for one volume, whatever paths it names: two pods that want it alone must not pass each other, what is shown must not
//! come after what takes it away, and which mount is the volume's last one, with which all is written out, must not change meanwhile.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_model::NodeName;
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::appliances::{self, ZONE};
use crate::controller::{PATH, SERVER};
use crate::csi;
use crate::csi::node_service_capability::rpc::Type as Capability;
use crate::csi::volume_capability::access_mode::Mode;
use crate::handle::{VolumeHandle, shown};
use crate::inflight::InFlight;
use crate::looks::Looks;
use crate::mount::{Amount, Failure, Mounted, Mounts, Room};
use crate::refusal::invalid;
use crate::zone::Zone;

/// Below its staging path a volume is mounted in a folder of this name. A kubelet looks at the path itself before it asks for the volume to
/// be taken away (`stat`), and would hang in the kernel if that were the mount of an appliance that is gone.
const STAGED: &str = "volume";
/// In which folder of a pod the kubelet shows parts of volumes.
const SUBPATHS: &str = "volume-subpaths";
/// How long a look into a filesystem may take before its server is taken for gone.
const LOOK: Duration = Duration::from_secs(5);
/// After how long a kubelet, which waits for 2 minutes, is told that something goes on.
const ANSWER: Duration = Duration::from_secs(100);

/// What the kernel takes of a path (PATH_MAX).
const LONGEST_PATH: usize = 4096;

const CAPABILITIES: &[Capability] = &[
    Capability::StageUnstageVolume,
    Capability::GetVolumeStats,
    Capability::VolumeCondition,
    Capability::SingleNodeMultiWriter,
];

/// The node service.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the cluster.
    pub name: NodeName,
    /// From where its zone is known.
    pub zone: Zone,
    pub(crate) in_flight: InFlight,
    looks: Looks,
    mounts: Mounts,
}

impl Node {
    /// A node of this name, that gives an appliance up which has been silent for so long; none: never.
    pub fn new(name: NodeName, zone: Zone, patience: Option<Duration>) -> Self {
        let mut mounts = Mounts::default();
        mounts.limits.patience = patience;
        Node {
            name,
            zone,
            in_flight: InFlight::default(),
            looks: Looks::default(),
            mounts,
        }
    }
}

/// What could not be mounted or taken away, and what that means to a kubelet.
fn unmounted(what: &str, target: &Path, failure: &Failure) -> Status {
    let text = format!("{what} {}: {failure}", target.display());
    match failure {
        Failure::Refused(error) => failed(what, target, error),
        Failure::Silent(_) | Failure::Waits(_) => Status::unavailable(text),
        Failure::Hangs { .. } => Status::unavailable(format!(
            "{text}; the appliance takes connections and does not serve the volume: see `cistern volumes list` and `cistern alerts list`"
        )),
        Failure::Busy => {
            Status::failed_precondition(format!("{text}; end it: `fuser -vm {}` names it", target.display()))
        }
    }
}

fn failed(what: &str, target: &Path, error: &io::Error) -> Status {
    let text = format!("{what} {}: {error}", target.display());
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => Status::permission_denied(format!(
            "{text}; the appliance does not let this node in from the address that it comes from: see `cistern nodes list VOLUME`, \
             and the annotation {} of the Node",
            crate::nodes::ANNOTATION
        )),
        Some(nix::errno::Errno::ENOENT) => Status::not_found(text),
        Some(nix::errno::Errno::ETIMEDOUT | nix::errno::Errno::ECONNREFUSED | nix::errno::Errno::EHOSTUNREACH) => {
            Status::unavailable(text)
        }
        _ => Status::internal(text),
    }
}

/// A path that kubelet gives: absolute, and none of it leads upwards.
fn path(what: &str, text: &str) -> Result<PathBuf, Status> {
    let path = PathBuf::from(text);
    match text.is_empty() {
        true => Err(invalid(format!("{what} is missing"))),
        false if !path.is_absolute() || path.components().any(|c| matches!(c, std::path::Component::ParentDir)) => {
            Err(invalid(format!("{what} is {}; give an absolute path", shown(text))))
        }
        false if text.len() >= LONGEST_PATH || text.contains('\0') => {
            Err(invalid(format!("{what} is {}, which no path is", shown(text))))
        }
        false => Ok(path),
    }
}

/// Whether it can be what an appliance exports: it stands in the kernel's list of mounts afterwards.
fn is_export(path: &str) -> bool {
    path.strip_prefix("/volumes/")
        .is_some_and(|name| is_plain(name) && !name.contains('/') && !name.starts_with('.'))
}

/// A name or an address, or what else fits into one line.
fn is_plain(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// From where a volume is mounted: as it was published, or as a PV written by hand says.
fn whence(publish: &HashMap<String, String>, context: &HashMap<String, String>) -> Result<(String, String), Status> {
    let of = |key: &str, by_hand: &str| {
        let found = publish
            .get(key)
            .or_else(|| context.get(key))
            .or_else(|| context.get(by_hand));
        found.filter(|text| !text.is_empty()).cloned()
    };
    match (of(SERVER, "server"), of(PATH, "path")) {
        (Some(server), Some(path)) if is_export(&path) && is_plain(&server) => Ok((server, path)),
        (Some(server), Some(path)) if is_export(&path) => Err(invalid(format!(
            "server is {}, which is neither a name nor an address ({path})",
            shown(&server)
        ))),
        (Some(_), Some(path)) => Err(invalid(format!("path is {}; volumes are below /volumes", shown(&path)))),
        (server, _) => Err(invalid(format!(
            "where the volume is served is not told ({}); is csi-attacher running, and attachRequired true?",
            if server.is_none() { SERVER } else { PATH }
        ))),
    }
}

/// What is worked on where a volume is. A kubelet knows a volume by its id; of one that is no id of any volume no more is kept than one reads.
fn work_on(volume_id: &str) -> String {
    format!("volume {}", shown(volume_id))
}

/// A folder of the node's own, on none of its volumes.
async fn make(target: &Path) -> Result<(), Status> {
    let made = tokio::fs::create_dir_all(target).await;
    made.map_err(|error| failed("make", target, &error))
}

/// Where below a staging path the volume is mounted, or is to be; the path itself, where an earlier plugin mounted it there.
fn staged_in(mounted: &[Mounted], staging: &Path) -> PathBuf {
    match mounted.iter().any(|mounted| mounted.target == staging) {
        true => staging.to_owned(),
        false => staging.join(STAGED),
    }
}

/// Mounts a volume where it is to be staged. What is there is looked for first: a look at the path would wait for its server.
async fn stage(mounts: &Mounts, server: &str, path: &str, staging: &Path, options: &[String]) -> Result<(), Status> {
    let mounted = mounts.all().map_err(|error| failed("look for", staging, &error))?;
    let target = &staged_in(&mounted, staging);
    match mounted.into_iter().rfind(|mounted| mounted.target == *target) {
        Some(there) if there.is_nfs() && there.source.ends_with(&format!(":{path}")) => {
            if !mounts.is_given_up(&there) {
                return Ok(());
            }
            // Nothing can be read there any more, whether its server is back or not.
            let gone = mounts.unmount(target).await;
            gone.map_err(|failure| unmounted("unmount", target, &failure))?;
        }
        Some(there) => {
            return Err(Status::internal(format!(
                "{} is mounted at {}",
                there.source,
                target.display()
            )));
        }
        None => make(target).await?,
    }
    let mounted = mounts.nfs(server, path, target, options).await;
    mounted.map_err(|failure| unmounted("mount", target, &failure))
}

/// Shows what is staged at a target; `alone`: only if it is shown nowhere else on this node.
async fn show(mounts: &Mounts, staging: &Path, target: &Path, read_only: bool, alone: bool) -> Result<(), Status> {
    let mounted = mounts.all().map_err(|error| failed("look for", target, &error))?;
    let looked = |path: &Path| mounted.iter().rfind(|mounted| mounted.target == path);
    let Some(staged) = looked(&staged_in(&mounted, staging)) else {
        return Err(Status::failed_precondition(format!(
            "nothing is staged at {}",
            staging.display()
        )));
    };
    if mounts.is_given_up(staged) {
        return Err(Status::failed_precondition(format!(
            "what is staged at {} was given up when the appliance did not answer; it is to be staged anew: delete the pod",
            staging.display()
        )));
    }
    // Where the class says `ro`, all that is shown may only be read.
    let read_only = read_only || staged.read_only;
    // Each volume is a filesystem of its own, and so has a device number of its own. What the kubelet shows of it to the
    // containers of one pod (subPath) is no other place.
    let elsewhere = mounted.iter().find(|other| {
        other.device == staged.device
            && other.target != staged.target
            && other.target != target
            && !other.target.components().any(|part| part.as_os_str() == SUBPATHS)
    });
    if let Some(other) = elsewhere.filter(|_| alone) {
        return Err(Status::failed_precondition(format!(
            "the volume is for one pod at a time (ReadWriteOncePod), and shown at {}",
            other.target.display()
        )));
    }
    match looked(target) {
        Some(Mounted {
            device, read_only: is, ..
        }) if *device == staged.device && *is == read_only => Ok(()),
        Some(there) if there.device == staged.device => Err(Status::already_exists(format!(
            "{} is there, and {}",
            target.display(),
            if there.read_only {
                "may only be read"
            } else {
                "may be written"
            }
        ))),
        Some(there) => Err(Status::internal(format!(
            "{} is mounted at {}",
            there.source,
            target.display()
        ))),
        None => {
            make(target).await?;
            let shown = mounts.bind(&staged.target, staged.flags, target, read_only).await;
            shown.map_err(|failure| unmounted("show", target, &failure))
        }
    }
}

/// Takes away what is staged. Nothing is looked at below the path before nothing is mounted there.
async fn unstage(mounts: &Mounts, staging: &Path) -> Result<(), Status> {
    let gone = mounts.unmount(staging).await;
    gone.map_err(|failure| unmounted("unmount", staging, &failure))?;
    take_away(mounts, &staging.join(STAGED)).await?;
    take_away(mounts, staging).await
}

async fn take_away(mounts: &Mounts, target: &Path) -> Result<(), Status> {
    let gone = mounts.unmount(target).await;
    gone.map_err(|failure| unmounted("unmount", target, &failure))?;
    match tokio::fs::remove_dir(target).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", target, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How a volume is that cannot be looked into.
fn unwell(why: &str) -> csi::NodeGetVolumeStatsResponse {
    csi::NodeGetVolumeStatsResponse {
        volume_condition: Some(csi::VolumeCondition {
            abnormal: true,
            message: why.to_owned(),
        }),
        ..csi::NodeGetVolumeStatsResponse::default()
    }
}

/// How full a volume is.
fn stats(room: &Room) -> csi::NodeGetVolumeStatsResponse {
    use csi::volume_usage::Unit;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let usage = |unit: Unit, of: Amount, each: u64| csi::VolumeUsage {
        unit: unit.into(),
        total: number(of.all.saturating_mul(each)),
        used: number(of.all.saturating_sub(of.free).saturating_mul(each)),
        available: number(of.available.saturating_mul(each)),
    };
    csi::NodeGetVolumeStatsResponse {
        usage: vec![
            usage(Unit::Bytes, room.blocks, room.block),
            usage(Unit::Inodes, room.inodes, 1),
        ],
        volume_condition: Some(csi::VolumeCondition {
            abnormal: false,
            message: "it answers".to_owned(),
        }),
    }
}

#[tonic::async_trait]
impl csi::node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let staging = path("the staging path", &request.staging_target_path)?;
        let access = Access::read(request.volume_capability.as_ref())?;
        let (server, export) = whence(&request.publish_context, &request.volume_context)?;
        let mounts = self.mounts.clone();
        let work = async move {
            stage(&mounts, &server, &export, &staging, &access.mount_options).await?;
            Ok(csi::NodeStageVolumeResponse {})
        };
        let on = work_on(&request.volume_id);
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let staging = path("the staging path", &request.staging_target_path)?;
        let mounts = self.mounts.clone();
        let work = async move {
            unstage(&mounts, &staging).await?;
            Ok(csi::NodeUnstageVolumeResponse {})
        };
        let on = work_on(&request.volume_id);
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let target = path("the target path", &request.target_path)?;
        let staging = path("the staging path", &request.staging_target_path)?;
        let access = Access::read(request.volume_capability.as_ref())?;
        let mounts = self.mounts.clone();
        let work = async move {
            let alone = access.mode == Mode::SingleNodeSingleWriter;
            show(&mounts, &staging, &target, request.readonly, alone).await?;
            Ok(csi::NodePublishVolumeResponse {})
        };
        let on = work_on(&request.volume_id);
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let target = path("the target path", &request.target_path)?;
        let mounts = self.mounts.clone();
        let work = async move {
            take_away(&mounts, &target).await?;
            Ok(csi::NodeUnpublishVolumeResponse {})
        };
        let on = work_on(&request.volume_id);
        self.in_flight.to_its_end(&on, ANSWER, request, work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        if request.volume_path.is_empty() {
            return Err(invalid("the volume's path is missing"));
        }
        // CSI asks for NOT_FOUND where nothing is mounted, also at what no kubelet would name.
        let target = PathBuf::from(&request.volume_path);
        let _: VolumeHandle = appliances::handle("volume", &request.volume_id)?;
        let there = self
            .mounts
            .at(&target)
            .map_err(|error| failed("look for", &target, &error))?;
        let there = there.ok_or_else(|| Status::not_found(format!("nothing is mounted at {}", target.display())))?;
        let answer = match self.looks.at(&self.mounts, &there, LOOK).await {
            None => unwell("the appliance does not answer; what is written waits until it does"),
            Some(Err(error)) => unwell(&format!("it cannot be looked into: {error}")),
            Some(Ok(room)) => stats(&room),
        };
        Ok(Response::new(answer))
    }

    async fn node_expand_volume(
        &self,
        _: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented(
            "a node sees what its volume grew by without being asked",
        ))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        use csi::node_service_capability::{Rpc, Type};
        let capabilities = CAPABILITIES.iter().map(|capability| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: (*capability).into(),
            })),
        });
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities: capabilities.collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let segments = self
            .zone
            .of(&self.name)
            .await?
            .map(|zone| (ZONE.to_owned(), zone))
            .into_iter()
            .collect::<HashMap<_, _>>();
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.name.to_string(),
            max_volumes_per_node: 0,
            accessible_topology: (!segments.is_empty()).then_some(csi::Topology { segments }),
        }))
    }
}

#[cfg(test)]
mod tests;
