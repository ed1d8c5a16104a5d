//! Questions to the person at the terminal. Invariant: where there is nobody to ask, the answer is no.

use std::io::{IsTerminal, Write};

use crate::error::CliError;
use crate::output::shown;
use crate::prompt::terminal::with_lines;

/// Whether there is somebody to ask.
pub(crate) fn somebody() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a question and gives the answer's line; none at the end of the input.
pub(crate) fn line(question: &str) -> Result<Option<String>, CliError> {
    let failed = |error| CliError::io("asking", error);
    let mut answer = String::new();
    let read = with_lines(|| {
        eprint!("{} ", shown(question));
        std::io::stderr().flush()?;
        std::io::stdin().read_line(&mut answer)
    });
    Ok((read.map_err(failed)? > 0).then(|| answer.trim().to_owned()))
}

/// Goes on only if it is confirmed, by `--yes` or by the person at the terminal.
pub(crate) fn confirm(yes: bool, what: &str, question: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let refuse = || CliError::NotConfirmed {
        what: what.to_owned(),
        hint: "confirm with --yes",
    };
    if !somebody() {
        return Err(refuse());
    }
    match line(&format!("{question} [y/N]"))?.as_deref() {
        Some("y" | "Y" | "yes") => Ok(()),
        _ => Err(refuse()),
    }
}
