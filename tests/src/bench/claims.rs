//! How long a claim takes on a real control plane: one by one, a hundred at once, and until a pod runs with it. Beside it what the same appliance does by the
//! bare commands, and what csi-driver-nfs does for a claim: it mounts a share, makes a directory there, and unmounts it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cistern_model::{Bytes, Pool, Volume};
use cistern_qemu::Disk;
use serde_json::json;

use super::figure::{Aim, Sheet, median};
use super::script::{self, Times};
use super::{group, latency};
use crate::kubernetes::{Cluster, Metrics, Node, Watch, pods};
use crate::lab::{APPLIANCE_ADDRESS, Lab, Machine, RootShell, Site};

const MS: &str = "ms";
/// The ways take turns by so many claims.
const BLOCK: usize = 5;
const HUNDRED: usize = 100;
/// How many pods at most: each takes many seconds to start and to end.
const PODS: usize = 10;
const NODE: &str = "node-a";
const MEMORY_MIB: u32 = 1024;
/// What one claim may take on a busy machine, and what a hundred.
const ONE: Duration = Duration::from_secs(120);
const ALL: Duration = Duration::from_secs(900);

/// Room for a hundred volumes and the logs of all of them. One disk: what mirrors do is not the question here.
fn machine() -> Machine {
    let disk = Disk::blank(Bytes::gib(512)).serial("LARGE");
    Machine::default().memory_mib(3072).pool_disks(vec![disk])
}

/// Milliseconds.
#[derive(Debug, Default)]
struct Taken {
    /// From when a claim is there until it is bound.
    bound: Vec<f64>,
    /// Of it, what the provisioner waits for the plugin, where it asks once.
    made: Vec<f64>,
    /// How many claims it asked more than once for.
    asked_again: usize,
    /// What csi-driver-nfs does in its place.
    nfs: Vec<f64>,
    /// The bare commands' steps.
    bare: Times,
}

/// Measures.
pub(super) fn measure(site: &Site, claims: usize, sheet: &mut Sheet) -> Result<()> {
    let lab = site.boot_pair(machine())?;
    lab.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        let disk = lab.available_disks()?.pop().context("no disk")?;
        let create = [
            "pools", "create", "tank", "--layout", "single", "--trash", "0", "--disk",
        ];
        lab.cli.ok(&[&create[..], &[disk.id.as_str()]].concat())?;
        let pool: Pool = lab.cli.json(&["pools", "show", "tank"])?;
        let share = lab.create_volume("share", "300MiB")?;
        let shell = lab.appliance.root_shell()?;
        script::install(&shell)?;
        let cluster = Cluster::start(&lab.directory().join("cluster"))?;
        cluster.check(|cluster| {
            cluster.install(lab, &[])?;
            let bench = Bench {
                lab,
                cluster,
                shell: &shell,
                pool: &pool,
                share: &share,
                metrics: cluster.tell_metrics("csi-provisioner")?,
            };
            let lock = tell(sheet, bench.one_by_one(claims)?)?;
            let (took, count) = bench.all_at_once()?;
            let name = format!("{count} claims at once until the last is bound");
            let floor = lock * count as f64 / 1000.0;
            sheet.add(&name, "s", vec![took], vec![floor], Some(Aim::Times(1.5)));
            bench.pods(claims.min(PODS), sheet)
        })
    })
}

/// What a create holds the volume group's lock for: its volume is made, and then noted to be ready.
fn locked(bare: &Times) -> Result<f64> {
    let of = |name: &str| -> Result<f64> { median(script::of(bare, name)?).context("no time") };
    Ok(of("lvcreate")? + of("tag")?)
}

