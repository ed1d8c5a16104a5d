//! Runs the scenarios on the built image and counts them.
//!
//!     scenarios [--list] [--part base|storage|long|kubernetes|nodes] [--singly] [NAME...]
//!
//! Without names it runs all of a part, without a part all parts. The last line is `scenarios: N passed, N failed`. The list of parts
//! and names is checked in as tests/scenarios.txt; one that is in one list and not in the other is a failure, and so is one that was not run.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use cistern_tests::cli::top;
use cistern_tests::lab::Site;
use cistern_tests::scenarios::{PARTS, Scenario};
use clap::Parser;

/// Runs the scenarios on the built image.
#[derive(Parser)]
struct Options {
    /// Only print their names.
    #[arg(long)]
    list: bool,
    /// Only those of this part.
    #[arg(long)]
    part: Option<String>,
    /// One after the other, in place of two side by side: those with four machines each have enough to do.
    #[arg(long)]
    singly: bool,
    /// Only these.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        all().for_each(|(part, scenario)| println!("{part} {}", scenario.name));
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scenarios: {error:#}");
            println!("scenarios: 0 passed, {} failed", all().count());
            ExitCode::FAILURE
        }
    }
}

/// Every scenario, with its part.
fn all() -> impl Iterator<Item = (&'static str, &'static Scenario)> {
    let with_part = |(part, scenarios): &(&'static str, &'static [Scenario])| {
        let part = *part;
        scenarios.iter().map(move |scenario| (part, scenario))
    };
    PARTS.iter().flat_map(with_part)
}

fn run(
    Options {
        part, singly, names, ..
    }: &Options,
) -> Result<bool> {
    let top = top()?;
    let listed = std::fs::read_to_string(top.join("tests/scenarios.txt")).context("reading tests/scenarios.txt")?;
    let listed: Vec<&str> = listed.lines().filter(|l| !l.is_empty()).collect();
    let have: Vec<String> = all().map(|(part, s)| format!("{part} {}", s.name)).collect();
    anyhow::ensure!(
        listed == have,
        "tests/scenarios.txt lists {listed:?}, and there are {have:?}"
    );
    for name in names {
        anyhow::ensure!(
            all().any(|(_, s)| s.name == name),
            "there is no scenario {name}; --list prints them"
        );
    }

    if let Some(part) = part {
        anyhow::ensure!(
            PARTS.iter().any(|(name, _)| name == part),
            "there is no part {part}; --list prints them"
        );
    }
    let wanted = |part_of: &str, s: &Scenario| {
        part.as_ref().is_none_or(|part| part == part_of) && (names.is_empty() || names.iter().any(|n| n == s.name))
    };
    let wanted = all().filter_map(|(part, scenario)| wanted(part, scenario).then_some(scenario));
    // Two lanes for two processors: machines that boot spend half their time waiting for one thing at a time. Those that
    // start from a saved state are kept together, so that each state is made once, unless the other lane has nothing to do.
    let (resumed, booted): (Vec<&Scenario>, Vec<&Scenario>) = wanted.partition(|s| s.is_resumed());
    let site = Site::new(&top)?;
    println!("scenarios: {}", site.describe());
    drop(site);
    let count = resumed.len() + booted.len();
    let (resumed, booted) = (Queue::new(resumed), Queue::new(booted));
    let (passed, mut failed) = std::thread::scope(|scope| {
        let other = || lane(&top, &booted, &resumed);
        let beside = (!singly).then(|| scope.spawn(other));
        let (mut passed, mut failed) = lane(&top, &resumed, &booted);
        let (more, worse) = match beside {
            Some(beside) => beside.join().unwrap_or_default(),
            None => other(),
        };
        passed += more;
        failed.extend(worse);
        (passed, failed)
    });
    // What a lane that broke off had taken was not seen to hold.
    failed.extend(std::iter::repeat_n("(broke off)", count - passed - failed.len()));
    for name in &failed {
        println!("failed: {name}");
    }
    println!("scenarios: {passed} passed, {} failed", failed.len());
    Ok(failed.is_empty())
}

/// What is still to be run in a lane.
struct Queue(Mutex<VecDeque<&'static Scenario>>);

impl Queue {
    fn new(scenarios: Vec<&'static Scenario>) -> Self {
        Queue(Mutex::new(scenarios.into()))
    }

    fn first(&self) -> Option<&'static Scenario> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The last, if there is more than one: a lane that helps out may have to make a state first.
    fn last_of_several(&self) -> Option<&'static Scenario> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (queue.len() > 1).then(|| queue.pop_back()).flatten()
    }
}

/// Runs what is in its queue, and then helps the other: how many held, and the names of those that did not.
fn lane(top: &Path, own: &Queue, other: &Queue) -> (usize, Vec<&'static str>) {
    let (mut passed, mut failed) = (0, Vec::new());
    let site = Site::new(top);
    while let Some(scenario) = own.first().or_else(|| other.last_of_several()) {
        let began = Instant::now();
        let result = match &site {
            Ok(site) => attempt(site, scenario),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        let seconds = began.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok   {:<28} {seconds:6.1} s", scenario.name);
            }
            Err(error) => {
                println!("FAIL {:<28} {seconds:6.1} s\n     {error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    (passed, failed)
}

/// Runs one. A panic is a failure of that one; whatever it started ends with it.
fn attempt(site: &Site, scenario: &Scenario) -> Result<()> {
    site.begin(scenario.name)?;
    let result = catch_unwind(AssertUnwindSafe(|| scenario.run(site))).unwrap_or_else(|panic| {
        Err(anyhow!(
            "it panicked: {}",
            panic.downcast_ref::<String>().map_or("", |s| s)
        ))
    });
    site.end(result)
}
