//! VolumeSnapshots, their contents, and the appliances' snapshots.

use cistern_model::{Snapshot, SnapshotId, SnapshotState};

use super::cluster::Content;
use super::finding::{Code, Finding};
use super::{Appliance, DRIVER, Looked, shown};

/// With what the names begin that csi-snapshotter gives, before the uid: to a snapshot, and to those of a group.
const SINGLE: &str = "snapshot-";
const GROUP: &str = "groupsnapshot-";

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    // Without the contents nothing can be said of either side.
    let Some(contents) = &looked.cluster().contents else {
        return;
    };
    let ours: Vec<&Content> = contents
        .iter()
        .filter(|content| content.spec.driver == DRIVER)
        .collect();
    for content in &ours {
        findings.extend(content_finding(looked, content));
    }
    for appliance in looked.machines() {
        let all = appliance.holdings.iter().flat_map(|held| &held.snapshots);
        findings.extend(all.filter_map(|snapshot| left_over(looked, appliance, snapshot, &ours)));
    }
    for snapshot in looked.cluster().snapshots.iter().flatten() {
        let bound = &snapshot.status.bound_volume_snapshot_content_name;
        let is_ours = ours.iter().any(|content| content.metadata.name == *bound)
            || snapshot
                .spec
                .source
                .persistent_volume_claim_name
                .as_ref()
                .is_some_and(|claim| {
                    let mut named = looked.named.iter().filter_map(|named| named.pv.spec.claim_ref.as_ref());
                    named.any(|of| of.name == *claim && of.namespace == snapshot.metadata.namespace)
                });
        if !is_ours {
            continue;
        }
        let meta = &snapshot.metadata;
        let object = format!("VolumeSnapshot {}", meta.path());
        let describe = format!("kubectl describe volumesnapshot {}", meta.argument());
        if looked.is_terminating(meta) {
            findings.push(terminating(object, &meta.finalizers, None, describe));
            continue;
        }
        let error = snapshot.status.error.as_ref().map(|error| error.message.as_str());
        // Bound, its content has been looked at.
        if error.is_some() && snapshot.status.ready_to_use != Some(true) && bound.is_empty() {
            findings.push(not_ready(object, error, describe));
        }
    }
}

fn content_finding(looked: &Looked<'_>, content: &Content) -> Option<Finding> {
    let meta = &content.metadata;
    let of = &content.spec.volume_snapshot_ref;
    let object = format!("VolumeSnapshotContent {} (of {}/{})", meta.name, of.namespace, of.name);
    let describe = format!("kubectl describe volumesnapshotcontent {}", meta.argument());
    let error = content.status.error.as_ref().map(|error| error.message.as_str());
    if looked.is_terminating(meta) {
        return Some(terminating(object, &meta.finalizers, error, describe));
    }
    if let Some(handle) = content.handle() {
        let parts = handle.split_once(':');
        let Some((id, Ok(snapshot))) = parts.map(|(id, text)| (id, text.parse::<SnapshotId>())) else {
            let cure = "Delete it, and the VolumeSnapshot; write them anew with an id as `cistern snapshots list` shows it, behind the \
                        appliance's and a colon.";
            return Some(
                Finding::new(
                    Code::SnapshotHandleInvalid,
                    object,
                    format!("its handle is {handle:?}"),
                    cure,
                )
                .run(describe),
            );
        };
        let appliance = looked.appliance(id).filter(|appliance| appliance.shows_all());
        let found = appliance.map(|appliance| appliance.snapshot(snapshot));
        if meta.deletion_timestamp.is_none()
            && let Some(None) = found
        {
            let cure = "It was deleted behind the cluster's back, or shed when its pool ran short. Delete the VolumeSnapshot; if the content \
                        stays, delete that.";
            return Some(
                Finding::new(
                    Code::SnapshotGone,
                    object,
                    format!("appliance {id} has no snapshot {snapshot}"),
                    cure,
                )
                .run(format!("kubectl delete volumesnapshot {}", of.argument())),
            );
        }
    }
    let said = error.or_else(|| looked.said("VolumeSnapshotContent", meta, ""));
    (content.status.ready_to_use != Some(true) && said.is_some()).then(|| not_ready(object, said, describe))
}

