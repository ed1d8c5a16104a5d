//! The node: what a kubelet asks for. Invariant: each call comes back in time also if an appliance does not; nothing of a
//! volume's files is touched but by its pod.

use std::collections::HashMap;
use std::fs;
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
use crate::handle::VolumeHandle;
use crate::inflight::InFlight;
use crate::looks::Looks;
use crate::mount::{self, Last, Mounted};
use crate::refusal::invalid;
use crate::zone::Zone;

/// In which folder of a pod the kubelet shows parts of volumes.
const SUBPATHS: &str = "volume-subpaths";
/// How long a look into a filesystem may take before its server is taken for gone.
const LOOK: Duration = Duration::from_secs(5);

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
}

impl Node {
    /// A node of this name.
    pub fn new(name: NodeName, zone: Zone) -> Self {
        Node {
            name,
            zone,
            in_flight: InFlight::default(),
            looks: Looks::default(),
        }
    }
}

fn failed(what: &str, target: &Path, error: &io::Error) -> Status {
    let text = format!("{what} {}: {error}", target.display());
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => Status::permission_denied(format!(
            "{text}; the appliance does not let this node in from the address that it comes from: see `cistern nodes list`, and the \
             annotation {} of the Node",
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
            Err(invalid(format!("{what} is {text:?}; give an absolute path")))
        }
        false => Ok(path),
    }
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
        (Some(server), Some(path)) if path.starts_with("/volumes/") => Ok((server, path)),
        (Some(_), Some(path)) => Err(invalid(format!("path is {path:?}; volumes are below /volumes"))),
        (server, _) => Err(invalid(format!(
            "where the volume is served is not told ({}); is csi-attacher running, and attachRequired true?",
            if server.is_none() { SERVER } else { PATH }
        ))),
    }
}

async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("a thread ended badly: {error}"))))
}

fn stage(server: &str, path: &str, target: &Path, options: &[String]) -> Result<(), Status> {
    fs::create_dir_all(target).map_err(|error| failed("make", target, &error))?;
    let there = mount::at(target).map_err(|error| failed("look for", target, &error))?;
    if let Some(there) = there {
        return match there.kind.starts_with("nfs") && there.source.ends_with(&format!(":{path}")) {
            true => Ok(()),
            false => Err(Status::internal(format!(
                "{} is mounted at {}",
                there.source,
                target.display()
            ))),
        };
    }
    let address = mount::reachable(server)
        .map_err(|error| Status::unavailable(format!("the appliance's NFS server does not answer: {error}")))?;
    mount::nfs(address, path, target, options).map_err(|error| failed("mount", target, &error))
}

/// Shows what is staged at a target; `alone`: only if it is shown nowhere else on this node.
fn show(staging: &Path, target: &Path, read_only: bool, alone: bool) -> Result<(), Status> {
    let mounted = mount::all().map_err(|error| failed("look for", target, &error))?;
    let looked = |path: &Path| mounted.iter().rfind(|mounted| mounted.target == path);
    let Some(staged) = looked(staging) else {
        return Err(Status::failed_precondition(format!(
            "nothing is staged at {}",
            staging.display()
        )));
    };
    // Where the class says `ro`, all that is shown may only be read.
    let read_only = read_only || staged.read_only;
    // Each volume is a filesystem of its own, and so has a device number of its own. What the kubelet shows of it to the
    // containers of one pod (subPath) is no other place.
    let elsewhere = mounted.iter().find(|other| {
        other.device == staged.device
            && other.target != staging
            && other.target != target
            && !other.target.components().any(|part| part.as_os_str() == SUBPATHS)
    });
    if let Some(other) = elsewhere.filter(|_| alone) {
        return Err(Status::failed_precondition(format!(
            "the volume is for one pod at a time (ReadWriteOncePod), and shown at {}",
            other.target.display()
        )));
    }
    fs::create_dir_all(target).map_err(|error| failed("make", target, &error))?;
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
        None => mount::bind(staging, staged.flags, target, read_only).map_err(|error| failed("show", target, &error)),
    }
}

fn take_away(target: &Path, last: Last) -> Result<(), Status> {
    mount::unmount(target, last).map_err(|error| failed("unmount", target, &error))?;
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", target, &error)),
        Ok(()) | Err(_) => Ok(()),
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
        let target = path("the staging path", &request.staging_target_path)?;
        let access = Access::read(request.volume_capability.as_ref())?;
        let (server, export) = whence(&request.publish_context, &request.volume_context)?;
        let working = self.in_flight.begin(&request.staging_target_path)?;
        apart(move || {
            let _working = working;
            stage(&server, &export, &target, &access.mount_options)
        })
        .await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(invalid("the volume's id is missing"));
        }
        let target = path("the staging path", &request.staging_target_path)?;
        let working = self.in_flight.begin(&request.staging_target_path)?;
        apart(move || {
            let _working = working;
            take_away(&target, Last::Yes)
        })
        .await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
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
        // By the volume, not by the target: two that want it alone must not pass each other.
        let working = self.in_flight.begin(&request.staging_target_path)?;
        apart(move || {
            let _working = working;
            let alone = access.mode == Mode::SingleNodeSingleWriter;
            show(&staging, &target, request.readonly, alone)
        })
        .await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
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
        let working = self.in_flight.begin(&request.target_path)?;
        apart(move || {
            let _working = working;
            take_away(&target, Last::No)
        })
        .await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
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
        let there = mount::at(&target).map_err(|error| failed("look for", &target, &error))?;
        let there = there.ok_or_else(|| Status::not_found(format!("nothing is mounted at {}", target.display())))?;
        let gone = |why: &str| csi::NodeGetVolumeStatsResponse {
            volume_condition: Some(csi::VolumeCondition {
                abnormal: true,
                message: why.to_owned(),
            }),
            ..csi::NodeGetVolumeStatsResponse::default()
        };
        let answer = match self.looks.at(&there.device, target, LOOK).await {
            None => gone("the appliance does not answer; what is written waits until it does"),
            Some(Err(errno)) => gone(&format!("it cannot be looked into: {errno}")),
            Some(Ok(found)) => {
                let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                let size = found.fragment_size();
                let usage =
                    |unit: csi::volume_usage::Unit, all: u64, free: u64, available: u64, each: u64| csi::VolumeUsage {
                        unit: unit.into(),
                        total: number(all.saturating_mul(each)),
                        used: number(all.saturating_sub(free).saturating_mul(each)),
                        available: number(available.saturating_mul(each)),
                    };
                use csi::volume_usage::Unit;
                csi::NodeGetVolumeStatsResponse {
                    usage: vec![
                        usage(
                            Unit::Bytes,
                            found.blocks(),
                            found.blocks_free(),
                            found.blocks_available(),
                            size,
                        ),
                        usage(
                            Unit::Inodes,
                            found.files(),
                            found.files_free(),
                            found.files_available(),
                            1,
                        ),
                    ],
                    volume_condition: Some(csi::VolumeCondition {
                        abnormal: false,
                        message: "it answers".to_owned(),
                    }),
                }
            }
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
