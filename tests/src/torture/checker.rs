//! An appliance that is given the disks of one cut after another.
//!
//! Invariant: nothing of one cut is left on the machine when the next one's disks are put in.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Pool, PoolState, Snapshot, Volume};
use cistern_qemu::{Bus, Recording, Vm};

use super::Plan;
use super::ledger::{Found, Ledger, Moment, Terms, Verdict};
use crate::lab::{Lab, Machine, RootShell, Site};

const SCRIPT: &str = include_str!("check.sh");
const PATH: &str = "/run/check.sh";
/// A start of the supervisor with a handful of volumes, each with a log to replay, on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The machine.
pub(super) struct Checker {
    lab: Lab,
    /// Where what was found wrong is kept with what there is to find its cause by.
    directory: PathBuf,
    /// Whether that is kept of all cuts.
    keep_all: bool,
}

/// Seconds that went into each step of the checks.
pub(super) type Times = BTreeMap<String, f64>;

impl Checker {
    /// Starts it, under the system ID of the machine that made the pool.
    pub(super) fn boot(site: &Site, system_id: &str, keep_all: bool) -> Result<Self> {
        let machine = Machine::default().disks_on(Bus::VirtioScsi).disks_later();
        let (lab, directory) = (site.boot(machine)?, site.directory()?);
        lab.check(|lab| {
            lab.banner()?;
            let shell = lab.appliance.root_shell()?;
            shell.install(PATH, SCRIPT)?;
            shell.run("systemctl stop cistern-gate cisternd nfs-server cistern-console@tty1")?;
            shell.run(&format!("echo {system_id} > /var/lib/cistern/lvm-system-id"))?;
            // A disk that is lost does not come back here.
            shell.run(
                "mkdir -p /run/systemd/system/cisternd.service.d && cd /run/systemd/system/cisternd.service.d && \
                 printf '[Service]\\nEnvironment=CISTERN_LOG=debug\\nExecStart=\\nExecStart=/usr/sbin/cisternd --degraded-wait 1\\n' > wait.conf && \
                 systemctl daemon-reload",
            )?;
            Ok(())
        })?;
        Ok(Checker {
            lab,
            directory,
            keep_all,
        })
    }

    /// Goes through cuts for as long as there are some, and tells of each what is wrong with what it makes of it.
    pub(super) fn check_all<'a>(
        &self,
        disks: &Recording,
        ledger: &Ledger,
        cuts: impl Fn() -> Option<&'a Plan>,
        tell: impl Fn(&Plan, Verdict),
    ) -> Result<Times> {
        self.lab.check(|lab| {
            let shell = lab.appliance.root_shell()?;
            let mut times = Times::new();
            while let Some(plan) = cuts() {
                let view = disks.cut(&plan.cut)?;
                let verdict = self.look(lab.appliance.vm(), &shell, &view, plan, ledger, &mut times);
                tell(plan, verdict.with_context(|| format!("at {plan:?}"))?);
            }
            Ok(times)
        })
    }

    fn look(
        &self,
        vm: &Vm,
        shell: &RootShell<'_>,
        view: &Recording,
        plan: &Plan,
        ledger: &Ledger,
        times: &mut Times,
    ) -> Result<Verdict> {
        let (at, terms): (Moment, Terms) = (plan.cut.position().0, plan.terms);
        let began = Instant::now();
        let disks = vm.attach(view, Bus::VirtioScsi)?.len();
        let attached = began.elapsed();
        let state = match terms.disk_lost {
            true => PoolState::Degraded,
            false => PoolState::Ready,
        };
        let told = shell.run_for(&format!("bash {PATH} look {} {disks}", state.name()), LIMIT)?;
        let (pools, found) = read(&told)?;
        let verdict = match pools.as_slice() {
            [pool] if pool.state == state => ledger.judge(at, terms, &found),
            other => Verdict {
                lost: vec![format!("the pool is not served: {other:?}")],
                ..Verdict::default()
            },
        };
        if self.keep_all || !verdict.lost.is_empty() {
            let evidence = shell.run_for(&format!("bash {PATH} evidence"), LIMIT)?;
            let kind = if verdict.lost.is_empty() { "kept" } else { "lost" };
            let file = self.directory.join(format!("{kind}-{}.txt", plan.number));
            fs::write(&file, format!("{plan:#?}\n{:#?}\n{told}\n{evidence}", verdict.lost))
                .with_context(|| format!("writing {}", file.display()))?;
        }
        let left = shell.run_for(&format!("bash {PATH} leave"), LIMIT)?;
        let leaving = Instant::now();
        vm.detach(view)?;
        count_times(&told, times);
        count_times(&left, times);
        for (step, took) in [
            ("attach", attached),
            ("detach", leaving.elapsed()),
            ("all", began.elapsed()),
        ] {
            *times.entry(step.to_owned()).or_default() += took.as_secs_f64();
        }
        Ok(verdict)
    }
}

/// Adds what the script told of the time that its steps took.
fn count_times(told: &str, times: &mut Times) {
    for line in told.lines() {
        if let ["took", step, took] = line.split_whitespace().collect::<Vec<_>>().as_slice() {
            *times.entry((*step).to_owned()).or_default() += took.parse().unwrap_or(0.0) / 1000.0;
        }
    }
}

/// Reads what the script told.
fn read(told: &str) -> Result<(Vec<Pool>, Found)> {
    let (mut pools, mut found) = (None, Found::default());
    for line in told.lines() {
        let mut words = line.trim().splitn(2, ' ');
        match (words.next(), words.next()) {
            (Some("pools"), Some(json)) => pools = Some(serde_json::from_str(json).context("reading the pools")?),
            (Some("volumes"), Some(json)) => {
                found.volumes = serde_json::from_str::<Vec<Volume>>(json).context("reading the volumes")?;
            }
            (Some("snapshots"), Some(json)) => {
                found.snapshots = serde_json::from_str::<Vec<Snapshot>>(json).context("reading the snapshots")?;
            }
            (Some("sum"), Some(rest)) => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let [volume, file, sum] = words.as_slice() else {
                    anyhow::bail!("a sum is not understood: {line}");
                };
                let sums: &mut BTreeMap<_, _> = &mut found.sums;
                sums.insert(((*volume).to_owned(), (*file).to_owned()), (*sum).to_owned());
            }
            _ => {}
        }
    }
    ensure!(pools.is_some(), "it told of no pools: {told}");
    Ok((pools.unwrap_or_default(), found))
}
