//! Power cuts by the hundred: a workload is recorded once, write by write, and its disks are given back as they would
//! have been at each of many moments to an appliance that must make everything of them that was promised by then.
//!
//! Invariant: a cut is chosen by a number that is printed, so that a failing one can be had again.
//!
//! Not here: the block server and what a cut leaves of a cache (`cistern_qemu`), and the crashes of the engine alone, which
//! its own tests have in all places.

mod checker;
pub mod ledger;
mod workload;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cistern_model::{Bytes, Layout};
use cistern_qemu::{BlockServer, Cut, Medium, Position, Recording, Survivors};

use self::checker::{Checker, Times};
use self::ledger::{Ledger, Terms};
use crate::lab::{Machine, Site};

/// About how much the workload needs of the pool, and something to spare.
const POOL_SIZE: Bytes = Bytes::mib(3328);
/// Of a hundred cuts, how many fall between a request and its answer.
const UNDER_WAY_PERCENT: u64 = 88;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The pool's layout.
    pub layout: Layout,
    /// Whether with each cut one of the disks is lost too.
    pub lose_a_disk: bool,
    /// How many cuts.
    pub cuts: usize,
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
        let names = (1..=count).map(|n| format!("CUT{n}")).collect();
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

/// One power cut.
#[derive(Debug, Clone)]
struct Plan {
    number: usize,
    cut: Cut,
    phase: String,
    under_way: bool,
    terms: Terms,
}

/// Records the workload and checks cuts of it.
pub fn run(top: &std::path::Path, campaign: &Campaign) -> Result<Outcome> {
    let (cuts, machines) = (campaign.cuts, campaign.machines);
    let site = Site::new(top)?;
    site.begin("torture")?;
    let began = Instant::now();
    let server = BlockServer::start(top.join("target/test/torture-blocks"))?;
    let (names, size) = campaign.disks();
    let disks = server.record(names.iter().map(|name| Medium::blank(name, size)))?;
    let (ledger, system_id) = record(&site, &disks, campaign)?;
    let mut outcome = Outcome {
        recording: began.elapsed().as_secs_f64(),
        ..Outcome::default()
    };
    println!(
        "torture: recorded {} events, {} MiB written, in {:.0} s",
        disks.end().0,
        disks.written() >> 20,
        outcome.recording
    );
    let plans = choose(&disks, &ledger, campaign);
    ensure!(plans.len() == cuts, "only {} moments to cut at", plans.len());
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let (lost, hole) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let done = AtomicUsize::new(0);
    let lanes: Vec<Result<Times>> = std::thread::scope(|scope| {
        let work = |machine: usize| -> Result<Times> {
            let site = Site::new(top)?;
            site.begin(&format!("torture-checker-{machine}"))?;
            let checker = Checker::boot(&site, &system_id, campaign.keep_all)?;
            let cuts = || plans.get(next.fetch_add(1, Ordering::SeqCst));
            checker.check_all(&disks, &ledger, cuts, |plan, verdict| {
                done.fetch_add(1, Ordering::SeqCst);
                let text = |wrong: &[String]| {
                    let (number, cut, phase) = (plan.number, &plan.cut, &plan.phase);
                    format!("cut {number} ({cut:?}, {phase}): {}", wrong.join("; "))
                };
                if !verdict.lost.is_empty() {
                    println!("LOST {}", text(&verdict.lost));
                    locked(&lost).push(text(&verdict.lost));
                } else if !verdict.hole.is_empty() {
                    println!("hole {}", text(&verdict.hole));
                    locked(&hole).push(text(&verdict.hole));
                }
            })
        };
        let lanes: Vec<_> = (0..machines).map(|n| scope.spawn(move || work(n))).collect();
        lanes
            .into_iter()
            .map(|lane| {
                lane.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a checker panicked")))
            })
            .collect()
    });
    for times in lanes {
        for (step, took) in times? {
            *outcome.times.entry(step).or_default() += took;
        }
    }
    outcome.checking = began.elapsed().as_secs_f64();
    outcome.cuts = done.load(Ordering::SeqCst);
    outcome.under_way = plans.iter().filter(|plan| plan.under_way).count();
    for plan in &plans {
        *outcome.phases.entry(plan.phase.clone()).or_default() += 1;
    }
    outcome.lost = std::mem::take(&mut *locked(&lost));
    outcome.hole = std::mem::take(&mut *locked(&hole));
    site.end(Ok(()))?;
    Ok(outcome)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An appliance whose pool's disks are these does the work. Also says its system ID, by which the disks are its own.
fn record(site: &Site, disks: &Recording, campaign: &Campaign) -> Result<(Ledger, String)> {
    let lab = site.boot_pair(Machine::default().pool_disks(disks.disks()))?;
    lab.check(|lab| {
        lab.enrol(&lab.banner()?)?;
        let ledger = workload::run(lab, disks, campaign)?;
        let id = lab.appliance.root_shell()?.run("cat /var/lib/cistern/lvm-system-id")?;
        Ok((ledger, id.trim().to_owned()))
    })
}

/// Chooses moments: most of them while a request was under way, spread over all requests, with everything that a cache can
/// do to what was not flushed.
fn choose(disks: &Recording, ledger: &Ledger, campaign: &Campaign) -> Vec<Plan> {
    let (cuts, (names, _)) = (campaign.cuts, campaign.disks());
    let events: Vec<u64> = disks
        .events(Position(ledger.pool_made), disks.end())
        .into_iter()
        .filter(|event| event.disk.is_some())
        .map(|event| event.at.0 + 1)
        .collect();
    let (busy, calm): (Vec<u64>, Vec<u64>) = events.into_iter().partition(|at| ledger.under_way(*at));
    let mut random = campaign.seed;
    let mut next = move || {
        // A linear congruential generator (Knuth, MMIX); its high bits are good enough to choose by.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    (0..cuts)
        .filter_map(|number| {
            let busy_one = (number as u64 * 100 / cuts as u64) % 100 < UNDER_WAY_PERCENT && !busy.is_empty();
            let from = if busy_one || calm.is_empty() { &busy } else { &calm };
            let at = *from.get(usize::try_from(next()).ok()? % from.len().max(1))?;
            let cut = Cut::at(Position(at));
            let cut = match number % 4 {
                0 => cut,
                1 => cut.survivors(Survivors::Everything),
                2 => cut.survivors(Survivors::Random(next())),
                _ => cut.survivors(Survivors::Random(next())).torn(next()),
            };
            let cut = match campaign.lose_a_disk {
                true => cut.without(names.get(number % names.len())?),
                false => cut,
            };
            let phase = disks.phase(Position(at)).unwrap_or_default();
            Some(Plan {
                number,
                cut,
                phase: kind_of(&phase),
                under_way: ledger.under_way(at),
                terms: campaign.terms(),
            })
        })
        .collect()
}

/// `asked: write v3/f1` is of the kind `asked: write`.
fn kind_of(phase: &str) -> String {
    let words: Vec<&str> = phase.split_whitespace().collect();
    match words.as_slice() {
        ["asked:", what, ..] => format!("between asking to {what} and the answer"),
        [] => "before anything".to_owned(),
        _ => "after an answer".to_owned(),
    }
}

impl Outcome {
    /// Fails unless most cuts fell where they hurt.
    pub fn enough_under_way(&self) -> Result<()> {
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
