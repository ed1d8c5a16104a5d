//! Measures; each figure beside its floor.
//!
//! Prints a table, writes the same with every single value to target/bench/bench.json, and ends with `bench: N figures`.
//! A figure that misses its aim is no failure; only what could not be measured is. `BENCH_RUNS=5` is a short run.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use cistern_tests::bench::{Counts, Sheet, run};
use cistern_tests::cli::top;
use cistern_tests::lab::Site;

fn main() -> ExitCode {
    let mut sheet = Sheet::default();
    let result = measure(&mut sheet);
    if !sheet.is_empty() {
        println!("{}", sheet.table());
    }
    if let Err(error) = &result {
        eprintln!("bench: {error:#}");
    }
    println!("bench: {} figures", sheet.len());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn measure(sheet: &mut Sheet) -> Result<()> {
    let began = Instant::now();
    let top = top()?;
    let counts = Counts::from_environment()?;
    let site = Site::new(&top)?;
    let load = load();
    println!("bench: {}; load {load}", site.describe());
    let result = run(&site, &top, counts, sheet);
    let directory = top.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let machine = serde_json::json!({
        "runs_on": site.describe(),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "load_before": load,
        "load_after": self::load(),
        "seconds": began.elapsed().as_secs(),
        "volumes": counts.volumes,
        "complete": result.is_ok(),
    });
    sheet.write(&directory.join("bench.json"), &machine)?;
    result
}

/// What else this machine does: the load averages.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
