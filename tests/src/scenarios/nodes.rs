//! What pods make of claims, on nodes with a real kubelet.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::claims::{self, CLASS};
use super::rack::{A, B, LIMIT, MEMORY_MIB, Rack, SIZE, STAY, on_two_nodes};
use crate::kubernetes::{Cluster, Node, pods};
use crate::lab::Lab;

/// A restart that nobody asked for shows within a few seconds, if containerd and kubelet disagree about who groups processes.
const A_WHILE: Duration = Duration::from_secs(10);
/// How often each of two pods counts.
const ROUNDS: usize = 20;
/// How many pods go at once.
const MANY: usize = 50;
/// How many of them are begun at once.
const AT_ONCE: usize = 10;
/// What a node with many pods has; each costs some 18 MiB.
const MEMORY_FOR_MANY_MIB: u32 = 2560;

/// A pod with a claim runs on one node and writes, to what is mounted as its class says; made anew on the other, it reads.
pub(super) fn a_pod_writes(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        let cluster = rack.cluster;
        rack.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "mounted-so" },
            "provisioner": "csi.cistern.storage", "mountOptions": ["noatime", "nconnect=2"],
            "parameters": { "endpoint": "rack-1", "pool": "tank" },
        }))?;
        rack.claim_of("mounted-so", "data", "ReadWriteOnce")?;
        let script = format!(
            "if [ -e /data/kept ]; then echo \"read $(cat /data/kept)\"; \
             else hostname > /data/kept && sync /data/kept && echo wrote; fi; {STAY}"
        );
        cluster.kubectl(&["cordon", B])?;
        rack.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "keeper" },
            "spec": {
                "selector": { "matchLabels": { "app": "keeper" } },
                "template": {
                    "metadata": { "labels": { "app": "keeper" } },
                    "spec": pods::with_claim("data", &script),
                },
            },
        }))?;
        let first = rack.pod_on(A)?;
        rack.wait_for_log(A, &first, "wrote")?;
        rack.is_published_to(&[A])?;
        rack.is_mounted_with(A, &["vers=4.2", "hard", "noatime", "nconnect=2"])?;
        std::thread::sleep(A_WHILE);
        rack.none_restarted()?;

        // It is made anew where there is room now.
        cluster.kubectl(&["cordon", A])?;
        cluster.kubectl(&["uncordon", B])?;
        cluster.kubectl(&["delete", "pod", &first])?;
        let second = rack.pod_on(B)?;
        rack.wait_for_log(B, &second, &format!("read {first}"))?;
        rack.is_published_to(&[B])?;
        std::thread::sleep(A_WHILE);
        Ok(())
    })
}

/// Two pods on two nodes use one volume at once: each reads what the other wrote, and neither has what the other is making.
pub(super) fn both_nodes_write(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        rack.claim("data", "ReadWriteMany")?;
        for (name, node, other) in [("one", A, "two"), ("two", B, "one")] {
            let script = format!(
                "hostname > /data/{name} && sync /data/{name}; \
                 for n in $(seq {ROUNDS}); do \
                   until mkdir /data/lock 2>/dev/null; do sleep 0.1; done; \
                   n=$(cat /data/count 2>/dev/null || echo 0); echo $((n + 1)) > /data/count; rmdir /data/lock || exit 1; \
                 done; touch /data/{name}-counted; \
                 until [ -e /data/{other}-counted ]; do ls /data >/dev/null; sleep 1; done; echo \"counted $(cat /data/count)\"; \
                 until [ -s /data/{other} ]; do ls /data >/dev/null; sleep 1; done; \
                 echo \"read $(cat /data/{other})\"; {STAY}"
            );
            rack.pod(name, node, "data", &script, &json!({}))?;
        }
        rack.wait_for_log(A, "one", "read two")?;
        rack.wait_for_log(B, "two", "read one")?;
        rack.is_published_to(&[A, B])?;
        // Of two that make a directory one does: what was counted while one had it was counted once.
        let counted = format!("counted {}\n", 2 * ROUNDS);
        rack.wait_for_log(A, "one", &counted)?;
        rack.wait_for_log(B, "two", &counted)
    })
}

