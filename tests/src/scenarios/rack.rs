//! A cluster with two nodes, machines of their own which run the printed DaemonSet, and the appliance whose volumes their pods use.
//!
//! Invariant: what [`on_two_nodes`] was given steps for ends with no container restarted and with nothing left, on the nodes neither.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cistern_model::{PublishedNode, Volume};
use serde_json::{Value, json};

use super::claims::{self, CLASS};
use crate::kubernetes::{Cluster, Node, pods};
use crate::lab::Lab;

pub(super) const A: &str = "node-a";
pub(super) const B: &str = "node-b";
/// A node with some pods.
pub(super) const MEMORY_MIB: u32 = 1024;
/// What kubelets may take for one thing, their machines and others emulated on two processors.
pub(super) const LIMIT: Duration = Duration::from_secs(240);
/// What keeps a pod until it is asked to end.
pub(super) const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";
pub(super) const SIZE: &str = "300Mi";

/// The cluster, its nodes, and the appliance.
pub(super) struct Rack<'a> {
    pub(super) lab: &'a Lab,
    pub(super) cluster: &'a Cluster,
    pub(super) nodes: &'a [Node],
}

/// Takes steps on a cluster with two nodes; afterwards no container was restarted and nothing is left anywhere.
pub(super) fn on_two_nodes(lab: &Lab, memory_mib: u32, steps: impl FnOnce(&Rack) -> Result<()>) -> Result<()> {
    // They start while the control plane does.
    let nodes = Node::machines(lab, &[A, B], memory_mib)?;
    Node::check(&nodes, || {
        let cluster = claims::without_nodes(lab, &[])?;
        cluster.check(|cluster| {
            cluster.join(&nodes)?;
            let rack = Rack {
                lab,
                cluster,
                nodes: &nodes,
            };
            steps(&rack)?;
            rack.none_restarted()?;
            cluster.kubectl(&["delete", "deployments,statefulsets,pods", "--all"])?;
            cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
            claims::nothing_is_left(lab, cluster)?;
            nodes.iter().try_for_each(Node::check_clean)
        })
    })
}

impl Rack<'_> {
    pub(super) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("there is no {name}"))
    }

    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        self.cluster.apply(&object.to_string())
    }

    pub(super) fn claim(&self, name: &str, mode: &str) -> Result<()> {
        self.claim_of(CLASS, name, mode)
    }

    pub(super) fn claim_of(&self, class: &str, name: &str, mode: &str) -> Result<()> {
        self.claim_like(name, &pods::claim(class, mode, SIZE))
    }

    /// A claim of this `spec`.
    pub(super) fn claim_like(&self, name: &str, spec: &Value) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": spec,
        }))?;
        claims::bound(self.cluster, name)
    }

    pub(super) fn pod(&self, name: &str, node: &str, claim: &str, script: &str, more: &Value) -> Result<()> {
        self.apply(&pods::once(name, node, claim, script, more))
    }

    pub(super) fn wait_for_log(&self, node: &str, pod: &str, text: &str) -> Result<()> {
        let node = self.node(node)?;
        let waited = self.cluster.wait(LIMIT, &format!("{text:?} from {pod}"), |_| {
            Ok(node.log(pod)?.contains(text))
        });
        let printed = || format!("{pod} printed {:?}", node.log(pod).unwrap_or_default());
        waited.map(drop).with_context(printed)
    }

    /// Waits until an event of a pod says this.
    pub(super) fn wait_for_word(&self, pod: &str, text: &str) -> Result<()> {
        let of_pod = format!("--field-selector=involvedObject.name={pod}");
        let what = format!("event of {pod} that says {text:?}");
        let waited = self.cluster.wait(LIMIT, &what, |cluster| {
            let events = cluster.get(&["get", "events", &of_pod])?;
            let events = events["items"].as_array().into_iter().flatten();
            let mut said = events.filter_map(|event| event["message"].as_str());
            Ok(said.any(|said| said.contains(text)))
        });
        waited.map(drop)
    }

    /// The nodes that a volume is published to.
    pub(super) fn published(&self, volume: &Volume) -> Result<Vec<PublishedNode>> {
        self.lab.cli.json(&["nodes", "list", volume.name.as_str()])
    }

    /// Fails unless the one volume is published to these nodes and no others.
    pub(super) fn is_published_to(&self, nodes: &[&str]) -> Result<()> {
        let published = self.published(&claims::only(self.lab)?)?;
        let mut names: Vec<&str> = published.iter().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        ensure!(names == nodes, "published to {published:?}, where {nodes:?} was due");
        Ok(())
    }

    /// Nothing is the matter between the cluster and the appliance, as far as `cistern kube doctor` sees.
    pub(super) fn is_well(&self) -> Result<()> {
        self.cluster.is_well(self.lab)
    }

    /// Fails if a container was started a second time, the plugin's among them.
    pub(super) fn none_restarted(&self) -> Result<()> {
        let pods = self.cluster.get(&["get", "pods", "-A"])?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
                ensure!(
                    container["restartCount"] == 0,
                    "{} was restarted: {container}",
                    pod["metadata"]["name"]
                );
            }
        }
        Ok(())
    }
}
