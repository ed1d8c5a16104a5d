//! PersistentVolumes, claims and volumes.

use cistern_model::Bytes;
use serde_json::json;

use super::hold;
use super::world::{BEFORE, JUST_NOW, OTHER, VOLUME, World, trashed, volume};
use crate::doctor::Code;

/// The volume is one that nobody claimed, mounted by Kubernetes itself.
fn by_nfs(world: &mut World) {
    let pv = world.the("PersistentVolume");
    pv["metadata"]["annotations"] = json!({});
    pv["spec"]["csi"] = json!(null);
    pv["spec"]["nfs"] = json!({"server": "10.0.0.5", "path": format!("/volumes/{VOLUME}")});
    pv["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    world.remove("VolumeAttachment");
    world.volume().nodes.clear();
    world.volume().clients = vec!["10.0.0.0/24".parse().unwrap()];
}

/// Another PersistentVolume like the first, with this reclaim policy.
fn once_more(world: &mut World, policy: &str) {
    let mut second = world.the("PersistentVolume").clone();
    second["metadata"] = json!({"name": "second"});
    second["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
    world.add(second);
}

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
            "one for two namespaces, by Kubernetes' own client",
            |w| {
                by_nfs(w);
                once_more(w, "Retain");
            },
            &[],
        ),
        (
            "one for two namespaces, and one of them may delete it",
            |w| {
                by_nfs(w);
                once_more(w, "Recycle");
            },
            &[Code::HandleTwice],
        ),
        (
            "one that the plugin mounts, and Kubernetes' own client",
            |w| {
                let mut second = w.the("PersistentVolume").clone();
                second["metadata"] = json!({"name": "second"});
                second["spec"]["csi"] = json!(null);
                second["spec"]["nfs"] = json!({"server": "10.0.0.5", "path": format!("/volumes/{VOLUME}")});
                second["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
                second["status"]["phase"] = json!("Available");
                w.add(second);
            },
            &[Code::HandleTwice],
        ),
        (
            "a folder of one, of no size of its own",
            |w| {
                by_nfs(w);
                let spec = &mut w.the("PersistentVolume")["spec"];
                spec["nfs"]["path"] = json!(format!("/volumes/{VOLUME}/photos/2026"));
                spec["capacity"]["storage"] = json!("10Mi");
            },
            &[],
        ),
        (
            "a folder of one that is gone",
            |w| {
                by_nfs(w);
                w.the("PersistentVolume")["spec"]["nfs"]["path"] = json!(format!("/volumes/{VOLUME}/photos"));
                w.holdings().volumes.clear();
                w.holdings().live = None;
            },
            &[Code::VolumeGone],
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
fn a_released_volume_is_told_to_be_deleted_only_where_nobody_else_has_it() {
    let commands = |change: fn(&mut World)| {
        let mut world = World::healthy();
        by_nfs(&mut world);
        world.remove("PersistentVolumeClaim");
        world.the("PersistentVolume")["status"]["phase"] = json!("Released");
        change(&mut world);
        let findings = world.findings();
        assert!(findings.iter().all(|f| f.code == Code::PvReleased), "{findings:#?}");
        findings[0].commands[1].clone()
    };
    let alone = commands(|_| {});
    assert!(
        alone.ends_with(&format!(" && cistern volumes delete {VOLUME}")),
        "{alone}"
    );
    let shared = commands(|w| once_more(w, "Retain"));
    assert!(!shared.contains("volumes delete"), "{shared}");
    let part = commands(|w| {
        w.the("PersistentVolume")["spec"]["nfs"]["path"] = json!(format!("/volumes/{VOLUME}/photos"));
    });
    assert!(!part.contains("volumes delete"), "{part}");
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
