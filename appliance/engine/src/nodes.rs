//! To which nodes of a cluster a volume is published. Invariant: the tag comes before the export when access is given, and goes
//! last when it is taken, because it tells which addresses are to be cut off; those that a node had before go with it, and are
//! noted in the commit that replaces them; a volume that a node has alone is published to no other; a volume that is published
//! is not deleted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cistern_model::{
    Client, ClientRemoved, EventKind, FenceReport, MOST_ADDRESSES, NodeAccess, NodeName, Principal, Severity, Volume,
    VolumeId, VolumeName,
};

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::{Engine, locked};
use crate::pools::refuse_incomplete;
use crate::tags::NodeTags;
use crate::view::VolumeView;
use crate::volumes::{Created, LIMIT};

/// The most nodes of one volume: each is a tag of it.
const MOST_NODES: usize = 256;

impl Engine {
    /// Lets a node mount a volume from these addresses and no others. Asked again with other addresses, those count: it is the
    /// same node, which goes on with what it holds, in a session that the kernel knows by the address with which it began.
    ///
    /// # Errors
    /// `NameTaken` if it is published to that node otherwise, `Conflict` if another node has it and one of the two is to have
    /// it alone.
    pub fn publish_to_node(
        &self,
        by: &Principal,
        id: VolumeId,
        node: &NodeName,
        access: &NodeAccess,
    ) -> Result<Created<Volume>, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let access = in_order(access)?;
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        refuse_unsettled(id, &volume)?;
        let old = volume.tags.of_node(node);
        if old.access.as_ref() == Some(&access) {
            self.publish_if_stale()?;
            return Ok(Created {
                object: self.volume_model(id)?,
                created: false,
            });
        }
        refuse_otherwise(&volume, node, old.access.as_ref(), &access)?;
        refuse_incomplete(&pool)?;
        let now = access.clients()?;
        let gone: Vec<Client> = match &old.access {
            Some(old) => old
                .clients()?
                .into_iter()
                .filter(|client| !now.contains(client))
                .collect(),
            None => Vec::new(),
        };
        let settle = || -> Result<(), EngineError> { gone.iter().try_for_each(|client| self.let_settle(id, *client)) };
        let came_from = || self.came_from(id, node, &old, &access);
        // Asked when nothing comes from the old addresses any more: who holds something by then has a session.
        let was = match gone.is_empty() {
            true => came_from()?,
            false => self.having(id, node, &old, &without(&old, &access), || {
                settle()?;
                came_from()
            })?,
        };
        let new = NodeTags {
            access: Some(access.clone()),
            was,
        };
        let change = old.change_to(&new, node);
        let mut read_again = false;
        let noted = self.retag(pool.id, id, &change, |volume| {
            read_again = volume.tags.of_node(node) == old;
            volume.tags.set_node(node, &new);
        });
        if let Err(error) = noted {
            // Nothing was changed: what the tag says holds, and the exports say less.
            if matches!(error, EngineError::Unavailable(_)) {
                self.see_node_again(id, node, &old);
            }
            return Err(error);
        }
        self.publish_volume(id)?;
        if read_again {
            settle()?;
        }
        let addresses: Vec<String> = access.addresses.iter().map(ToString::to_string).collect();
        let message = format!(
            "volume {} is published to node {node} ({}){}",
            volume.tags.name,
            addresses.join(", "),
            if access.read_only { ", which may only read" } else { "" },
        );
        self.record(
            EventKind::NodePublished,
            Severity::Info,
            Some(id.to_string()),
            Some(by),
            message,
        );
        Ok(Created {
            object: self.volume_model(id)?,
            created: old.access.is_none(),
        })
    }

    /// No longer lets a node mount a volume. No error if it never might. When this returns it can neither read nor write there
    /// any more, and holds no lock on it, but for what it may by an address that is a client's or another node's too.
    pub fn unpublish_from_node(
        &self,
        by: &Principal,
        id: VolumeId,
        node: &NodeName,
    ) -> Result<ClientRemoved, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let (_name, pool, volume) = self.hold_volume(by, id)?;
        let old = volume.tags.of_node(node);
        let none = NodeTags::default();
        let mut fenced = Vec::new();
        match &old.access {
            None => self.publish_if_stale()?,
            Some(_) => {
                refuse_unsettled(id, &volume)?;
                refuse_incomplete(&pool)?;
                let fence = || self.fence_node(by, id, &volume.tags.name, node, &old);
                fenced.extend(self.having(id, node, &old, &none, fence)?);
                let change = old.change_to(&none, node);
                let mut read_again = false;
                let noted = self.retag(pool.id, id, &change, |volume| {
                    read_again = volume.tags.nodes.contains_key(node);
                    volume.tags.set_node(node, &none);
                });
                if noted.is_err() {
                    self.see_node_again(id, node, &old);
                }
                noted?;
                if read_again {
                    self.publish_volume(id)?;
                    fenced.extend(fence()?);
                }
                let message = format!("volume {} is no longer published to node {node}", volume.tags.name);
                self.record(
                    EventKind::NodeUnpublished,
                    Severity::Info,
                    Some(id.to_string()),
                    Some(by),
                    message,
                );
            }
        }
        Ok(ClientRemoved {
            volume: self.volume_model(id)?,
            fenced,
        })
    }

    /// The addresses other than these that a node had, and with which the NFS server has a session now: with each it may be the node's,
    /// which has kept it while it moved, and takes its locks by it here too.
    fn came_from(
        &self,
        id: VolumeId,
        node: &NodeName,
        old: &NodeTags,
        access: &NodeAccess,
    ) -> Result<BTreeSet<IpAddr>, EngineError> {
        let mut known = self.addresses_of(node, old);
        known.retain(|address| !access.addresses.contains(address));
        if known.is_empty() {
            return Ok(BTreeSet::new());
        }
        let sessions = self.sessions(id)?;
        let is_there = |address: &IpAddr| sessions.iter().any(|session| session.address == *address);
        let mut was = BTreeSet::new();
        for address in known.into_iter().filter(is_there) {
            // This volume's own come first.
            if was.len() < MOST_ADDRESSES {
                was.insert(address);
            }
        }
        Ok(was)
    }

    /// All addresses that a node has or had: those of this volume, and then those of all others.
    fn addresses_of(&self, node: &NodeName, tags: &NodeTags) -> Vec<IpAddr> {
        let mut known = tags.addresses();
        let view = self.view();
        let volumes = view.pools.values().flat_map(|pool| pool.volumes.values());
        known.extend(volumes.flat_map(|volume| volume.tags.of_node(node).addresses()));
        known
    }

    /// Cuts off all sessions of a node on a volume whose export it has lost, those too that began at an address which it had before, or
    /// has on other volumes yet: of what came from there nothing is under way any more. And those that began at an address which neither
    /// the volume nor a node that keeps it has or had: the node may have had it on a volume that was taken from it since, and nobody else
    /// can rightly hold anything there.
    fn fence_node(
        &self,
        by: &Principal,
        id: VolumeId,
        name: &VolumeName,
        node: &NodeName,
        tags: &NodeTags,
    ) -> Result<Vec<FenceReport>, EngineError> {
        let mut reports = Vec::new();
        let mut done: Vec<Client> = Vec::new();
        if let Some(access) = &tags.access {
            for client in access.clients()? {
                reports.extend(self.fence(by, id, name, client)?);
                done.push(client);
            }
        }
        let as_client = |address: &IpAddr| address.to_string().parse::<Client>().ok();
        for client in self.addresses_of(node, tags).iter().filter_map(as_client) {
            if !done.contains(&client) {
                reports.extend(self.end_sessions(by, id, name, client)?);
                done.push(client);
            }
        }
        let staying: Vec<IpAddr> = {
            let kept = self.view().volume(id).map(|(_, volume)| volume.tags.clone());
            let others = kept
                .iter()
                .flat_map(|tags| tags.nodes.keys().map(move |other| (tags, other)));
            let others = others.filter(|(_, other)| *other != node);
            others
                .flat_map(|(tags, other)| self.addresses_of(other, &tags.of_node(other)))
                .collect()
        };
        let path = self.path_of(id);
        for session in self.sessions(id)? {
            let holds = session.held.iter().flatten().any(|there| there.path == path);
            let unknown = holds && !staying.contains(&session.address);
            let client = as_client(&session.address).filter(|client| unknown && !done.contains(client));
            if let Some(client) = client {
                reports.extend(self.end_sessions(by, id, name, client)?);
                done.push(client);
            }
        }
        Ok(reports)
    }

    /// Has a node have no more than `staying` on a volume, and does what is to be done then; its tags are `old` still. All that reads LVM
    /// anew meanwhile sees that, and may write exports by it: who notes the end looks whether that was so, and does it once more.
    fn having<T>(
        &self,
        id: VolumeId,
        node: &NodeName,
        old: &NodeTags,
        staying: &NodeTags,
        then: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.see_node(id, node, staying);
        let done = self.publish_volume(id).and_then(|()| then());
        if done.is_err() {
            // It is asked again, and is as it was until then.
            self.see_node_again(id, node, old);
        }
        done
    }

    /// Has the view say what a node may as its tags do, after it said less: the exports were told that.
    fn see_node_again(&self, id: VolumeId, node: &NodeName, tags: &NodeTags) {
        self.see_node(id, node, tags);
        *locked(&self.0.exports_stale) = true;
    }

    /// Has the view say what a node may.
    fn see_node(&self, id: VolumeId, node: &NodeName, tags: &NodeTags) {
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.tags.set_node(node, tags);
            }
        });
    }
}

