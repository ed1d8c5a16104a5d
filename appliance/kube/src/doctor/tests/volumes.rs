//! PersistentVolumes, claims and volumes.

use cistern_model::Bytes;
use serde_json::json;

use super::hold;
use super::world::{BEFORE, JUST_NOW, OTHER, VOLUME, trashed, volume};
use crate::doctor::Code;

#[test]
fn volumes_that_one_side_lacks_or_has_otherwise() {
    hold(&[
        (
            "a handle that is none",
            |w| {
                w.the("PersistentVolume")["spec"]["csi"]["volumeHandle"] = json!("rack-1:photos");
                w.remove("VolumeAttachment");
                w.volume().nodes.clear();
                w.holdings().live = None;
            },
            &[Code::HandleInvalid, Code::VolumeLeftOver],
        ),
        (
            "a volume that is gone",
            |w| {
                w.holdings().volumes.clear();
                w.holdings().live = None;
            },
            &[Code::VolumeGone],
        ),
        (
            "a volume in the trash",
            |w| {
                w.holdings().volumes.clear();
                w.holdings().trash = vec![trashed(VOLUME)];
                w.holdings().live = None;
            },
            &[Code::VolumeInTrash],
        ),
        (
            "two of one name",
            |w| {
                let mut second = w.the("PersistentVolume").clone();
                second["metadata"] = json!({"name": "second"});
                w.add(second);
            },
            &[Code::HandleTwice],
        ),
        (
            "a leftover",
            |w| {
                let left = volume(OTHER, "pvc-00000000-0000-4000-8000-00000000dead", "cluster");
                w.holdings().volumes.push(left);
            },
            &[Code::VolumeLeftOver],
        ),
        (
            "somebody else's",
            |w| {
                let other = volume(OTHER, "photos", "admin");
                w.holdings().volumes.push(other);
            },
            &[Code::VolumeUnclaimed],
        ),
        (
            "grown beside the cluster",
            |w| w.volume().size = Bytes::gib(1),
            &[Code::SizeDiffers],
        ),
        (
            "smaller than was said",
            |w| {
                w.the("PersistentVolume")["spec"]["capacity"]["storage"] = json!("1Gi");
            },
            &[Code::SizeDiffers],
        ),
        (
            "let in by hand",
            |w| w.volume().clients = vec!["10.0.0.0/24".parse().unwrap()],
            &[Code::OthersLetIn],
        ),
        (
            "mounted by Kubernetes itself, with nobody let in",
            |w| {
                let spec = &mut w.the("PersistentVolume")["spec"];
                spec["csi"] = json!(null);
                spec["nfs"] = json!({"server": "10.0.0.5", "path": format!("/volumes/{VOLUME}")});
                w.the("VolumeAttachment")["spec"]["attacher"] = json!("another");
                w.volume().nodes.clear();
                w.holdings().live = None;
            },
            &[Code::NobodyLetIn],
        ),
    ]);
}

#[test]
fn persistent_volumes_that_stay() {
    hold(&[
        (
            "released and kept",
            |w| {
                let pv = w.the("PersistentVolume");
                pv["status"]["phase"] = json!("Released");
                pv["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
                w.remove("PersistentVolumeClaim");
            },
            &[Code::PvReleased],
        ),
        (
            "released and not deleted",
            |w| {
                w.the("PersistentVolume")["status"]["phase"] = json!("Released");
                w.remove("PersistentVolumeClaim");
                let name = w.the("PersistentVolume")["metadata"]["name"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                w.say("PersistentVolume", &name, "appliance rack-1 cannot be reached");
            },
            &[Code::PvNotDeleted],
        ),
        (
            "released long ago",
            |w| {
                let status = &mut w.the("PersistentVolume")["status"];
                *status = json!({"phase": "Released", "lastPhaseTransitionTime": BEFORE});
                w.remove("PersistentVolumeClaim");
            },
            &[Code::PvNotDeleted],
        ),
        (
            "being deleted for long",
            |w| {
                w.the("PersistentVolume")["metadata"]["deletionTimestamp"] = json!(BEFORE);
            },
            &[Code::PvTerminating],
        ),
    ]);
}

#[test]
fn claims_that_are_not_what_they_are_to_be() {
    hold(&[
        (
            "refused",
            |w| {
                w.add(json!({
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "new", "namespace": "default", "uid": "u2", "creationTimestamp": JUST_NOW},
                    "spec": {"storageClassName": "cistern-tank"}, "status": {"phase": "Pending"}
                }));
                w.say(
                    "PersistentVolumeClaim",
                    "new",
                    "appliance rack-1: pool tank has 1 GiB left",
                );
            },
            &[Code::ClaimPending],
        ),
        (
            "not looked at",
            |w| {
                w.add(json!({
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "new", "namespace": "default", "uid": "u2", "creationTimestamp": BEFORE},
                    "spec": {"storageClassName": "cistern-tank"}, "status": {"phase": "Pending"}
                }));
            },
            &[Code::ClaimPending],
        ),
        (
            "of another driver",
            |w| {
                w.add(json!({
                    "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "new", "namespace": "default", "uid": "u2", "creationTimestamp": BEFORE},
                    "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}
                }));
            },
            &[],
        ),
        (
            "lost",
            |w| {
                w.remove("PersistentVolume");
                w.remove("VolumeAttachment");
                w.volume().nodes.clear();
                w.holdings().live = None;
                w.the("PersistentVolumeClaim")["status"]["phase"] = json!("Lost");
            },
            &[Code::ClaimLost, Code::VolumeLeftOver],
        ),
        (
            "deleted in use",
            |w| {
                let meta = &mut w.the("PersistentVolumeClaim")["metadata"];
                meta["deletionTimestamp"] = json!(BEFORE);
                meta["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            },
            &[Code::ClaimTerminating],
        ),
        (
            "too large",
            |w| {
                let claim = w.the("PersistentVolumeClaim");
                claim["spec"]["resources"]["requests"]["storage"] = json!("1Ti");
                claim["status"]["conditions"] = json!([
                {"type": "ControllerResizeError", "status": "True", "message": "pool tank has 1 GiB left"}]);
            },
            &[Code::ResizeStuck],
        ),
        (
            "waiting for a node",
            |w| {
                let claim = w.the("PersistentVolumeClaim");
                claim["spec"]["resources"]["requests"]["storage"] = json!("600Mi");
                claim["status"]["conditions"] = json!([{"type": "FileSystemResizePending", "status": "True"}]);
            },
            &[Code::ResizeStuck],
        ),
        (
            "not modified",
            |w| {
                w.the("PersistentVolumeClaim")["spec"]["volumeAttributesClassName"] = json!("gold");
                let status = &mut w.the("PersistentVolumeClaim")["status"];
                status["modifyVolumeStatus"] =
                    json!({"status": "Infeasible", "targetVolumeAttributesClassName": "gold"});
            },
            &[Code::ModifyStuck],
        ),
        (
            "not modified, which nobody asks for any more",
            |w| {
                let status = &mut w.the("PersistentVolumeClaim")["status"];
                status["modifyVolumeStatus"] =
                    json!({"status": "Infeasible", "targetVolumeAttributesClassName": "gold"});
            },
            &[],
        ),
    ]);
}
