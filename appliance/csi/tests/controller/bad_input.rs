//! Each field of each request over its limits: the right code, words that name the field, and nothing left behind.

use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::group_controller_server::GroupController as _;
use cistern_csi::csi::volume_capability::access_mode::Mode;
use cistern_csi::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use cistern_csi::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use tonic::{Code, Request, Status};

use crate::support::{Appliance, GIB, NOBODY, Plugin, capability, wanted};

/// Longer than anything that is taken.
pub(crate) fn long() -> String {
    "x".repeat(100_000)
}

pub(crate) fn pair(key: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

pub(crate) fn range(required: i64, limit: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes: required,
        limit_bytes: limit,
    })
}

/// What was asked, the code that is due, and a word that is to be in the answer.
pub(crate) type Case = (&'static str, Result<(), Status>, Code, &'static str);

/// Looks that each was refused as it should be, in words that one can read.
pub(crate) fn judge(cases: Vec<Case>) {
    for (what, answer, code, says) in cases {
        let Err(told) = answer else { panic!("{what} was done") };
        assert_eq!(told.code(), code, "{what}: {told}");
        assert!(told.message().contains(says), "{what}: {told}");
        assert!(told.message().len() < 1000, "{what}: {} bytes", told.message().len());
    }
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_is_refused_by_what_is_wrong_with_it() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let made = plugin.controller.create_volume(Request::new(wanted("v"))).await;
    let made = made.unwrap().into_inner().volume.unwrap();
    let before = appliance.all();
    let with = |change: &dyn Fn(&mut csi::CreateVolumeRequest)| {
        let mut request = wanted("new");
        change(&mut request);
        request
    };
    let source = |source: Type| Some(csi::VolumeContentSource { r#type: Some(source) });
    let of = |access_type: AccessType, mode: Mode| {
        vec![csi::VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }]
    };
    let mount = |fs_type: &str, flag: &str| {
        AccessType::Mount(MountVolume {
            fs_type: fs_type.to_owned(),
            mount_flags: vec![flag.to_owned()],
            ..MountVolume::default()
        })
    };
    use Code::{InvalidArgument, NotFound, OutOfRange, ResourceExhausted};
    let requests: Vec<(&'static str, csi::CreateVolumeRequest, Code, &'static str)> = vec![
        ("no name", with(&|r| r.name.clear()), InvalidArgument, "name"),
        (
            "a long name",
            with(&|r| r.name = "x".repeat(129)),
            InvalidArgument,
            "128 bytes",
        ),
        (
            "a name of two lines",
            with(&|r| r.name = "a\nb".into()),
            InvalidArgument,
            "control character",
        ),
        (
            "no capability",
            with(&|r| r.volume_capabilities.clear()),
            InvalidArgument,
            "capabilities",
        ),
        (
            "a block device",
            with(&|r| r.volume_capabilities = of(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)),
            InvalidArgument,
            "volumeMode",
        ),
        (
            "no mode",
            with(&|r| r.volume_capabilities = of(mount("", "hard"), Mode::Unknown)),
            InvalidArgument,
            "access mode",
        ),
        (
            "one writer on several nodes",
            with(&|r| r.volume_capabilities = of(mount("", "hard"), Mode::MultiNodeSingleWriter)),
            InvalidArgument,
            "MULTI_NODE_SINGLE_WRITER",
        ),
        (
            "ext4",
            with(&|r| r.volume_capabilities = of(mount("ext4", "hard"), Mode::SingleNodeWriter)),
            InvalidArgument,
            "fsType",
        ),
        (
            "a long filesystem",
            with(&|r| r.volume_capabilities = of(mount(&long(), "hard"), Mode::SingleNodeWriter)),
            InvalidArgument,
            "fsType",
        ),
        (
            "an option of no NFS",
            with(&|r| r.volume_capabilities = of(mount("", "uid=0"), Mode::SingleNodeWriter)),
            InvalidArgument,
            "uid=0",
        ),
        (
            "a long option",
            with(&|r| r.volume_capabilities = of(mount("", &long()), Mode::SingleNodeWriter)),
            InvalidArgument,
            "mount option",
        ),
        (
            "less than nothing",
            with(&|r| r.capacity_range = range(-1, 0)),
            InvalidArgument,
            "required_bytes",
        ),
        (
            "at most less than nothing",
            with(&|r| r.capacity_range = range(0, -1)),
            InvalidArgument,
            "limit_bytes",
        ),
        (
            "more than at most",
            with(&|r| r.capacity_range = range(2 * GIB, GIB)),
            OutOfRange,
            "at most",
        ),
        (
            "less than the least",
            with(&|r| r.capacity_range = range(0, 1)),
            OutOfRange,
            "smallest",
        ),
        (
            "more than there is",
            with(&|r| r.capacity_range = range(1 << 50, 0)),
            ResourceExhausted,
            "tank",
        ),
        (
            "the most",
            with(&|r| r.capacity_range = range(i64::MAX, 0)),
            ResourceExhausted,
            "tank",
        ),
        (
            "a misspelt parameter",
            with(&|r| r.parameters.extend(pair("Squash", "all"))),
            InvalidArgument,
            "perhaps squash was meant",
        ),
        (
            "a long parameter",
            with(&|r| r.parameters.extend(pair("squash", &long()))),
            InvalidArgument,
            "squash",
        ),
        (
            "a long key",
            with(&|r| r.parameters.extend(pair(&long(), "a"))),
            InvalidArgument,
            "parameter",
        ),
        (
            "no such pool",
            with(&|r| r.parameters.extend(pair("pool", "lake"))),
            InvalidArgument,
            "lake",
        ),
        (
            "no pool's name",
            with(&|r| r.parameters.extend(pair("pool", "../.."))),
            InvalidArgument,
            "pool",
        ),
        (
            "no such appliance",
            with(&|r| r.parameters.extend(pair("endpoint", "rack-9"))),
            InvalidArgument,
            "rack-9",
        ),
        (
            "a long appliance",
            with(&|r| r.parameters.extend(pair("endpoint", &long()))),
            InvalidArgument,
            "endpoint",
        ),
        (
            "what cannot change",
            with(&|r| r.mutable_parameters = pair("rootUid", "5")),
            InvalidArgument,
            "rootUid",
        ),
        (
            "a secret of no use",
            with(&|r| r.secrets = pair("password", "5")),
            InvalidArgument,
            "password",
        ),
        (
            "a secret that is none",
            with(&|r| r.secrets = pair("token", "5")),
            InvalidArgument,
            "token",
        ),
        (
            "of a snapshot of another driver",
            with(&|r| r.volume_content_source = source(Type::Snapshot(SnapshotSource { snapshot_id: long() }))),
            NotFound,
            "none of this driver's",
        ),
        (
            "of no volume",
            with(&|r| {
                r.volume_content_source = source(Type::Volume(VolumeSource {
                    volume_id: NOBODY.to_owned(),
                }))
            }),
            NotFound,
            "no volume",
        ),
        (
            "of another appliance's volume",
            with(&|r| {
                r.volume_content_source = source(Type::Volume(VolumeSource {
                    volume_id: NOBODY.replace("rack-1", "rack-2"),
                }))
            }),
            InvalidArgument,
            "rack-2",
        ),
        (
            "a volume that is there, larger",
            with(&|r| {
                r.name = "v".to_owned();
                r.capacity_range = range(2 * GIB, 0);
            }),
            Code::AlreadyExists,
            "v",
        ),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (what, request, code, says) in requests {
        let answer = plugin.controller.create_volume(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    assert_eq!(appliance.all(), before, "{}", made.volume_id);
}

#[tokio::test]
async fn what_is_asked_of_a_volume_is_refused_by_what_is_wrong_with_it() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::new(&[("rack-1", appliance.entry())]);
    let it = &plugin.controller;
    let made = it.create_volume(Request::new(wanted("v"))).await.unwrap().into_inner();
    let id = made.volume.unwrap().volume_id;
    let before = appliance.all();
    let elsewhere = NOBODY.replace("rack-1", "rack-2");
    let publish = |volume: &str, node: &str| csi::ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(capability()),
        ..csi::ControllerPublishVolumeRequest::default()
    };
    use Code::{Aborted, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, Unavailable};
    let mut cases: Vec<Case> = Vec::new();
    for (what, volume, node, code, says) in [
        ("published without a node", id.as_str(), "", InvalidArgument, "node"),
        ("published to no node", &id, "node-9", NotFound, "node-9"),
        ("published to a long node", &id, &long(), NotFound, "no node"),
        ("published without a volume", "", "node-1", InvalidArgument, "volume"),
        (
            "published, of another driver",
            &long(),
            "node-1",
            NotFound,
            "none of this driver's",
        ),
        ("published, of nobody", NOBODY, "node-1", NotFound, "no volume"),
        (
            "published, of another appliance",
            &elsewhere,
            "node-1",
            Unavailable,
            "rack-2",
        ),
    ] {
        let answer = it.controller_publish_volume(Request::new(publish(volume, node))).await;
        cases.push((what, answer.map(drop), code, says));
    }
    let mut request = publish(&id, "node-1");
    request.volume_capability = None;
    let answer = it.controller_publish_volume(Request::new(request)).await;
    cases.push(("published in no way", answer.map(drop), InvalidArgument, "capability"));
    for (what, volume, range, code, says) in [
        ("grown by nothing", id.as_str(), None, InvalidArgument, "capacity"),
        (
            "grown to less than nothing",
            &id,
            range(-5, 0),
            InvalidArgument,
            "required_bytes",
        ),
        ("shrunk", &id, range(0, GIB / 2), OutOfRange, "do not shrink"),
        ("grown beyond its pool", &id, range(1 << 50, 0), OutOfRange, "tank"),
        ("grown, of nobody", NOBODY, range(GIB, 0), NotFound, "no volume"),
        (
            "grown, of another appliance",
            &elsewhere,
            range(GIB, 0),
            Unavailable,
            "rack-2",
        ),
    ] {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.to_owned(),
            capacity_range: range,
            ..csi::ControllerExpandVolumeRequest::default()
        };
        let answer = it.controller_expand_volume(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    for (what, volume, key, value, code, says) in [
        (
            "changed by what is unknown",
            id.as_str(),
            "colour",
            "blue",
            InvalidArgument,
            "colour",
        ),
        (
            "changed to what is none",
            &id,
            "squash",
            "some",
            InvalidArgument,
            "squash",
        ),
        ("changed, of nobody", NOBODY, "squash", "all", NotFound, "no volume"),
    ] {
        let request = csi::ControllerModifyVolumeRequest {
            volume_id: volume.to_owned(),
            mutable_parameters: pair(key, value),
            ..csi::ControllerModifyVolumeRequest::default()
        };
        let answer = it.controller_modify_volume(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    for (what, source, name, code, says) in [
        ("a snapshot of nothing", "", "s".to_owned(), InvalidArgument, "volume"),
        ("a snapshot without a name", &id, String::new(), InvalidArgument, "name"),
        (
            "a snapshot with a long name",
            &id,
            "x".repeat(129),
            InvalidArgument,
            "128 bytes",
        ),
        ("a snapshot of nobody's", NOBODY, "s".to_owned(), NotFound, "no volume"),
    ] {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: source.to_owned(),
            name,
            ..csi::CreateSnapshotRequest::default()
        };
        let answer = it.create_snapshot(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "g".to_owned(),
        source_volume_ids: vec![id.clone(), elsewhere.clone()],
        ..csi::CreateVolumeGroupSnapshotRequest::default()
    };
    let answer = it.create_volume_group_snapshot(Request::new(request)).await;
    cases.push((
        "a group over two appliances",
        answer.map(drop),
        InvalidArgument,
        "rack-2",
    ));
    // What the sidecars add is passed over; the class itself says nothing.
    let parameters = [("csi.storage.k8s.io/volumesnapshot/name", "a"), ("colour", "blue")];
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request = csi::CreateSnapshotRequest {
        source_volume_id: id.clone(),
        name: "s".to_owned(),
        parameters: parameters.clone().into(),
        ..csi::CreateSnapshotRequest::default()
    };
    let answer = it.create_snapshot(Request::new(request)).await;
    cases.push((
        "a snapshot with a parameter",
        answer.map(drop),
        InvalidArgument,
        "\"colour\"",
    ));
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: "g".to_owned(),
        source_volume_ids: vec![id.clone()],
        parameters: parameters.into(),
        ..csi::CreateVolumeGroupSnapshotRequest::default()
    };
    let answer = it.create_volume_group_snapshot(Request::new(request)).await;
    cases.push((
        "a group with a parameter",
        answer.map(drop),
        InvalidArgument,
        "\"colour\"",
    ));
    for (what, max_entries, starting_token, code, says) in [
        (
            "a list of less than none",
            -1,
            String::new(),
            InvalidArgument,
            "max_entries",
        ),
        ("a list from nowhere", 0, long(), Aborted, "starting_token"),
        (
            "a list from an appliance that is not",
            0,
            "rack-9|5".to_owned(),
            Aborted,
            "rack-9",
        ),
    ] {
        let request = csi::ListVolumesRequest {
            max_entries,
            starting_token,
        };
        let answer = it.list_volumes(Request::new(request)).await;
        cases.push((what, answer.map(drop), code, says));
    }
    judge(cases);
    assert_eq!(appliance.all(), before);

    // What was never here is gone, and a volume that a node has is not deleted under it.
    for gone in ["someone-else's", &long(), NOBODY] {
        let request = csi::DeleteVolumeRequest {
            volume_id: gone.to_owned(),
            ..csi::DeleteVolumeRequest::default()
        };
        it.delete_volume(Request::new(request)).await.unwrap();
    }
    it.controller_publish_volume(Request::new(publish(&id, "node-1")))
        .await
        .unwrap();
    let delete = |volume: &str| {
        Request::new(csi::DeleteVolumeRequest {
            volume_id: volume.to_owned(),
            ..csi::DeleteVolumeRequest::default()
        })
    };
    let used = it.delete_volume(delete(&id)).await.map(drop);
    let other = it.delete_volume(delete(&elsewhere)).await.map(drop);
    judge(vec![
        ("deleted in use", used, FailedPrecondition, "node-1"),
        ("deleted, of another appliance", other, Unavailable, "rack-2"),
    ]);
}
