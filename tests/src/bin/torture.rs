//! Records a workload and checks what hundreds of power cuts would have left of it.
//!
//!     torture [--cuts N] [--within SECONDS] [--boots N] [--machines N] [--layout LAYOUT] [--checksums] [--encryption] [--lose-a-disk] [--keep]
//!
//! Prints in which phases the cuts fell, then `torture: N passed, N failed` and `torture: N cuts, 0 lost`; N are those that were
//! looked at, fewer than were asked for where the time was up. Cuts are chosen by `TORTURE_SEED`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use cistern_model::Layout;
use cistern_tests::cli::top;
use cistern_tests::torture::{self, Campaign};
use clap::Parser;

/// Checks what power cuts leave.
#[derive(Parser)]
struct Options {
    /// How many cuts.
    #[arg(long, default_value_t = 100)]
    cuts: usize,
    /// After how many seconds no further cut is begun.
    #[arg(long)]
    within: Option<u64>,
    /// How many cuts more, of each of which a machine is started from all of its disks, with its state as it was then.
    #[arg(long, default_value_t = 0)]
    boots: usize,
    /// How many machines check them side by side.
    #[arg(long, default_value_t = 2)]
    machines: usize,
    /// The pool's layout.
    #[arg(long, default_value = "mirror")]
    layout: Layout,
    /// With checksums below the pool.
    #[arg(long)]
    checksums: bool,
    /// With the pool encrypted.
    #[arg(long)]
    encryption: bool,
    /// With each cut one of the disks is lost too. What a parity's write hole has cost is counted by itself: bytes in a stripe
    /// that was being written when the power went, and no others.
    #[arg(long)]
    lose_a_disk: bool,
    /// Keeps the journal and LVM's state of each cut's check, in target/test/scenarios/torture-checker-N.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // As a whole it fails at its end, so that what went wrong is looked for there.
            println!("error: {error:#}");
            println!("torture: 0 passed, {} failed", options.cuts);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let seed = torture::seed()?;
    let campaign = Campaign {
        layout: options.layout,
        checksums: options.checksums,
        encryption: options.encryption,
        lose_a_disk: options.lose_a_disk,
        boots: options.boots,
        cuts: options.cuts,
        within: options.within.map(Duration::from_secs),
        machines: options.machines,
        seed,
        keep_all: options.keep,
    };
    println!("torture: {campaign:?}");
    let outcome = torture::run(&top()?, &campaign)?;
    for (phase, count) in &outcome.phases {
        println!("  {count:5}  {phase}");
    }
    outcome.enough_under_way()?;
    println!(
        "torture: recorded in {:.0} s, checked in {:.0} s, {} of {} between a request and its answer",
        outcome.recording, outcome.checking, outcome.under_way, outcome.cuts
    );
    for (step, took) in &outcome.times {
        println!("  {:7.2} s a cut  {step}", took / outcome.cuts.max(1) as f64);
    }
    let failed = outcome.lost.len();
    for lost in &outcome.lost {
        println!("LOST {lost}");
    }
    if options.lose_a_disk {
        println!(
            "torture: {} with a disk lost too: {} cuts met the write hole",
            options.layout,
            outcome.hole.len()
        );
    }
    println!("torture: {} passed, {failed} failed", outcome.cuts - failed);
    println!("torture: {} cuts, {failed} lost", outcome.cuts);
    Ok(failed == 0)
}