/// A volume of one node is let in by no second one: not by the cluster, and not by the appliance.
pub(super) fn a_second_node_is_refused(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        rack.claim("data", "ReadWriteOnce")?;
        rack.pod("first", A, "data", &format!("echo runs; {STAY}"), &json!({}))?;
        rack.wait_for_log(A, "first", "runs")?;
        rack.pod("second", B, "data", &format!("echo runs; {STAY}"), &json!({}))?;
        rack.wait_for_word("second", "Multi-Attach error")?;
        ensure!(rack.node(B)?.log("second")?.is_empty(), "a second node was let in");
        rack.is_published_to(&[A])?;
        // An attachment that the cluster's own controller would not make is refused by the appliance,
        rack.attachment_is_refused(
            "by-hand",
            "data",
            B,
            &format!("is in use on node {A}, and only one node"),
        )?;
        rack.is_published_to(&[A])?;
        // and so is who goes round the cluster.
        let volume = claims::only(rack.lab)?;
        let mount = rack
            .node(B)?
            .machine
            .try_sh(&rack.lab.mount_command(&volume, "/mnt/taken"))?;
        ensure!(
            mount.code != 0,
            "a node that the volume is not published to could mount it"
        );
        // Once the first is gone, the second has its turn.
        rack.none_restarted()?;
        rack.cluster.kubectl(&["delete", "pod", "first"])?;
        rack.wait_for_log(B, "second", "runs")?;
        rack.is_published_to(&[B])
    })
}

/// A pod writes on and on; the appliance restarts, and then loses its power: the pod sees that a write takes long, and no error.
pub(super) fn a_pod_outlives_restarts(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        rack.claim("data", "ReadWriteOnce")?;
        let script = "n=0; trap 'echo ended; exit 0' TERM; \
             while :; do n=$((n + 1)); echo $n >> /data/lines && sync /data/lines || { echo \"line $n failed\"; exit 1; }; \
             echo \"line $n\"; sleep 0.2; done";
        rack.pod("writer", A, "data", script, &json!({}))?;
        rack.wait_for_log(A, "writer", "line 5\n")?;
        for how in ["in order", "by power"] {
            let before = rack.lines()?;
            match how {
                "in order" => rack.lab.reboot()?,
                _ => rack.lab.power_cut_and_start()?,
            }
            rack.cluster
                .wait(LIMIT, "line after the restart", |_| Ok(rack.lines()? > before + 5))?;
            rack.none_restarted()?;
        }
        let wrote = rack.lines()?;
        rack.cluster.kubectl(&["delete", "pod", "writer"])?;
        let check = "n=0; while read -r line; do n=$((n + 1)); [ \"$line\" = $n ] || { echo \"$line in place of $n\"; exit 1; }; \
             done < /data/lines; echo \"there are $n\"";
        rack.pod("reader", B, "data", check, &json!({}))?;
        rack.wait_for_log(B, "reader", "there are ")?;
        let log = rack.node(B)?.log("reader")?;
        let there: usize = log
            .trim()
            .trim_start_matches("there are ")
            .parse()
            .with_context(|| log.clone())?;
        ensure!(there >= wrote, "{wrote} lines were written, and {there} are there");
        Ok(())
    })
}

/// A pod that is not root writes by its group, and by nothing else: the volume's root directory is for its owner alone.
pub(super) fn a_pod_that_is_not_root(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        rack.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "closed" },
            "provisioner": "csi.cistern.storage",
            "parameters": { "endpoint": "rack-1", "pool": "tank", "rootMode": "0700" },
        }))?;
        rack.claim_of("closed", "data", "ReadWriteOnce")?;
        let groups = |fs_group: bool| {
            let mut context = json!({ "runAsUser": 1000, "runAsGroup": 3000, "runAsNonRoot": true });
            if fs_group {
                context["fsGroup"] = json!(2000);
            }
            json!({ "securityContext": context })
        };
        let refused = "touch /data/file 2>/dev/null || echo refused";
        rack.pod("without", A, "data", refused, &groups(false))?;
        rack.wait_for_log(A, "without", "refused")?;
        let script = format!(
            "mkdir /data/folder && echo mine > /data/folder/file && \
             echo \"$(stat -c %g:%a /data) $(stat -c %u:%g /data/folder/file) $(cat /data/folder/file)\"; {STAY}"
        );
        rack.pod("with", A, "data", &script, &groups(true))?;
        rack.wait_for_log(A, "with", "2000:2770 1000:2000 mine")
    })
}

