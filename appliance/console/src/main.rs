//! `cistern`: the command line, and the session on the appliance's console.
//!
//! Invariant: it does nothing by itself. Each command is a request to the API, over the network or over the appliance's
//! own socket, and its exit code is the kind of error that came of it.
//!
//! Not here: any device, any tool of the system but the root shell that is asked for by name.

mod ask;
mod cli;
mod commands;
mod error;
mod output;
mod profile;
mod progress;
mod prompt;
mod tables;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::io("starting", error)),
    };
    let result = match cli.command {
        Command::Console => prompt::session(&runtime, &cli.global),
        command => runtime.block_on(commands::run(&cli.global, command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    error.report();
    ExitCode::from(error.exit_code())
}
