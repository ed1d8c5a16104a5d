//! A cluster with one claim in use, and its appliance: all as it should be, to be changed by each case.

use std::collections::BTreeSet;

use cistern_model::{Pool, Snapshot, TrashedVolume, Volume};
use serde_json::{Value, json};

use crate::doctor::{Appliance, Cluster, Code, Entry, Finding, Holdings, Kind, Seen, Token, examine};

pub(super) const VOLUME: &str = "vol-0f8fad5bd9cb469fa16570867728950e";
pub(super) const SNAPSHOT: &str = "snap-0f8fad5bd9cb469fa16570867728950e";
pub(super) const OTHER: &str = "vol-7c9e6679742540de944be07fc1f90ae7";
pub(super) const NOW: &str = "2026-11-29T12:00:00Z";
/// Long before.
pub(super) const BEFORE: &str = "2026-11-29T11:00:00Z";
/// A moment before.
pub(super) const JUST_NOW: &str = "2026-11-29T11:59:50Z";
const POOL: &str = "pool-0f8fad5bd9cb469fa16570867728950e";
const UID: &str = "c0ffee00-0000-4000-8000-000000000001";

/// What is seen.
pub(super) struct World {
    pub(super) objects: Vec<Value>,
    pub(super) appliance: Appliance,
    /// Others, before it.
    pub(super) appliances: Vec<Appliance>,
    pub(super) registered: Option<BTreeSet<String>>,
    pub(super) now: Option<&'static str>,
}

impl World {
    pub(super) fn healthy() -> Self {
        World {
            objects: objects(),
            appliance: appliance(),
            appliances: Vec::new(),
            registered: Some(BTreeSet::from(["rack-1".to_owned()])),
            now: Some(NOW),
        }
    }

    /// The one object of this kind.
    pub(super) fn the(&mut self, kind: &str) -> &mut Value {
        self.objects.iter_mut().find(|object| object["kind"] == kind).unwrap()
    }

    pub(super) fn remove(&mut self, kind: &str) {
        self.objects.retain(|object| object["kind"] != kind);
    }

    pub(super) fn add(&mut self, object: Value) {
        self.objects.push(object);
    }

    /// A warning about an object.
    pub(super) fn say(&mut self, kind: &str, name: &str, message: &str) {
        self.add(json!({
            "kind": "Event", "type": "Warning", "message": message, "lastTimestamp": BEFORE,
            "reason": "ProvisioningFailed",
            "involvedObject": {"kind": kind, "name": name, "namespace": if kind.ends_with("Claim") { "default" } else { "" }}
        }));
    }

    pub(super) fn holdings(&mut self) -> &mut Holdings {
        self.appliance.holdings.as_mut().unwrap()
    }

    pub(super) fn volume(&mut self) -> &mut Volume {
        &mut self.holdings().volumes[0]
    }

    pub(super) fn pool(&mut self) -> &mut Pool {
        &mut self.holdings().pools[0]
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut cluster = Cluster::default();
        for kind in Kind::ALL {
            cluster.asked(kind);
        }
        cluster
            .add(&json!({"kind": "List", "items": self.objects}).to_string())
            .unwrap();
        if let Some(registered) = &self.registered {
            cluster.set_registered(registered.clone());
        }
        let seen = Seen {
            cluster,
            appliances: self
                .appliances
                .iter()
                .cloned()
                .chain([self.appliance.clone()])
                .collect(),
            namespace: "storage".to_owned(),
            now: self.now.map(|now| now.parse().unwrap()),
        };
        examine(&seen)
    }

    pub(super) fn codes(&self) -> Vec<Code> {
        self.findings().iter().map(|finding| finding.code).collect()
    }
}