/// Each pod of a StatefulSet has a claim of its own, and finds it again.
pub(super) fn a_stateful_set(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_MIB, |rack| {
        let script = format!("[ -e /data/own ] || hostname > /data/own; echo \"has $(cat /data/own)\"; {STAY}");
        rack.apply(&json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "set" },
            "spec": {
                "serviceName": "set", "replicas": 2,
                "selector": { "matchLabels": { "app": "set" } },
                "template": { "metadata": { "labels": { "app": "set" } }, "spec": pods::with_mount(&script) },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": pods::claim(CLASS, "ReadWriteOnce", SIZE) }],
            },
        }))?;
        let has_own = |name: &str| {
            rack.cluster.wait(LIMIT, &format!("{name} with its own"), |_| {
                let own = format!("has {name}");
                Ok(rack
                    .nodes
                    .iter()
                    .any(|node| node.log(name).is_ok_and(|log| log.contains(&own))))
            })
        };
        for round in 0..2 {
            for name in ["set-0", "set-1"] {
                has_own(name).with_context(|| format!("round {round}"))?;
            }
            rack.none_restarted()?;
            if round == 0 {
                rack.cluster.kubectl(&["delete", "pods", "-l", "app=set"])?;
            }
        }
        let claims = rack.cluster.get(&["get", "pvc"])?;
        let mut names: Vec<&str> = claims["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|claim| claim["metadata"]["name"].as_str())
            .collect();
        names.sort_unstable();
        ensure!(names == ["data-set-0", "data-set-1"], "{names:?}");
        Ok(())
    })
}

/// With the appliance gone, fifty pods are deleted: each unpublish ends, no thread hangs, and the plugin is still there.
pub(super) fn pods_go_without_the_appliance(lab: &Lab) -> Result<()> {
    on_two_nodes(lab, MEMORY_FOR_MANY_MIB, |rack| {
        let claims: Vec<String> = (0..5).map(|n| format!("data-{n}")).collect();
        for claim in &claims {
            rack.claim(claim, "ReadWriteMany")?;
        }
        let tiny = json!({ "hostNetwork": true });
        let many: Vec<Value> = (0..MANY)
            .map(|n| {
                let script = format!("echo here > /data/{n} && echo runs; {STAY}");
                pods::once(
                    &format!("many-{n}"),
                    [A, B][n % 2],
                    &claims[n % claims.len()],
                    &script,
                    &tiny,
                )
            })
            .collect();
        // A few at a time: of too many at once an emulated node's containerd gives up some that it began, and a pod of ours is not begun again.
        let began = Instant::now();
        for (n, some) in many.chunks(AT_ONCE).enumerate() {
            rack.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": some }))?;
            let due = n * AT_ONCE + some.len();
            rack.cluster.wait(LIMIT, &format!("{due} pods that run"), |_| {
                let run = |node: &Node| {
                    node.machine
                        .sh("cat /var/log/pods/default_many-*/main/0.log 2>/dev/null | grep -c runs; true")
                };
                let counts: Vec<String> = rack.nodes.iter().map(run).collect::<Result<_>>()?;
                let counts = counts.iter().filter_map(|count| count.trim().parse::<usize>().ok());
                Ok(counts.sum::<usize>() == due)
            })?;
        }
        let took = began.elapsed();
        println!("     {MANY} pods ran after {:.0} s", took.as_secs_f32());
        rack.none_restarted()?;

        rack.lab.appliance.vm().power_cut()?;
        rack.cluster.kubectl(&["delete", "pods", "--all", "--wait=false"])?;
        let took = rack.cluster.wait(LIMIT, "end of fifty pods", |cluster| {
            Ok(cluster.get(&["get", "pods"])?["items"]
                .as_array()
                .is_some_and(Vec::is_empty))
        })?;
        println!(
            "     {MANY} pods were gone {:.0} s after the appliance",
            took.as_secs_f32()
        );
        let mut unpublished = 0;
        for node in rack.nodes {
            unpublished += node.calls_that_were_quick("NodeUnpublishVolume")?;
            node.machine.wait(
                Duration::from_secs(20),
                "end of all threads that wait for a disk or a server",
                "ps -eLo stat,comm,wchan:32 | grep ^D; [ $? = 1 ]",
            )?;
        }
        ensure!(
            unpublished >= MANY,
            "{unpublished} calls of NodeUnpublishVolume were counted"
        );

        // It comes back, and gets what was written and not synced; then the volumes leave their nodes. A kubelet that was told to come
        // again does so after two minutes at most.
        rack.lab.appliance.vm().start()?;
        rack.lab.wait_for_api()?;
        let took = rack.cluster.wait(LIMIT, "end of all attachments", |cluster| {
            Ok(cluster.get(&["get", "volumeattachments"])?["items"]
                .as_array()
                .is_some_and(Vec::is_empty))
        })?;
        println!(
            "     all volumes had left their nodes {:.0} s after it was back",
            took.as_secs_f32()
        );
        let shell = rack.lab.appliance.root_shell()?;
        let there = shell.run("cat /volumes/vol-*/[0-9]* | grep -cx here")?;
        ensure!(there.trim() == MANY.to_string(), "of {MANY} files {there} are there");
        Ok(())
    })
}