/// A node without the addresses that are to be its no more. That it had them whoever publishes another volume to it is to know.
fn without(old: &NodeTags, access: &NodeAccess) -> NodeTags {
    let mut staying = old.clone();
    staying.was.extend(old.addresses());
    if let Some(had) = &mut staying.access {
        had.addresses.retain(|address| access.addresses.contains(address));
    }
    staying
}

/// The same with each address once, in their order.
fn in_order(access: &NodeAccess) -> Result<NodeAccess, EngineError> {
    access.clients()?;
    let mut access = access.clone();
    access.addresses.sort();
    access.addresses.dedup();
    Ok(access)
}

fn refuse_otherwise(
    volume: &VolumeView,
    node: &NodeName,
    old: Option<&NodeAccess>,
    access: &NodeAccess,
) -> Result<(), EngineError> {
    let name = &volume.tags.name;
    if let Some(old) = old.filter(|old| (old.read_only, old.alone) != (access.read_only, access.alone)) {
        let how = |access: &NodeAccess| match (access.read_only, access.alone) {
            (false, false) => "to write, beside others",
            (false, true) => "to write, alone",
            (true, false) => "to read, beside others",
            (true, true) => "to read, alone",
        };
        return Err(EngineError::NameTaken(format!(
            "volume {name} is published to node {node} {}, and was asked for {}; take it from the node first",
            how(old),
            how(access)
        )));
    }
    if old.is_some() {
        return Ok(());
    }
    let other = volume.tags.nodes.iter().find(|(_, there)| there.alone || access.alone);
    if let Some((other, _)) = other {
        return Err(EngineError::Conflict(format!(
            "volume {name} is in use on node {other}, and only one node may have it at a time; it comes free when its pod there has ended"
        )));
    }
    if volume.tags.nodes.len() >= MOST_NODES {
        return Err(EngineError::Invalid(format!(
            "volume {name} is published to {MOST_NODES} nodes, which is the most; allow a network with `cistern clients add`"
        )));
    }
    Ok(())
}

/// A volume that a node has is not deleted under it.
pub(crate) fn refuse_published(id: VolumeId, volume: &VolumeView) -> Result<(), EngineError> {
    match volume.tags.nodes.keys().next() {
        None => Ok(()),
        Some(node) => Err(EngineError::Conflict(format!(
            "volume {} is published to node {node}; take it from there first: cistern nodes remove {id} {node}",
            volume.tags.name
        ))),
    }
}