fn objects() -> Vec<Value> {
    let reference = json!({"namespace": "default", "name": "data", "uid": UID});
    let lease = |name: &str| {
        json!({
            "kind": "Lease", "metadata": {"name": name, "namespace": "cistern-csi"},
            "spec": {"holderIdentity": "one", "renewTime": "2026-11-29T11:59:55.123456Z", "leaseDurationSeconds": 15}
        })
    };
    vec![
        json!({
            "kind": "PersistentVolume",
            "metadata": {"name": format!("pvc-{UID}"), "annotations": {"pv.kubernetes.io/provisioned-by": "csi.cistern.storage"},
                "finalizers": ["kubernetes.io/pv-protection"], "creationTimestamp": BEFORE},
            "spec": {"capacity": {"storage": "300Mi"}, "claimRef": reference, "persistentVolumeReclaimPolicy": "Delete",
                "csi": {"driver": "csi.cistern.storage", "volumeHandle": format!("rack-1:{VOLUME}")}},
            "status": {"phase": "Bound"}
        }),
        json!({
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "default", "uid": UID, "creationTimestamp": BEFORE},
            "spec": {"storageClassName": "cistern-tank", "volumeName": format!("pvc-{UID}"),
                "resources": {"requests": {"storage": "10Mi"}}},
            "status": {"phase": "Bound", "capacity": {"storage": "300Mi"}}
        }),
        json!({
            "kind": "VolumeAttachment", "metadata": {"name": "csi-1", "finalizers": ["external-attacher/csi-cistern-storage"]},
            "spec": {"attacher": "csi.cistern.storage", "nodeName": "n1", "source": {"persistentVolumeName": format!("pvc-{UID}")}},
            "status": {"attached": true}
        }),
        json!({
            "kind": "Node", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.7"}]}
        }),
        json!({"kind": "CSINode", "metadata": {"name": "n1"}, "spec": {"drivers": [{"name": "csi.cistern.storage"}]}}),
        serde_saphyr::from_str(crate::manifests::CSIDRIVER).unwrap(),
        json!({
            "kind": "StorageClass", "metadata": {"name": "cistern-tank"}, "provisioner": "csi.cistern.storage",
            "parameters": {"endpoint": "rack-1", "pool": "tank"}, "volumeBindingMode": "Immediate"
        }),
        json!({
            "kind": "VolumeSnapshot", "metadata": {"name": "before", "namespace": "default"},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"boundVolumeSnapshotContentName": "content-1", "readyToUse": true}
        }),
        json!({
            "kind": "VolumeSnapshotContent", "metadata": {"name": "content-1"},
            "spec": {"driver": "csi.cistern.storage", "deletionPolicy": "Delete",
                "volumeSnapshotRef": {"namespace": "default", "name": "before", "uid": UID}},
            "status": {"snapshotHandle": format!("rack-1:{SNAPSHOT}"), "readyToUse": true}
        }),
        json!({
            "kind": "Pod", "metadata": {"name": "writer", "namespace": "default"},
            "spec": {"nodeName": "n1", "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]},
            "status": {"phase": "Running"}
        }),
        lease("csi-cistern-storage"),
        lease("external-attacher-leader-csi-cistern-storage"),
        lease("external-resizer-csi-cistern-storage"),
        lease("external-snapshotter-leader-csi-cistern-storage"),
    ]
}

fn appliance() -> Appliance {
    let pool = json!({
        "id": POOL, "name": "tank", "layout": "mirror", "state": "ready", "reason": null, "disks": [], "missing_disks": 0,
        "size": 107_374_182_400_u64, "promised": 314_572_800, "available": 107_059_609_600_u64, "used": 1_048_576,
        "metadata_percent": 1.0, "sync_percent": 100.0, "volumes": 1
    });
    Appliance {
        id: "rack-1".to_owned(),
        command: "cistern".to_owned(),
        url: Some("https://10.0.0.5:8443".to_owned()),
        entry: Some(Entry {
            url: "https://10.0.0.5:8443".to_owned(),
            token: "cistern_x".to_owned(),
            fingerprint: "0f".repeat(32),
            nfs: None,
            zone: None,
        }),
        token: Token::Works {
            sees: BTreeSet::from([VOLUME.parse().unwrap()]),
        },
        fingerprint: Some("0f".repeat(32)),
        holdings: Ok(Holdings {
            pools: vec![serde_json::from_value(pool).unwrap()],
            volumes: vec![volume(VOLUME, &format!("pvc-{UID}"), "cluster")],
            trash: Vec::new(),
            snapshots: vec![snapshot(SNAPSHOT, &format!("snapshot-{UID}"))],
            live: Some(vec![live("10.0.0.7", &[VOLUME])]),
            away: Vec::new(),
        }),
    }
}

pub(super) fn volume(id: &str, name: &str, owner: &str) -> Volume {
    let published = json!([{"name": "n1", "addresses": ["10.0.0.7"], "read_only": false, "alone": true}]);
    serde_json::from_value(json!({
        "id": id, "name": name, "pool": POOL, "pool_name": "tank", "size": 314_572_800, "used": null, "state": "ready",
        "reason": null, "owner": owner, "clients": [], "nodes": if id == VOLUME { published } else { json!([]) }, "labels": {},
        "export": {"path": format!("/volumes/{id}"), "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"}, "created": BEFORE
    }))
    .unwrap()
}

pub(super) fn snapshot(id: &str, name: &str) -> Snapshot {
    serde_json::from_value(json!({
        "id": id, "name": name, "pool": POOL, "pool_name": "tank", "volume": VOLUME, "volume_name": "pvc-1",
        "volume_exists": true, "size": 314_572_800, "state": "ready", "reason": null, "owner": "cluster", "created": BEFORE,
        "scheduled": [], "group": null, "clients": [], "export": null, "referenced": null, "exclusive": null
    }))
    .unwrap()
}

pub(super) fn trashed(id: &str) -> TrashedVolume {
    serde_json::from_value(json!({
        "id": id, "name": "gone", "pool": POOL, "pool_name": "tank", "size": 314_572_800, "owner": "cluster", "labels": {},
        "created": BEFORE, "deleted": BEFORE, "purged": NOW
    }))
    .unwrap()
}

pub(super) fn live(address: &str, holds: &[&str]) -> cistern_model::LiveClient {
    let holds: Vec<Value> = holds
        .iter()
        .map(|volume| json!({"volume": volume, "held": {"opens": 1, "locks": 0, "delegations": 0}}))
        .collect();
    serde_json::from_value(json!({"address": address, "holds": holds})).unwrap()
}
