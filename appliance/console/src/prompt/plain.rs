//! Lines from a terminal that is no more than a line, or from no terminal. The tty echoes and edits.

use std::io::Write;
use std::time::Duration;

use super::banner::Watch;
use super::terminal::readable;
use super::{Input, PROMPT, Reader};
use crate::error::CliError;

/// What fails when there is no console any more.
pub(crate) const READING: &str = "reading the console";

const TICK: Duration = Duration::from_millis(200);
const LONGEST: usize = 64 * 1024;

/// Reads plain lines.
pub(crate) struct Plain {
    typed: Vec<u8>,
}

impl Plain {
    pub(crate) fn new(typed_ahead: String) -> Self {
        Plain {
            typed: typed_ahead.into_bytes(),
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let end = self.typed.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.typed.drain(..=end).collect();
        Some(clean(&String::from_utf8_lossy(&line)))
    }
}

impl Reader for Plain {
    fn read(&mut self, watch: &Watch) -> Result<Input, CliError> {
        let failed = |error| CliError::io(READING, error);
        // What was typed while a command ran was meant for the command.
        watch.interrupted();
        print!(
            "{PROMPT}{}",
            String::from_utf8_lossy(&self.typed).lines().next().unwrap_or_default()
        );
        std::io::stdout().flush().map_err(failed)?;
        if let Some(line) = self.take_line() {
            println!();
            return Ok(Input::Line(line));
        }
        loop {
            if !readable(TICK) {
                if watch.interrupted() {
                    self.typed.clear();
                    println!();
                    return Ok(Input::Nothing);
                }
                if watch.take_news() {
                    println!();
                    return Ok(Input::News);
                }
                continue;
            }
            let mut chunk = [0; 4096];
            match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
                Ok(0) => {
                    println!();
                    return Ok(Input::End);
                }
                Ok(count) => self.typed.extend_from_slice(&chunk[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            if let Some(line) = self.take_line() {
                return Ok(Input::Line(line));
            }
            if self.typed.len() > LONGEST {
                self.typed.clear();
                eprintln!("error: the line is too long");
                return Ok(Input::Nothing);
            }
        }
    }
}

/// Without what a key or a terminal sent as an escape sequence, a late answer about its cursor for one.
fn clean(line: &str) -> String {
    let mut kept = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if !c.is_control() {
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_of_the_terminal_is_not_part_of_the_line() {
        assert_eq!(clean("\x1b[24;80Rpools list\r\n"), "pools list");
        assert_eq!(clean("pools\x1b[A list\n"), "pools list");
    }
}