impl Rack<'_> {
    /// The name of the pod of our Deployment that runs on this node.
    fn pod_on(&self, node: &str) -> Result<String> {
        let running = |cluster: &Cluster| -> Result<Option<String>> {
            let pods = cluster.get(&["get", "pods", "-l", "app=keeper"])?;
            let mut pods = pods["items"].as_array().into_iter().flatten();
            let pod = pods.find(|pod| pod["spec"]["nodeName"] == node && pod["status"]["phase"] == "Running");
            Ok(pod.and_then(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned))
        };
        self.cluster.wait(LIMIT, &format!("pod on {node}"), |cluster| {
            Ok(running(cluster)?.is_some())
        })?;
        running(self.cluster)?.context("a pod that ran a moment ago")
    }

    /// Asks for a claim's volume on a node by an object made by hand, waits until the object carries a refusal that says this, and takes it
    /// away again.
    fn attachment_is_refused(&self, name: &str, claim: &str, node: &str, says: &str) -> Result<()> {
        let claim = self.cluster.get(&["get", "pvc", claim])?;
        self.apply(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": { "name": name },
            "spec": {
                "attacher": "csi.cistern.storage", "nodeName": node,
                "source": { "persistentVolumeName": claim["spec"]["volumeName"] },
            },
        }))?;
        let status = || -> Result<Value> {
            let attachment = self.cluster.get(&["get", "volumeattachment", name])?;
            Ok(attachment["status"].clone())
        };
        let refused = self.cluster.wait(LIMIT, "refusal of an attachment", |_| {
            let status = status()?;
            ensure!(status["attached"] != true, "it is attached to {node}: {status}");
            let said = status["attachError"]["message"].as_str();
            Ok(said.is_some_and(|said| said.contains(says)))
        });
        refused.with_context(|| format!("an attachment that is to be told {says:?} has {:?}", status().ok()))?;
        // It stays until the appliance was asked to take the volume from the node that never had it.
        self.cluster
            .kubectl(&["delete", "volumeattachment", name, "--wait=false"])?;
        let gone = self.cluster.wait(LIMIT, "end of an attachment", |cluster| {
            let left = cluster.get(&["get", "volumeattachments"])?;
            let mut left = left["items"].as_array().into_iter().flatten();
            Ok(!left.any(|attachment| attachment["metadata"]["name"] == name))
        });
        gone.map(drop)
    }

    /// Fails unless the one volume is staged on this node, and shown to its pod, with these options of NFS's.
    fn is_mounted_with(&self, node: &str, options: &[&str]) -> Result<()> {
        let table = self.node(node)?.machine.sh("cat /proc/self/mounts")?;
        let mounts: Vec<&str> = table.lines().filter(|line| line.contains(" nfs4 ")).collect();
        for place in ["/globalmount/volume nfs4 ", "/mount nfs4 "] {
            ensure!(
                mounts.iter().any(|mount| mount.contains(place)),
                "nothing is mounted at a path that ends like {place:?}: {table}"
            );
        }
        for mount in mounts {
            let given = mount.split(' ').nth(3).unwrap_or_default();
            let missing: Vec<&&str> = options
                .iter()
                .filter(|option| !given.split(',').any(|one| one == **option))
                .collect();
            ensure!(missing.is_empty(), "mounted without {missing:?}: {mount}");
        }
        Ok(())
    }

    /// The number of the last line that the pod `writer` wrote.
    fn lines(&self) -> Result<usize> {
        let log = self.node(A)?.log("writer")?;
        ensure!(!log.contains("failed"), "a write was seen to fail: {log}");
        Ok(log.lines().count())
    }
}
