//! In which zone a node is. Invariant: it is asked for whenever a kubelet asks, because who labels nodes may come later than the
//! plugin; a node that is still to be labelled is not taken for one without a zone.

use cistern_model::NodeName;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tonic::Status;

use crate::appliances::ZONE;

/// The taint of a node that its cloud has not described yet. The zone's label comes before it goes.
const UNDESCRIBED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// From where a node's zone is known.
#[derive(Clone)]
pub enum Zone {
    /// Appliances are near to all nodes.
    Everywhere,
    /// It was said on the command line.
    Named(String),
    /// Its Node object has it as a label.
    OfNode(Client),
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Zone::Everywhere => f.write_str("Everywhere"),
            Zone::Named(zone) => f.debug_tuple("Named").field(zone).finish(),
            Zone::OfNode(_) => f.write_str("OfNode"),
        }
    }
}

impl Zone {
    /// The zone of the node of this name, if it has one.
    ///
    /// # Errors
    /// `UNAVAILABLE` if that cannot be asked now, or is not known yet. A kubelet asks again.
    pub async fn of(&self, name: &NodeName) -> Result<Option<String>, Status> {
        let client = match self {
            Zone::Everywhere => return Ok(None),
            Zone::Named(zone) => return Ok(Some(zone.clone())),
            Zone::OfNode(client) => client.clone(),
        };
        let api: Api<Node> = Api::all(client);
        let node = api.get(name.as_str()).await;
        let node =
            node.map_err(|error| Status::unavailable(format!("node {name} cannot be asked for its zone: {error}")))?;
        let zone = labelled(&node).map_err(|why| Status::unavailable(format!("node {name}: {why}")))?;
        if zone.is_none() {
            tracing::warn!(
                "node {name} has no label {ZONE}: volumes of appliances that are in a zone are not for its pods"
            );
        }
        Ok(zone)
    }
}

/// What its label says.
fn labelled(node: &Node) -> Result<Option<String>, &'static str> {
    let labels = node.metadata.labels.as_ref();
    let zone = labels
        .and_then(|labels| labels.get(ZONE))
        .filter(|zone| !zone.is_empty());
    let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
    match zone {
        Some(zone) => Ok(Some(zone.clone())),
        None if taints.into_iter().any(|taint| taint.key == UNDESCRIBED) => {
            Err("its cloud has not described it yet, so its zone is not known")
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, Taint};

    use super::*;

    #[test]
    fn a_node_without_a_label_has_no_zone_unless_one_is_still_to_come() {
        let mut node = Node::default();
        assert_eq!(labelled(&node), Ok(None));
        node.spec = Some(NodeSpec {
            taints: Some(vec![Taint {
                key: UNDESCRIBED.to_owned(),
                ..Taint::default()
            }]),
            ..NodeSpec::default()
        });
        assert!(labelled(&node).is_err());
        node.metadata.labels = Some([(ZONE.to_owned(), "a".to_owned())].into());
        assert_eq!(labelled(&node), Ok(Some("a".to_owned())));
    }
}
