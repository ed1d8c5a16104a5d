//! In which zone a node is. Invariant: it is asked for whenever a kubelet asks, because who labels nodes may come later than the
//! plugin; a node that is still to be labelled is not taken for one without a zone. A kubelet asks only when it gets to know the plugin:
//! one that was told of no zone is to be made to ask again when there is one.

use std::time::Duration;

use cistern_model::NodeName;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::sync::watch;
use tonic::Status;

use crate::appliances::ZONE;

/// The taint of a node that its cloud has not described yet. The zone's label comes before it goes.
const UNDESCRIBED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// How often a Node is looked at that had no label when its kubelet asked.
const AGAIN: Duration = Duration::from_secs(30);

/// From where a node's zone is known.
#[derive(Clone)]
pub enum Zone {
    /// Appliances are near to all nodes.
    Everywhere,
    /// It was said on the command line.
    Named(String),
    /// Its Node object has it as a label.
    OfNode {
        /// Where that is asked for.
        client: Client,
        /// Whether the last that a kubelet was told is that there is none.
        lacking: watch::Sender<bool>,
    },
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Zone::Everywhere => f.write_str("Everywhere"),
            Zone::Named(zone) => f.debug_tuple("Named").field(zone).finish(),
            Zone::OfNode { .. } => f.write_str("OfNode"),
        }
    }
}

impl Zone {
    /// That of a Node object's label.
    pub fn of_node(client: Client) -> Self {
        Zone::OfNode {
            client,
            lacking: watch::Sender::new(false),
        }
    }

    /// The zone of the node of this name, if it has one.
    ///
    /// # Errors
    /// `UNAVAILABLE` if that cannot be asked now, or is not known yet. A kubelet asks again.
    pub async fn of(&self, name: &NodeName) -> Result<Option<String>, Status> {
        let (client, lacking) = match self {
            Zone::Everywhere => return Ok(None),
            Zone::Named(zone) => return Ok(Some(zone.clone())),
            Zone::OfNode { client, lacking } => (client, lacking),
        };
        let zone = look(client, name).await?;
        lacking.send_replace(zone.is_none());
        if zone.is_none() {
            tracing::warn!(
                "node {name} has no label {ZONE}: volumes of appliances that are in a zone are not for its pods until it has one"
            );
        }
        Ok(zone)
    }

    /// Comes back when the node is in a zone and its kubelet was told of none: it is to be made to ask again.
    pub async fn appears(&self, name: &NodeName) {
        self.appears_by_looks(name, AGAIN).await;
    }

    async fn appears_by_looks(&self, name: &NodeName, every: Duration) {
        let Zone::OfNode { client, lacking } = self else {
            // What is said once stays so.
            return std::future::pending().await;
        };
        let mut lacks = lacking.subscribe();
        loop {
            // It is never closed: who could close it is borrowed here.
            let _ = lacks.wait_for(|lacks| *lacks).await;
            tokio::time::sleep(every).await;
            let seen = look(client, name).await;
            let still = *lacks.borrow();
            match seen {
                Ok(Some(zone)) if still => {
                    tracing::info!("node {name} is in zone {zone} now, and its kubelet is to ask again");
                    return;
                }
                Ok(_) => {}
                Err(status) => tracing::warn!(%status, "whether the node is in a zone by now is not known"),
            }
        }
    }
}

/// What a Node's label says now.
async fn look(client: &Client, name: &NodeName) -> Result<Option<String>, Status> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get(name.as_str()).await;
    let node =
        node.map_err(|error| Status::unavailable(format!("node {name} cannot be asked for its zone: {error}")))?;
    labelled(&node).map_err(|why| Status::unavailable(format!("node {name}: {why}")))
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
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::{NodeSpec, Taint};
    use kube::client::Body;
    use tokio::time::timeout;
    use tonic::codegen::http::{Request, Response};

    use super::*;

    /// A cluster whose one Node is this.
    fn cluster(node: Arc<Mutex<Node>>) -> Client {
        let answer = tower::service_fn(move |_: Request<Body>| {
            let said = serde_json::to_vec(&*node.lock().unwrap()).unwrap();
            async move { Ok::<_, Infallible>(Response::new(Body::from(said))) }
        });
        Client::new(answer, "default")
    }

    #[tokio::test]
    async fn a_label_that_comes_late_is_seen_until_a_kubelet_was_told_of_it() {
        const SOON: Duration = Duration::from_millis(10);
        const SHORT: Duration = Duration::from_millis(200);
        const LONG: Duration = Duration::from_secs(30);
        let node = Arc::new(Mutex::new(Node::default()));
        let name: NodeName = "n1".parse().unwrap();
        let zone = Zone::of_node(cluster(node.clone()));
        let appears = async |within: Duration| timeout(within, zone.appears_by_looks(&name, SOON)).await.is_ok();
        assert_eq!(zone.of(&name).await.unwrap(), None);
        assert!(!appears(SHORT).await, "it has no label");
        node.lock().unwrap().metadata.labels = Some([(ZONE.to_owned(), "a".to_owned())].into());
        // Also a second time, as long as nobody has asked.
        assert!(appears(LONG).await && appears(LONG).await);
        assert_eq!(zone.of(&name).await.unwrap().as_deref(), Some("a"));
        assert!(!appears(SHORT).await, "the kubelet knows it");
        let named = Zone::Named("a".to_owned());
        let never = timeout(SHORT, named.appears_by_looks(&name, SOON)).await;
        assert!(never.is_err());
    }

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
