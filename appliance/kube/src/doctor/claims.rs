//! Claims that get no volume, lost it, or do not become what they are to be.

use cistern_model::quoted;

use super::cluster::Claim;
use super::finding::{Code, Finding};
use super::{DRIVER, Looked, quantity};

/// Which provisioner a claim was given to.
const PROVISIONER: &[&str] = &[
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    for claim in &looked.cluster().claims {
        if !is_ours(looked, claim) {
            continue;
        }
        findings.extend(waits(looked, claim));
        findings.extend(terminating(looked, claim));
        findings.extend(resize(looked, claim));
        findings.extend(modify(looked, claim));
    }
}

/// Whether this driver makes, made, or serves its volume.
fn is_ours(looked: &Looked<'_>, claim: &Claim) -> bool {
    let given = PROVISIONER
        .iter()
        .any(|key| claim.metadata.annotations.get(*key).is_some_and(|by| by == DRIVER));
    let classes = looked.cluster().classes.iter().flatten();
    let mut ours = classes.filter(|class| class.provisioner == DRIVER);
    let class = claim.spec.storage_class_name.as_deref();
    given
        || ours.any(|known| class == Some(&known.metadata.name))
        || looked
            .named
            .iter()
            .any(|named| !claim.spec.volume_name.is_empty() && named.pv.metadata.name == claim.spec.volume_name)
}

/// A claim that is bound to nothing.
fn waits(looked: &Looked<'_>, claim: &Claim) -> Option<Finding> {
    let meta = &claim.metadata;
    let object = format!("claim {}", meta.path());
    let describe = format!("kubectl describe pvc {}", meta.argument());
    match claim.status.phase.as_str() {
        "Lost" => {
            let cure = "If the volume is still there, give it back to the cluster under the same name, and delete and make the claim \
                        anew with that volumeName. Else it is gone with the PersistentVolume.";
            let found = looked.seen.appliances.iter().find_map(|appliance| {
                let name = format!("pvc-{}", meta.uid);
                let volume = appliance.volumes().find(|volume| volume.name.as_str() == name)?;
                Some((appliance, volume))
            });
            let finding = Finding::new(
                Code::ClaimLost,
                object,
                format!("its PersistentVolume {} is not there any more", claim.spec.volume_name),
                cure,
            );
            Some(match found {
                Some((appliance, volume)) => finding.run(format!(
                    "{} volumes show {} -o pv --appliance {} | kubectl apply -f -",
                    appliance.command,
                    volume.id,
                    quoted(&appliance.id)
                )),
                None => finding.run(describe),
            })
        }
        "Pending" if meta.deletion_timestamp.is_none() => {
            let said = looked.said("PersistentVolumeClaim", meta, "");
            if said.is_none() && !is_overdue(looked, claim) {
                return None;
            }
            let message = match said {
                Some(said) => said.to_owned(),
                None => "nothing was said about it, and it has no volume".to_owned(),
            };
            let cure = match said {
                Some(_) => "See to what is said there; it is asked for again by itself.",
                None => "See whether the controller runs, and which provisioner the claim's class names.",
            };
            Some(Finding::new(Code::ClaimPending, object, message, cure).run(describe))
        }
        _ => None,
    }
}

/// Whether it should be bound by now: one whose class waits for a pod has time until there is one.
fn is_overdue(looked: &Looked<'_>, claim: &Claim) -> bool {
    let classes = looked.cluster().classes.iter().flatten();
    let mut its = classes.filter(|class| Some(&class.metadata.name) == claim.spec.storage_class_name.as_ref());
    let waits_for_pod = its.any(|class| class.volume_binding_mode == "WaitForFirstConsumer");
    // Of files it is not known how old they are.
    !waits_for_pod && looked.seen.now.is_some() && looked.is_stuck(claim.metadata.creation_timestamp)
}

