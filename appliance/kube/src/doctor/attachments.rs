//! Which node has which volume: attachments in the cluster, published nodes on the appliance, and who is connected.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cistern_model::{LiveClient, PublishedNode, Volume, quoted};

use super::cluster::{Attachment, Node};
use super::finding::{Code, Finding};
use super::{ADDRESS, Appliance, DRIVER, Looked, Named};

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    for attachment in &looked.cluster().attachments {
        if attachment.spec.attacher == DRIVER {
            findings.extend(attachment_finding(looked, attachment));
        }
    }
    for appliance in looked.machines() {
        for volume in appliance.volumes().filter(|volume| is_ours(looked, volume)) {
            for node in &volume.nodes {
                findings.extend(published(looked, appliance, volume, node));
            }
        }
        let live = appliance.holdings.iter().flat_map(|held| &held.live);
        for client in live.flatten() {
            findings.extend(connected(appliance, client));
        }
    }
}

/// Whether this cluster's plugin publishes it: another cluster's nodes are its own matter.
fn is_ours(looked: &Looked<'_>, volume: &Volume) -> bool {
    let named = |named: &Named<'_>| named.volume.is_some_and(|(_, its)| its.id == volume.id);
    looked.named.iter().any(named) || looked.owners.contains(&volume.owner)
}

/// A node's addresses, as the plugin reads them: the annotation's, or else the internal ones.
pub(super) fn addresses(node: &Node) -> Vec<IpAddr> {
    if let Some(text) = node.metadata.annotations.get(ADDRESS) {
        return text
            .split(',')
            .filter_map(|address| address.trim().parse().ok())
            .collect();
    }
    let internal = node
        .status
        .addresses
        .iter()
        .filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).collect()
}

fn node<'a>(looked: &Looked<'a>, name: &str) -> Option<&'a Node> {
    let nodes = looked.cluster().nodes.as_ref()?;
    nodes.iter().find(|node| node.metadata.name == name)
}

fn attachment_finding(looked: &Looked<'_>, attachment: &Attachment) -> Option<Finding> {
    let meta = &attachment.metadata;
    let on = &attachment.spec.node_name;
    let pv = attachment
        .spec
        .source
        .persistent_volume_name
        .as_deref()
        .unwrap_or_default();
    let object = format!("VolumeAttachment {} ({pv} on node {on})", meta.name);
    let named = looked.named.iter().find(|named| named.pv.metadata.name == pv);
    let found = named.and_then(|named| named.volume);
    let (word, on_word) = (meta.argument(), quoted(on));
    let take_away = |finding: Finding| match found {
        Some((appliance, volume)) => finding.run(format!("{} nodes remove {} {on_word}", appliance.command, volume.id)),
        None => finding,
    };
    let let_go =
        format!("kubectl patch volumeattachment {word} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'");
    if looked.cluster().nodes.is_some() && node(looked, on).is_none() {
        let cure =
            "If the node is gone for good: take the volume from it, which cuts it off, and let the attachment go.";
        let finding = Finding::new(
            Code::AttachmentNodeGone,
            object,
            "the cluster has no such node".to_owned(),
            cure,
        );
        let finding = take_away(finding).run(format!("kubectl delete volumeattachment {word} --wait=false"));
        return Some(finding.run(let_go));
    }
    if looked.is_terminating(meta) {
        let error = attachment
            .status
            .detach_error
            .as_ref()
            .map(|error| error.message.as_str());
        let message = format!(
            "it is being deleted, and held by {}: {}",
            meta.finalizers.join(", "),
            error.unwrap_or("csi-attacher has not said why")
        );
        let cure = "See to what is said there: it is tried again by itself. If that cannot be, take the volume from the node, which cuts \
                    it off, and let the attachment go.";
        let finding = take_away(Finding::new(Code::DetachStuck, object, message, cure));
        return Some(finding.run(let_go));
    }
    if !looked.cluster().volumes.iter().any(|volume| volume.metadata.name == pv) {
        let message = "there is no such PersistentVolume".to_owned();
        let cure = "Delete the pods on that node that use it; if the attachment stays, let it go.";
        let finding = Finding::new(Code::AttachmentPvGone, object, message, cure);
        let finding = finding.run(format!("kubectl delete volumeattachment {word} --wait=false"));
        return Some(finding.run(let_go));
    }
    if let Some(error) = attachment
        .status
        .attach_error
        .as_ref()
        .filter(|_| !attachment.status.attached)
    {
        let cure = "See to what is said there; it is tried again by itself.";
        let finding = Finding::new(Code::AttachFails, object, error.message.clone(), cure);
        return Some(match found {
            Some((appliance, volume)) => finding.run(format!("{} nodes list {}", appliance.command, volume.id)),
            None => finding.run(format!("kubectl describe volumeattachment {word}")),
        });
    }
    let (appliance, volume) = found?;
    if attachment.status.attached
        && meta.deletion_timestamp.is_none()
        && !volume.nodes.iter().any(|node| node.name.as_str() == on)
    {
        let cure = "csi-attacher publishes it again by itself within a minute or two, if it runs. By hand:";
        let message = format!(
            "it is attached, and appliance {} does not let the node in",
            appliance.id
        );
        let addresses: Vec<String> = node(looked, on)
            .map(addresses)
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect();
        let addresses = match addresses.is_empty() {
            true => "ADDRESS".to_owned(),
            false => addresses.join(" "),
        };
        return Some(Finding::new(Code::NotPublished, object, message, cure).run(format!(
            "{} nodes add {} {on_word} {addresses}",
            appliance.command, volume.id
        )));
    }
    None
}

