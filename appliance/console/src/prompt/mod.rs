//! The session on the console: the banner, then commands at a prompt, until it is ended.
//!
//! Invariant: nothing that is typed, and no answer or silence of the supervisor, ends the session or leaves it without a
//! prompt. Only `exit` and the end of the input do.

mod banner;
mod completer;
mod editor;
mod plain;
mod root_shell;
pub(crate) mod terminal;

use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::error::ErrorKind as ParseError;
use clap::{CommandFactory, Parser};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Command, Global, Line, LineCommand};
use crate::commands;
use crate::error::CliError;
use banner::Watch;
use terminal::Terminal;

const PROMPT: &str = "cistern> ";

/// What a reader of lines gives.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    /// A line.
    Line(String),
    /// The line was given up; a new prompt.
    Nothing,
    /// There is something new to show.
    News,
    /// There will be no more.
    End,
}

/// Reads lines, one way or another.
trait Reader {
    /// Shows the prompt and waits for a line, or for news.
    fn read(&mut self, watch: &Watch) -> Result<Input, CliError>;
}

/// Runs a session until it is ended.
pub(crate) fn session(runtime: &Runtime, global: &Global) -> Result<(), CliError> {
    let mut terminal = None;
    let ended = lines(runtime, global, &mut terminal);
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    ended
}

fn lines(runtime: &Runtime, global: &Global, terminal: &mut Option<Terminal>) -> Result<(), CliError> {
    // From here on neither Ctrl-C nor Ctrl-\ ends the program.
    runtime
        .block_on(async { signal(SignalKind::interrupt()).and(signal(SignalKind::quit())) })
        .map(drop)
        .map_err(|error| CliError::io("catching signals", error))?;
    let terminal = terminal.insert(Terminal::prepare());
    let watch = Watch::start(global.clone());
    banner::show(&watch);
    let mut reader: Box<dyn Reader> = if terminal.answers() {
        Box::new(editor::Editor::new(terminal.typed_ahead(), &watch))
    } else {
        Box::new(plain::Plain::new(terminal.typed_ahead()))
    };
    loop {
        let read = catch_unwind(AssertUnwindSafe(|| reader.read(&watch)));
        let line = match read {
            Ok(Ok(Input::Line(line))) => line,
            Ok(Ok(Input::Nothing)) => continue,
            Ok(Ok(Input::News)) => {
                banner::show(&watch);
                continue;
            }
            Ok(Ok(Input::End)) => return Ok(()),
            Ok(Err(error)) if reader_is_last_resort(&error) => return Err(error),
            Ok(Err(_)) | Err(_) => {
                // The terminal does not do what the line editor needs; reading plain lines always works.
                terminal.use_plain_lines();
                eprintln!();
                reader = Box::new(plain::Plain::new(String::new()));
                continue;
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            execute(&line, global, &watch, |global, command| {
                runtime.block_on(async {
                    // A stream of its own for each command: what was typed before is not meant for it.
                    let mut interrupts =
                        signal(SignalKind::interrupt()).map_err(|error| CliError::io("catching signals", error))?;
                    tokio::select! {
                        result = commands::run(global, command) => result,
                        _ = interrupts.recv() => {
                            eprintln!("\ninterrupted; what was begun on the appliance goes on");
                            Ok(())
                        }
                    }
                })
            })
        }));
        match done {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) => eprintln!("error: a fault of this program; the appliance goes on"),
        }
        terminal.settle();
    }
}

/// Plain lines are the last resort: where they cannot be read there is no console.
fn reader_is_last_resort(error: &CliError) -> bool {
    matches!(error, CliError::Io { what, .. } if what == plain::READING)
}

/// Executes a line; true if it ends the session.
fn execute(
    line: &str,
    session: &Global,
    watch: &Watch,
    run: impl FnOnce(&Global, Command) -> Result<(), CliError>,
) -> bool {
    let Some(mut words) = shlex::split(line) else {
        eprintln!("error: a quote is not closed");
        return false;
    };
    // Whoever types the program's name out of habit means the same.
    if words.len() > 1 && words.first().is_some_and(|w| w == "cistern") {
        words.remove(0);
    }
    match words.first().map(String::as_str) {
        None => return false,
        // A comment, as scripts have them.
        Some(first) if first.starts_with('#') => return false,
        Some("?") => words = vec!["help".to_owned()],
        Some(_) => {}
    }
    let Line { command, mut global } = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => {
            let text = error.render().to_string();
            if matches!(error.kind(), ParseError::DisplayHelp | ParseError::DisplayVersion) {
                println!("{}", text.trim_end());
            } else {
                eprintln!("{}", text.trim_end());
            }
            return false;
        }
    };
    match command {
        LineCommand::Command(command) => {
            global.profile = global.profile.or_else(|| session.profile.clone());
            if let Err(error) = run(&global, *command) {
                error.report();
            }
        }
        LineCommand::Shell => root_shell::run(watch),
        LineCommand::Banner => banner::show(watch),
        LineCommand::Clear => {
            print!("\x1b[H\x1b[2J");
            let _ = std::io::Write::flush(&mut std::io::stdout());
        }
        LineCommand::Exit => return true,
    }
    false
}

/// The tree of what is understood at the prompt.
fn tree() -> clap::Command {
    let mut tree = Line::command();
    tree.build();
    tree
}
