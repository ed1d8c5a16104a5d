//! A cluster's nodes: machines with containerd and a kubelet, which run what the printed DaemonSet says; and the lab's client, which
//! stands for one without a kubelet.
//!
//! Invariant: a kubelet is known to the cluster by its node's own certificate, and may do no more than a node may.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::cluster::{Cluster, NAMESPACE, START};
use super::controllers::PLUGIN;
use crate::cli::top;
use crate::lab::{HOST_ADDRESS, Lab, Peer, START_LIMIT};

/// The node that the lab's client stands for.
pub(crate) const PEER_NODE: &str = "peer";
/// Where a node finds its kubelet, and what it is to import (`image/peer/node-overlay`).
const FOLDER: &str = "/opt/node";
/// A name that the API server's certificate carries; the address by which nodes reach it is not in it.
const API_NAME: &str = "kubernetes.default.svc";
/// From a start to a node that is ready takes 45 s under software emulation on an idle machine.
const READY: Duration = Duration::from_secs(300);
/// A kubelet looks every two seconds for what is left of pods that are gone.
const TIDY: Duration = Duration::from_secs(10);

/// A node with a kubelet.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its address on the private link.
    pub address: String,
    /// Its machine.
    pub machine: Peer,
}

/// What a node is given to join.
struct Given<'a> {
    node: &'a Node,
    files: Vec<PathBuf>,
}

impl Node {
    /// Machines for nodes of these names, which begin to start.
    pub fn machines(lab: &Lab, names: &[&str], memory_mib: u32) -> Result<Vec<Node>> {
        let node = |(name, number): (&&str, u8)| {
            let (machine, address) = lab.node(number, name, memory_mib)?;
            Ok(Node {
                name: (*name).to_owned(),
                address,
                machine,
            })
        };
        names.iter().zip(1..).map(node).collect()
    }

    /// What the containers of a pod of the default namespace printed on this node, all that were there.
    pub fn log(&self, pod: &str) -> Result<String> {
        let files = format!("/var/log/pods/default_{pod}_*/*/*.log");
        // Each line begins with a time, a stream, and whether it is whole.
        self.machine
            .sh(&format!("cat {files} 2>/dev/null | cut -d' ' -f4-; true"))
    }

    /// Fails if something of a volume is still there: mounts, or folders of the kubelet's.
    pub fn check_clean(&self) -> Result<()> {
        let left = "left=$(grep ' nfs4* ' /proc/self/mounts; \
             find /var/lib/kubelet/plugins/kubernetes.io/csi -mindepth 2 2>/dev/null; \
             find /var/lib/kubelet/pods -path '*/kubernetes.io~csi*' -o -path '*/kubernetes.io~nfs*' 2>/dev/null); \
             echo \"$left\"; [ -z \"$left\" ]";
        let gone = self.machine.wait(TIDY, "end of all that pods had", left);
        gone.with_context(|| format!("on {}", self.name))
    }

    /// How many calls of this name the kubelet made of the plugin. Fails if one of them took more than 25 s, which is the limit that
    /// the kubelet counts by that is next to 30.
    pub fn calls_that_were_quick(&self, call: &str) -> Result<usize> {
        let metrics = self.machine.sh(&format!(
            "busybox wget -qO- http://127.0.0.1:10255/metrics | grep '^csi_operations_seconds_[bc].*csi.cistern.storage.*{call}'"
        ))?;
        let sum = |of: &dyn Fn(&str) -> bool| {
            let lines = metrics.lines().filter(|line| of(line));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
            values.sum::<usize>()
        };
        let all = sum(&|line| line.starts_with("csi_operations_seconds_count"));
        let quick = sum(&|line| line.contains("le=\"25\""));
        ensure!(
            quick == all,
            "on {} {} of {all} calls of {call} took more than 25 s: {metrics}",
            self.name,
            all - quick
        );
        Ok(all)
    }

