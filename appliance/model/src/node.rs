//! To which nodes of a cluster a volume is published. Invariant: a node is known by its name; its addresses may change.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Invalid, NodeName};

/// The most addresses of one node.
pub const MOST_ADDRESSES: usize = 16;

/// How a node may use a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeAccess {
    /// From where it mounts: 1 to 16 addresses.
    #[schema(value_type = Vec<String>, example = json!(["10.0.0.7"]))]
    pub addresses: Vec<IpAddr>,
    /// Whether it may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Whether no other node may have the volume meanwhile.
    #[serde(default)]
    pub alone: bool,
}

/// A node that a volume is published to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishedNode {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// From where it mounts.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Whether it may only read.
    pub read_only: bool,
    /// Whether no other node may have the volume meanwhile.
    pub alone: bool,
}

impl NodeAccess {
    /// What its export lets in: each address once, in their order.
    ///
    /// # Errors
    /// None or too many are given, or one that nobody can have.
    pub fn clients(&self) -> Result<Vec<Client>, Invalid> {
        let refuse = |why: &str| Invalid::new("addresses", &format!("{:?}", self.addresses), why);
        if self.addresses.is_empty() || self.addresses.len() > MOST_ADDRESSES {
            return Err(refuse("give 1 to 16 addresses"));
        }
        let clients = self.addresses.iter().map(|address| address.to_string().parse());
        let mut clients = clients.collect::<Result<Vec<Client>, Invalid>>()?;
        clients.sort();
        clients.dedup();
        Ok(clients)
    }
}

/// All that may mount a volume with these clients, published to nodes with these addresses (and whether each may only read): in
/// order and each once; who may write anywhere may write.
pub fn peers<'a>(
    clients: impl IntoIterator<Item = Client>,
    nodes: impl IntoIterator<Item = (&'a [IpAddr], bool)>,
) -> Vec<Client> {
    let of_nodes = nodes.into_iter().flat_map(|(addresses, read_only)| {
        let clients = addresses
            .iter()
            .filter_map(|address| address.to_string().parse::<Client>().ok());
        clients.map(move |client| client.with_read_only(read_only))
    });
    let mut peers: Vec<Client> = Vec::new();
    for client in clients.into_iter().chain(of_nodes) {
        match peers.iter_mut().find(|peer| peer.is_same_peer(&client)) {
            Some(peer) => *peer = peer.with_read_only(peer.is_read_only() && client.is_read_only()),
            None => peers.push(client),
        }
    }
    peers.sort();
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_clients_once_each_and_some_are_refused() {
        let access = |addresses: &[&str]| NodeAccess {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            read_only: false,
            alone: false,
        };
        let clients = access(&["fd00::7", "10.0.0.7", "10.0.0.7"]).clients().unwrap();
        assert_eq!(clients, ["10.0.0.7", "fd00::7"].map(|c| c.parse().unwrap()));
        for wrong in [&[][..], &["0.0.0.0"], &["224.0.0.1"], &["10.0.0.1"; 17]] {
            assert!(access(wrong).clients().is_err(), "{wrong:?}");
        }
    }
}
