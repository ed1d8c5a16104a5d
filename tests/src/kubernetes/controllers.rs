//! The controller's pods: the plugin and the sidecars of the printed Deployment, run on this machine in place of a node.
//!
//! Invariant: each program is told what the manifests say, with paths of this machine in place of a pod's, and has the rights of its
//! own account. Sidecars know who leads by the name of the machine: those of two pods never see the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::cluster::{Cluster, NAMESPACE, START};
use crate::cli::binary;

/// What the plugin's container is called, and its program.
pub(super) const PLUGIN: &str = "cistern-csi";

/// One of the controller's pods, as many as the printed Deployment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replica {
    /// The one that runs wherever the plugin is installed.
    First,
    /// The one beside it.
    Second,
}

impl Replica {
    const COUNT: usize = 2;

    /// By what name something of it is known here.
    fn named(self, name: &str) -> String {
        match self {
            Replica::First => name.to_owned(),
            Replica::Second => format!("{name}-2"),
        }
    }

    fn index(self) -> usize {
        match self {
            Replica::First => 0,
            Replica::Second => 1,
        }
    }
}

impl Cluster {
    /// Runs the containers of one of the controller's pods, with the arguments that they have there.
    pub fn start_controller(&self, replica: Replica) -> Result<()> {
        // All of them: which is the first is known by their names only when all are there.
        self.wait(START, "pods of the controller", |cluster| {
            Ok(cluster.controller_pods()?.len() == Replica::COUNT)
        })?;
        let pods = self.controller_pods()?;
        let pod = pods.get(replica.index()).context("a pod of the controller")?;
        let config = self.config("controller");
        let socket = self.socket(replica);
        let here = |argument: String| {
            let argument = argument.replace("/csi/csi.sock", &socket.display().to_string());
            argument.replace("=/appliances", &format!("={}", self.path("appliances").display()))
        };
        for (container, arguments) in self.containers()? {
            let name = replica.named(&container);
            let mut arguments: Vec<String> = arguments.into_iter().map(here).collect();
            if container == PLUGIN {
                let environment = vec![("KUBECONFIG".to_owned(), config.display().to_string())];
                self.run_program(&name, binary(&container)?, arguments, environment)?;
                self.wait(START, "the plugin's socket", |_| Ok(socket.exists()))?;
                continue;
            }
            arguments.push(format!("--kubeconfig={}", config.display()));
            arguments.push(format!("--leader-election-namespace={NAMESPACE}"));
            let environment = vec![
                ("NAMESPACE".to_owned(), NAMESPACE.to_owned()),
                ("POD_NAME".to_owned(), pod.clone()),
            ];
            let program = self.file(&container)?;
            let (program, arguments) = match replica {
                Replica::First => (program.clone(), arguments),
                Replica::Second => on_machine(pod, program, arguments),
            };
            self.run_program(&name, program, arguments, environment)?;
        }
        Ok(())
    }

    /// The node of one of the controller's pods is gone: all of it is killed at once, and nobody starts it again there.
    pub fn lose_controller(&self, replica: Replica) -> Result<()> {
        let mut lost = Vec::new();
        for (container, _) in self.containers()? {
            let name = replica.named(&container);
            let running = self.children.borrow_mut().remove(&name);
            lost.push(running.with_context(|| format!("{name} does not run"))?);
        }
        for running in &mut lost {
            let program = &running.program;
            let killed = running.child.kill();
            killed.with_context(|| format!("killing {}", program.display()))?;
        }
        // Each is waited for.
        drop(lost);
        // It goes with its pod; one that is there is taken for that of a plugin that runs.
        let socket = self.socket(replica);
        fs::remove_file(&socket).with_context(|| format!("removing {}", socket.display()))
    }

    /// Who leads all of the sidecars, if that is one and the same.
    pub fn leader(&self) -> Result<Option<String>> {
        let leases = self.get(&["-n", NAMESPACE, "get", "leases"])?;
        let holders = leases["items"].as_array().into_iter().flatten();
        let holders: Vec<String> = holders.map(|lease| text(&lease["spec"]["holderIdentity"])).collect();
        let containers = self.containers()?;
        let sidecars = containers.iter().filter(|(container, _)| container != PLUGIN).count();
        let Some(first) = holders.first() else { return Ok(None) };
        let is_one = holders.len() == sidecars && holders.iter().all(|holder| holder == first);
        Ok((is_one && !first.is_empty()).then(|| first.clone()))
    }

    fn socket(&self, replica: Replica) -> PathBuf {
        self.path(&format!("{}.sock", replica.named("csi")))
    }

    /// The containers of the controller's Deployment and what they are told.
    fn containers(&self) -> Result<Vec<(String, Vec<String>)>> {
        let deployment = self.get(&["-n", NAMESPACE, "get", "deployment", "cistern-csi-controller"])?;
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array();
        let containers = containers
            .context("a Deployment with containers")?
            .iter()
            .map(|container| {
                let arguments = container["args"].as_array().into_iter().flatten();
                (text(&container["name"]), arguments.map(text).collect())
            });
        Ok(containers.collect())
    }

    /// The names of the controller's pods, in their order.
    fn controller_pods(&self) -> Result<Vec<String>> {
        let component = "app.kubernetes.io/component=controller";
        let pods = self.get(&["-n", NAMESPACE, "get", "pods", "-l", component])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let mut names: Vec<String> = pods.map(|pod| text(&pod["metadata"]["name"])).collect();
        names.sort();
        Ok(names)
    }
}

/// The program and the arguments by which another program runs as on a machine of this name. It stays one process: it is killed as it
/// would be without, and dies with this one.
fn on_machine(name: &str, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
    // As any user: a namespace of users of its own allows what is else root's.
    let words = [
        "--map-root-user",
        "--uts",
        "sh",
        "-c",
        r#"hostname "$0" && exec "$@""#,
        name,
    ];
    let words = words.iter().map(|word| (*word).to_owned());
    let all = words.chain([program.display().to_string()]).chain(arguments);
    (PathBuf::from("unshare"), all.collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
