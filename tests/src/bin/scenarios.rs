//! Runs the scenarios on the built image and counts them.
//!
//!     scenarios [--list] [NAME...]
//!
//! The last line is `scenarios: N passed, N failed`. The list of names is checked in as tests/scenarios.txt; one that is
//! in one list and not in the other is a failure, and so is one that was not run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use cistern_tests::cli::top;
use cistern_tests::lab::Site;
use cistern_tests::scenarios::{ALL, Scenario};
use clap::Parser;

/// Runs the scenarios on the built image.
#[derive(Parser)]
struct Options {
    /// Only print their names.
    #[arg(long)]
    list: bool,
    /// Only these.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        ALL.iter().for_each(|s| println!("{}", s.name));
        return ExitCode::SUCCESS;
    }
    match run(&options.names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scenarios: {error:#}");
            println!("scenarios: 0 passed, {} failed", ALL.len());
            ExitCode::FAILURE
        }
    }
}

fn run(names: &[String]) -> Result<bool> {
    let top = top()?;
    let listed = std::fs::read_to_string(top.join("tests/scenarios.txt")).context("reading tests/scenarios.txt")?;
    let listed: Vec<&str> = listed.lines().filter(|l| !l.is_empty()).collect();
    let have: Vec<&str> = ALL.iter().map(|s| s.name).collect();
    anyhow::ensure!(
        listed == have,
        "tests/scenarios.txt lists {listed:?}, and there are {have:?}"
    );
    for name in names {
        anyhow::ensure!(
            have.contains(&name.as_str()),
            "there is no scenario {name}; --list prints them"
        );
    }

    let wanted = |s: &&Scenario| names.is_empty() || names.iter().any(|n| n == s.name);
    // Two lanes for two processors: machines that boot spend half their time waiting for one thing at a time. Those that
    // start from a saved state are kept together, so that each state is made once.
    let (resumed, booted): (Vec<&Scenario>, Vec<&Scenario>) = ALL.iter().filter(wanted).partition(|s| s.is_resumed());
    let site = Site::new(&top)?;
    println!("scenarios: {}", site.describe());
    drop(site);
    let (passed, failed) = std::thread::scope(|scope| {
        let other = scope.spawn(|| lane(&top, &booted));
        let (mut passed, mut failed) = lane(&top, &resumed);
        let (more, worse) = other
            .join()
            .unwrap_or_else(|_| (0, booted.iter().map(|s| s.name).collect()));
        passed += more;
        failed.extend(worse);
        (passed, failed)
    });
    for name in &failed {
        println!("failed: {name}");
    }
    println!("scenarios: {passed} passed, {} failed", failed.len());
    Ok(failed.is_empty())
}

/// Runs these one after the other: how many held, and the names of those that did not.
fn lane(top: &Path, scenarios: &[&Scenario]) -> (usize, Vec<&'static str>) {
    let (mut passed, mut failed) = (0, Vec::new());
    let site = Site::new(top);
    for scenario in scenarios {
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