/// A node that the appliance lets in.
fn published(
    looked: &Looked<'_>,
    appliance: &Appliance,
    volume: &Volume,
    published: &PublishedNode,
) -> Option<Finding> {
    let name = published.name.as_str();
    let pvs: BTreeSet<&str> = looked
        .named
        .iter()
        .filter(|named| named.volume.is_some_and(|(_, its)| its.id == volume.id))
        .map(|named| named.pv.metadata.name.as_str())
        .collect();
    let attached = looked.cluster().attachments.iter().any(|attachment| {
        let of = attachment.spec.source.persistent_volume_name.as_deref();
        attachment.spec.node_name == name && of.is_some_and(|of| pvs.contains(of))
    });
    let known = node(looked, name);
    let object = format!("volume {} on node {name}", volume.id);
    if !attached {
        let gone = match (&looked.cluster().nodes, known) {
            (Some(_), None) => ", and the cluster has no such node",
            _ => "",
        };
        let live = appliance.holdings.iter().flat_map(|held| &held.live).flatten();
        let connected = live.filter(|client| published.addresses.contains(&client.address));
        let connected = match connected.count() {
            0 => "",
            _ => "; a client is connected from there",
        };
        let cure = "If no pod there uses it, take the volume from the node, which cuts it off.";
        let message = format!("it is published there, and no VolumeAttachment says so{gone}{connected}");
        return Some(
            Finding::new(Code::PublishedUnattached, object, message, cure)
                .run(format!("{} nodes remove {} {name}", appliance.command, volume.id)),
        );
    }
    let now: BTreeSet<IpAddr> = addresses(known?).into_iter().collect();
    let then: BTreeSet<IpAddr> = published.addresses.iter().copied().collect();
    if now == then || now.is_empty() {
        return None;
    }
    let list = |all: &BTreeSet<IpAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let read_only = if published.read_only { " --read-only" } else { "" };
    let alone = if published.alone { " --alone" } else { "" };
    Some(
        Finding::new(
            Code::NodeMoved,
            object,
            format!("it is let in from {}, and the Node object says {}", list(&then), list(&now)),
            "csi-attacher publishes it again by itself within a minute or two, if it runs. If the storage network is another one than the \
             Node object's addresses, name it with the annotation csi.cistern.storage/address. By hand:",
        )
        .run(format!(
            "{} nodes add {} {name} {}{read_only}{alone}",
            appliance.command,
            volume.id,
            list(&now)
        )),
    )
}

/// A client that is connected and let in by nothing.
fn connected(appliance: &Appliance, client: &LiveClient) -> Option<Finding> {
    let address = client.address;
    let lets_in = |volume: &Volume| volume.peers().iter().any(|peer| peer.contains(address));
    let object = format!("NFS client {address} of appliance {}", appliance.id);
    let on_it = "On that machine, see what is mounted, end what uses it, and unmount it: umount -f, or umount -l.";
    let without: Vec<String> = client
        .holds
        .iter()
        .filter_map(|there| Some((there, appliance.volume(there.volume)?)))
        .filter(|(_, volume)| !lets_in(volume))
        .map(|(there, volume)| format!("{} file(s) on {} ({})", there.held.opens, volume.id, volume.name))
        .collect();
    if !without.is_empty() {
        let message = format!("it holds open {}, and is not let in there", without.join(", "));
        return Some(Finding::new(Code::HoldsWithoutAccess, object, message, on_it).run("findmnt -t nfs4".to_owned()));
    }
    let snapshots = appliance.holdings.iter().flat_map(|held| &held.snapshots);
    let of_snapshots = snapshots
        .flat_map(|snapshot| &snapshot.clients)
        .any(|peer| peer.contains(address));
    if appliance.volumes().any(lets_in) || of_snapshots || !client.holds.is_empty() {
        return None;
    }
    let message = "it is connected, and no volume lets it in".to_owned();
    Some(Finding::new(Code::ClientWithoutVolume, object, message, on_it).run("findmnt -t nfs4".to_owned()))
}
