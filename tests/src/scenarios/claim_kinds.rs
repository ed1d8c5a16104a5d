//! Claims of all kinds: bound late, kept, made by a StatefulSet, snapshotted together, given by hand, and on a node that has an address
//! for storage and gets another.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cistern_model::{Volume, VolumeId};
use serde_json::Value;

use super::claims::{
    LIMIT, attached, bound, claim_of, cluster, count_bound, nothing_is_left, of_claim_named, pod, volumes,
};
use super::own_token::of_a_token_of_its_own;
use crate::kubernetes::{Cluster, MANIFESTS, PEER_NODE, helm_makes_what_is_printed, on_no_node};
use crate::lab::{APPLIANCE_ADDRESS, Lab, PEER_ADDRESS};

/// The annotation by which a node's address for storage is another than its Node object's, as an operator writes it.
const ADDRESS: &str = "csi.cistern.storage/address";
/// Such an address of the lab's client.
const STORAGE: &str = "10.77.0.42";
/// What the Node object says from then on. Nobody is there: what becomes of a node that is, `a-node-moves` tries.
const ELSEWHERE: &str = "10.77.0.99";

/// Each kind. While the cluster finds out that a node moved, the others take their turn.
pub(super) fn claims_of_all_kinds(lab: &Lab) -> Result<()> {
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        same_as_a_base(lab, cluster).context("a kustomize base")?;
        helm_makes_what_is_printed(lab)?;
        classes(cluster)?;
        cluster.kubectl(&["annotate", "node", PEER_NODE, &format!("{ADDRESS}={STORAGE}")])?;
        bound_late(cluster).context("a claim that waits for its pod")?;
        let late = of_claim_named(lab, "late")?;
        from_its_storage_address(lab, &late).context("a node with an address for storage")?;
        // Once the annotation is gone the Node object's address counts, which is another one now.
        cluster.set_address(ELSEWHERE)?;
        cluster.kubectl(&["annotate", "node", PEER_NODE, &format!("{ADDRESS}-")])?;
        let began = Instant::now();
        of_a_set(cluster).context("a StatefulSet")?;
        together(lab, cluster).context("snapshots of one moment")?;
        kept(lab, cluster).context("a claim that is kept")?;
        by_hand(lab, cluster).context("a volume that was given by hand")?;
        moved(lab, cluster, late.id).context("a node whose address changes")?;
        println!(
            "     {:.0} s after a node's address changed its volume was published to the new one alone",
            began.elapsed().as_secs_f32()
        );
        cluster.kubectl(&["delete", "pod", "late-pod", "--grace-period=0", "--force"])?;
        of_a_token_of_its_own(lab, cluster).context("a class with a token of its own")?;
        cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
        nothing_is_left(lab, cluster)
    })
}

/// A kustomize base with the same words installs what the printed text installed.
fn same_as_a_base(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let (folder, token) = (lab.directory().join("base"), lab.directory().join("token"));
    std::fs::write(&token, cluster.appliance_token("rack-1")?)?;
    let (folder, token) = (folder.display().to_string(), token.display().to_string());
    let words = ["--token-file", &token, "--kustomize", &folder];
    lab.cli.ok(&[MANIFESTS, &words].concat())?;
    let built = lab.directory().join("built.yaml");
    std::fs::write(&built, on_no_node(&cluster.kubectl(&["kustomize", &folder])?)?)?;
    // It ends with an error if anything differs.
    cluster
        .kubectl(&["diff", "--server-side", "-f", &built.display().to_string()])
        .map(drop)
}

