//! To which nodes of a cluster a volume is published. Invariant: the tag comes before the export when access is given, and goes
//! last when it is taken, because it tells which addresses are to be cut off; a volume that a node has alone is published to
//! no other; a volume that is published is not deleted.

use cistern_host::TagChange;
use cistern_model::{
    Client, ClientRemoved, EventKind, FenceReport, NodeAccess, NodeName, Principal, Severity, Volume, VolumeId,
};

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::{Engine, locked};
use crate::pools::refuse_incomplete;
use crate::tags::node_tag;
use crate::view::VolumeView;
use crate::volumes::{Created, LIMIT};

/// The most nodes of one volume: each is a tag of it.
const MOST_NODES: usize = 256;

impl Engine {
    /// Lets a node mount a volume from these addresses and no others. Asked again with other addresses, those count, and what
    /// it held from the old ones is revoked.
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
        let old = volume.tags.nodes.get(node).cloned();
        if old.as_ref() == Some(&access) {
            self.publish_if_stale()?;
            return Ok(Created {
                object: self.volume_model(id)?,
                created: false,
            });
        }
        refuse_otherwise(&volume, node, old.as_ref(), &access)?;
        refuse_incomplete(&pool)?;
        let now = access.clients()?;
        let gone = match &old {
            Some(old) => old
                .clients()?
                .into_iter()
                .filter(|client| !now.contains(client))
                .collect(),
            None => Vec::new(),
        };
        // The tag tells which addresses are to be cut off: it goes when they are.
        if let Some(old) = old.as_ref().filter(|_| !gone.is_empty()) {
            let mut staying = old.clone();
            staying.addresses.retain(|address| access.addresses.contains(address));
            self.cut_off(by, id, node, old, Some(staying), &gone)?;
        }
        let change = TagChange {
            add: vec![node_tag(node, &access)],
            remove: old.iter().map(|old| node_tag(node, old)).collect(),
        };
        let mut read_again = false;
        let noted = self.retag(pool.id, id, &change, |volume| {
            let before = volume.tags.nodes.insert(node.clone(), access.clone());
            read_again = before == old;
        });
        if let Err(error) = noted {
            // Nothing was changed: what the tag says holds, and the exports say less.
            if matches!(error, EngineError::Unavailable(_)) {
                self.see_node_again(id, node, old.as_ref());
            }
            return Err(error);
        }
        self.publish_volume(id)?;
        if read_again {
            for client in &gone {
                self.fence(by, id, &volume.tags.name, *client)?;
            }
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
            created: old.is_none(),
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
        let mut fenced = Vec::new();
        match volume.tags.nodes.get(node) {
            None => self.publish_if_stale()?,
            Some(access) => {
                refuse_unsettled(id, &volume)?;
                refuse_incomplete(&pool)?;
                let clients = access.clients()?;
                fenced.extend(self.cut_off(by, id, node, access, None, &clients)?);
                let change = TagChange {
                    add: Vec::new(),
                    remove: vec![node_tag(node, access)],
                };
                let mut read_again = false;
                let noted = self.retag(pool.id, id, &change, |volume| {
                    read_again = volume.tags.nodes.remove(node).is_some();
                });
                if noted.is_err() {
                    self.see_node_again(id, node, Some(access));
                }
                noted?;
                if read_again {
                    self.publish_volume(id)?;
                    for client in &clients {
                        fenced.extend(self.fence(by, id, &volume.tags.name, *client)?);
                    }
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

    /// Cuts these addresses of a node off, which has `staying` from then on; its tag is as it was. All that reads LVM anew meanwhile
    /// sees that, and may write exports by it: who notes the end looks whether that was so, and cuts off once more.
    fn cut_off(
        &self,
        by: &Principal,
        id: VolumeId,
        node: &NodeName,
        access: &NodeAccess,
        staying: Option<NodeAccess>,
        clients: &[Client],
    ) -> Result<Vec<FenceReport>, EngineError> {
        self.see_node(id, node, staying.as_ref());
        let (_, volume) = self.visible_volume(&Principal::local(), id)?;
        let fencing = self.publish_volume(id).and_then(|()| {
            let reports = clients
                .iter()
                .map(|client| self.fence(by, id, &volume.tags.name, *client));
            reports.collect::<Result<Vec<_>, _>>()
        });
        if fencing.is_err() {
            // It is asked again, and is as it was until then.
            self.see_node_again(id, node, Some(access));
        }
        Ok(fencing?.into_iter().flatten().collect())
    }

    /// Has the view say what a node may as its tag does, after it said less: the exports were told that.
    fn see_node_again(&self, id: VolumeId, node: &NodeName, access: Option<&NodeAccess>) {
        self.see_node(id, node, access);
        *locked(&self.0.exports_stale) = true;
    }

    /// Has the view say what a node may.
    fn see_node(&self, id: VolumeId, node: &NodeName, access: Option<&NodeAccess>) {
        self.change_view(|view| {
            let Some(volume) = view.volume_mut(id) else { return };
            match access {
                Some(access) => drop(volume.tags.nodes.insert(node.clone(), access.clone())),
                None => drop(volume.tags.nodes.remove(node)),
            }
        });
    }
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
