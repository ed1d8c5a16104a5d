//! The controller's pod on a real kubelet: the plugin's container as it is printed, and alone, since the sidecars' images cannot be had
//! without a registry.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::claims::without_nodes;
use super::rack::{A, LIMIT, MEMORY_MIB, Rack};
use crate::cli::binary;
use crate::kubernetes::{Cluster, Node};
use crate::lab::Lab;

const NAMESPACE: &str = "cistern-csi";
const POD: &str = "controller";
/// What a process has that may do nothing but what any may: no capability, no way to get one, and a filter of system calls.
const CONFINED: &str = "NoNewPrivs:\t1\nCapEff:\t0000000000000000\nSeccomp:\t2\n";

/// It starts with no right and a root that it cannot write to, its probe finds it well, and it sees an appliance that is put into the Secret.
pub(super) fn the_controller_s_pod(lab: &Lab) -> Result<()> {
    // It starts while the control plane does.
    let nodes = Node::machines(lab, &[A], MEMORY_MIB)?;
    Node::check(&nodes, || {
        let cluster = without_nodes(lab, &[])?;
        cluster.check(|cluster| {
            cluster.join(&nodes)?;
            let rack = Rack {
                lab,
                cluster,
                nodes: &nodes,
            };
            rack.apply(&printed(cluster)?)?;
            let pod = ready(cluster)?;
            is_confined(rack.node(A)?)?;
            sees_its_secret_change(&rack, pod["metadata"]["uid"].as_str().context("a pod with a uid")?)?;

            // Its probe had its turn meanwhile.
            rack.none_restarted()?;
            let told = cluster.warnings("Pod", POD)?;
            ensure!(!told.iter().any(|said| said.contains("probe failed")), "{told:?}");
            cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", POD]).map(drop)
        })
    })
}

/// A pod as the printed Deployment makes it, with the plugin's container alone.
fn printed(cluster: &Cluster) -> Result<Value> {
    let deployment = cluster.get(&["-n", NAMESPACE, "get", "deployment", "cistern-csi-controller"])?;
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    let mut containers = spec["containers"].as_array().into_iter().flatten();
    let plugin = containers.find(|container| container["name"] == "cistern-csi").cloned();
    spec["containers"] = json!([plugin.context("a Deployment with the plugin")?]);
    // The Deployment's own pods wait for a scheduler that there is not; this one is for the cluster's.
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("schedulerName");
    }
    Ok(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": POD, "namespace": NAMESPACE }, "spec": spec }))
}

/// Waits until the pod is ready.
fn ready(cluster: &Cluster) -> Result<Value> {
    let pod = |cluster: &Cluster| cluster.get(&["-n", NAMESPACE, "get", "pod", POD]);
    cluster.wait(LIMIT, "controller's pod that is ready", |cluster| {
        let pod = pod(cluster)?;
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        Ok(conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
    })?;
    pod(cluster)
}

/// Fails unless the plugin's process there has no more rights than what is printed gives it.
fn is_confined(node: &Node) -> Result<()> {
    // The brackets keep the shell's own words from being found.
    let plugin = "$(pgrep -f '[-]-appliances=/appliances')";
    let status = node.machine.sh(&format!(
        "for field in NoNewPrivs CapEff Seccomp; do grep ^$field: /proc/{plugin}/status || exit 1; done"
    ))?;
    ensure!(status == CONFINED, "the plugin has {status:?}");
    let root = node
        .machine
        .sh(&format!("awk '$2 == \"/\" {{ print $4 }}' /proc/{plugin}/mounts"))?;
    ensure!(root.starts_with("ro,"), "the plugin's root is mounted with {root:?}");
    Ok(())
}

/// An appliance is put into the Secret while the pod runs: the plugin is asked for it over its socket until it knows it. From a pod none can
/// be reached here, so what tells is the kind of the refusal.
fn sees_its_secret_change(rack: &Rack, uid: &str) -> Result<()> {
    let node = rack.node(A)?;
    node.machine.put_programs(&[&binary("csi-calls")?])?;
    let folder = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/socket");
    let ask = || {
        node.machine.sh(&format!(
            "cd {folder} && /tmp/csi-calls csi.sock /tmp capacity rack-2 | grep ^capacity"
        ))
    };
    let before = ask()?;
    ensure!(
        before.contains(" InvalidArgument ") && before.contains("there are rack-1"),
        "{before}"
    );
    let entry = format!(
        "url = \"{}\"\ntoken = \"cistern_{}\"\nfingerprint = \"{}\"\n",
        rack.lab.appliance.url()?,
        "A".repeat(43),
        rack.lab.cli.profile_value("fingerprint")?
    );
    rack.cluster.register("rack-2", &entry)?;
    let took = rack
        .cluster
        .wait(LIMIT, "appliance that the pod's Secret has now", |_| {
            Ok(ask()?.contains(" Unavailable appliance rack-2"))
        });
    let took = took.with_context(|| format!("the plugin says {:?}", ask().ok()))?;
    println!("     it was there {:.0} s after the Secret had it", took.as_secs_f32());
    rack.cluster.unregister("rack-2")
}
