//! PersistentVolumes and the appliances' volumes: each side may lack what the other has.

use cistern_model::{Volume, VolumeState, quoted};

use super::cluster::{Claim, PersistentVolume};
use super::finding::{Code, Finding};
use super::{Appliance, Looked, Named, quantity, shown};

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    for named in &looked.named {
        findings.extend(missing(looked, named));
        findings.extend(differs(looked, named));
        findings.extend(unclaimed(looked, named));
        findings.extend(terminating(looked, named.pv));
        findings.extend(let_in(looked, named));
    }
    for (volume, all) in looked.by_volume() {
        // Kubernetes' own client may mount one volume by several, each for a namespace, if none of them ends with what is in it. The
        // plugin may not: it lets nodes in and cuts them off as if the volume were that PersistentVolume's alone.
        let is_risky = |named: &&Named<'_>| {
            let spec = &named.pv.spec;
            spec.csi.is_some() || matches!(spec.persistent_volume_reclaim_policy.as_str(), "Delete" | "Recycle")
        };
        if all.len() > 1 && all.iter().any(is_risky) {
            let names: Vec<&str> = all.iter().map(|named| named.pv.metadata.name.as_str()).collect();
            let words: Vec<_> = names.iter().map(|name| quoted(name)).collect();
            findings.push(
                Finding::new(
                    Code::HandleTwice,
                    format!("PersistentVolumes {}", names.join(", ")),
                    format!("all of them name volume {volume}"),
                    "First let none of them delete the volume; then delete all but one of them, and see which claim was to have it.",
                )
                .run(format!(
                    "kubectl patch pv {} -p '{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Retain\"}}}}'",
                    words.join(" ")
                )),
            );
        }
    }
    for appliance in looked.machines() {
        for volume in appliance.volumes() {
            findings.extend(left_over(looked, appliance, volume));
        }
    }
}

/// A PersistentVolume without a volume.
fn missing(looked: &Looked<'_>, named: &Named<'_>) -> Option<Finding> {
    let pv = named.pv;
    let object = format!("PersistentVolume {}", pv.metadata.name);
    let Some((id, volume)) = named.handle else {
        let handle = pv.spec.csi.as_ref().map_or("", |csi| csi.volume_handle.as_str());
        let cure = "Write it anew with the id that `cistern volumes list` shows, behind the appliance's and a colon.";
        return Some(
            Finding::new(
                Code::HandleInvalid,
                object,
                format!("its volumeHandle is {handle:?}"),
                cure,
            )
            .run(format!("kubectl get pv {} -o yaml", pv.metadata.argument())),
        );
    };
    let appliance = looked.appliance(id)?;
    // Being deleted, it goes by itself, or is told as stuck.
    if appliance.holdings.is_err() || pv.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if named
        .volume
        .is_some_and(|(_, volume)| volume.state != VolumeState::Deleting)
    {
        return None;
    }
    if let Some(trashed) = appliance.trashed(volume) {
        let message = format!(
            "volume {volume} lies in the trash since {}, and is purged at {}",
            trashed.deleted, trashed.purged
        );
        return Some(
            Finding::new(Code::VolumeInTrash, object, message, "Take it back out of the trash.")
                .run(format!("{} trash undelete {volume}", appliance.command)),
        );
    }
    // It may lie in a pool that is away, which is told by itself; to delete what names it would be the end of it.
    if !appliance.shows_all() {
        return None;
    }
    let message = format!("appliance {id} has no volume {volume}");
    let cure = "If its pool was moved, import that. If the volume is gone for good, delete the pods, the claim and the PersistentVolume; \
                what is restored of a snapshot or a backup becomes a new claim.";
    let mut finding = Finding::new(Code::VolumeGone, object, message, cure);
    if let Some(claim) = &pv.spec.claim_ref {
        finding = finding.run(format!("kubectl delete pvc {}", claim.argument()));
    }
    Some(finding.run(format!("kubectl delete pv {}", pv.metadata.argument())))
}

