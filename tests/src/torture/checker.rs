//! An appliance that is given the disks of one cut after another.
//!
//! Invariant: nothing of one cut is left on the machine when the next one's disks are put in.

use std::collections::BTreeMap;
use std::time::Duration;

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
}

impl Checker {
    /// Starts it, under the system ID of the machine that made the pool.
    pub(super) fn boot(site: &Site, system_id: &str) -> Result<Self> {
        let machine = Machine::default().disks_on(Bus::VirtioScsi).disks_later();
        let lab = site.boot(machine)?;
        lab.check(|lab| {
            lab.banner()?;
            let shell = lab.appliance.root_shell()?;
            shell.install(PATH, SCRIPT)?;
            shell.run("systemctl stop cistern-gate cisternd nfs-server cistern-console@tty1")?;
            shell.run(&format!("echo {system_id} > /var/lib/cistern/lvm-system-id"))?;
            // A disk that is lost does not come back here.
            shell.run(
                "mkdir -p /run/systemd/system/cisternd.service.d && cd /run/systemd/system/cisternd.service.d && \
                 printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/cisternd --degraded-wait 1\\n' > wait.conf && \
                 systemctl daemon-reload",
            )?;
            Ok(())
        })?;
        Ok(Checker { lab })
    }

    /// Goes through cuts for as long as there are some, and tells of each what is wrong with what it makes of it.
    pub(super) fn check_all<'a>(
        &self,
        disks: &Recording,
        ledger: &Ledger,
        cuts: impl Fn() -> Option<&'a Plan>,
        tell: impl Fn(&Plan, Verdict),
    ) -> Result<()> {
        self.lab.check(|lab| {
            let shell = lab.appliance.root_shell()?;
            while let Some(plan) = cuts() {
                let view = disks.cut(&plan.cut)?;
                let verdict = check(lab.appliance.vm(), &shell, &view, plan, ledger);
                tell(plan, verdict.with_context(|| format!("at {plan:?}"))?);
            }
            Ok(())
        })
    }
}

fn check(vm: &Vm, shell: &RootShell<'_>, view: &Recording, plan: &Plan, ledger: &Ledger) -> Result<Verdict> {
    let (at, terms): (Moment, Terms) = (plan.cut.position().0, plan.terms);
    vm.attach(view, Bus::VirtioScsi)?;
    let state = match terms.disk_lost {
        true => PoolState::Degraded,
        false => PoolState::Ready,
    };
    let told = shell.run_for(&format!("bash {PATH} look {}", state.name()), LIMIT)?;
    let (pools, found) = read(&told)?;
    let verdict = match pools.as_slice() {
        [pool] if pool.state == state => ledger.judge(at, terms, &found),
        other => Verdict {
            lost: vec![format!("the pool is not served: {other:?}")],
            ..Verdict::default()
        },
    };
    shell.run_for(&format!("bash {PATH} leave"), LIMIT)?;
    vm.detach(view)?;
    Ok(verdict)
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