/// What single claims took; for how long each holds the lock.
fn tell(sheet: &mut Sheet, taken: Taken) -> Result<f64> {
    let Taken {
        bound,
        made,
        asked_again,
        nfs,
        bare,
    } = taken;
    let (create, lock) = (script::of(&bare, "create")?.to_vec(), locked(&bare)?);
    let nfs_median = median(&nfs).context("no time")?;
    sheet.note(format!(
        "of {} claims csi-provisioner asked more than once for {asked_again}, which are not in what CreateVolume took",
        bound.len()
    ));
    let name = "a claim's volume is made (CreateVolume)";
    sheet.add(name, MS, made, create, Some(Aim::Times(1.2)));
    sheet.add("claim to bound, by csi-driver-nfs' steps", MS, bound, nfs, None);
    sheet.note(format!(
        "the volume group's lock is held {lock:.0} ms for a volume by the bare commands (lvcreate, tag); csi-driver-nfs' mount, mkdir and \
         umount took {nfs_median:.0} ms"
    ));
    Ok(lock)
}

struct Bench<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
    shell: &'a RootShell<'a>,
    pool: &'a Pool,
    share: &'a Volume,
    metrics: Metrics,
}

impl Bench<'_> {
    fn one_by_one(&self, claims: usize) -> Result<Taken> {
        let mut watch = self.cluster.watch_claims()?;
        // Once before it counts: the first of each loads programs from the compressed root.
        self.claims(&mut watch, "first", 1, &mut Taken::default())?;
        self.floors(1, &mut Taken::default())?;
        let mut taken = Taken::default();
        let mut done = 0;
        while done < claims {
            let count = BLOCK.min(claims - done);
            if (done / BLOCK).is_multiple_of(2) {
                self.claims(&mut watch, &format!("c{done}"), count, &mut taken)?;
                self.floors(count, &mut taken)?;
            } else {
                self.floors(count, &mut taken)?;
                self.claims(&mut watch, &format!("c{done}"), count, &mut taken)?;
            }
            done += count;
        }
        Ok(taken)
    }

    fn claims(&self, watch: &mut Watch, prefix: &str, count: usize, taken: &mut Taken) -> Result<()> {
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            let before = self.metrics.of("CreateVolume")?;
            self.cluster.apply(&claim(&name))?;
            let seen = watch.bound(self.cluster, &name, 1, ONE)?;
            let at = |phase: &str| seen.get(&(name.clone(), phase.to_owned())).copied();
            let (began, ended) = (at("Pending").context("a claim that was never pending")?, at("Bound"));
            let took = ended.context("a claim that was never bound")?.duration_since(began);
            taken.bound.push(took.as_secs_f64() * 1000.0);
            let after = self.metrics.of("CreateVolume")?;
            match after.one_since(&before) {
                Some(seconds) => taken.made.push(seconds * 1000.0),
                None => taken.asked_again += 1,
            }
        }
        self.remove_claims()
    }

    fn floors(&self, count: usize, taken: &mut Taken) -> Result<()> {
        taken.nfs.extend(self.nfs(count)?);
        let mut times = script::run(self.shell, "make", &group(self.pool), count)?;
        times.extend(script::run(self.shell, "remove", &group(self.pool), count)?);
        for (name, values) in times {
            taken.bare.entry(name).or_default().extend(values);
        }
        Ok(())
    }

    /// What csi-driver-nfs does for each claim, in the client VM: its controller mounts the share, makes a directory in it, and
    /// unmounts it.
    fn nfs(&self, count: usize) -> Result<Vec<f64>> {
        let path = &self.share.export.path;
        let printed = self.lab.peer.sh(&format!(
            "mkdir -p /mnt/share && for n in $(seq {count}); do \
               from=${{EPOCHREALTIME/./}}; \
               mount -t nfs4 -o vers=4.2,hard,retry=0 {APPLIANCE_ADDRESS}:{path} /mnt/share || exit 1; \
               mkdir -m 0777 /mnt/share/pvc-$from || exit 1; \
               umount /mnt/share || exit 1; \
               to=${{EPOCHREALTIME/./}}; \
               echo nfs $((to - from)); \
             done"
        ))?;
        Ok(script::of(&script::read(&printed), "nfs")?.to_vec())
    }

    /// Seconds from when the first of a hundred claims is there until the last is bound.
    fn all_at_once(&self) -> Result<(f64, usize)> {
        let mut watch = self.cluster.watch_claims()?;
        let claims: Vec<String> = (0..HUNDRED).map(|number| claim(&format!("all-{number}"))).collect();
        self.cluster.apply(&claims.join("---\n"))?;
        let seen = watch.bound(self.cluster, "all-", HUNDRED, ALL)?;
        let ours = seen.iter().filter(|((name, _), _)| name.starts_with("all-"));
        let of = |wanted: &str| -> Vec<Instant> {
            ours.clone()
                .filter(|((_, phase), _)| phase == wanted)
                .map(|(_, at)| *at)
                .collect()
        };
        let (first, last) = (of("Pending").into_iter().min(), of("Bound").into_iter().max());
        let took = last
            .context("no bound claim")?
            .duration_since(first.context("no pending claim")?);
        self.remove_claims()?;
        Ok((took.as_secs_f64(), HUNDRED))
    }

    /// From when a claim and its pod are there until the pod runs, on a real kubelet; beside it a pod that wants no volume, and that with
    /// what csi-driver-nfs does for a claim in the same round.
    fn pods(&self, count: usize, sheet: &mut Sheet) -> Result<()> {
        let nodes = Node::machines(self.lab, &[NODE], MEMORY_MIB)?;
        let (mut with, mut without, mut nfs) = (Vec::new(), Vec::new(), Vec::new());
        Node::check(&nodes, || {
            self.cluster.join(&nodes)?;
            // Once before it counts.
            self.pod("first", true)?;
            self.pod("second", false)?;
            for number in 0..count {
                with.push(self.pod(&format!("with-{number}"), true)?);
                without.push(self.pod(&format!("without-{number}"), false)?);
                nfs.extend(self.nfs(1)?);
            }
            Ok(())
        })?;
        let (alone, steps) = (median(&without).context("no pod")?, median(&nfs).context("no time")?);
        let with_steps: Vec<f64> = without.iter().zip(&nfs).map(|(pod, steps)| pod + steps).collect();
        sheet.add(
            "claim to pod running, by a pod without a claim",
            MS,
            with.clone(),
            without,
            None,
        );
        let name = "the same, by such a pod and csi-driver-nfs' steps";
        sheet.add(name, MS, with, with_steps, None);
        sheet.note(format!(
            "beside the pods: one without a claim ran after {alone:.0} ms, csi-driver-nfs' mount, mkdir and umount took {steps:.0} ms"
        ));
        Ok(())
    }

    /// Milliseconds until a pod runs. It is gone afterwards, and so is its claim.
    fn pod(&self, name: &str, with_claim: bool) -> Result<f64> {
        const SCRIPT: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";
        let spec = match with_claim {
            true => pods::with_claim(name, SCRIPT),
            false => pods::alone(SCRIPT),
        };
        let mut objects = pods::on_node(name, NODE, spec, &json!({})).to_string();
        if with_claim {
            objects = format!("{}---\n{objects}\n", claim(name));
        }
        let pod = format!("pod/{name}");
        let began = Instant::now();
        self.cluster.apply(&objects)?;
        let limit = format!("--timeout={}s", ONE.as_secs());
        self.cluster
            .kubectl(&["wait", "--for=jsonpath={.status.phase}=Running", &pod, &limit])?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        self.cluster.kubectl(&["delete", &pod, "--wait=true"])?;
        self.remove_claims()?;
        Ok(took)
    }

    fn remove_claims(&self) -> Result<()> {
        self.cluster.kubectl(&["delete", "pvc", "--all", "--wait=false"])?;
        let gone = self.cluster.wait(ALL, "end of all claims", |cluster| {
            let left = cluster.get(&["get", "pv,pvc"])?;
            let volumes: Vec<Volume> = self.lab.cli.json(&["volumes", "list"])?;
            Ok(left["items"].as_array().is_some_and(Vec::is_empty) && volumes.len() == 1)
        });
        gone.map(drop)
    }
}

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  \
         storageClassName: cistern-tank\n  accessModes: [ReadWriteOnce]\n  resources:\n    requests:\n      storage: \"{}\"\n",
        latency::SIZE.get()
    )
}
