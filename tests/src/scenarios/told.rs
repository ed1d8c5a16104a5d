//! What goes wrong between a cluster and an appliance is told: what cannot be made in the events of its claim, and all of it by
//! `cistern kube doctor`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{ErrorKind, Volume};

use super::claims::{LIMIT, attached, bound, claim, cluster, of_claim_named, pod};
use crate::kubernetes::{Cluster, PEER_NODE};
use crate::lab::{Lab, PEER_ADDRESS};

/// A node without the plugin.
const BARE: &str = "bare";
/// The annotation that names a node's address for storage, and an address that nobody has.
const ADDRESS: &str = "csi.cistern.storage/address";
const ELSEWHERE: &str = "10.77.0.98";
/// What the doctor may take to see what controllers were just told.
const SOON: Duration = Duration::from_secs(90);

/// A class or a claim that cannot be, by its name; and what its events are to say: what it is about, and the way out.
const REFUSED: &[(&str, &str, &[&str])] = &[
    ("full", "", &["appliance rack-1", "pool tank", "add disks to the pool"]),
    ("taken", "", &["appliance rack-1", "is in use", "make it anew"]),
    (
        "token",
        "endpoint: rack-2\n  pool: tank",
        &["appliance rack-2", "token", "Secret"],
    ),
    (
        "pool",
        "endpoint: rack-1\n  pool: tnak",
        &["parameter pool", "tnak", "there are tank"],
    ),
    (
        "endpoint",
        "endpoint: rak-1\n  pool: tank",
        &["parameter endpoint", "rak-1", "there are rack-1"],
    ),
    ("parameter", "endpoint: rack-1\n  sqash: all", &["sqash", "squash"]),
    (
        "value",
        "endpoint: rack-1\n  squash: some",
        &["squash", "some", "one of none, root, all"],
    ),
    (
        "option",
        "endpoint: rack-1\n  pool: tank\nmountOptions: [vers=3]",
        &["vers=3", "4.1"],
    ),
    (
        "block",
        "endpoint: rack-1\n  pool: tank",
        &["volumeMode", "leave volumeMode out"],
    ),
];

/// A healthy cluster is told to be one; then everything that can be refused is, and some things happen behind its back.
pub(super) fn what_goes_wrong_is_told(lab: &Lab) -> Result<()> {
    let cluster = cluster(lab)?;
    cluster.check(|cluster| {
        for name in ["data", "deleted", "forced"] {
            cluster.apply(&claim(name, "300Mi", ""))?;
            bound(cluster, name)?;
        }
        cluster.apply(&pod("writer", "data"))?;
        attached(cluster)?;
        let data = of_claim_named(lab, "data")?;
        lab.mount(&data, "/mnt/data")?;
        lab.peer.sh("echo kept > /mnt/data/file && sync /mnt/data/file")?;
        cluster.is_well(lab)?;
        moved(lab, cluster, &data)?;

        node_without_plugin(cluster)?;
        let taken = refused(lab, cluster)?;
        let mut expected: Vec<(&str, &str)> = REFUSED.iter().map(|(name, _, _)| ("claim-pending", *name)).collect();
        expected.extend([
            ("resize-stuck", "data"),
            ("modify-stuck", "data"),
            ("class-without-appliance", "bad-endpoint"),
            ("class-without-pool", "bad-pool"),
            ("token-refused", "rack-2"),
            ("node-without-plugin", BARE),
        ]);
        let kind = i32::from(ErrorKind::Unauthenticated.exit_code());
        let diagnosis = cluster.doctor_finds(lab, &expected, kind, SOON)?;
        let full = diagnosis.findings.iter().find(|found| found.object.contains("full"));
        ensure!(
            full.is_some_and(|found| found.message.contains("add disks")),
            "{diagnosis:?}"
        );
        mended(lab, cluster, &taken)?;

        behind_its_back(lab, cluster, &data)
    })
}