/// Whether both sides are of one mind about its size. While it grows they are not.
fn differs(looked: &Looked<'_>, named: &Named<'_>) -> Option<Finding> {
    // A folder of it was given whatever size somebody wrote.
    let (appliance, volume) = named.volume.filter(|_| !named.is_part)?;
    let pv = named.pv;
    let says = quantity::size(&pv.spec.capacity.storage)?;
    if says == volume.size {
        return None;
    }
    let claim = claim_of(looked, pv);
    if claim.is_some_and(super::claims::is_resizing) {
        return None;
    }
    let finding = Finding::new(
        Code::SizeDiffers,
        format!("PersistentVolume {}", pv.metadata.name),
        format!(
            "it says {}, and volume {} has {}",
            pv.spec.capacity.storage,
            volume.id,
            shown(volume.size)
        ),
        match (says > volume.size, claim) {
            (true, _) => "Give the volume what the cluster was promised.",
            (false, Some(_)) => {
                "It was grown beside the cluster. Let the claim ask for as much; the resizer then notes it everywhere."
            }
            (false, None) => "Write the PersistentVolume anew, as the volume is.",
        },
    );
    Some(match (says > volume.size, claim) {
        (true, _) => finding.run(format!(
            "{} volumes expand {} --size {}",
            appliance.command,
            volume.id,
            says.get()
        )),
        (false, Some(claim)) => finding.run(format!(
            "kubectl patch pvc {} -p '{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"{}\"}}}}}}}}'",
            claim.metadata.argument(),
            volume.size.get()
        )),
        (false, None) => finding.run(format!("{} volumes show {} -o pv", appliance.command, volume.id)),
    })
}

pub(super) fn claim_of<'a>(looked: &Looked<'a>, pv: &PersistentVolume) -> Option<&'a Claim> {
    let reference = pv.spec.claim_ref.as_ref()?;
    let claims = &looked.cluster().claims;
    claims.iter().find(|claim| {
        let meta = &claim.metadata;
        meta.name == reference.name
            && meta.namespace == reference.namespace
            && (reference.uid.is_empty() || meta.uid == reference.uid)
    })
}

/// A PersistentVolume whose claim is gone.
fn unclaimed(looked: &Looked<'_>, named: &Named<'_>) -> Option<Finding> {
    let pv = named.pv;
    let (name, word) = (&pv.metadata.name, pv.metadata.argument());
    if pv.metadata.deletion_timestamp.is_some() || !matches!(pv.status.phase.as_str(), "Released" | "Failed") {
        return None;
    }
    let object = format!("PersistentVolume {name}");
    let claim = pv.spec.claim_ref.as_ref();
    let claim = claim.map_or_else(String::new, |claim| format!("{}/{}", claim.namespace, claim.name));
    if pv.spec.persistent_volume_reclaim_policy == "Delete" {
        let said = looked.said("PersistentVolume", &pv.metadata, "");
        let said = said
            .or(Some(pv.status.message.as_str()))
            .filter(|text| !text.is_empty());
        // Many are deleted one after another, and none before the last node has let it go.
        if said.is_none() && !looked.is_stuck(pv.status.last_phase_transition_time) {
            return None;
        }
        let message = match said {
            Some(said) => format!("its claim {claim} is gone, and: {said}"),
            None => format!("its claim {claim} is gone, and its volume is not deleted"),
        };
        let cure = "It is tried again by itself. See to what is said there; if nothing is said, to the controller.";
        return Some(
            Finding::new(Code::PvNotDeleted, object, message, cure).run(format!("kubectl describe pv {word}")),
        );
    }
    let id = named.handle.map(|(_, volume)| volume);
    let all = looked
        .named
        .iter()
        .filter(|one| one.handle.map(|(_, volume)| volume) == id);
    let is_shared = named.is_part || (id.is_some() && all.count() > 1);
    let rid = match is_shared {
        true => "delete it, and leave its volume to the others that are in it",
        false => "delete it and its volume",
    };
    let cure = format!("To use it again: make it free, and name it in a claim (volumeName). To be rid of it: {rid}.");
    let mut finding = Finding::new(
        Code::PvReleased,
        object,
        format!(
            "its claim {claim} is gone, and its reclaim policy is {}",
            pv.spec.persistent_volume_reclaim_policy
        ),
        cure,
    )
    .run(format!(
        "kubectl patch pv {word} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'"
    ));
    if let Some((appliance, volume)) = named.volume {
        let delete = format!("kubectl delete pv {word}");
        finding = finding.run(match is_shared {
            true => delete,
            false => format!("{delete} && {} volumes delete {}", appliance.command, volume.id),
        });
    }
    Some(finding)
}