/// The printed class, once bound late and once kept.
fn classes(cluster: &Cluster) -> Result<()> {
    let printed = cluster.get(&["get", "storageclass", "cistern-tank"])?;
    for (name, field, value) in [
        ("late", "volumeBindingMode", "WaitForFirstConsumer"),
        ("kept", "reclaimPolicy", "Retain"),
    ] {
        let mut class = printed.clone();
        class["metadata"] = serde_json::json!({ "name": name });
        class[field] = value.into();
        cluster.apply(&class.to_string())?;
    }
    // As a kubelet says of a node that can take pods.
    cluster.set_status(r#"{"allocatable":{"pods":"110"},"capacity":{"pods":"110"}}"#)
}

/// It is made when a pod that needs it has got its node from the scheduler, and not before.
fn bound_late(cluster: &Cluster) -> Result<()> {
    cluster.apply(&claim_of("late", "late", "300Mi", ""))?;
    cluster.wait(LIMIT, "event that says what is waited for", |cluster| {
        Ok(events(cluster, "late")?.contains("waiting for first consumer"))
    })?;
    ensure!(count_bound(cluster, "late")? == 0, "it was bound to no pod's node");
    cluster.apply(&scheduled("late-pod", "late"))?;
    bound(cluster, "late")?;
    attached(cluster)
}

/// A volume is let in from the address that the annotation names, where the node has it, and from no other of its addresses.
fn from_its_storage_address(lab: &Lab, volume: &Volume) -> Result<()> {
    let let_in = addresses(lab, volume.id)?;
    ensure!(let_in == [STORAGE], "it is let in from {let_in:?}");
    let mount = lab.mount_command(volume, "/mnt/kind");
    ensure!(
        lab.peer.try_sh(&mount)?.code != 0,
        "a node with an address for storage could mount from its other one"
    );
    let route = format!("{APPLIANCE_ADDRESS} dev lab0 src {STORAGE}");
    lab.peer
        .sh(&format!("ip address add {STORAGE}/32 dev lab0 && ip route add {route}"))?;
    lab.peer
        .sh(&format!("{mount} && touch /mnt/kind/file && umount /mnt/kind"))?;
    lab.peer
        .sh(&format!("ip route del {route} && ip address del {STORAGE}/32 dev lab0"))
        .map(drop)
}

/// A node whose address changes keeps its volumes: they are published to it anew, and to its old address no more.
fn moved(lab: &Lab, cluster: &Cluster, volume: VolumeId) -> Result<()> {
    cluster.wait(LIMIT, "publication to the new address", |_| {
        Ok(addresses(lab, volume)? == [ELSEWHERE])
    })?;
    Ok(())
}

/// From where a volume may be mounted, by clients of its own or by nodes.
fn addresses(lab: &Lab, volume: VolumeId) -> Result<Vec<String>> {
    let all = find(lab, volume)?.peers();
    Ok(all.iter().map(ToString::to_string).collect())
}

fn find(lab: &Lab, id: VolumeId) -> Result<Volume> {
    let found = volumes(lab)?.into_iter().find(|volume| volume.id == id);
    found.with_context(|| format!("there is no volume {id}"))
}

/// A claim for each of its pods, which stays when the set is made smaller.
fn of_a_set(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: db\n  namespace: default\nspec:\n  replicas: 3\n  \
         serviceName: db\n  podManagementPolicy: Parallel\n  selector:\n    matchLabels: {app: db}\n  template:\n    metadata:\n      \
         labels: {app: db}\n    spec:\n      tolerations: [{operator: Exists}]\n      containers:\n      - name: main\n        \
         image: none\n        volumeMounts: [{name: data, mountPath: /data}]\n  volumeClaimTemplates:\n  - metadata:\n      name: data\n    \
         spec:\n      storageClassName: late\n      accessModes: [ReadWriteOncePod]\n      resources:\n        requests:\n          \
         storage: 300Mi\n",
    )?;
    cluster.wait(LIMIT, "claims of the set", |cluster| {
        Ok(count_bound(cluster, "data-db-")? == 3)
    })?;
    cluster.kubectl(&["scale", "statefulset", "db", "--replicas=1"])?;
    cluster.wait(LIMIT, "end of two pods", |cluster| {
        forget_pods(cluster)?;
        let pods = cluster.get(&["-n", "default", "get", "pods"])?;
        Ok(names(&pods) == ["db-0", "late-pod"])
    })?;
    ensure!(count_bound(cluster, "data-db-")? == 3, "a smaller set lost claims");
    cluster.kubectl(&["delete", "statefulset", "db"])?;
    cluster.wait(LIMIT, "end of all pods", |cluster| {
        forget_pods(cluster)?;
        Ok(names(&cluster.get(&["-n", "default", "get", "pods"])?) == ["late-pod"])
    })?;
    cluster.kubectl(&["delete", "pvc", "data-db-0", "data-db-1", "data-db-2", "--wait=false"])?;
    Ok(())
}

