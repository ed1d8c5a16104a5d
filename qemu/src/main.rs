//! `cistern-qemu`: a machine at the command line.
//!
//! Job: give a person at a terminal what scenarios have from the crate. Invariant: the terminal is put back as it was,
//! and the machine ends with the command.
//!
//! Not here: anything that a scenario could want too; that belongs to the library.

mod cli;
mod terminal;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cistern-qemu: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Probe => {
            println!("{}", cistern_qemu::probe()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(run) => {
            let dir = run.dir.clone();
            let forwards = run.forwards();
            let vm = run.builder()?.start(&dir)?;
            eprintln!("{} runs in {} with {}", vm.name(), dir.display(), vm.host());
            for guest in forwards {
                eprintln!("port {guest} of the guest is {}", vm.forwarded(guest)?);
            }
            terminal::attach(&vm)
        }
    }
}