    /// The end of its logs.
    fn report(&self) -> String {
        let logs = self.machine.try_sh(
            "journalctl -b --no-pager -u kubelet -n 40; journalctl -b --no-pager -u containerd -n 10; \
             for log in /var/log/pods/*/*/*.log; do echo \"--- $log\"; tail -n 15 \"$log\"; done",
        );
        let logs = logs.map_or_else(|error| format!("{error:#}"), |outcome| outcome.stdout);
        format!("--- node {}\n{logs}\n{}", self.name, self.machine.report())
    }

    /// Takes steps; an error is told with what the nodes say.
    pub fn check<T>(nodes: &[Node], steps: impl FnOnce() -> Result<T>) -> Result<T> {
        steps().map_err(|error| {
            let reports: Vec<String> = nodes.iter().map(Node::report).collect();
            anyhow!("{error:#}\n{}", reports.join("\n"))
        })
    }

    /// Imports the images of pods and starts the kubelet.
    fn start_kubelet(&self, files: &[PathBuf]) -> Result<()> {
        self.machine.vm()?.wait_for_agent(START_LIMIT)?;
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        self.machine.put_files(FOLDER, &files)?;
        self.machine
            .wait(START, "answer of containerd", "ctr version >/dev/null 2>&1")?;
        self.machine.sh(&format!(
            "for images in /usr/share/node/images.tar {FOLDER}/*.tar; do ctr -n k8s.io images import \"$images\" || exit 1; done; \
             cp {FOLDER}/kubelet.env {FOLDER}/kubeconfig /etc/kubernetes/ && systemctl start kubelet"
        ))?;
        Ok(())
    }
}

impl Cluster {
    /// Makes these machines nodes of the cluster, each with what `cistern kube manifests` printed for it.
    pub fn join(&self, nodes: &[Node]) -> Result<()> {
        let given: Vec<Given> = nodes.iter().map(|node| self.given(node)).collect::<Result<_>>()?;
        // What each has to do first takes its own processor a while.
        let started: Vec<Result<()>> = std::thread::scope(|scope| {
            let running: Vec<_> = given
                .iter()
                .map(|given| scope.spawn(|| given.node.start_kubelet(&given.files)))
                .collect();
            let panicked = |_| Err(anyhow!("starting a node panicked"));
            running
                .into_iter()
                .map(|one| one.join().unwrap_or_else(panicked))
                .collect()
        });
        for (node, result) in nodes.iter().zip(started) {
            result.with_context(|| format!("starting {}", node.name))?;
        }
        for node in nodes {
            self.wait(READY, &format!("node {} with the plugin", node.name), |cluster| {
                cluster.is_ready(&node.name)
            })?;
        }
        Ok(())
    }

    /// Has the pods of the printed DaemonSet find the API server. A kubelet tells pods of it by the address of the service `kubernetes`,
    /// which nothing routes here; nodes reach it by an address that its certificate does not carry, so the pods are given a name.
    pub fn nodes_find_the_api(&self) -> Result<()> {
        let port = self.api.rsplit(':').next().unwrap_or_default();
        let patch = json!({ "spec": { "template": { "spec": {
            "hostAliases": [{ "ip": HOST_ADDRESS, "hostnames": [API_NAME] }],
            "containers": [{
                "name": PLUGIN,
                "env": [
                    { "name": "KUBERNETES_SERVICE_HOST", "value": API_NAME },
                    { "name": "KUBERNETES_SERVICE_PORT", "value": port },
                ],
            }],
        } } } });
        let patch = patch.to_string();
        let words = ["-n", NAMESPACE, "patch", "daemonset", "cistern-csi-node", "-p", &patch];
        self.kubectl(&words).map(drop)
    }

    /// By which of a node's labels its kubelet was told that volumes are near; none if it was told of none.
    pub fn topology_keys(&self, node: &str) -> Result<Vec<String>> {
        let node = self.get(&["get", "csinode", node])?;
        let mut drivers = node["spec"]["drivers"].as_array().into_iter().flatten();
        let ours = drivers.find(|driver| driver["name"] == "csi.cistern.storage");
        let keys = ours.and_then(|driver| driver["topologyKeys"].as_array());
        let keys = keys.into_iter().flatten().filter_map(|key| key.as_str());
        Ok(keys.map(str::to_owned).collect())
    }

