//! From where nodes mount. Invariant: a node is its name in its cluster; its addresses are asked for at each publishing, because
//! they change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cistern_model::NodeName;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tonic::{Status, async_trait};

/// The annotation of a Node that names its addresses in the storage network, with commas between.
pub const ANNOTATION: &str = "csi.cistern.storage/address";

/// Who knows nodes' addresses.
#[async_trait]
pub trait Addresses: Send + Sync {
    /// A node's addresses.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such node, `UNAVAILABLE` if that cannot be asked now.
    async fn of(&self, node: &NodeName) -> Result<Vec<IpAddr>, Status>;

    /// Those of all nodes that have any.
    ///
    /// # Errors
    /// `UNAVAILABLE` if that cannot be asked now.
    async fn all(&self) -> Result<BTreeMap<NodeName, Vec<IpAddr>>, Status>;
}

/// Whether a node that was published to from these addresses mounts from others now. It has to be published to anew then, which
/// csi-attacher does for a node that is not in the list of its volume's. One that nobody knows is left as it is.
pub(crate) fn moved(now: &BTreeMap<NodeName, Vec<IpAddr>>, node: &NodeName, published: &[IpAddr]) -> bool {
    let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    now.get(node).is_some_and(|now| set(now) != set(published))
}

/// Nodes that were named on the command line: `NAME=ADDRESS[,ADDRESS]`. For use without a cluster.
#[derive(Debug, Clone, Default)]
pub struct Named(pub BTreeMap<NodeName, Vec<IpAddr>>);

#[async_trait]
impl Addresses for Named {
    async fn of(&self, node: &NodeName) -> Result<Vec<IpAddr>, Status> {
        let found = self.0.get(node).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no node {node}; name it with --node-address")))
    }

    async fn all(&self) -> Result<BTreeMap<NodeName, Vec<IpAddr>>, Status> {
        Ok(self.0.clone())
    }
}

/// Those of the cluster that the plugin runs in.
#[derive(Clone)]
pub struct Cluster(pub Client);

#[async_trait]
impl Addresses for Cluster {
    async fn of(&self, node: &NodeName) -> Result<Vec<IpAddr>, Status> {
        let api: Api<Node> = Api::all(self.0.clone());
        let found = api.get_opt(node.as_str()).await;
        let found = found.map_err(|error| Status::unavailable(format!("node {node} cannot be asked for: {error}")))?;
        let found = found.ok_or_else(|| Status::not_found(format!("the cluster has no node {node}")))?;
        addresses(&found).map_err(|why| Status::failed_precondition(format!("node {node}: {why}")))
    }

    async fn all(&self) -> Result<BTreeMap<NodeName, Vec<IpAddr>>, Status> {
        let api: Api<Node> = Api::all(self.0.clone());
        let listed = api.list(&kube::api::ListParams::default()).await;
        let listed = listed.map_err(|error| Status::unavailable(format!("nodes cannot be asked for: {error}")))?;
        let of = |node: &Node| Some((node.metadata.name.as_ref()?.parse().ok()?, addresses(node).ok()?));
        Ok(listed.items.iter().filter_map(of).collect())
    }
}

/// The annotation's, or else the internal ones.
fn addresses(node: &Node) -> Result<Vec<IpAddr>, String> {
    let annotated = node.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
    if let Some(text) = annotated {
        let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(|address| address.trim().parse()).collect();
        return parsed
            .map_err(|_| format!("its annotation {ANNOTATION} is {text:?}; give addresses with commas between"));
    }
    let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = status
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP");
    let found: Vec<IpAddr> = internal.filter_map(|address| address.address.parse().ok()).collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(format!(
            "it has no InternalIP; name its address in the storage network with the annotation {ANNOTATION}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};

    use super::*;

    fn node(annotation: Option<&str>, addresses: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        node.metadata.annotations = annotation.map(|text| [(ANNOTATION.to_owned(), text.to_owned())].into());
        let address = |(kind, address): &(&str, &str)| NodeAddress {
            type_: (*kind).to_owned(),
            address: (*address).to_owned(),
        };
        node.status = Some(NodeStatus {
            addresses: Some(addresses.iter().map(address).collect()),
            ..NodeStatus::default()
        });
        node
    }

    #[test]
    fn a_node_has_moved_if_it_is_known_and_mounts_from_elsewhere() {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let addresses = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        let now = BTreeMap::from([(name("a"), addresses(&["10.0.0.7", "fd00::7"]))]);
        assert!(!moved(&now, &name("a"), &addresses(&["fd00::7", "10.0.0.7"])));
        assert!(moved(&now, &name("a"), &addresses(&["10.0.0.7"])));
        assert!(moved(&now, &name("a"), &addresses(&["10.0.0.8", "fd00::7"])));
        assert!(!moved(&now, &name("gone"), &addresses(&["10.0.0.9"])));
    }

    #[test]
    fn the_annotation_counts_and_else_all_internal_addresses() {
        let all = [
            ("Hostname", "n"),
            ("InternalIP", "10.0.0.7"),
            ("ExternalIP", "1.2.3.4"),
            ("InternalIP", "fd00::7"),
        ];
        let read = |node: &Node| addresses(node).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&node(None, &all)).unwrap(), ["10.0.0.7", "fd00::7"]);
        assert_eq!(
            read(&node(Some("192.168.9.7, fd01::7"), &all)).unwrap(),
            ["192.168.9.7", "fd01::7"]
        );
        assert!(
            read(&node(Some("storage.example"), &all))
                .unwrap_err()
                .contains(ANNOTATION)
        );
        assert!(read(&node(None, &all[..1])).unwrap_err().contains("InternalIP"));
    }
}
