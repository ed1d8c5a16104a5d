//! What the controller's account may do (templates/access.yaml), held against what the sidecars of the pinned versions ask for.
//!
//! Invariant: a right has a reason. The calls were looked for in the sources of csi-provisioner v6.3.0 and its library v13.0.0, csi-attacher
//! v4.13.0, csi-resizer v2.3.0, csi-snapshotter v8.7.0 and client-go; with another version they are to be looked for again.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::manifests::SIDECARS;
use crate::manifests::tests::{installation, objects};

/// No call of it was found; the `rbac.yaml` that comes with the sidecar grants it.
const UPSTREAM: &str = "the sidecar's own rbac.yaml has it";

/// Of what kind of object, which verbs, and why.
type Right = (&'static str, &'static str, &'static str);

const IN_THE_CLUSTER: &[Right] = &[
    ("nodes", "get list", "cistern-csi: from where a node mounts"),
    ("nodes", "watch", "csi-provisioner's informer, with zones"),
    (
        "events",
        "create patch",
        "client-go's recordEvent: a new one, and one that comes again",
    ),
    ("events", "list watch update", UPSTREAM),
    (
        "persistentvolumes",
        "get",
        "csi-provisioner: the volume of a claim that is cloned",
    ),
    (
        "persistentvolumes",
        "list watch",
        "informers of csi-provisioner, csi-attacher and csi-resizer",
    ),
    (
        "persistentvolumes",
        "create delete",
        "csi-provisioner's library: volume_store.go, deleteVolumeOperation",
    ),
    (
        "persistentvolumes",
        "patch",
        "finalizers of csi-provisioner's library and of csi-attacher; csi-resizer notes a size",
    ),
    ("persistentvolumeclaims", "get", UPSTREAM),
    (
        "persistentvolumeclaims",
        "list watch",
        "informers of csi-provisioner and csi-resizer",
    ),
    (
        "persistentvolumeclaims",
        "update",
        "csi-provisioner: a finalizer while it is cloned; its library: rescheduleProvisioning",
    ),
    (
        "persistentvolumeclaims/status",
        "patch",
        "csi-resizer: PatchClaim, always of the status",
    ),
    ("storageclasses.storage.k8s.io", "get", UPSTREAM),
    (
        "storageclasses.storage.k8s.io",
        "list watch",
        "csi-provisioner's informer",
    ),
    ("csinodes.storage.k8s.io", "get", UPSTREAM),
    (
        "csinodes.storage.k8s.io",
        "list watch",
        "informers of csi-attacher and, with zones, of csi-provisioner",
    ),
    (
        "volumeattributesclasses.storage.k8s.io",
        "get",
        "csi-provisioner, when it makes a volume of one",
    ),
    (
        "volumeattributesclasses.storage.k8s.io",
        "list watch",
        "csi-resizer's informer",
    ),
    ("volumeattachments.storage.k8s.io", "get", UPSTREAM),
    (
        "volumeattachments.storage.k8s.io",
        "list watch",
        "informers of csi-attacher and csi-provisioner",
    ),
    (
        "volumeattachments.storage.k8s.io",
        "patch",
        "csi-attacher: patchVA, markAsDetached",
    ),
    (
        "volumeattachments/status.storage.k8s.io",
        "patch",
        "csi-attacher: patchVA, markAsAttached",
    ),
    (
        "volumesnapshots.snapshot.storage.k8s.io",
        "get list watch update",
        "csi-provisioner: a finalizer while a claim is made of one, and its sweep",
    ),
    ("volumesnapshotclasses.snapshot.storage.k8s.io", "get", UPSTREAM),
    (
        "volumesnapshotclasses.snapshot.storage.k8s.io",
        "list watch",
        "csi-snapshotter's informer",
    ),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "get",
        "csi-provisioner: what a claim is made of; csi-snapshotter: updateSnapshotContentStatus",
    ),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "list watch",
        "csi-snapshotter's informer",
    ),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "patch",
        "csi-snapshotter: PatchVolumeSnapshotContent, for finalizers and annotations",
    ),
    ("volumesnapshotcontents.snapshot.storage.k8s.io", "update", UPSTREAM),
    (
        "volumesnapshotcontents/status.snapshot.storage.k8s.io",
        "update patch",
        "csi-snapshotter: UpdateStatus, PatchVolumeSnapshotContent",
    ),
    (
        "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io",
        "get",
        UPSTREAM,
    ),
    (
        "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io",
        "list watch",
        "csi-snapshotter's informer, and whether there is the kind",
    ),
    (
        "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
        "get",
        "csi-snapshotter: groupsnapshot_helper.go",
    ),
    (
        "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
        "list watch",
        "csi-snapshotter's informer, and whether there is the kind",
    ),
    (
        "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
        "patch",
        "csi-snapshotter: PatchVolumeGroupSnapshotContent",
    ),
    (
        "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
        "update",
        UPSTREAM,
    ),
    (
        "volumegroupsnapshotcontents/status.groupsnapshot.storage.k8s.io",
        "update patch",
        "csi-snapshotter: UpdateStatus, PatchVolumeGroupSnapshotContent",
    ),
];

