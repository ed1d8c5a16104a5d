//! Nodes, clients and snapshots.

use serde_json::{Value, json};

use super::hold;
use super::world::{BEFORE, OTHER, VOLUME, World, live, snapshot, volume};
use crate::doctor::Code;

#[test]
fn nodes_that_have_a_volume_on_one_side_only() {
    hold(&[
        (
            "a node that is gone",
            |w| {
                w.remove("Node");
                w.remove("CSINode");
            },
            &[Code::AttachmentNodeGone],
        ),
        (
            "a detachment that hangs",
            |w| {
                let attachment = w.the("VolumeAttachment");
                attachment["metadata"]["deletionTimestamp"] = json!(BEFORE);
                attachment["status"]["detachError"] = json!({"message": "appliance rack-1 cannot be reached"});
            },
            &[Code::DetachStuck],
        ),
        (
            "an attachment of nothing",
            |w| {
                let mut other = w.the("VolumeAttachment").clone();
                other["metadata"]["name"] = json!("csi-2");
                other["spec"]["source"]["persistentVolumeName"] = json!("gone");
                w.add(other);
            },
            &[Code::AttachmentPvGone],
        ),
        (
            "an attachment that fails",
            |w| {
                w.the("VolumeAttachment")["status"] =
                    json!({"attached": false, "attachError": {"message": "it is on n2"}});
                w.volume().nodes.clear();
                w.holdings().live = None;
            },
            &[Code::AttachFails],
        ),
        (
            "attached and not published",
            |w| {
                w.volume().nodes.clear();
                w.holdings().live = None;
            },
            &[Code::NotPublished],
        ),
        (
            "published and not attached",
            |w| w.remove("VolumeAttachment"),
            &[Code::PublishedUnattached],
        ),
        (
            "of another cluster",
            |w| {
                let mut other = volume(OTHER, "theirs", "cluster-b");
                other.nodes.clone_from(&w.volume().nodes);
                w.holdings().volumes.push(other);
            },
            &[Code::VolumeUnclaimed],
        ),
        (
            "a node that moved",
            |w| {
                w.the("Node")["status"]["addresses"] = json!([{"type": "InternalIP", "address": "10.0.0.8"}]);
            },
            &[Code::NodeMoved],
        ),
        (
            "an annotation that says the same",
            |w| {
                w.the("Node")["status"]["addresses"] = json!([{"type": "InternalIP", "address": "10.0.0.8"}]);
                w.the("Node")["metadata"]["annotations"] = json!({"csi.cistern.storage/address": "10.0.0.7"});
            },
            &[],
        ),
        (
            "a client that was cut off and holds on",
            |w| {
                w.holdings().live = Some(vec![live("10.0.0.9", &[VOLUME])]);
            },
            &[Code::HoldsWithoutAccess],
        ),
        (
            "a client that nothing lets in",
            |w| {
                w.holdings().live = Some(vec![live("10.0.0.9", &[])]);
            },
            &[Code::ClientWithoutVolume],
        ),
    ]);
}

#[test]
fn snapshots_that_one_side_lacks() {
    hold(&[
        (
            "a handle that is none",
            |w| {
                w.the("VolumeSnapshotContent")["status"]["snapshotHandle"] = json!("rack-1:monday");
                w.holdings().snapshots.clear();
            },
            &[Code::SnapshotHandleInvalid],
        ),
        (
            "a snapshot that is gone",
            |w| w.holdings().snapshots.clear(),
            &[Code::SnapshotGone],
        ),
        (
            "a leftover",
            |w| {
                let left = snapshot(
                    "snap-7c9e6679742540de944be07fc1f90ae7",
                    "snapshot-00000000-0000-4000-8000-00000000dead",
                );
                w.holdings().snapshots.push(left);
            },
            &[Code::SnapshotLeftOver],
        ),
        (
            "one by hand",
            |w| {
                let left = snapshot("snap-7c9e6679742540de944be07fc1f90ae7", "monday");
                w.holdings().snapshots.push(left);
            },
            &[],
        ),
        (
            "one that is not made",
            |w| {
                w.the("VolumeSnapshotContent")["status"] =
                    json!({"readyToUse": false, "error": {"message": "no room"}});
                w.holdings().snapshots.clear();
            },
            &[Code::SnapshotNotReady],
        ),
        (
            "one that does not go",
            |w| {
                let meta = &mut w.the("VolumeSnapshotContent")["metadata"];
                meta["deletionTimestamp"] = json!(BEFORE);
                meta["finalizers"] = json!(["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]);
            },
            &[Code::SnapshotTerminating],
        ),
    ]);
}

const GROUP: &str = "00000000-0000-4000-8000-00000000beef";

/// A group's content that says this of how it is.
fn group_content(status: Value) -> Value {
    json!({
        "kind": "VolumeGroupSnapshotContent", "metadata": {"name": "groupcontent-1"},
        "spec": {"driver": "csi.cistern.storage", "deletionPolicy": "Delete",
            "volumeGroupSnapshotRef": {"namespace": "default", "name": "evening", "uid": GROUP}},
        "status": status
    })
}

/// A group of the claims with a label, that says this of how it is.
fn group(status: Value) -> Value {
    json!({
        "kind": "VolumeGroupSnapshot", "metadata": {"name": "evening", "namespace": "default", "uid": GROUP},
        "spec": {"source": {"selector": {"matchLabels": {"app": "db"}}}}, "status": status
    })
}

/// The appliance has a snapshot of that group.
fn has_one_of_the_group(world: &mut World) {
    let one = snapshot(
        "snap-7c9e6679742540de944be07fc1f90ae7",
        &format!("groupsnapshot-{GROUP}"),
    );
    world.holdings().snapshots.push(one);
}

#[test]
fn groups_that_are_not_made_or_do_not_go() {
    hold(&[
        (
            "one that is being made",
            |w| {
                has_one_of_the_group(w);
                w.add(group_content(json!({"readyToUse": false})));
                w.add(group(
                    json!({"boundVolumeGroupSnapshotContentName": "groupcontent-1", "readyToUse": false}),
                ));
            },
            &[],
        ),
        ("what is left of one", has_one_of_the_group, &[Code::SnapshotLeftOver]),
        (
            "one that is not made",
            |w| {
                let error = json!({"readyToUse": false, "error": {"message": "no room"}});
                w.add(group_content(error));
                w.add(group(json!({
                    "boundVolumeGroupSnapshotContentName": "groupcontent-1", "readyToUse": false, "error": {"message": "no room"}
                })));
            },
            &[Code::SnapshotNotReady],
        ),
        (
            "one that is not begun",
            |w| {
                w.the("PersistentVolumeClaim")["metadata"]["labels"] = json!({"app": "db"});
                w.add(group(json!({"readyToUse": false, "error": {"message": "no class"}})));
            },
            &[Code::SnapshotNotReady],
        ),
        (
            "one of another driver's",
            |w| w.add(group(json!({"readyToUse": false, "error": {"message": "no class"}}))),
            &[],
        ),
        (
            "one that does not go",
            |w| {
                let finalizer = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection";
                let mut content = group_content(json!({"readyToUse": true}));
                content["metadata"]["deletionTimestamp"] = json!(BEFORE);
                content["metadata"]["finalizers"] = json!([finalizer]);
                w.add(content);
            },
            &[Code::SnapshotTerminating],
        ),
    ]);
}