/// A claim that is being deleted and does not go.
fn terminating(looked: &Looked<'_>, claim: &Claim) -> Option<Finding> {
    let meta = &claim.metadata;
    if !looked.is_terminating(meta) {
        return None;
    }
    let pods: Vec<String> = looked
        .cluster()
        .pods
        .iter()
        .flatten()
        .filter(|pod| pod.metadata.namespace == meta.namespace)
        .filter(|pod| !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"))
        .filter(|pod| {
            let mut claims = pod
                .spec
                .volumes
                .iter()
                .flat_map(|volume| &volume.persistent_volume_claim);
            claims.any(|used| used.claim_name == meta.name)
        })
        .map(|pod| pod.metadata.name.clone())
        .collect();
    let why = |finalizer: &String| match finalizer.as_str() {
        "kubernetes.io/pvc-protection" if pods.is_empty() => format!("{finalizer}: a pod uses it"),
        "kubernetes.io/pvc-protection" => format!("{finalizer}: pods use it: {}", pods.join(", ")),
        "snapshot.storage.kubernetes.io/pvc-as-source-protection" => {
            format!("{finalizer}: a snapshot is being made of it")
        }
        "provisioner.storage.kubernetes.io/cloning-protection" => format!("{finalizer}: a clone is being made of it"),
        other => format!("{other}: that is none of Kubernetes' own"),
    };
    let held: Vec<String> = meta.finalizers.iter().map(why).collect();
    let finding = Finding::new(
        Code::ClaimTerminating,
        format!("claim {}", meta.path()),
        format!("it is being deleted, and held by {}", held.join("; ")),
        "End what uses it; it then goes by itself, and its volume as its reclaim policy says.",
    );
    Some(match pods.as_slice() {
        [] => finding.run(format!("kubectl describe pvc {}", meta.argument())),
        pods => {
            let words: Vec<_> = pods.iter().map(|pod| quoted(pod)).collect();
            let namespace = quoted(&meta.namespace);
            finding.run(format!("kubectl delete pod {} -n {namespace}", words.join(" ")))
        }
    })
}

/// Whether it is on its way to another size, or stuck there: that is told of the claim, not of the PersistentVolume.
pub(super) fn is_resizing(claim: &Claim) -> bool {
    const OF_RESIZING: &[&str] = &[
        "Resizing",
        "FileSystemResizePending",
        "ControllerResizeError",
        "NodeResizeError",
    ];
    let conditions = &claim.status.conditions;
    conditions
        .iter()
        .any(|condition| condition.status == "True" && OF_RESIZING.contains(&condition.type_.as_str()))
        || claim.status.allocated_resource_statuses.contains_key("storage")
}

/// A claim that does not become as large as it is to be.
fn resize(looked: &Looked<'_>, claim: &Claim) -> Option<Finding> {
    let meta = &claim.metadata;
    let wanted = &claim.spec.resources.requests.storage;
    let has = &claim.status.capacity.storage;
    if claim.status.phase != "Bound" || quantity::size(wanted)? <= quantity::size(has)? {
        return None;
    }
    let state = claim
        .status
        .allocated_resource_statuses
        .get("storage")
        .map(String::as_str);
    let is = |name: &str| {
        let mut conditions = claim.status.conditions.iter();
        conditions.find(|condition| condition.type_ == name && condition.status == "True")
    };
    let failed = is("ControllerResizeError").or_else(|| is("NodeResizeError"));
    let infeasible = state.is_some_and(|state| state.ends_with("Infeasible"));
    let pending = is("FileSystemResizePending");
    let said = looked.said("PersistentVolumeClaim", meta, "Resize");
    let message = match (failed, said) {
        (Some(failed), _) if !failed.message.is_empty() => failed.message.clone(),
        (_, Some(said)) => said.to_owned(),
        _ if infeasible || failed.is_some() => "the controller cannot do it, and has not said why".to_owned(),
        _ if pending.is_some() => {
            "it waits for a node to grow the filesystem, which no volume of this driver needs".to_owned()
        }
        _ => return None,
    };
    let cure = match pending {
        Some(_) if failed.is_none() => {
            "See whether its PersistentVolume is of this driver. It is noted as soon as a pod that uses the claim starts on a node."
        }
        _ => {
            "See to what is said there; it is tried again by itself. A size that cannot be had may be lowered to one that can, down to \
              what the claim has."
        }
    };
    Some(
        Finding::new(
            Code::ResizeStuck,
            format!("claim {}", meta.path()),
            format!("it is to have {wanted} and has {has}: {message}"),
            cure,
        )
        .run(format!("kubectl describe pvc {}", meta.argument())),
    )
}

/// A claim that does not become what its VolumeAttributesClass says.
fn modify(looked: &Looked<'_>, claim: &Claim) -> Option<Finding> {
    let meta = &claim.metadata;
    let status = claim.status.modify_volume_status.as_ref()?;
    // It is told on of a class that is not asked for any more.
    if claim.spec.volume_attributes_class_name.as_ref() != Some(&status.target_volume_attributes_class_name) {
        return None;
    }
    let mut conditions = claim.status.conditions.iter();
    let failed = conditions.find(|condition| condition.type_ == "ModifyVolumeError" && condition.status == "True");
    if failed.is_none() && status.status != "Infeasible" {
        return None;
    }
    let said = failed
        .map(|failed| failed.message.as_str())
        .filter(|text| !text.is_empty());
    let said = said.or_else(|| looked.said("PersistentVolumeClaim", meta, "Modify"));
    Some(
        Finding::new(
            Code::ModifyStuck,
            format!("claim {}", meta.path()),
            format!(
                "it is to become {}: {}",
                status.target_volume_attributes_class_name,
                said.unwrap_or("the controller has not said why it does not")
            ),
            "Name a VolumeAttributesClass whose parameters can be had, or the one that the claim had before.",
        )
        .run(format!("kubectl describe pvc {}", meta.argument())),
    )
}