/// A node that has another address than the one its volume is let in from, as long as csi-attacher has not seen it.
fn moved(lab: &Lab, cluster: &Cluster, data: &Volume) -> Result<()> {
    cluster.without("csi-attacher", |cluster| {
        cluster.kubectl(&["annotate", "node", PEER_NODE, &format!("{ADDRESS}={ELSEWHERE}")])?;
        let on_node = format!("{} on node {PEER_NODE}", data.id);
        let kind = i32::from(ErrorKind::Conflict.exit_code());
        let diagnosis = cluster.doctor_finds(lab, &[("node-moved", &on_node)], kind, SOON)?;
        let mut found = diagnosis.findings.iter();
        ensure!(
            found.any(|found| found.message.contains(PEER_ADDRESS) && found.message.contains(ELSEWHERE)),
            "{diagnosis:?}"
        );
        cluster
            .kubectl(&["annotate", "node", PEER_NODE, &format!("{ADDRESS}-")])
            .map(drop)
    })?;
    cluster.is_well(lab)
}

/// A node whose kubelet knows no driver at all, as one that the plugin's pod does not come up on.
fn node_without_plugin(cluster: &Cluster) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {BARE}\n---\n\
         apiVersion: storage.k8s.io/v1\nkind: CSINode\nmetadata:\n  name: {BARE}\nspec:\n  drivers: []\n"
    ))
}

/// Asks for everything that cannot be had, and reads what the events say.
fn refused(lab: &Lab, cluster: &Cluster) -> Result<Volume> {
    let second = format!(
        "url = \"{}\"\ntoken = \"cistern_{}\"\nfingerprint = \"{}\"\n",
        lab.appliance.url()?,
        "A".repeat(43),
        lab.cli.profile_value("fingerprint")?
    );
    cluster.register("rack-2", &second)?;
    // A volume of another size has the name that this claim's is to have, before its class is there.
    cluster.apply(&of_class("taken", "bad-taken", "300Mi"))?;
    let uid = cluster.get(&["get", "pvc", "taken"])?["metadata"]["uid"]
        .as_str()
        .map(str::to_owned);
    let name = format!("pvc-{}", uid.context("a claim without a uid")?);
    let taken = lab.create_volume(&name, "500MiB")?;
    for (name, parameters, _) in REFUSED {
        let parameters = match *parameters {
            "" => "endpoint: rack-1\n  pool: tank",
            given => given,
        };
        cluster.apply(&format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: bad-{name}\nprovisioner: csi.cistern.storage\n\
             allowVolumeExpansion: true\nparameters:\n  {parameters}\n"
        ))?;
        let size = if *name == "full" { "100Ti" } else { "300Mi" };
        let mut claim = of_class(name, &format!("bad-{name}"), size);
        if *name == "block" {
            claim = claim.replace("spec:\n", "spec:\n  volumeMode: Block\n");
        }
        cluster.apply(&claim)?;
    }
    for (name, _, says) in REFUSED {
        told(cluster, name, says)?;
    }

    // What is there cannot become everything either.
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"100Ti"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", larger])?;
    told(
        cluster,
        "data",
        &["appliance rack-1", "pool tank", "add disks to the pool"],
    )?;
    cluster.apply(
        "apiVersion: storage.k8s.io/v1\nkind: VolumeAttributesClass\nmetadata:\n  name: moved\n\
         driverName: csi.cistern.storage\nparameters:\n  rootMode: \"700\"\n",
    )?;
    let moved = r#"{"spec":{"volumeAttributesClassName":"moved"}}"#;
    cluster.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", moved])?;
    told(cluster, "data", &["rootMode", "these can change"])?;
    Ok(taken)
}

