//! What a cluster's user sees: claims become volumes, grow, are copied and go, with the real controllers of Kubernetes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Snapshot, Volume};
use serde_json::Value;

use crate::kubernetes::{Cluster, PEER_NODE};
use crate::lab::{Lab, PEER_ADDRESS};

/// What a controller may take for one thing under software emulation on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
pub(super) const CLASS: &str = "cistern-tank";
const HUNDRED: usize = 100;
/// How long a claim that is in use is looked at after it was deleted.
const PROTECTED: Duration = Duration::from_secs(5);
/// As many claims at once as each run of the tests has the time for.
pub(super) const TEN: usize = 10;
/// What a cluster has of volumes and their snapshots.
const OBJECTS: &str =
    "pv,pvc,volumeattachments,volumesnapshots,volumesnapshotcontents,volumegroupsnapshots,volumegroupsnapshotcontents";

/// One claim's life.
pub(super) fn a_claim_s_life(lab: &Lab) -> Result<()> {
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        cluster.apply(&claim("data", "300Mi", ""))?;
        bound(cluster, "data")?;
        let volume = only(lab)?;
        ensure!(volume.size == Bytes::mib(300), "{volume:?}");
        let labels = serde_json::to_string(&volume.labels)?;
        ensure!(labels.contains("data") && labels.contains("default"), "{labels}");

        // A pod on a node: the attach controller asks for the volume there, and only then may its address mount it.
        ensure!(
            lab.peer.try_sh(&lab.mount_command(&volume, "/mnt/data"))?.code != 0,
            "a volume that is published to nobody could be mounted"
        );
        cluster.apply(&pod("writer", "data"))?;
        attached(cluster)?;
        lab.mount(&volume, "/mnt/data")?;
        lab.peer.sh("echo kept > /mnt/data/file && sync /mnt/data/file")?;
        cluster.is_well(lab)?;

        // It grows under its user.
        grow(cluster, "data", "600Mi")?;
        ensure!(only(lab)?.size == Bytes::mib(600), "{:?}", only(lab)?);

        // What can change while it is used, changes.
        cluster.apply(
            "apiVersion: storage.k8s.io/v1\nkind: VolumeAttributesClass\nmetadata:\n  name: squashed\n\
             driverName: csi.cistern.storage\nparameters:\n  squash: all\n",
        )?;
        let squashed = r#"{"spec":{"volumeAttributesClassName":"squashed"}}"#;
        cluster.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", squashed])?;
        cluster.wait(LIMIT, "modification", |cluster| {
            let claim = cluster.get(&["get", "pvc", "data"])?;
            Ok(claim["status"]["currentVolumeAttributesClassName"] == "squashed")
        })?;
        let options = serde_json::to_string(&only(lab)?.options)?;
        ensure!(options.contains("all"), "{options}");

        // A snapshot, a claim made of it, and a clone: each holds what was written.
        take_snapshot(cluster, "before", "data")?;
        let of_snapshot =
            "  dataSource:\n    apiGroup: snapshot.storage.k8s.io\n    kind: VolumeSnapshot\n    name: before\n";
        cluster.apply(&claim("restored", "600Mi", of_snapshot))?;
        let of_claim = "  dataSource:\n    kind: PersistentVolumeClaim\n    name: data\n";
        cluster.apply(&claim("cloned", "600Mi", of_claim))?;
        for name in ["restored", "cloned"] {
            bound(cluster, name)?;
            let volume = of_claim_named(lab, name)?;
            lab.cli.ok(&["clients", "add", volume.name.as_str(), PEER_ADDRESS])?;
            lab.mount(&volume, &format!("/mnt/{name}"))?;
            let read = lab.peer.sh(&format!("cat /mnt/{name}/file"))?;
            ensure!(read == "kept\n", "{name} holds {read:?}");
            lab.peer.sh(&format!("umount /mnt/{name}"))?;
            lab.cli.ok(&["clients", "remove", volume.name.as_str(), PEER_ADDRESS])?;
        }

        // A claim that a pod uses stays until the pod is gone; then the node is cut off, and the volume goes.
        cluster.kubectl(&["delete", "pvc", "data", "--wait=false"])?;
        // As long as a controller took that would not keep it.
        std::thread::sleep(PROTECTED);
        let claim = cluster.get(&["get", "pvc", "data"]).context("a claim in use is gone")?;
        ensure!(
            claim["metadata"]["deletionTimestamp"].is_string() && claim["status"]["phase"] == "Bound",
            "a claim in use is not protected: {claim}"
        );
        let there = of_claim_named(lab, "data").context("the volume of a claim in use is gone")?;
        ensure!(there.id == volume.id && there.nodes.len() == 1, "{there:?}");
        lab.remount(&volume, "/mnt/data")?;
        let read = lab.peer.sh("cat /mnt/data/file")?;
        ensure!(read == "kept\n", "a claim in use holds {read:?}");
        lab.peer.sh("umount /mnt/data")?;
        cluster.kubectl(&["delete", "pod", "writer", "--grace-period=0", "--force"])?;
        cluster.kubectl(&["delete", "volumesnapshot", "before"])?;
        cluster.kubectl(&["delete", "pvc", "restored", "cloned", "--wait=false"])?;
        nothing_is_left(lab, cluster)
    })
}