/// A PersistentVolume that is being deleted and does not go.
fn terminating(looked: &Looked<'_>, pv: &PersistentVolume) -> Option<Finding> {
    if !looked.is_terminating(&pv.metadata) {
        return None;
    }
    let name = &pv.metadata.name;
    let attachments = looked.cluster().attachments.iter();
    let attached: Vec<&str> = attachments
        .filter(|a| a.spec.source.persistent_volume_name.as_deref() == Some(name))
        .map(|a| a.spec.node_name.as_str())
        .collect();
    let said = looked.said("PersistentVolume", &pv.metadata, "");
    let why = |finalizer: &String| match finalizer.as_str() {
        "kubernetes.io/pv-protection" => match claim_of(looked, pv) {
            Some(claim) => format!("{finalizer}: claim {} is bound to it", claim.metadata.path()),
            None => format!("{finalizer}: it is bound"),
        },
        "external-provisioner.volume.kubernetes.io/finalizer" => match said {
            Some(said) => format!("{finalizer}: its volume is to be deleted first: {said}"),
            None => format!("{finalizer}: its volume is to be deleted first"),
        },
        other if other.starts_with("external-attacher/") => match attached.as_slice() {
            [] => format!("{other}: csi-attacher has not let it go"),
            nodes => format!("{other}: it is attached to {}", nodes.join(", ")),
        },
        other => format!("{other}: that is none of this driver's"),
    };
    let held: Vec<String> = pv.metadata.finalizers.iter().map(why).collect();
    Some(
        Finding::new(
            Code::PvTerminating,
            format!("PersistentVolume {name}"),
            format!("it is being deleted, and held by {}", held.join("; ")),
            "End what holds it: delete its claim, and the pods that use that. A finalizer that is taken away by hand leaves a volume or \
             an attachment behind.",
        )
        .run(format!("kubectl describe pv {}", pv.metadata.argument())),
    )
}

/// Who may mount it beside the nodes that it is published to, or nobody.
fn let_in(looked: &Looked<'_>, named: &Named<'_>) -> Option<Finding> {
    let (appliance, volume) = named.volume?;
    let pv = named.pv;
    if pv.spec.csi.is_some() {
        if volume.clients.is_empty() || !pv.is_provisioned() {
            return None;
        }
        let clients: Vec<String> = volume.clients.iter().map(ToString::to_string).collect();
        return Some(
            Finding::new(
                Code::OthersLetIn,
                format!("volume {} of PersistentVolume {}", volume.id, pv.metadata.name),
                format!(
                    "{} may mount it beside the nodes that it is published to",
                    clients.join(", ")
                ),
                "If nobody wants that, take them away.",
            )
            .run(format!(
                "{} clients remove {} {}",
                appliance.command, volume.id, clients[0]
            )),
        );
    }
    let nodes = looked.cluster().nodes.as_ref()?;
    let peers = volume.peers();
    let addresses = nodes.iter().flat_map(super::attachments::addresses);
    let let_in = addresses
        .into_iter()
        .any(|address| peers.iter().any(|peer| peer.contains(address)));
    (!let_in && !nodes.is_empty() && pv.status.phase == "Bound").then(|| {
        Finding::new(
            Code::NobodyLetIn,
            format!("PersistentVolume {}", pv.metadata.name),
            format!("none of the cluster's nodes may mount volume {}", volume.id),
            "Let the nodes' addresses in, or their network.",
        )
        .run(format!("{} clients add {} 10.0.0.0/24", appliance.command, volume.id))
    })
}

/// A volume that no PersistentVolume names.
fn left_over(looked: &Looked<'_>, appliance: &Appliance, volume: &Volume) -> Option<Finding> {
    let mut handles = looked.named.iter().filter_map(|named| named.handle);
    let is_going = matches!(volume.state, VolumeState::Creating | VolumeState::Deleting);
    if is_going || handles.any(|(_, named)| named == volume.id) {
        return None;
    }
    let uid = volume.name.as_str().strip_prefix("pvc-").unwrap_or_default();
    let claim = looked.cluster().claims.iter().find(|claim| claim.metadata.uid == uid);
    // It is just being made for that claim; if that does not come to an end, the claim is told.
    if claim.is_some_and(|claim| claim.status.phase == "Pending" && claim.metadata.deletion_timestamp.is_none()) {
        return None;
    }
    let object = format!("volume {} ({}) of appliance {}", volume.id, volume.name, appliance.id);
    let label = |key: &str| {
        let found = volume.labels.iter().find(|label| label.key() == key);
        found.map(|label| label.value().to_owned())
    };
    let whose = match (label("kubernetes.io/namespace"), label("kubernetes.io/claim")) {
        (Some(namespace), Some(claim)) => format!(" for claim {namespace}/{claim}"),
        _ => String::new(),
    };
    let (size, pool, owner) = (shown(volume.size), &volume.pool_name, &volume.owner);
    let message = format!("{size} in pool {pool}, made by {owner}{whose}; no PersistentVolume names it");
    let give = format!(
        "{} volumes show {} -o pv --appliance {} | kubectl apply -f -",
        appliance.command,
        volume.id,
        quoted(&appliance.id)
    );
    let delete = format!("{} volumes delete {}", appliance.command, volume.id);
    Some(match looked.owners.contains(owner) {
        true => Finding::new(
            Code::VolumeLeftOver,
            object,
            message,
            "If what is in it is wanted, give it back to the cluster and name it in a claim (volumeName). Else delete it.",
        )
        .run(give)
        .run(delete),
        false => Finding::new(
            Code::VolumeUnclaimed,
            object,
            message,
            "Nothing, if somebody uses it outside this cluster. To give it to the cluster:",
        )
        .run(give),
    })
}
