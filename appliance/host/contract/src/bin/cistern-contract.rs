//! Holds the contracts against Linux, on disks that are named and that nobody needs.
//!
//!     cistern-contract NODE NODE NODE NODE [--only NAME...]
//!
//! A line for each, `ok NAME (TIME)` or `BROKEN NAME (TIME): WHY`; the last line is `contract: N held, N broken`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cistern_contract::{LinuxMachine, all, hold, prepare};

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let only = words.iter().position(|word| word == "--only").map(|at| {
        let names = words.split_off(at);
        names.into_iter().skip(1).collect::<Vec<_>>()
    });
    if words.len() < 4 {
        eprintln!("cistern-contract: name four disks that may be used up");
        return ExitCode::from(2);
    }
    let unknown = |name: &&String| !all().any(|contract| contract.name == name.as_str());
    if let Some(name) = only.iter().flatten().find(unknown) {
        eprintln!("cistern-contract: there is no contract {name}");
        return ExitCode::from(2);
    }
    let machine = match LinuxMachine::new(words.into_iter().map(PathBuf::from).collect()) {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("cistern-contract: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = prepare(&machine) {
        eprintln!("cistern-contract: the disks cannot be made ready: {why}");
        return ExitCode::FAILURE;
    }
    let (mut held, mut broken) = (0, 0);
    for contract in all() {
        if only
            .as_ref()
            .is_some_and(|names| !names.iter().any(|name| name == contract.name))
        {
            continue;
        }
        let begun = Instant::now();
        let outcome = hold(&machine, contract);
        let took = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                held += 1;
                println!("ok {} ({took:.1} s)", contract.name);
            }
            Err(why) => {
                broken += 1;
                println!("BROKEN {} ({took:.1} s): {}", contract.name, why.replace('\n', " | "));
            }
        }
    }
    println!("contract: {held} held, {broken} broken");
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
