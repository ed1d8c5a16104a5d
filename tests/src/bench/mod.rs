//! What `make bench` measures, each figure beside its floor: what the same machine does without us.
//!
//! Invariant: a figure and its floor are taken in the same run, by the same clock or by clocks of the same kind, in turns,
//! so that what else the machine does hits both. Nothing here passes or fails by a time.
//!
//! Not here: machines and how they are reached; see [`crate::lab`].

mod boot;
mod claims;
mod copies;
mod figure;
mod latency;
mod rest;
mod restart;
pub(crate) mod script;
mod throughput;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cistern_client::{Client, Endpoint};
use cistern_model::Pool;
use tokio::runtime::Runtime;

use crate::lab::{Lab, Machine, RootShell, Site};
pub use figure::{Aim, Figure, Sheet};

/// A mirror copies its halves in the background; this is the longest that is waited for it.
const IN_SYNC: Duration = Duration::from_secs(180);

/// How often each thing is done.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Volumes that are made, mounted and deleted.
    pub volumes: usize,
    /// Starts of the machine.
    pub starts: usize,
    /// Repetitions of each transfer.
    pub transfers: usize,
    /// What is measured.
    pub parts: Parts,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Everything.
    All,
    /// Nothing but the image, its start, and its memory after that: what differs between images of the same system.
    Start,
    /// Nothing but restarts with many volumes, which take as long as all else.
    Restarts,
    /// Nothing but what a cluster's claims take, which needs Kubernetes' own programs.
    Claims,
}

impl Counts {
    /// 50 volumes; or as many as `BENCH_RUNS` says, and of the rest in proportion. `BENCH_ONLY=start`,
    /// `BENCH_ONLY=restarts` and `BENCH_ONLY=claims` leave all else out.
    pub fn from_environment() -> Result<Self> {
        let volumes = match std::env::var("BENCH_RUNS") {
            Ok(text) => text.trim().parse().context("BENCH_RUNS is no number")?,
            Err(_) => 50,
        };
        ensure!(volumes > 0, "BENCH_RUNS is 0");
        let part = |whole: usize| (whole * volumes).div_ceil(50).clamp(1, whole);
        Ok(Counts {
            volumes,
            starts: part(3),
            transfers: part(3),
            parts: match std::env::var("BENCH_ONLY").as_deref() {
                Err(_) | Ok("") => Parts::All,
                Ok("start") => Parts::Start,
                Ok("restarts") => Parts::Restarts,
                Ok("claims") => Parts::Claims,
                Ok(other) => bail!("BENCH_ONLY is {other:?}; it can be `start`, `restarts` or `claims`"),
            },
        })
    }
}

/// Measures everything.
pub fn run(site: &Site, top: &Path, counts: Counts, sheet: &mut Sheet) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    if counts.parts != Parts::Claims {
        site.begin("bench")?;
        let result = match counts.parts {
            Parts::Restarts => restart::measure(site, &runtime, counts.volumes, sheet),
            Parts::All | Parts::Start | Parts::Claims => storage(site, top, counts, &runtime, sheet),
        };
        site.end(result)?;
    }
    if matches!(counts.parts, Parts::All | Parts::Claims) {
        site.begin("bench-claims")?;
        site.end(claims::measure(site, counts.volumes, sheet))?;
    }
    Ok(())
}

/// An appliance by itself and beside a client.
fn storage(site: &Site, top: &Path, counts: Counts, runtime: &Runtime, sheet: &mut Sheet) -> Result<()> {
    rest::image(site.images(), sheet)?;
    let lab = site.boot_pair(Machine::default())?;
    lab.check(|lab| {
        let banner = lab.banner()?;
        lab.enrol(&banner)?;
        let endpoint = Endpoint::https(&lab.appliance.url()?, banner.fingerprint.parse()?)?;
        let client = Client::new(&endpoint, Some(lab.token()?))?;
        let pause = Quiet::begin(lab)?;
        boot::measure(site, top, lab, runtime, &endpoint, counts.starts, sheet)?;
        pause.end()?;
        rest::memory(lab, "started", sheet)?;
        if counts.parts == Parts::Start {
            return Ok(());
        }

        let pool = lab.create_tank()?;
        let shell = lab.appliance.root_shell()?;
        wait_in_sync(&shell, sheet)?;
        latency::measure(lab, runtime, &client, &shell, &pool, counts.volumes, sheet)?;
        let bench = Bench {
            lab,
            runtime,
            client: &client,
            pool: &pool,
        };
        copies::measure(&bench, &shell, counts.volumes, sheet)?;
        copies::stall(&bench, &shell, counts.transfers, sheet)?;
        throughput::measure(lab, &shell, counts.transfers, sheet)?;
        drop(shell);
        rest::memory(lab, "after the work", sheet)?;
        // Two machines are enough at a time.
        lab.peer.vm()?.pause()?;
        lab.appliance.vm().power_cut()?;
        restart::measure(site, runtime, counts.volumes, sheet)
    })
}

/// What is measured on: an appliance, its pool, and a client of its API.
struct Bench<'a> {
    lab: &'a Lab,
    runtime: &'a Runtime,
    client: &'a Client,
    pool: &'a Pool,
}

/// The client VM, standing still.
struct Quiet<'a>(&'a Lab);

impl<'a> Quiet<'a> {
    fn begin(lab: &'a Lab) -> Result<Self> {
        lab.peer.vm()?.pause()?;
        Ok(Quiet(lab))
    }

    fn end(self) -> Result<()> {
        Ok(self.0.peer.vm()?.resume()?)
    }
}

/// Waits until no mirror of the pool is being filled.
fn wait_in_sync(shell: &RootShell<'_>, sheet: &mut Sheet) -> Result<()> {
    let began = Instant::now();
    loop {
        // In a raid target's status: ... <health characters> <in sync>/<all> ...
        let status = shell.run("dmsetup status --target raid")?;
        let filling = status.lines().any(|line| {
            line.split_whitespace()
                .any(|word| word.split_once('/').is_some_and(|(done, all)| done != all))
        });
        if !filling {
            return Ok(());
        }
        if began.elapsed() > IN_SYNC {
            sheet.note("the pool's mirrors were still being filled while it was measured".to_owned());
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// The pool's volume group.
pub(crate) fn group(pool: &Pool) -> String {
    pool.id.to_string()
}