/// A hundred claims at once, in a pool that has room for the logs of all of them.
pub(super) fn a_hundred_claims(lab: &Lab) -> Result<()> {
    super::many::pool(lab)?;
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        cluster.apply(&claims("c", HUNDRED))?;
        let took = all_bound(cluster, HUNDRED)?;
        println!("     {HUNDRED} claims were bound in {:.1} s", took.as_secs_f32());
        none_twice(lab, HUNDRED)?;
        cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
        nothing_is_left(lab, cluster)
    })
}

/// Each part goes away once while claims are made.
pub(super) fn claims_while_parts_fail(lab: &Lab) -> Result<()> {
    while_parts_fail(lab, TEN)
}

/// The same with a hundred claims each time, in a pool that has room for them.
pub(super) fn a_hundred_claims_while_parts_fail(lab: &Lab) -> Result<()> {
    super::many::pool(lab)?;
    while_parts_fail(lab, HUNDRED)
}

/// The parts: the provisioner, the plugin, and the appliance's power.
fn while_parts_fail(lab: &Lab, count: usize) -> Result<()> {
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        for name in ["provisioner", "plugin", "power"] {
            begin(cluster, name, count)?;
            match name {
                "provisioner" => cluster.kill("csi-provisioner")?,
                "plugin" => cluster.kill("cistern-csi")?,
                _ => lab.power_cut_and_start()?,
            }
            all_bound(cluster, count)?;
            none_twice(lab, count)?;
            cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
            nothing_is_left(lab, cluster)?;
        }
        Ok(())
    })
}

/// Makes so many claims whose names begin so, and waits until a tenth of them is bound: others are under way then.
pub(super) fn begin(cluster: &Cluster, name: &str, count: usize) -> Result<()> {
    cluster.apply(&claims(name, count))?;
    cluster.wait(LIMIT, "tenth of the claims bound", |cluster| {
        Ok(count_bound(cluster, name)? >= count.div_ceil(10))
    })?;
    ensure!(
        count_bound(cluster, name)? < count,
        "all {count} claims were bound before anything could fail"
    );
    Ok(())
}

/// A control plane with the plugin, and the lab's client as a node of it.
pub(super) fn cluster(lab: &Lab) -> Result<Cluster> {
    let cluster = without_nodes(lab, &[])?;
    cluster.check(|cluster| cluster.add_node(PEER_ADDRESS))?;
    Ok(cluster)
}

/// A control plane with the plugin, installed with these words besides the usual. The pool promises more than it has.
pub(super) fn without_nodes(lab: &Lab, further: &[&str]) -> Result<Cluster> {
    lab.cli.ok(&["pools", "set", "tank", "--overcommit", "1000"])?;
    let cluster = Cluster::start(&lab.directory().join("cluster"))?;
    cluster.check(|cluster| cluster.install(lab, further))?;
    Ok(cluster)
}

pub(super) fn claim(name: &str, size: &str, source: &str) -> String {
    claim_of(name, CLASS, size, source)
}

/// So many claims whose names begin so.
fn claims(name: &str, count: usize) -> String {
    let claims: Vec<String> = (0..count).map(|n| claim(&format!("{name}-{n}"), "300Mi", "")).collect();
    claims.join("---\n")
}

pub(super) fn claim_of(name: &str, class: &str, size: &str, source: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  \
         storageClassName: {class}\n  accessModes: [ReadWriteOnce]\n{source}  resources:\n    requests:\n      storage: {size}\n"
    )
}

pub(super) fn pod(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  nodeName: {PEER_NODE}\n  containers:\n  \
         - name: main\n    image: none\n    volumeMounts:\n    - name: data\n      mountPath: /data\n  volumes:\n  \
         - name: data\n    persistentVolumeClaim:\n      claimName: {claim}\n"
    )
}

pub(super) fn bound(cluster: &Cluster, name: &str) -> Result<()> {
    let wait = cluster.wait(LIMIT, "bound claim", |cluster| {
        Ok(cluster.get(&["get", "pvc", name])?["status"]["phase"] == "Bound")
    });
    wait.map(drop).with_context(|| format!("claim {name}"))
}

