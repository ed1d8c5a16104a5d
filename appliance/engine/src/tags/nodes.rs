//! The tags that publish a volume to nodes: what each may and from where, and from where it came before. Pure. Invariant: a tag
//! for each node, and one for each former address of a node, so that none grows beyond what LVM takes; a former address lets
//! nobody in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cistern_host::TagChange;
use cistern_model::{Client, NodeAccess, NodeName};

use super::{Fields, Unreadable, VolumeTags, tag};

/// What a volume's tags say of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeTags {
    /// How it may use the volume; none if it may not.
    pub(crate) access: Option<NodeAccess>,
    /// The addresses by which the NFS server may know it, because it had one of them when its session began.
    pub(crate) was: BTreeSet<IpAddr>,
}

impl NodeTags {
    /// What makes that of this, in one commit.
    pub(crate) fn change_to(&self, new: &NodeTags, name: &NodeName) -> TagChange {
        let (old, new) = (self.write(name), new.write(name));
        TagChange {
            add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
            remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
        }
    }

    fn write(&self, name: &NodeName) -> Vec<String> {
        let mut tags: Vec<String> = self.access.iter().map(|access| node_tag(name, access)).collect();
        tags.extend(self.was.iter().map(|address| was_tag(name, *address)));
        tags
    }

    /// All its addresses, those of now first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let now = self.access.iter().flat_map(|access| access.addresses.iter());
        now.chain(&self.was).copied().collect()
    }
}

impl VolumeTags {
    /// What they say of this node.
    pub(crate) fn of_node(&self, name: &NodeName) -> NodeTags {
        let was = self.nodes_were.iter().filter(|(of, _)| of == name);
        NodeTags {
            access: self.nodes.get(name).cloned(),
            was: was.map(|(_, address)| *address).collect(),
        }
    }

    /// Has them say that of this node, and nothing else.
    pub(crate) fn set_node(&mut self, name: &NodeName, node: &NodeTags) {
        match &node.access {
            Some(access) => drop(self.nodes.insert(name.clone(), access.clone())),
            None => drop(self.nodes.remove(name)),
        }
        self.nodes_were.retain(|(of, _)| of != name);
        let was = node.was.iter().map(|address| (name.clone(), *address));
        self.nodes_were.extend(was);
    }
}

impl Fields {
    pub(super) fn nodes(&self) -> Result<BTreeMap<NodeName, NodeAccess>, Unreadable> {
        let mut nodes = BTreeMap::new();
        for text in self.all::<String>("node")? {
            let read = read_node(&text).ok_or_else(|| Unreadable::Damaged(format!("node: {text:?}")))?;
            nodes.insert(read.0, read.1);
        }
        Ok(nodes)
    }

    pub(super) fn nodes_were(&self) -> Result<BTreeSet<(NodeName, IpAddr)>, Unreadable> {
        let texts = self.all::<String>("node-was")?;
        let read = |text: &String| read_was(text).ok_or_else(|| Unreadable::Damaged(format!("node-was: {text:?}")));
        texts.iter().map(read).collect()
    }
}

/// The tag that publishes a volume to a node: its name, what it may do, and its addresses.
pub(super) fn node_tag(name: &NodeName, access: &NodeAccess) -> String {
    let may = MODES.iter().find(|(_, mode)| *mode == (access.read_only, access.alone));
    let mut text = format!("{name}/{}", may.map_or("rw", |(word, _)| word));
    for address in &access.addresses {
        text.push_str(&format!("/{address}"));
    }
    tag("node", &text)
}

/// The tag that names a former address of a node.
pub(super) fn was_tag(name: &NodeName, address: IpAddr) -> String {
    tag("node-was", &format!("{name}/{address}"))
}

/// What a node may do in a tag's words: whether it only reads, and whether it is alone.
const MODES: [(&str, (bool, bool)); 4] = [
    ("rw", (false, false)),
    ("ro", (true, false)),
    ("rw-alone", (false, true)),
    ("ro-alone", (true, true)),
];

fn read_node(text: &str) -> Option<(NodeName, NodeAccess)> {
    let mut parts = text.split('/');
    let (name, mode) = (parts.next()?.parse().ok()?, parts.next()?);
    let (_, (read_only, alone)) = *MODES.iter().find(|(word, _)| *word == mode)?;
    let addresses = parts.map(str::parse).collect::<Result<Vec<IpAddr>, _>>().ok()?;
    let access = NodeAccess {
        addresses,
        read_only,
        alone,
    };
    access.clients().ok()?;
    Some((name, access))
}

fn read_was(text: &str) -> Option<(NodeName, IpAddr)> {
    let (name, address) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    address.to_string().parse::<Client>().ok()?;
    Some((name.parse().ok()?, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_node_names_only_what_differs() {
        let name: NodeName = "worker-1".parse().unwrap();
        let node = |address: &str, was: &[&str]| NodeTags {
            access: Some(NodeAccess {
                addresses: vec![address.parse().unwrap()],
                read_only: false,
                alone: true,
            }),
            was: was.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let (old, new) = (
            node("10.0.0.8", &["10.0.0.6", "fd00::7"]),
            node("10.0.0.9", &["10.0.0.8", "fd00::7"]),
        );
        let change = old.change_to(&new, &name);
        assert_eq!(
            change.add,
            [
                "cistern.node=worker-1/rw-alone/10.0.0.9",
                "cistern.node-was=worker-1/10.0.0.8"
            ]
        );
        assert_eq!(
            change.remove,
            [
                "cistern.node=worker-1/rw-alone/10.0.0.8",
                "cistern.node-was=worker-1/10.0.0.6"
            ]
        );
        let gone = new.change_to(&NodeTags::default(), &name);
        assert_eq!((gone.add.len(), gone.remove.len()), (0, 3));
        assert_eq!(new.change_to(&new, &name), TagChange::default());
    }
}