    /// Whether a node takes pods, and its kubelet knows the plugin.
    fn is_ready(&self, node: &str) -> Result<bool> {
        let all = self.get(&["get", "nodes,csinodes"])?;
        let of = |kind: &str| {
            let items = all["items"].as_array().into_iter().flatten();
            items
                .clone()
                .find(|item| item["kind"] == kind && item["metadata"]["name"] == node)
        };
        let conditions = of("Node").map(|node| node["status"]["conditions"].clone());
        let ready = conditions.iter().flat_map(|all| all.as_array().into_iter().flatten());
        let ready = ready.clone().any(|c| c["type"] == "Ready" && c["status"] == "True");
        let drivers = of("CSINode").map(|node| node["spec"]["drivers"].clone());
        let mut drivers = drivers.iter().flat_map(|all| all.as_array().into_iter().flatten());
        Ok(ready && drivers.any(|driver| driver["name"] == "csi.cistern.storage"))
    }

    /// What a node is given: its program, its credentials and arguments, and the plugin's image.
    fn given<'a>(&self, node: &'a Node) -> Result<Given<'a>> {
        let (key, certificate) = self.make_node_certificate(&node.name)?;
        let folder = self.path(&format!("{}.given", node.name));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let port = self.api.rsplit(':').next().unwrap_or_default();
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: node\nclusters:\n- name: node\n  cluster:\n    \
             server: https://{HOST_ADDRESS}:{port}\n    tls-server-name: {API_NAME}\n    \
             certificate-authority: {FOLDER}/api.crt\nusers:\n- name: node\n  user:\n    \
             client-certificate: {FOLDER}/node.crt\n    client-key: {FOLDER}/node.key\ncontexts:\n- name: node\n  context:\n    \
             cluster: node\n    user: node\n"
        );
        let arguments = format!("KUBELET_ARGUMENTS=--node-ip={} --v=2\n", node.address);
        let mut files = vec![self.file("kubelet")?.clone(), plugin_image()?];
        for (name, text) in [("kubeconfig", config), ("kubelet.env", arguments)] {
            fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
            files.push(folder.join(name));
        }
        for (name, path) in [
            ("node.key", &key),
            ("node.crt", &certificate),
            ("api.crt", &self.authority()),
        ] {
            fs::copy(path, folder.join(name)).with_context(|| format!("copying {}", path.display()))?;
            files.push(folder.join(name));
        }
        Ok(Given { node, files })
    }

    /// Makes the lab's client a node of the cluster, as its kubelet would.
    pub fn add_node(&self, address: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {PEER_NODE}\n  annotations:\n    \
             volumes.kubernetes.io/controller-managed-attach-detach: \"true\"\n---\n\
             apiVersion: storage.k8s.io/v1\nkind: CSINode\nmetadata:\n  name: {PEER_NODE}\nspec:\n  drivers:\n    \
             - name: csi.cistern.storage\n      nodeID: {PEER_NODE}\n      topologyKeys: []\n"
        ))?;
        self.set_address(address)
    }

    /// Says where that node is.
    pub fn set_address(&self, address: &str) -> Result<()> {
        self.set_status(&format!(
            r#"{{"addresses":[{{"type":"InternalIP","address":"{address}"}}]}}"#
        ))
    }

    /// Says of that node what its kubelet would.
    pub fn set_status(&self, status: &str) -> Result<()> {
        let status = format!(r#"{{"status":{status}}}"#);
        self.kubectl(&[
            "patch",
            "node",
            PEER_NODE,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])
        .map(drop)
    }
}

/// The image of cistern-csi, as it is given to clusters.
fn plugin_image() -> Result<PathBuf> {
    let name = concat!("cistern-csi-", env!("CARGO_PKG_VERSION"), ".tar");
    let path = top()?.join("target/image").join(name);
    ensure!(
        path.exists(),
        "{} is missing; `make csi-image` makes it",
        path.display()
    );
    Ok(path)
}
