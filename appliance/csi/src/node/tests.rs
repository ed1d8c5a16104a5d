//! The node: what it is told to do at once, and what it tells.

use tokio::sync::oneshot;
use tonic::Code;

use super::*;
use crate::csi::node_server::Node as _;
use crate::csi::volume_capability::{AccessMode, AccessType, MountVolume};

#[test]
fn who_is_not_let_in_is_told_a_command_that_there_is() {
    let refused = io::Error::from_raw_os_error(nix::errno::Errno::EPERM as i32);
    let told = failed("mount", Path::new("/staged"), &refused);
    assert_eq!(told.code(), tonic::Code::PermissionDenied);
    // It lists the nodes of one volume, and needs to be told which.
    assert!(told.message().contains("`cistern nodes list VOLUME`"), "{told}");
}

async fn call(node: &Node, which: &str, volume: &str, folder: &Path) -> Result<(), Status> {
    let volume_id = volume.to_owned();
    // Each call has a path of its own.
    let at = |name: &str| folder.join(name).display().to_string();
    let volume_capability = Some(csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    });
    match which {
        "stage" => {
            let whence = [(SERVER, "127.0.0.1"), (PATH, "/volumes/v")];
            let request = csi::NodeStageVolumeRequest {
                volume_id,
                staging_target_path: at("stage"),
                publish_context: whence.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                volume_capability,
                ..csi::NodeStageVolumeRequest::default()
            };
            node.node_stage_volume(Request::new(request)).await.map(drop)
        }
        "unstage" => {
            let request = csi::NodeUnstageVolumeRequest {
                volume_id,
                staging_target_path: at("unstage"),
            };
            node.node_unstage_volume(Request::new(request)).await.map(drop)
        }
        "publish" => {
            let request = csi::NodePublishVolumeRequest {
                volume_id,
                staging_target_path: at("staged"),
                target_path: at("publish"),
                volume_capability,
                ..csi::NodePublishVolumeRequest::default()
            };
            node.node_publish_volume(Request::new(request)).await.map(drop)
        }
        "unpublish" => {
            let request = csi::NodeUnpublishVolumeRequest {
                volume_id,
                target_path: at("unpublish"),
            };
            node.node_unpublish_volume(Request::new(request)).await.map(drop)
        }
        _ => panic!("there is no call {which}"),
    }
}

#[tokio::test]
async fn a_call_for_a_volume_that_is_worked_on_is_told_to_come_again_whatever_path_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::new("node-1".parse().unwrap(), Zone::Everywhere, None);
    let (begun, begins) = oneshot::channel();
    let (go, wait) = oneshot::channel();
    let it = node.clone();
    let first = tokio::spawn(async move {
        let work = async move {
            begun.send(()).unwrap();
            wait.await.map_err(|_| Status::internal("lost"))
        };
        it.in_flight.to_its_end(&work_on("v"), ANSWER, (), work).await
    });
    begins.await.unwrap();
    for which in ["stage", "unstage", "publish", "unpublish"] {
        let told = call(&node, which, "v", folder.path()).await.unwrap_err();
        assert_eq!(told.code(), Code::Aborted, "{which}: {told}");
        assert!(told.message().contains("\"v\""), "{which}: {told}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // Another volume does not wait for it; nothing of it is mounted here.
    call(&node, "unpublish", "w", folder.path()).await.unwrap();
    call(&node, "unstage", "w", folder.path()).await.unwrap();
    let told = call(&node, "publish", "w", folder.path()).await.unwrap_err();
    assert_eq!(told.code(), Code::FailedPrecondition, "{told}");
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    call(&node, "unpublish", "v", folder.path()).await.unwrap();
}