pub(super) fn not_ready(object: String, error: Option<&str>, describe: String) -> Finding {
    let cure = "See to what is said there; it is tried again by itself.";
    let message = format!("it is not made: {}", error.unwrap_or("nobody has said why"));
    Finding::new(Code::SnapshotNotReady, object, message, cure).run(describe)
}

pub(super) fn terminating(object: String, finalizers: &[String], error: Option<&str>, describe: String) -> Finding {
    let why = |finalizer: &String| match finalizer.as_str() {
        "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
        | "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection" => {
            format!("{finalizer}: a claim is being made of it")
        }
        "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
        | "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection" => {
            format!("{finalizer}: its content is to go first")
        }
        "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection" => {
            format!("{finalizer}: the VolumeGroupSnapshot that it is of is to go first")
        }
        "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection" => {
            format!("{finalizer}: its VolumeGroupSnapshot, or the snapshots on the appliance, are to go first")
        }
        "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection" => {
            format!("{finalizer}: its VolumeSnapshot, or the snapshot on the appliance, is to go first")
        }
        other => format!("{other}: that is none of the snapshotter's"),
    };
    let mut held: Vec<String> = finalizers.iter().map(why).collect();
    held.extend(error.map(|error| format!("it was said: {error}")));
    let cure = "See to what is said there, and whether csi-snapshotter and snapshot-controller run. A claim that is being made of it and \
                cannot be has to be deleted.";
    let message = format!("it is being deleted, and held by {}", held.join("; "));
    Finding::new(Code::SnapshotTerminating, object, message, cure).run(describe)
}

/// Whether the content of a group of this uid is there, or was not looked for.
fn may_have_group(looked: &Looked<'_>, uid: &str) -> bool {
    let contents = looked.cluster().group_contents.as_ref();
    contents.is_none_or(|all| {
        all.iter()
            .any(|content| content.spec.volume_group_snapshot_ref.uid == uid)
    })
}

/// A snapshot that csi-snapshotter made and no content names.
fn left_over(
    looked: &Looked<'_>,
    appliance: &Appliance,
    snapshot: &Snapshot,
    contents: &[&Content],
) -> Option<Finding> {
    let name = snapshot.name.as_str();
    let of_group = name.strip_prefix(GROUP);
    let uid = of_group.or_else(|| name.strip_prefix(SINGLE))?;
    let uid = uid.parse::<uuid::Uuid>().ok()?;
    // The contents of its snapshots are made after a group's own.
    if of_group.is_some() && may_have_group(looked, &uid.to_string()) {
        return None;
    }
    if snapshot.state != SnapshotState::Ready || !looked.owners.contains(&snapshot.owner) {
        return None;
    }
    let id = snapshot.id.to_string();
    let being_made =
        |content: &&Content| content.handle().is_none() && content.spec.volume_snapshot_ref.uid == uid.to_string();
    let named = |content: &&Content| {
        content
            .handle()
            .and_then(|handle| handle.split_once(':'))
            .is_some_and(|(_, named)| named == id)
    };
    if contents.iter().any(named) || contents.iter().any(being_made) {
        return None;
    }
    Some(
        Finding::new(
            Code::SnapshotLeftOver,
            format!("snapshot {} ({name}) of appliance {}", snapshot.id, appliance.id),
            format!(
                "it was made of {} ({}) at {}; no VolumeSnapshotContent names it",
                snapshot.volume_name,
                shown(snapshot.size),
                snapshot.created
            ),
            "If nobody wants to restore from it, delete it.",
        )
        .run(format!("{} snapshots delete {}", appliance.command, snapshot.id)),
    )
}
