//! Power cuts by the hundred: a workload is recorded once, write by write, and its disks are given back as they would
//! have been at each of many moments to an appliance that must make everything of them that was promised by then.
//!
//! Invariant: a cut is chosen by a number that is printed, so that a failing one can be had again.
//!
//! Not here: the block server and what a cut leaves of a cache (`cistern_qemu`), and the crashes of the engine alone, which
//! its own tests have in all places.

mod boots;
mod checker;
mod commits;
pub mod ledger;
mod lifetimes;
mod plans;
mod stripes;
mod taken;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Layout};
use cistern_qemu::{BlockServer, Medium, Recording};

use self::checker::{Checker, Times};
use self::ledger::{Ledger, Terms};
use self::plans::Plan;
use self::stripes::Stripes;
use crate::lab::{Machine, Site};

/// About how much the workload needs of the pool, and something to spare.
const POOL_SIZE: Bytes = Bytes::mib(3328);
/// After how many cuts it is told how far it is.
const TOLD_EACH: usize = 100;
/// The disk of the machine's state, and what the pool's disks are called.
const SYSTEM: &str = "SYSTEM";
const POOL_DISK: &str = "CUT";

fn is_cut(serial: &str) -> bool {
    serial.contains(POOL_DISK)
}

/// What is tried.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The pool's layout.
    pub layout: Layout,
    /// Whether there are checksums below the pool.
    pub checksums: bool,
    /// Whether the pool is encrypted.
    pub encryption: bool,
    /// Whether with each cut one of the disks is lost too.
    pub lose_a_disk: bool,
    /// How many cuts.
    pub cuts: usize,
    /// After how long no further one is begun; none: all are.
    pub within: Option<Duration>,
    /// Of how many further cuts the whole machine is started, from the disk of its state as it was then too.
    pub boots: usize,
    /// How many machines check them side by side.
    pub machines: usize,
    /// What cuts are chosen by.
    pub seed: u64,
    /// Whether the evidence is kept of all cuts, and not only of those that lost something.
    pub keep_all: bool,
}

impl Campaign {
    /// As few disks as the layout can do with, and how large each is.
    fn disks(&self) -> (Vec<String>, Bytes) {
        let (count, of_data) = match self.layout {
            Layout::Single => (1, 1),
            Layout::Mirror => (2, 1),
            Layout::Parity => (3, 2),
            Layout::StripeMirror => (4, 2),
            Layout::DoubleParity => (5, 3),
        };
        let each = POOL_SIZE.get() / of_data;
        let names = (1..=count).map(|n| format!("{POOL_DISK}{n}")).collect();
        (names, Bytes::mib(each >> 20))
    }

