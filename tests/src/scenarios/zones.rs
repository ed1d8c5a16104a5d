//! Zones: what an appliance that is in one has is for pods on nodes of it, and a pod that cannot go there waits.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::claims::{LIMIT, claim, nothing_is_left, volumes, without_nodes};
use super::rack::{A, MEMORY_MIB, Rack, STAY};
use crate::kubernetes::{Cluster, Node};
use crate::lab::Lab;

const ZONE: &str = "topology.kubernetes.io/zone";
/// How long a pod that is to stay where it is is watched.
const STAYS: Duration = Duration::from_secs(5);

/// A pod that may run anywhere goes to the appliance's zone and has its volume there; one of another zone waits.
pub(super) fn claims_by_zone(lab: &Lab) -> Result<()> {
    let cluster = without_nodes(lab, &["--zone", "a"])?;
    cluster.check(|cluster| {
        node(cluster, "far", "b", "10.98.0.2")?;
        node(cluster, "near", "a", "10.98.0.1")?;
        // How much room there is is told for each class and zone.
        cluster.wait(LIMIT, "room of both zones", |cluster| {
            let (near, far) = (room(cluster, "a")?, room(cluster, "b")?);
            Ok(near.is_some_and(|room| room != "0") && far.is_some_and(|room| room == "0"))
        })?;

        cluster.apply(&claim("data", "300Mi", ""))?;
        std::thread::sleep(STAYS);
        ensure!(volumes(lab)?.is_empty(), "a volume was made before its pod was there");
        cluster.apply(&pod("anywhere", "data", None))?;
        cluster.wait(LIMIT, "pod on a node", |cluster| {
            Ok(on_node(cluster, "anywhere")?.is_some())
        })?;
        ensure!(
            on_node(cluster, "anywhere")?.as_deref() == Some("near"),
            "the pod went far away"
        );
        let volume = cluster.get(&["get", "pv"])?["items"][0].clone();
        let wanted = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        ensure!(wanted["key"] == ZONE && wanted["values"][0] == "a", "{volume}");

        cluster.apply(&claim("other", "300Mi", ""))?;
        cluster.apply(&pod("elsewhere", "other", Some("b")))?;
        cluster.wait(LIMIT, "word of the scheduler", |cluster| {
            let told = cluster.get(&["get", "events", "--field-selector", "reason=FailedScheduling"])?;
            let told = told["items"].as_array().into_iter().flatten();
            Ok(told
                .into_iter()
                .any(|event| event["involvedObject"]["name"] == "elsewhere"))
        })?;
        ensure!(
            on_node(cluster, "elsewhere")?.is_none(),
            "the pod runs where its volume is not"
        );
        ensure!(volumes(lab)?.len() == 1, "{:?}", volumes(lab)?);

        cluster.kubectl(&["delete", "pod", "anywhere", "elsewhere", "--grace-period=0", "--force"])?;
        cluster.kubectl(&["delete", "pvc", "data", "other", "--wait=false"])?;
        nothing_is_left(lab, cluster)
    })
}

/// A node with a kubelet gets its label late: the plugin's pod there asks for it with the token of its own account, the kubelet is told, and
/// a pod that waited goes there.
pub(super) fn a_node_s_zone(lab: &Lab) -> Result<()> {
    // It starts while the control plane does.
    let nodes = Node::machines(lab, &[A], MEMORY_MIB)?;
    Node::check(&nodes, || {
        let cluster = without_nodes(lab, &["--zone", "a"])?;
        cluster.check(|cluster| {
            cluster.nodes_find_the_api()?;
            cluster.join(&nodes)?;
            let rack = Rack {
                lab,
                cluster,
                nodes: &nodes,
            };
            let keys = cluster.topology_keys(A)?;
            ensure!(
                keys.is_empty(),
                "a node without a label was told to be in a zone: {keys:?}"
            );
            cluster.apply(&claim("data", "300Mi", ""))?;
            let script = format!("echo here > /data/file && sync /data/file && echo wrote; {STAY}");
            rack.pod("writer", A, "data", &script, &json!({}))?;
            rack.wait_for_word("writer", "nodes are available")?;
            ensure!(volumes(lab)?.is_empty(), "a volume was made for a node of no zone");

            cluster.kubectl(&["label", "node", A, &format!("{ZONE}=a")])?;
            let told = cluster.wait(LIMIT, "zone of the node in its CSINode", |cluster| {
                Ok(cluster.topology_keys(A)? == [ZONE])
            })?;
            println!(
                "     the kubelet knew the zone {:.0} s after the node had its label",
                told.as_secs_f32()
            );
            rack.wait_for_log(A, "writer", "wrote")?;
            let volume = cluster.get(&["get", "pv"])?["items"][0].clone();
            let wanted = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
            ensure!(wanted["key"] == ZONE && wanted["values"][0] == "a", "{volume}");
            rack.is_published_to(&[A])?;

            rack.none_restarted()?;
            cluster.kubectl(&["delete", "pod", "writer"])?;
            cluster.kubectl(&["delete", "pvc", "data", "--wait=false"])?;
            nothing_is_left(lab, cluster)?;
            nodes.iter().try_for_each(Node::check_clean)
        })
    })
}

/// A node of a zone, with the plugin on it, as its kubelet would tell. Nothing runs there.
fn node(cluster: &Cluster, name: &str, zone: &str, address: &str) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    {ZONE}: {zone}\n  annotations:\n    \
         volumes.kubernetes.io/controller-managed-attach-detach: \"true\"\n---\n\
         apiVersion: storage.k8s.io/v1\nkind: CSINode\nmetadata:\n  name: {name}\nspec:\n  drivers:\n    \
         - name: csi.cistern.storage\n      nodeID: {name}\n      topologyKeys: [{ZONE}]\n"
    ))?;
    let room = r#"{"cpu":"4","memory":"8Gi","pods":"100"}"#;
    let status = format!(
        r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}],"allocatable":{room},"capacity":{room}}}}}"#
    );
    let patch = [
        "patch",
        "node",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    cluster.kubectl(&patch).map(drop)
}

/// A pod that no taint keeps from a node: nobody says here that nodes are well.
fn pod(name: &str, claim: &str, zone: Option<&str>) -> String {
    let zone = zone.map(|zone| format!("  nodeSelector:\n    {ZONE}: {zone}\n"));
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n{}  tolerations:\n  - operator: Exists\n  \
         containers:\n  - name: main\n    image: none\n    volumeMounts:\n    - name: data\n      mountPath: /data\n  volumes:\n  \
         - name: data\n    persistentVolumeClaim:\n      claimName: {claim}\n",
        zone.unwrap_or_default()
    )
}

fn on_node(cluster: &Cluster, pod: &str) -> Result<Option<String>> {
    let pod = cluster.get(&["get", "pod", pod])?;
    Ok(pod["spec"]["nodeName"].as_str().map(str::to_owned))
}

/// What the scheduler is told of the room for a zone's pods.
fn room(cluster: &Cluster, zone: &str) -> Result<Option<String>> {
    let told = cluster.get(&["-n", "cistern-csi", "get", "csistoragecapacities"])?;
    let of_zone = |one: &&Value| one["nodeTopology"]["matchLabels"][ZONE] == zone;
    let found = told["items"].as_array().into_iter().flatten().find(of_zone);
    Ok(found.and_then(|one| one["capacity"].as_str()).map(str::to_owned))
}
