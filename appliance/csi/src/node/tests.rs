//! The node: what it is told to do at once, and what it tells.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

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
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // Another volume does not wait for it; nothing of it is mounted here.
    call(&node, "unpublish", "w", folder.path()).await.unwrap();
    call(&node, "unstage", "w", folder.path()).await.unwrap();
    let told = call(&node, "publish", "w", folder.path()).await.unwrap_err();
    assert_eq!(told.code(), Code::FailedPrecondition, "{told}");
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    call(&node, "unpublish", "v", folder.path()).await.unwrap();
}

/// A node on which all this is mounted, and where this script makes the calls of the kernel's.
fn node_of(folder: &Path, script: &str, mounted: &str) -> Node {
    let (program, table) = (folder.join("program"), folder.join("table"));
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&table, mounted).unwrap();
    let mut node = Node::new("node-1".parse().unwrap(), Zone::Everywhere, None);
    node.mounts.program = program;
    node.mounts.table = table;
    node
}

/// A node on which one volume is mounted at these places of a folder, and what notes there which calls of the kernel's are made.
fn on_which_is_mounted(folder: &Path, places: &[&str]) -> Node {
    let script = format!(
        "echo \"$2 $3\" >> {calls}\n[ $2 != unmount ] || sed -i \"\\\\, $3 ,d\" {table}",
        calls = folder.join("calls").display(),
        table = folder.join("table").display()
    );
    let line = |place: &&str| {
        let at = folder.join(place);
        fs::create_dir_all(&at).unwrap();
        let at = at.display();
        format!("36 35 0:57 / {at} rw - nfs4 10.0.0.5:/volumes/v rw,addr=10.0.0.5\n")
    };
    node_of(folder, &script, &places.iter().map(line).collect::<String>())
}

/// A kubelet looks at the staging path of a volume that is to go: it must not be the mount of an appliance that is gone.
#[tokio::test]
async fn a_volume_is_mounted_below_its_staging_path_and_one_that_an_earlier_plugin_staged_at_it() {
    for staged in ["staged/volume", "staged"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let node = on_which_is_mounted(folder, &[staged]);
        call(&node, "publish", "v", folder).await.unwrap();
        let calls = fs::read_to_string(folder.join("calls")).unwrap();
        assert_eq!(calls, format!("bind {}\n", folder.join(staged).display()));
    }
    for staged in ["unstage/volume", "unstage"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // It is shown elsewhere too, so that no server has to be asked.
        let node = on_which_is_mounted(folder, &[staged, "pod"]);
        call(&node, "unstage", "v", folder).await.unwrap();
        let calls = fs::read_to_string(folder.join("calls")).unwrap();
        assert_eq!(calls, format!("unmount {}\n", folder.join(staged).display()));
        assert!(!folder.join("unstage").exists(), "{staged}");
    }
    // It is already staged where it is to be; its server need not be asked.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let node = on_which_is_mounted(folder, &["stage/volume"]);
    call(&node, "stage", "v", folder).await.unwrap();
    assert!(!folder.join("calls").exists());
}

/// What a kubelet is told of a volume's room, where this script looks into it.
async fn told(script: &str) -> csi::NodeGetVolumeStatsResponse {
    let folder = tempfile::tempdir().unwrap();
    let line = "36 35 0:57 / /staged rw - nfs4 10.0.0.5:/volumes/vol-1 rw,addr=10.0.0.5\n";
    let node = node_of(folder.path(), script, line);
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: "rack-1:vol-00000000000000000000000000000001".to_owned(),
        volume_path: "/staged".to_owned(),
        ..csi::NodeGetVolumeStatsRequest::default()
    };
    let told = node.node_get_volume_stats(Request::new(request)).await;
    told.unwrap().into_inner()
}

#[tokio::test]
async fn how_full_a_volume_is_is_told_in_bytes_and_inodes() {
    use crate::csi::volume_usage::Unit;

    let usage = |unit: Unit, total, used, available| csi::VolumeUsage {
        unit: unit.into(),
        total,
        used,
        available,
    };
    let told = told("echo 4096 100 40 30 10 4 3").await;
    assert_eq!(
        told.usage,
        [
            usage(Unit::Bytes, 100 * 4096, 60 * 4096, 30 * 4096),
            usage(Unit::Inodes, 10, 6, 3)
        ]
    );
    let condition = told.volume_condition.unwrap();
    assert_eq!((condition.abnormal, condition.message.as_str()), (false, "it answers"));
}

#[tokio::test]
async fn a_volume_that_cannot_be_looked_into_is_abnormal_and_says_why() {
    // ESTALE; and a server that is gone.
    for (script, says) in [
        ("exit 116", "cannot be looked into"),
        ("exec sleep 1000", "does not answer"),
    ] {
        let told = told(script).await;
        let condition = told.volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains(says), "{condition:?}");
        assert!(told.usage.is_empty(), "{:?}", told.usage);
    }
}
