//! The node: what a kubelet never asks for is refused by what is wrong with it, before anything is touched.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;

use cistern_csi::csi;
use cistern_csi::csi::node_server::Node as _;
use cistern_csi::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use cistern_csi::node::Node;
use cistern_csi::zone::Zone;
use tonic::{Code, Request, Status};

type Case = (String, Result<(), Status>, Code, &'static str);

fn capability(flag: &str) -> Option<csi::VolumeCapability> {
    Some(csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume {
            mount_flags: vec![flag.to_owned()],
            ..MountVolume::default()
        })),
    })
}

fn whence(server: &str, path: &str) -> HashMap<String, String> {
    [
        (cistern_csi::controller::SERVER, server),
        (cistern_csi::controller::PATH, path),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

#[tokio::test]
async fn what_no_kubelet_asks_for_is_refused_by_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("staged").display().to_string();
    let node = Node::new("node-1".parse().unwrap(), Zone::Everywhere, None);
    let export = "/volumes/vol-00000000000000000000000000000001";
    let long = format!("/{}", "x".repeat(5000));
    let mut cases: Vec<Case> = Vec::new();
    use Code::{FailedPrecondition, InvalidArgument, NotFound};
    for (what, id, path, context, capability, says) in [
        (
            "no id",
            "",
            good.as_str(),
            whence("a", export),
            capability("hard"),
            "volume's id",
        ),
        (
            "no path",
            "v",
            "",
            whence("a", export),
            capability("hard"),
            "staging path",
        ),
        (
            "a relative path",
            "v",
            "var/lib",
            whence("a", export),
            capability("hard"),
            "absolute",
        ),
        (
            "a path that leads upwards",
            "v",
            "/var/../etc",
            whence("a", export),
            capability("hard"),
            "absolute",
        ),
        (
            "a long path",
            "v",
            &long,
            whence("a", export),
            capability("hard"),
            "no path",
        ),
        (
            "a path with a zero",
            "v",
            "/var\0",
            whence("a", export),
            capability("hard"),
            "no path",
        ),
        ("no capability", "v", &good, whence("a", export), None, "capability"),
        (
            "no option of NFS'",
            "v",
            &good,
            whence("a", export),
            capability("bind"),
            "bind",
        ),
        (
            "no server",
            "v",
            &good,
            whence("", export),
            capability("hard"),
            "csi-attacher",
        ),
        (
            "no name",
            "v",
            &good,
            whence("a b", export),
            capability("hard"),
            "server",
        ),
        (
            "a long server",
            "v",
            &good,
            whence(&long, export),
            capability("hard"),
            "server",
        ),
        (
            "nothing exported",
            "v",
            &good,
            whence("a", ""),
            capability("hard"),
            "csi-attacher",
        ),
        (
            "no volume",
            "v",
            &good,
            whence("a", "/etc"),
            capability("hard"),
            "/volumes",
        ),
        (
            "beside the volumes",
            "v",
            &good,
            whence("a", "/volumes/../etc"),
            capability("hard"),
            "/volumes",
        ),
        (
            "within a volume",
            "v",
            &good,
            whence("a", "/volumes/a/b"),
            capability("hard"),
            "/volumes",
        ),
        (
            "a long path there",
            "v",
            &good,
            whence("a", &format!("/volumes{long}")),
            capability("hard"),
            "/volumes",
        ),
    ] {
        let request = csi::NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: path.to_owned(),
            publish_context: context,
            volume_capability: capability,
            ..csi::NodeStageVolumeRequest::default()
        };
        let answer = node.node_stage_volume(Request::new(request)).await.map(drop);
        cases.push((format!("staged with {what}"), answer, InvalidArgument, says));
    }
    for (what, id, staging, target, code, says) in [
        (
            "no id",
            "",
            good.as_str(),
            good.as_str(),
            InvalidArgument,
            "volume's id",
        ),
        ("no staging path", "v", "", &good, InvalidArgument, "staging path"),
        ("no target", "v", &good, "", InvalidArgument, "target path"),
        (
            "a target that leads upwards",
            "v",
            &good,
            "/a/../b",
            InvalidArgument,
            "absolute",
        ),
        (
            "nothing staged",
            "v",
            &good,
            &good,
            FailedPrecondition,
            "nothing is staged",
        ),
    ] {
        let request = csi::NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.to_owned(),
            target_path: target.to_owned(),
            volume_capability: capability("hard"),
            ..csi::NodePublishVolumeRequest::default()
        };
        let answer = node.node_publish_volume(Request::new(request)).await.map(drop);
        cases.push((format!("published with {what}"), answer, code, says));
    }
    let with = |change: &dyn Fn(&mut csi::VolumeCapability)| {
        let mut capability = capability("hard");
        capability.iter_mut().for_each(change);
        capability
    };
    for (what, capability, says) in [
        ("no capability", None, "capability"),
        ("an option of no NFS", capability("bind"), "bind"),
        ("no access type", with(&|c| c.access_type = None), "access type"),
        (
            "a block device",
            with(&|c| c.access_type = Some(AccessType::Block(BlockVolume {}))),
            "volumeMode",
        ),
        ("no access mode", with(&|c| c.access_mode = None), "access mode"),
        (
            "an access mode that is none",
            with(&|c| c.access_mode = Some(AccessMode { mode: 99 })),
            "access mode",
        ),
    ] {
        let request = csi::NodePublishVolumeRequest {
            volume_id: "v".to_owned(),
            staging_target_path: good.clone(),
            target_path: good.clone(),
            volume_capability: capability,
            ..csi::NodePublishVolumeRequest::default()
        };
        let answer = node.node_publish_volume(Request::new(request)).await.map(drop);
        cases.push((format!("published with {what}"), answer, InvalidArgument, says));
    }
    for (id, path, says) in [
        ("", good.as_str(), "volume's id"),
        ("v", "", "path"),
        ("v", "a", "absolute"),
    ] {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: path.to_owned(),
        };
        let answer = node.node_unpublish_volume(Request::new(request)).await.map(drop);
        cases.push((format!("unpublished from {path:?}"), answer, InvalidArgument, says));
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: path.to_owned(),
        };
        let answer = node.node_unstage_volume(Request::new(request)).await.map(drop);
        cases.push((format!("unstaged from {path:?}"), answer, InvalidArgument, says));
    }
    for (id, path, code, says) in [
        ("", good.as_str(), InvalidArgument, "volume's id"),
        (
            "rack-1:vol-00000000000000000000000000000001",
            "",
            InvalidArgument,
            "path",
        ),
        (
            "rack-1:vol-00000000000000000000000000000001",
            &good,
            NotFound,
            "nothing is mounted",
        ),
        ("someone-else's", &good, NotFound, "none of this driver's"),
    ] {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: id.to_owned(),
            volume_path: path.to_owned(),
            ..csi::NodeGetVolumeStatsRequest::default()
        };
        let answer = node.node_get_volume_stats(Request::new(request)).await.map(drop);
        cases.push((format!("asked how full {id:?} is"), answer, code, says));
    }
    for (what, answer, code, says) in cases {
        let Err(told) = answer else { panic!("{what} was done") };
        assert_eq!(told.code(), code, "{what}: {told}");
        assert!(told.message().contains(says), "{what}: {told}");
        assert!(told.message().len() < 1000, "{what}: {} bytes", told.message().len());
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}