const IN_ITS_NAMESPACE: &[Right] = &[
    (
        "leases.coordination.k8s.io",
        "get create update",
        "client-go's leaselock.go",
    ),
    ("leases.coordination.k8s.io", "list watch delete", UPSTREAM),
    (
        "csistoragecapacities.storage.k8s.io",
        "list watch",
        "csi-provisioner's informer",
    ),
    (
        "csistoragecapacities.storage.k8s.io",
        "create update delete",
        "csi-provisioner: capacity.go",
    ),
    ("csistoragecapacities.storage.k8s.io", "get patch", UPSTREAM),
    ("pods", "get", "csi-provisioner: whose the room is that it tells of"),
    ("replicasets.apps", "get", "csi-provisioner: one step further up"),
];

/// What a list of rights comes to: each kind with each verb.
fn listed(rights: &[Right]) -> BTreeSet<(String, String)> {
    let each = rights.iter().flat_map(|(kind, verbs, why)| {
        assert!(!why.is_empty(), "{kind} {verbs}");
        verbs.split(' ').map(move |verb| ((*kind).to_owned(), verb.to_owned()))
    });
    each.collect()
}

/// What a role grants, in the same words.
fn granted(role: &Value) -> BTreeSet<(String, String)> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let kind = match group.as_str() {
                    "" => resource,
                    group => format!("{resource}.{group}"),
                };
                rights.extend(texts(&rule["verbs"]).into_iter().map(|verb| (kind.clone(), verb)));
            }
        }
    }
    rights
}

#[test]
fn the_controller_may_do_what_its_containers_ask_for_and_no_more() {
    let objects = objects(&installation().text().unwrap());
    for (kind, rights) in [("ClusterRole", IN_THE_CLUSTER), ("Role", IN_ITS_NAMESPACE)] {
        let mut roles = objects.iter().filter(|object| object["kind"] == kind);
        let role = roles.next().unwrap();
        assert!(roles.next().is_none(), "another {kind}");
        let (granted, listed) = (granted(role), listed(rights));
        let wider: Vec<_> = granted.difference(&listed).collect();
        assert!(wider.is_empty(), "{kind} grants without a reason: {wider:?}");
        let lacking: Vec<_> = listed.difference(&granted).collect();
        assert!(lacking.is_empty(), "{kind} does not grant: {lacking:?}");
    }
}

#[test]
fn the_reasons_are_those_of_the_pinned_versions() {
    let pinned: Vec<(&str, &str)> = SIDECARS.iter().map(|(name, version, _)| (*name, *version)).collect();
    let looked_at = [
        ("csi-provisioner", "v6.3.0"),
        ("csi-attacher", "v4.13.0"),
        ("csi-resizer", "v2.3.0"),
        ("csi-snapshotter", "v8.7.0"),
    ];
    assert_eq!(pinned, looked_at, "look for the calls again, then change this list");
}