    fn terms(&self) -> Terms {
        let parity = matches!(self.layout, Layout::Parity | Layout::DoubleParity);
        Terms {
            disk_lost: self.lose_a_disk,
            write_hole: self.lose_a_disk && parity,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cuts that were tried.
    pub cuts: usize,
    /// Those that fell between a request and its answer.
    pub under_way: usize,
    /// How many cuts there were in each kind of phase.
    pub phases: BTreeMap<String, usize>,
    /// For each cut that lost something, what.
    pub lost: Vec<String>,
    /// For each cut where the write hole cost something, as documented, what.
    pub hole: Vec<String>,
    /// Seconds that recording took.
    pub recording: f64,
    /// Seconds that checking took.
    pub checking: f64,
    /// Seconds that each step of all checks took, on all machines together.
    pub times: BTreeMap<String, f64>,
}

/// What was recorded.
struct Recorded {
    disks: Recording,
    ledger: Ledger,
    /// The machine's, by which the pool's disks are its own.
    system_id: String,
    /// The keys of its pools: files on the state partition, by name.
    keys: Vec<(String, String)>,
    /// How the data lies, where parity may have a write hole.
    stripes: Option<Stripes>,
    /// The folder of the laptop that was enrolled.
    laptop: PathBuf,
}

/// Records the workload and checks cuts of it.
pub fn run(top: &Path, campaign: &Campaign) -> Result<Outcome> {
    let site = Site::new(top)?;
    site.begin("torture")?;
    let began = Instant::now();
    let server = BlockServer::start(top.join("target/test/torture-blocks"))?;
    let (names, size) = campaign.disks();
    let pool_disks = names.iter().map(|name| Medium::blank(name, size));
    let system = Medium::raw(SYSTEM, site.images().appliance("cistern.raw"));
    let recorded = record(&site, server.record(pool_disks.chain([system]))?, campaign)?;
    let mut outcome = Outcome {
        recording: began.elapsed().as_secs_f64(),
        ..Outcome::default()
    };
    println!(
        "torture: recorded {} events, {} MiB written, in {:.0} s",
        recorded.disks.end().0,
        recorded.disks.written() >> 20,
        outcome.recording
    );
    if !campaign.checksums && !campaign.encryption {
        let commits = commits::in_order(&recorded.disks)?;
        println!("torture: LVM wrote its headers {commits} times, never before what they point to");
    }
    let plans = plans::choose(&recorded, campaign);
    ensure!(
        plans.len() == campaign.cuts + campaign.boots,
        "only {} moments to cut at",
        plans.len()
    );
    let until = campaign.within.map(|within| began + within);
    let began = Instant::now();
    check(top, &recorded, &plans, campaign, until, &mut outcome)?;
    outcome.checking = began.elapsed().as_secs_f64();
    site.end(Ok(()))?;
    Ok(outcome)
}

/// Gives the disks of each cut to one of the machines that check them, or starts one from them.
fn check<'a>(
    top: &Path,
    recorded: &Recorded,
    plans: &'a [Plan],
    campaign: &Campaign,
    until: Option<Instant>,
    outcome: &mut Outcome,
) -> Result<()> {
    let (attached, booted): (Vec<&'a Plan>, Vec<&'a Plan>) = plans.iter().partition(|plan| !plan.boot);
    let (next, next_boot, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (lost, hole) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let looked_at: Mutex<Vec<&Plan>> = Mutex::default();
    // Where one machine cannot go on the campaign has failed, and the others need not go through what is left.
    let broken = AtomicBool::new(false);
    let tell = |plan: &'a Plan, verdict: ledger::Verdict| {
        locked(&looked_at).push(plan);
        let number = done.fetch_add(1, Ordering::SeqCst) + 1;
        let text = |wrong: &[String]| {
            let (number, cut, phase) = (plan.number, &plan.cut, &plan.phase);
            format!("cut {number} ({cut:?}, {phase}): {}", wrong.join("; "))
        };
        if !verdict.lost.is_empty() {
            println!("LOST {}", text(&verdict.lost));
            locked(&lost).push(text(&verdict.lost));
        } else if !verdict.hole.is_empty() {
            let told: Vec<String> = verdict.hole.into_iter().map(|damage| damage.told).collect();
            println!("hole {}", text(&told));
            locked(&hole).push(text(&told));
        }
        // A campaign may take hours, and may be ended before its end.
        if number.is_multiple_of(TOLD_EACH) {
            let (all, lost) = (plans.len(), locked(&lost).len());
            println!("torture: {number} of {all} cuts looked at, {lost} lost");
        }
    };
    let work = |machine: usize| -> Result<Times> {
        let site = Site::new(top)?;
        site.begin(&format!("torture-checker-{machine}"))?;
        let over = || broken.load(Ordering::SeqCst) || until.is_some_and(|until| Instant::now() >= until);
        let take = |plans: &[&'a Plan], next: &AtomicUsize| match over() {
            true => None,
            false => plans.get(next.fetch_add(1, Ordering::SeqCst)).copied(),
        };
        let cuts = || take(&attached, &next);
        let mut times = match attached.is_empty() {
            true => Times::new(),
            false => Checker::boot(&site, recorded, campaign.keep_all)?.check_all(recorded, cuts, tell)?,
        };
        while let Some(plan) = take(&booted, &next_boot) {
            let began = Instant::now();
            let verdict = boots::check(&site, recorded, plan);
            tell(plan, verdict.with_context(|| format!("at {plan:?}"))?);
            *times.entry("boot".to_owned()).or_default() += began.elapsed().as_secs_f64();
        }
        Ok(times)
    };
    let lanes: Vec<Result<Times>> = std::thread::scope(|scope| {
        let (work, broken) = (&work, &broken);
        let lanes: Vec<_> = (0..campaign.machines)
            .map(|n| {
                scope.spawn(move || {
                    let checked = work(n);
                    broken.fetch_or(checked.is_err(), Ordering::SeqCst);
                    checked
                })
            })
            .collect();
        let lanes = lanes.into_iter().map(|lane| lane.join());
        lanes
            .map(|lane| lane.unwrap_or_else(|_| Err(anyhow::anyhow!("a checker panicked"))))
            .collect()
    });
    for times in lanes {
        for (step, took) in times? {
            *outcome.times.entry(step).or_default() += took;
        }
    }
    outcome.cuts = done.load(Ordering::SeqCst);
    for plan in locked(&looked_at).iter() {
        outcome.under_way += usize::from(plan.under_way);
        *outcome.phases.entry(plan.phase.clone()).or_default() += 1;
    }
    outcome.lost = std::mem::take(&mut *locked(&lost));
    outcome.hole = std::mem::take(&mut *locked(&hole));
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An appliance all of whose disks are these does the work.
fn record(site: &Site, disks: Recording, campaign: &Campaign) -> Result<Recorded> {
    let (names, _) = campaign.disks();
    let pool_disks: Result<Vec<_>, _> = names.iter().map(|name| disks.disk(name)).collect();
    let machine = Machine::default().system(disks.disk(SYSTEM)?).pool_disks(pool_disks?);
    let lab = site.boot_pair(machine)?;
    let laptop = lab.directory().join("laptop");
    let (ledger, told) = lab.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        let ledger = workload::run(lab, &disks, campaign)?;
        let shell = lab.appliance.root_shell()?;
        let told = [
            "cat /var/lib/cistern/lvm-system-id",
            "cd /var/lib/cistern/engine && for f in key-*; do [ ! -f $f ] || echo \"$f $(cat $f)\"; done; cd /",
            "dmsetup table",
            "lsblk -rno MAJ:MIN,SERIAL",
        ];
        let told: Result<Vec<String>> = told.iter().map(|command| shell.run(command)).collect();
        Ok((ledger, told?))
    })?;
    let [system_id, keys, tables, serials] = told.as_slice() else {
        anyhow::bail!("it did not tell all: {told:?}");
    };
    let stripes = match campaign.terms().write_hole {
        true => Some(Stripes::read(tables, serials)?),
        false => None,
    };
    let keys = keys.lines().filter_map(|line| line.trim().split_once(' '));
    let keys: Vec<_> = keys.map(|(name, key)| (name.to_owned(), key.to_owned())).collect();
    ensure!(campaign.encryption != keys.is_empty(), "{} keys were kept", keys.len());
    Ok(Recorded {
        system_id: system_id.trim().to_owned(),
        disks,
        ledger,
        keys,
        stripes,
        laptop,
    })
}

impl Outcome {
    /// Fails unless most cuts fell where they hurt; also where the time was up before the first.
    pub fn enough_under_way(&self) -> Result<()> {
        ensure!(self.cuts > 0, "no cut was looked at");
        ensure!(
            self.under_way * 100 >= self.cuts * 80,
            "only {} of {} cuts fell between a request and its answer",
            self.under_way,
            self.cuts
        );
        Ok(())
    }
}

/// The number that cuts are chosen by: given, or a fixed one.
pub fn seed() -> Result<u64> {
    match std::env::var("TORTURE_SEED") {
        Ok(text) => text.trim().parse().context("TORTURE_SEED is no number"),
        Err(_) => Ok(20_261_121),
    }
}
