//! An appliance that is given the disks of one cut after another.
//!
//! Invariant: nothing of one cut is left on the machine when the next one's disks are put in.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Disk, PoolState};
use cistern_qemu::{Bus, Recording, Vm};

use super::ledger::{Due, Found, Verdict};
use super::stripes::Places;
use super::{Plan, Recorded};
use crate::lab::{Lab, Machine, RootShell, START_LIMIT, Site};

pub(super) const SCRIPT: &str = include_str!("check.sh");
pub(super) const PATH: &str = "/run/check.sh";
/// The sum of an empty file, which lies nowhere.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// A start of the supervisor with a handful of volumes, each with a log to replay, on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(900);

/// How long a machine may take until its console tells of it: several start at once, on one that does other things too.
pub(super) const START: Duration = START_LIMIT.saturating_mul(2);

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
    /// Starts it, with what the machine that made the pool knows: its system ID, and the keys of its pools.
    pub(super) fn boot(site: &Site, recorded: &Recorded, keep_all: bool) -> Result<Self> {
        let machine = Machine::default().disks_on(Bus::VirtioScsi).disks_later();
        let (lab, directory) = (site.boot(machine)?, site.directory()?);
        lab.check(|lab| {
            lab.appliance.banner_within(START)?;
            let shell = lab.appliance.root_shell()?;
            shell.install(PATH, SCRIPT)?;
            shell.run("systemctl stop cistern-gate cisternd nfs-server cistern-console@tty1")?;
            shell.run(&format!(
                "echo {} > /run/cistern/lvm-system-id",
                recorded.system_id
            ))?;
            for (name, content) in &recorded.keys {
                let file = format!("/var/lib/cistern/engine/{name}");
                shell.install(&file, content)?;
                shell.run(&format!("chmod 600 {file}"))?;
            }
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
        recorded: &Recorded,
        cuts: impl Fn() -> Option<&'a Plan>,
        tell: impl Fn(&'a Plan, Verdict),
    ) -> Result<Times> {
        self.lab.check(|lab| {
            let shell = lab.appliance.root_shell()?;
            let mut times = Times::new();
            while let Some(plan) = cuts() {
                let view = recorded.disks.cut(&plan.cut.clone().without(super::SYSTEM))?;
                let verdict = self.look(lab.appliance.vm(), &shell, &view, plan, recorded, &mut times);
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
        recorded: &Recorded,
        times: &mut Times,
    ) -> Result<Verdict> {
        let began = Instant::now();
        let disks = vm.attach(view, Bus::VirtioScsi)?.len();
        let attached = began.elapsed();
        let (told, verdict) = examine(shell, plan, recorded, disks)?;
        if self.keep_all || !verdict.lost.is_empty() {
            let evidence = shell.run_for(&format!("bash {PATH} evidence"), LIMIT)?;
            let kind = if verdict.lost.is_empty() { "kept" } else { "lost" };
            let file = self.directory.join(format!("{kind}-{}.txt", plan.number));
            fs::write(&file, format!("{plan:#?}\n{verdict:#?}\n{told}\n{evidence}"))
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

/// Has a machine with `disks` disks beside that of its state look at a cut, and judges what it tells.
pub(super) fn examine(
    shell: &RootShell<'_>,
    plan: &Plan,
    recorded: &Recorded,
    disks: usize,
) -> Result<(String, Verdict)> {
    let (at, terms) = (plan.cut.position(), plan.terms);
    let state = match (recorded.ledger.pool.life.due(at.0), terms.disk_lost) {
        (Due::Open | Due::Excluded, _) => "ready-or-none",
        (Due::Owed, true) => PoolState::Degraded.name(),
        (Due::Owed, false) => PoolState::Ready.name(),
    };
    // That of the machine's state is one more.
    let mut told = shell.run_for(&format!("bash {PATH} look {state} {}", disks + 1), LIMIT)?;
    let mut found = read(&told)?;
    let judge = |found: &Found| recorded.ledger.judge(at.0, terms, found);
    let mut verdict = judge(&found);
    // Now and then also where nothing is wrong, so that it is known to work when something is; a pool of which no volume is
    // active has no map to read.
    if !verdict.hole.is_empty() || (plan.deep && terms.write_hole && !found.sums.is_empty()) {
        let stripes = recorded.stripes.as_ref().context("how the data lies is not known")?;
        let places = shell.run_for(&format!("bash {PATH} where"), LIMIT)?;
        told += &places;
        let (rows, places) = (stripes.being_written(&recorded.disks, at), Places::read(&places)?);
        let somewhere = |sum: &Option<String>| sum.as_deref().is_some_and(|sum| sum != OF_NOTHING);
        for (id, file) in found.sums.iter().filter(|(_, sum)| somewhere(sum)).map(|(key, _)| key) {
            ensure!(places.knows(id, file), "where {file} of {id} lies is not told: {told}");
        }
        verdict.excuse(|damage| places.may_be_hit(stripes, &rows, &damage.id, damage.file.as_deref()));
    } else if plan.deep && !terms.write_hole && verdict.lost.is_empty() && !found.pools.is_empty() {
        let compare = if plan.compare { "compare" } else { "" };
        told += &shell.run_for(&format!("bash {PATH} deep {compare}"), LIMIT)?;
        found = read(&told)?;
        verdict = judge(&found);
    }
    Ok((told, verdict))
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
fn read(told: &str) -> Result<Found> {
    let (mut pools, mut found) = (None, Found::default());
    for line in told.lines() {
        let (what, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (what, words.as_slice()) {
            ("pools", _) => pools = Some(serde_json::from_str(rest).context("reading the pools")?),
            ("volumes", _) => found.volumes = serde_json::from_str(rest).context("reading the volumes")?,
            ("snapshots", _) => found.snapshots = serde_json::from_str(rest).context("reading the snapshots")?,
            ("disks", _) => {
                let disks: Vec<Disk> = serde_json::from_str(rest).context("reading the disks")?;
                let cut = |disk: &Disk| disk.serial.as_deref().is_some_and(super::is_cut);
                found.disks = disks.into_iter().filter(cut).collect();
            }
            ("orphans", _) => found.orphans = serde_json::from_str(rest).context("reading the orphans")?,
            ("export", [path, client, access]) => {
                let clients = found.exports.entry((*path).to_owned()).or_default();
                clients.insert(format!("{client} {access}"));
            }
            ("sum", [id, file, sum]) => {
                let sum = Some((*sum).to_owned()).filter(|sum| sum != "-");
                found.sums.insert(((*id).to_owned(), (*file).to_owned()), sum);
            }
            ("damaged", [id, ..]) => drop(found.damaged.insert((*id).to_owned(), rest.to_owned())),
            ("uneven", [volume, sectors]) => {
                let sectors = sectors
                    .parse()
                    .with_context(|| format!("it is not understood: {line}"))?;
                found.uneven.insert((*volume).to_owned(), sectors);
            }
            ("refused", _) => found.refused.extend([rest.to_owned()]),
            ("deep", []) => found.deep = true,
            ("sum" | "export" | "uneven", _) => anyhow::bail!("it is not understood: {line}"),
            _ => {}
        }
    }
    ensure!(pools.is_some(), "it told of no pools: {told}");
    found.pools = pools.unwrap_or_default();
    Ok(found)
}