/// Waits until one of a claim's warnings says all of this.
fn told(cluster: &Cluster, claim: &str, says: &[&str]) -> Result<()> {
    let told = cluster.wait(LIMIT, "event that says why", |cluster| {
        let warnings = cluster.warnings("PersistentVolumeClaim", claim)?;
        let found = warnings
            .iter()
            .find(|message| says.iter().all(|part| message.contains(part)));
        if let Some(message) = found {
            println!("     {claim}: {message}");
        }
        Ok(found.is_some())
    });
    told.map(drop).with_context(|| {
        let warnings = cluster.warnings("PersistentVolumeClaim", claim);
        format!("claim {claim} is to be told {says:?}, and has {warnings:?}")
    })
}

/// All that was asked for in vain is taken back; what there was is as it was.
fn mended(lab: &Lab, cluster: &Cluster, taken: &Volume) -> Result<()> {
    for (name, _, _) in REFUSED {
        cluster.kubectl(&["delete", "pvc", name])?;
        cluster.kubectl(&["delete", "storageclass", &format!("bad-{name}")])?;
    }
    lab.cli.ok(&["volumes", "delete", &taken.id.to_string(), "--yes"])?;
    cluster.unregister("rack-2")?;
    cluster.kubectl(&["delete", &format!("node/{BARE}"), &format!("csinode/{BARE}")])?;
    let back = r#"{"spec":{"resources":{"requests":{"storage":"400Mi"}},"volumeAttributesClassName":null}}"#;
    cluster.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", back])?;
    cluster.doctor_finds(lab, &[], 0, SOON).map(drop)
}

/// One thing of each kind that no controller puts right.
fn behind_its_back(lab: &Lab, cluster: &Cluster, data: &Volume) -> Result<()> {
    let (deleted, forced) = (of_claim_named(lab, "deleted")?, of_claim_named(lab, "forced")?);
    lab.cli.ok(&["volumes", "delete", &deleted.id.to_string(), "--yes"])?;
    let pv = forced.name.as_str();
    cluster.kubectl(&["delete", "pv", pv, "--wait=false"])?;
    cluster.kubectl(&[
        "patch",
        "pv",
        pv,
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])?;
    lab.cli
        .ok(&["volumes", "expand", &data.id.to_string(), "--size", "500MiB"])?;
    let photos = lab.create_volume("photos", "300MiB")?;
    lab.cli
        .ok(&["nodes", "add", &forced.id.to_string(), "ghost", "10.77.0.99"])?;
    let (size, left) = (data.name.as_str(), forced.id.to_string());
    let photos = photos.id.to_string();
    let found = cluster.doctor_finds(
        lab,
        &[
            ("volume-gone", deleted.name.as_str()),
            ("claim-lost", "default/forced"),
            ("volume-left-over", &left),
            ("published-unattached", &left),
            ("size-differs", size),
            ("volume-unclaimed", &photos),
        ],
        i32::from(ErrorKind::NotFound.exit_code()),
        SOON,
    )?;

    // Each cure is what it says: the leftover is taken from the node and deleted, the size is noted, the claims go.
    for kind in ["published-unattached", "volume-left-over"] {
        let commands = found.findings.iter().filter(|found| found.code == kind);
        let command = commands.flat_map(|found| &found.commands).next_back();
        let words: Vec<&str> = command.context("no command")?.split(' ').skip(1).collect();
        let yes: &[&str] = if words[0] == "volumes" { &["--yes"] } else { &[] };
        lab.cli.ok(&[&words[..], yes].concat())?;
    }
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"500Mi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", larger])?;
    cluster.kubectl(&["delete", "pvc", "deleted", "forced"])?;
    lab.cli.ok(&["volumes", "delete", &photos, "--yes"])?;
    cluster.doctor_finds(lab, &[], 0, SOON)?;
    let read = lab.peer.sh("cat /mnt/data/file")?;
    ensure!(read == "kept\n", "{read:?}");
    lab.peer.sh("umount /mnt/data").map(drop)
}

fn of_class(name: &str, class: &str, size: &str) -> String {
    claim(name, size, "").replace("storageClassName: cistern-tank", &format!("storageClassName: {class}"))
}
