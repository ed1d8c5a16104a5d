//! VolumeGroupSnapshots and their contents, as objects; each of their snapshots has a content of its own besides, which `snapshots`
//! looks at.

use super::cluster::{Claim, Group, GroupContent, Meta};
use super::finding::Finding;
use super::snapshots::{not_ready, terminating};
use super::{DRIVER, Looked};

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    // Without the contents nothing can be said of either side.
    let Some(contents) = &looked.cluster().group_contents else {
        return;
    };
    let ours: Vec<&GroupContent> = contents
        .iter()
        .filter(|content| content.spec.driver == DRIVER)
        .collect();
    for content in &ours {
        let (meta, of) = (&content.metadata, &content.spec.volume_group_snapshot_ref);
        let kind = "VolumeGroupSnapshotContent";
        let object = format!("{kind} {} (of {}/{})", meta.name, of.namespace, of.name);
        let error = content.status.error.as_ref().map(|error| error.message.as_str());
        let said = error.or_else(|| looked.said(kind, meta, ""));
        findings.extend(finding(looked, kind, object, meta, content.status.ready_to_use, said));
    }
    for group in looked.cluster().groups.iter().flatten() {
        if !is_ours(looked, group, &ours) {
            continue;
        }
        let (meta, status) = (&group.metadata, &group.status);
        let kind = "VolumeGroupSnapshot";
        let error = status.error.as_ref().map(|error| error.message.as_str());
        // Bound, its content has been looked at.
        let said = error.filter(|_| status.bound_volume_group_snapshot_content_name.is_empty());
        let object = format!("{kind} {}", meta.path());
        findings.extend(finding(looked, kind, object, meta, status.ready_to_use, said));
    }
}

/// What is the matter with an object: it does not go, or was not made, and that was said.
fn finding(
    looked: &Looked<'_>,
    kind: &str,
    object: String,
    meta: &Meta,
    ready: Option<bool>,
    said: Option<&str>,
) -> Option<Finding> {
    let describe = format!("kubectl describe {} {}", kind.to_ascii_lowercase(), meta.argument());
    if looked.is_terminating(meta) {
        return Some(terminating(object, &meta.finalizers, said, describe));
    }
    (ready != Some(true) && said.is_some()).then(|| not_ready(object, said, describe))
}

/// Whether a group is of this driver's: by its content, or by a claim that it means.
fn is_ours(looked: &Looked<'_>, group: &Group, ours: &[&GroupContent]) -> bool {
    let bound = &group.status.bound_volume_group_snapshot_content_name;
    if ours.iter().any(|content| content.metadata.name == *bound) {
        return true;
    }
    let Some(selector) = group.spec.source.selector.as_ref().filter(|_| bound.is_empty()) else {
        return false;
    };
    let wanted = &selector.match_labels;
    let is_meant = |claim: &Claim| {
        let has = &claim.metadata.labels;
        claim.metadata.namespace == group.metadata.namespace
            && !wanted.is_empty()
            && wanted.iter().all(|(key, value)| has.get(key) == Some(value))
    };
    let is_bound_here = |claim: &Claim| {
        let mut claims = looked.named.iter().filter_map(|named| named.pv.spec.claim_ref.as_ref());
        claims.any(|of| of.name == claim.metadata.name && of.namespace == claim.metadata.namespace)
    };
    let claims = &looked.cluster().claims;
    claims.iter().any(|claim| is_meant(claim) && is_bound_here(claim))
}