/// Nobody runs pods here: what is to end ends at once.
fn forget_pods(cluster: &Cluster) -> Result<()> {
    let pods = cluster.get(&["-n", "default", "get", "pods"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let end = [
                "-n",
                "default",
                "delete",
                "pod",
                name,
                "--grace-period=0",
                "--force",
                "--ignore-not-found",
            ];
            cluster.kubectl(&end)?;
        }
    }
    Ok(())
}

/// Two claims of one application at one moment, and one of them made anew from that.
fn together(lab: &Lab, cluster: &Cluster) -> Result<()> {
    for name in ["app-data", "app-log"] {
        cluster.apply(&claim_of(name, "cistern-tank", "300Mi", ""))?;
        bound(cluster, name)?;
        cluster.kubectl(&["label", "pvc", name, "app=shop"])?;
        write(lab, &of_claim_named(lab, name)?, name)?;
    }
    cluster.apply(
        "apiVersion: groupsnapshot.storage.k8s.io/v1\nkind: VolumeGroupSnapshot\nmetadata:\n  name: evening\n  namespace: default\n\
         spec:\n  volumeGroupSnapshotClassName: cistern\n  source:\n    selector:\n      matchLabels: {app: shop}\n",
    )?;
    cluster.wait(LIMIT, "snapshots of the group", |cluster| {
        let group = cluster.get(&["get", "volumegroupsnapshot", "evening"])?;
        Ok(group["status"]["readyToUse"] == true)
    })?;
    let snapshots = cluster.get(&["get", "volumesnapshots"])?;
    let members = snapshots["items"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(members.len() == 2, "a group of two claims has {members:?}");
    let of_log = members
        .iter()
        .find(|member| member["spec"]["source"]["persistentVolumeClaimName"] == "app-log")
        .or_else(|| members.iter().find(|member| member.to_string().contains("app-log")))
        .and_then(|member| member["metadata"]["name"].as_str())
        .with_context(|| format!("a snapshot of app-log in {members:?}"))?;
    let source =
        format!("  dataSource:\n    apiGroup: snapshot.storage.k8s.io\n    kind: VolumeSnapshot\n    name: {of_log}\n");
    cluster.apply(&claim_of("again", "cistern-tank", "300Mi", &source))?;
    bound(cluster, "again")?;
    let read = read(lab, &of_claim_named(lab, "again")?)?;
    ensure!(read == "app-log\n", "the restored member holds {read:?}");
    cluster.kubectl(&["delete", "volumegroupsnapshot", "evening"])?;
    cluster.kubectl(&["delete", "pvc", "app-data", "app-log", "again", "--wait=false"])?;
    Ok(())
}

/// A volume of a class that keeps what it had: it outlives its claim, and is found again by the next one.
fn kept(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster.apply(&claim_of("kept", "kept", "300Mi", ""))?;
    bound(cluster, "kept")?;
    let volume = of_claim_named(lab, "kept")?;
    write(lab, &volume, "kept")?;
    let claim = cluster.get(&["get", "pvc", "kept"])?;
    let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    cluster.kubectl(&["delete", "pvc", "kept"])?;
    cluster.wait(LIMIT, "released volume", |cluster| {
        Ok(cluster.get(&["get", "pv", name])?["status"]["phase"] == "Released")
    })?;
    find(lab, volume.id)?;
    let freed = r#"[{"op":"remove","path":"/spec/claimRef"}]"#;
    cluster.kubectl(&["patch", "pv", name, "--type=json", "-p", freed])?;
    let given = format!("  volumeName: {name}\n");
    cluster.apply(&claim_of("found", "kept", "300Mi", &given))?;
    bound(cluster, "found")?;
    let read = read(lab, &volume)?;
    ensure!(read == "kept\n", "the volume that was found again holds {read:?}");
    // Who wants it gone says so: to the cluster, which forgets it, and to the appliance.
    cluster.kubectl(&["delete", "pvc", "found"])?;
    cluster.kubectl(&["delete", "pv", name])?;
    find(lab, volume.id).context("a deleted PersistentVolume took its volume along")?;
    lab.cli.ok(&["volumes", "delete", volume.name.as_str(), "--yes"])?;
    Ok(())
}

/// A volume that was made by hand is given to a claim by what `volumes show -o pv` prints, and is nobody's to delete.
fn by_hand(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let volume = lab.create_volume("photos", "300MiB")?;
    // The plugin sees only what its token owns; the node's own client asks nobody.
    lab.cli.ok(&["volumes", "chown", "photos", "cluster"])?;
    let nodes = |lab: &Lab| find(lab, volume.id).map(|volume| volume.nodes.len());
    for (claim, argument) in [
        ("plugged", ["--appliance", "rack-1"]),
        ("plain", ["--server", "10.77.0.1"]),
    ] {
        let show = ["-o", "pv", "volumes", "show", "photos", argument[0], argument[1]];
        cluster.apply(&lab.cli.ok(&show)?)?;
        let given = format!("  volumeName: {}\n", volume.id);
        let text = claim_of(claim, "\"\"", "300Mi", &given).replace("ReadWriteOnce", "ReadWriteMany");
        cluster.apply(&text)?;
        bound(cluster, claim)?;
        if claim == "plugged" {
            cluster.apply(&pod("viewer", claim))?;
            cluster.wait(LIMIT, "publication to the node", |_| Ok(nodes(lab)? == 1))?;
            cluster.kubectl(&["delete", "pod", "viewer", "--grace-period=0", "--force"])?;
            cluster.wait(LIMIT, "end of the publication", |_| Ok(nodes(lab)? == 0))?;
        }
        cluster.kubectl(&["delete", "pvc", claim])?;
        cluster.kubectl(&["delete", "pv", volume.id.to_string().as_str()])?;
        find(lab, volume.id).context("a volume that was given by hand was deleted")?;
    }
    lab.cli.ok(&["volumes", "delete", "photos", "--yes"])?;
    Ok(())
}

/// A pod that the scheduler is to find a node for; ours never said that it is ready.
fn scheduled(name: &str, claim: &str) -> String {
    pod(name, claim).replace(
        &format!("  nodeName: {PEER_NODE}\n"),
        "  tolerations: [{operator: Exists}]\n",
    )
}

fn events(cluster: &Cluster, of: &str) -> Result<String> {
    let field = format!("--field-selector=involvedObject.name={of}");
    cluster.kubectl(&["-n", "default", "get", "events", &field])
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn write(lab: &Lab, volume: &Volume, text: &str) -> Result<()> {
    through(
        lab,
        volume,
        &format!("echo {text} > /mnt/kind/file && sync /mnt/kind/file"),
    )
    .map(drop)
}

fn read(lab: &Lab, volume: &Volume) -> Result<String> {
    through(lab, volume, "cat /mnt/kind/file")
}

/// Does something with a volume's files from the client, which is let in meanwhile.
fn through(lab: &Lab, volume: &Volume, command: &str) -> Result<String> {
    lab.cli.ok(&["clients", "add", volume.name.as_str(), PEER_ADDRESS])?;
    lab.mount(volume, "/mnt/kind")?;
    let said = lab.peer.sh(command)?;
    lab.peer.sh("umount /mnt/kind")?;
    lab.cli.ok(&["clients", "remove", volume.name.as_str(), PEER_ADDRESS])?;
    Ok(said)
}
