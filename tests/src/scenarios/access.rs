//! Who may use what, on nodes with a real kubelet: access modes as pods meet them, and volumes that an operator made and gave to a cluster.

use anyhow::{Result, ensure};
use cistern_model::Volume;
use serde_json::json;

use super::claims::{self, CLASS};
use super::rack::{A, B, LIMIT, MEMORY_MIB, Rack, SIZE, STAY, on_two_nodes};
use crate::kubernetes::pods;
use crate::lab::{APPLIANCE_ADDRESS, Lab};

/// The network that the nodes mount from.
const NETWORK: &str = "10.77.0.0/24";

/// Of a claim for one pod a second one waits; what it held then is read on both nodes, and written on none.
pub(super) fn who_may_use_what(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        one_pod_at_a_time(rack)?;
        rack.apply(&json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": { "name": "kept" },
            "spec": { "volumeSnapshotClassName": "cistern", "source": { "persistentVolumeClaimName": "own" } },
        }))?;
        rack.cluster.wait(LIMIT, "snapshot", |cluster| {
            let snapshot = cluster.get(&["get", "volumesnapshot", "kept"])?;
            Ok(snapshot["status"]["readyToUse"] == true)
        })?;
        let mut spec = pods::claim(CLASS, "ReadOnlyMany", SIZE);
        spec["dataSource"] = json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "kept" });
        rack.claim_like("shown", &spec)?;
        for (reader, node) in [("reader-a", A), ("reader-b", B)] {
            let script = format!("echo \"read $(cat /data/file)\"; touch /data/more; echo more >> /data/file; {STAY}");
            rack.pod(reader, node, "shown", &script, &json!({}))?;
        }
        for (reader, node) in [("reader-a", A), ("reader-b", B)] {
            for text in [
                "read first",
                "/data/more: Read-only file system",
                "/data/file: Read-only file system",
            ] {
                rack.wait_for_log(node, reader, text)?;
            }
        }
        let published = rack.published(&claims::of_claim_named(lab, "shown")?)?;
        ensure!(
            published.len() == 2 && published.iter().all(|node| node.read_only && !node.alone),
            "{published:?}"
        );
        rack.is_well()?;
        rack.cluster.kubectl(&["delete", "volumesnapshot", "kept"]).map(drop)
    })
}

/// A second pod waits for the first to go, also on the node of that one, where it might have a claim for one node.
fn one_pod_at_a_time(rack: &Rack) -> Result<()> {
    rack.claim("own", "ReadWriteOncePod")?;
    let script = format!("hostname > /data/file && sync /data/file && echo wrote; {STAY}");
    rack.pod("first", A, "own", &script, &json!({}))?;
    rack.wait_for_log(A, "first", "wrote")?;
    rack.is_published_to(&[A])?;
    // One has no place before the scheduler gives it one. The other brought its place along, and the kubelet refuses it there, before
    // the plugin would (csi-sanity asks that by itself).
    let script = format!("echo \"read $(cat /data/file)\"; {STAY}");
    rack.pod("second", A, "own", &script, &json!({}))?;
    rack.pod("placed", A, "own", &script, &json!({ "nodeName": A }))?;
    rack.wait_for_word("second", "ReadWriteOncePod access mode already in-use")?;
    rack.wait_for_word(
        "placed",
        "ReadWriteOncePod access mode and is already in use by another pod",
    )?;
    for waits in ["second", "placed"] {
        let pod = rack.cluster.get(&["get", "pod", waits])?;
        ensure!(pod["status"]["phase"] == "Pending", "{waits} is {}", pod["status"]);
        ensure!(rack.node(A)?.log(waits)?.is_empty(), "{waits} ran beside the first");
    }
    // They have their turns, one after the other.
    rack.cluster.kubectl(&["delete", "pod", "first"])?;
    rack.wait_for_log(A, "placed", "read first")?;
    ensure!(rack.node(A)?.log("second")?.is_empty(), "two pods ran at once");
    rack.cluster.kubectl(&["delete", "pod", "placed"])?;
    rack.wait_for_log(A, "second", "read first")
}

/// A volume that was made by hand is used by a pod through the plugin, and then by one through Kubernetes' own NFS client.
pub(super) fn volumes_by_hand_in_pods(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        let volume: Volume = lab
            .cli
            .json(&["volumes", "create", "photos", "--pool", "tank", "--size", "300MiB"])?;
        // The plugin sees only what its token owns, and lets nodes in by itself.
        lab.cli.ok(&["volumes", "chown", "photos", "cluster"])?;
        give(rack, &volume, "plugged", ["--appliance", "rack-1"])?;
        let script = format!("hostname > /data/one && sync /data/one && echo wrote; {STAY}");
        rack.pod("one", A, "plugged", &script, &json!({}))?;
        rack.wait_for_log(A, "one", "wrote")?;
        rack.is_published_to(&[A])?;
        take_back(rack, &volume, "one", "plugged")?;

        // Kubernetes' own client asks nobody to be let in.
        lab.cli.ok(&["clients", "add", "photos", NETWORK])?;
        give(rack, &volume, "plain", ["--server", APPLIANCE_ADDRESS])?;
        let script =
            format!("hostname > /data/two && sync /data/two && echo \"wrote beside $(cat /data/one)\"; {STAY}");
        rack.pod("two", B, "plain", &script, &json!({}))?;
        rack.wait_for_log(B, "two", "wrote beside one")?;
        rack.is_published_to(&[])?;
        rack.node(B)?
            .machine
            .sh("grep ' /var/lib/kubelet/pods/.*/kubernetes.io~nfs/.* nfs4 .*vers=4.2' /proc/self/mounts")?;
        rack.is_well()?;
        take_back(rack, &volume, "two", "plain")?;

        // No cluster deletes it, and what pods wrote is there.
        lab.mount(&volume, "/mnt/photos")?;
        let read = lab
            .peer
            .sh("cat /mnt/photos/one /mnt/photos/two && umount /mnt/photos")?;
        ensure!(read == "one\ntwo\n", "{read:?}");
        lab.cli.ok(&["volumes", "delete", "photos", "--yes"]).map(drop)
    })
}

/// Gives a volume to a claim of this name, by the PersistentVolume that is printed for these words.
fn give(rack: &Rack, volume: &Volume, claim: &str, words: [&str; 2]) -> Result<()> {
    let show = ["-o", "pv", "volumes", "show", volume.name.as_str(), words[0], words[1]];
    rack.cluster.apply(&rack.lab.cli.ok(&show)?)?;
    let mut spec = pods::claim("", "ReadWriteMany", SIZE);
    spec["volumeName"] = volume.id.to_string().into();
    rack.claim_like(claim, &spec)
}

/// Ends the pod that has it, and takes it from the cluster.
fn take_back(rack: &Rack, volume: &Volume, pod: &str, claim: &str) -> Result<()> {
    rack.cluster.kubectl(&["delete", "pod", pod])?;
    rack.cluster.wait(LIMIT, "end of the publication", |_| {
        Ok(rack.published(volume)?.is_empty())
    })?;
    rack.cluster.kubectl(&["delete", "pvc", claim])?;
    rack.cluster
        .kubectl(&["delete", "pv", volume.id.to_string().as_str()])
        .map(drop)
}