/// Waits until the volume that a pod asks for is attached to its node.
pub(super) fn attached(cluster: &Cluster) -> Result<()> {
    let wait = cluster.wait(LIMIT, "attachment", |cluster| {
        let attachments = cluster.get(&["get", "volumeattachments"])?;
        Ok(attachments["items"][0]["status"]["attached"] == true)
    });
    wait.map(drop)
}

/// Has a claim grow to this size.
pub(super) fn grow(cluster: &Cluster, name: &str, size: &str) -> Result<()> {
    let larger = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#);
    cluster.kubectl(&["patch", "pvc", name, "--type=merge", "-p", &larger])?;
    let wait = cluster.wait(LIMIT, "growth", |cluster| {
        let claim = cluster.get(&["get", "pvc", name])?;
        Ok(claim["status"]["capacity"]["storage"] == size)
    });
    wait.map(drop)
}

/// Takes a snapshot of a claim.
pub(super) fn take_snapshot(cluster: &Cluster, name: &str, claim: &str) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata:\n  name: {name}\nspec:\n  \
         volumeSnapshotClassName: cistern\n  source:\n    persistentVolumeClaimName: {claim}\n"
    ))?;
    let wait = cluster.wait(LIMIT, "snapshot", |cluster| {
        let snapshot = cluster.get(&["get", "volumesnapshot", name])?;
        Ok(snapshot["status"]["readyToUse"] == true)
    });
    wait.map(drop)
}

/// How many claims are bound whose names begin so.
pub(super) fn count_bound(cluster: &Cluster, name: &str) -> Result<usize> {
    let claims = cluster.get(&["get", "pvc"])?;
    let bound = claims["items"].as_array().into_iter().flatten().filter(|claim| {
        let named = claim["metadata"]["name"].as_str().unwrap_or_default();
        named.starts_with(name) && claim["status"]["phase"] == "Bound"
    });
    Ok(bound.count())
}

pub(super) fn all_bound(cluster: &Cluster, count: usize) -> Result<Duration> {
    let limit = LIMIT + Duration::from_secs(6) * u32::try_from(count)?;
    cluster.wait(limit, "claims bound", |cluster| Ok(count_bound(cluster, "")? == count))
}

/// As many volumes as claims, and as many names.
pub(super) fn none_twice(lab: &Lab, count: usize) -> Result<()> {
    let volumes = volumes(lab)?;
    let mut names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    names.sort();
    names.dedup();
    ensure!(
        volumes.len() == count && names.len() == count,
        "{} volumes, {} names, {count} claims",
        volumes.len(),
        names.len()
    );
    Ok(())
}

/// Neither in the cluster nor on the appliance: no volume, and no snapshot of one. Who keeps one on purpose deletes it first.
pub(super) fn nothing_is_left(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let limit = LIMIT + Duration::from_secs(6) * u32::try_from(volumes(lab)?.len())?;
    let waited = cluster.wait(limit, "end of all volumes and snapshots", |cluster| {
        // An appliance whose power was cut is asked again.
        Ok(what_is_left(lab, cluster).is_ok_and(|left| left.is_empty()))
    });
    waited.map(drop).with_context(|| match what_is_left(lab, cluster) {
        Ok(left) => format!("left are {}", left.join(", ")),
        Err(error) => format!("what is left could not be asked for: {error:#}"),
    })
}

fn what_is_left(lab: &Lab, cluster: &Cluster) -> Result<Vec<String>> {
    let objects = cluster.get(&["get", OBJECTS])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let objects = objects["items"].as_array().into_iter().flatten();
    let mut left: Vec<String> = objects
        .map(|object| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"])))
        .collect();
    left.extend(volumes(lab)?.iter().map(|volume| format!("volume {}", volume.name)));
    let snapshots: Vec<Snapshot> = lab.cli.json(&["snapshots", "list"])?;
    left.extend(snapshots.iter().map(|snapshot| format!("snapshot {}", snapshot.name)));
    Ok(left)
}

pub(super) fn volumes(lab: &Lab) -> Result<Vec<Volume>> {
    lab.cli.json(&["volumes", "list"])
}

pub(super) fn only(lab: &Lab) -> Result<Volume> {
    let mut all = volumes(lab)?;
    ensure!(all.len() == 1, "one volume was to be there: {all:?}");
    all.pop().context("a volume")
}

/// The volume of the claim of this name, by the label that the plugin gave it.
pub(super) fn of_claim_named(lab: &Lab, name: &str) -> Result<Volume> {
    let label = format!("kubernetes.io/claim={name}");
    let mut found: Vec<Volume> = lab.cli.json(&["volumes", "list", "--label", &label])?;
    ensure!(found.len() == 1, "one volume was to carry {label}: {found:?}");
    found.pop().context("a volume")
}
