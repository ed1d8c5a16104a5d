//! What the terminal can do, found out by asking it. Invariant: its modes are as they should be after each command, and
//! nothing that was typed meanwhile is lost.
//!
//! The line editor switches to raw mode for each line, and back. What is typed between two lines would be edited,
//! echoed and ended by the tty itself: a return key becomes a newline there, which the editor takes for another key,
//! and what follows it in the same reading is lost. So between lines the tty is quiet: it passes on what is typed as it
//! is. Whoever reads lines of the tty's own asks for that by [`with_lines`].

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::output::WIDTH;

/// How long a terminal may take to say where its cursor is. A person's terminal answers at once, even over a serial line.
const PATIENCE: Duration = Duration::from_millis(300);

/// The terminal on the standard input.
pub(crate) struct Terminal {
    modes: Option<Termios>,
    answers: bool,
    typed_ahead: String,
}

impl Terminal {
    /// Gives it a size if it has none, and asks it for its cursor's position, which the line editor needs.
    pub(crate) fn prepare() -> Self {
        let stdin = rustix::stdio::stdin();
        let mut terminal = Terminal {
            modes: None,
            answers: false,
            typed_ahead: String::new(),
        };
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return terminal;
        }
        // A serial line has no size; programs take that for a width of zero.
        if let Ok(size) = tcgetwinsize(stdin)
            && (size.ws_col == 0 || size.ws_row == 0)
        {
            let _ = tcsetwinsize(
                stdin,
                Winsize {
                    ws_row: 24,
                    ws_col: WIDTH,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
            );
        }
        let Ok(modes) = tcgetattr(stdin) else { return terminal };
        terminal.modes = Some(modes.clone());
        if std::env::var_os("TERM").is_none_or(|t| t == "dumb" || t.is_empty()) {
            return terminal;
        }
        let mut raw = modes;
        raw.make_raw();
        if tcsetattr(stdin, OptionalActions::Now, &raw).is_ok() {
            let seen = probe();
            let (answers, rest) = take_answer(&seen);
            terminal.answers = answers;
            terminal.typed_ahead = rest;
            terminal.settle();
        }
        terminal
    }

    /// Whether it says where its cursor is.
    pub(crate) fn answers(&self) -> bool {
        self.answers
    }

    /// What was typed before the prompt.
    pub(crate) fn typed_ahead(&self) -> String {
        self.typed_ahead.clone()
    }

    /// Puts its modes to what the next line needs: quiet where the line editor reads, as at the beginning where not.
    pub(crate) fn settle(&self) {
        match &self.modes {
            Some(modes) if self.answers => {
                let mut quiet = modes.clone();
                quiet.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
                quiet.input_modes &= !InputModes::ICRNL;
                set(&quiet);
            }
            _ => self.restore(),
        }
    }

    /// From now on the tty itself edits lines.
    pub(crate) fn use_plain_lines(&mut self) {
        self.answers = false;
        self.restore();
    }

    /// Puts its modes back to what they were at the beginning.
    pub(crate) fn restore(&self) {
        if let Some(modes) = &self.modes {
            set(modes);
        }
    }
}

fn set(modes: &Termios) {
    // If the terminal is gone, the next read says so.
    let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, modes);
}

/// Asks and reads a line of the terminal, or gives the terminal to another program, with the tty's own editing of lines. What
/// a person may answer to must be printed by `run`: what was typed into the quiet tty before is no line, and is dropped.
pub(crate) fn with_lines<T>(run: impl FnOnce() -> T) -> T {
    let stdin = rustix::stdio::stdin();
    let Ok(before) = tcgetattr(stdin) else {
        return run();
    };
    if before.local_modes.contains(LocalModes::ICANON) {
        return run();
    }
    let mut lines = before.clone();
    lines.local_modes |= LocalModes::ICANON | LocalModes::ECHO;
    lines.input_modes |= InputModes::ICRNL;
    let _ = tcsetattr(stdin, OptionalActions::Flush, &lines);
    let done = run();
    set(&before);
    done
}

fn probe() -> Vec<u8> {
    let mut out = std::io::stdout();
    let mut seen = Vec::new();
    if out.write_all(b"\x1b[6n").and_then(|()| out.flush()).is_err() {
        return seen;
    }
    let end = Instant::now() + PATIENCE;
    while !take_answer(&seen).0 && seen.len() < 4096 {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || !readable(left) {
            break;
        }
        let mut chunk = [0; 256];
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk) {
            Ok(count) if count > 0 => seen.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    seen
}

/// Whether the standard input can be read within this time. An interrupt ends the wait.
pub(crate) fn readable(within: Duration) -> bool {
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: i64::from(within.subsec_nanos()),
    };
    poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// Whether the bytes hold the answer `ESC [ row ; column R`, and what else they hold, as typed lines.
fn take_answer(seen: &[u8]) -> (bool, String) {
    let text = String::from_utf8_lossy(seen).replace('\r', "\n");
    let mut rest = text.as_str();
    let mut kept = String::new();
    while let Some(start) = rest.find("\x1b[") {
        let body = &rest[start + 2..];
        let digits = body
            .find(|c: char| !c.is_ascii_digit() && c != ';')
            .unwrap_or(body.len());
        kept.push_str(&rest[..start]);
        if body[digits..].starts_with('R') && body[..digits].contains(';') {
            kept.push_str(&body[digits + 1..]);
            return (true, kept);
        }
        rest = body;
    }
    kept.push_str(rest);
    (false, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_told_from_what_was_typed() {
        for (seen, answers, rest) in [
            ("", false, ""),
            ("\x1b[24;1R", true, ""),
            ("pools li\x1b[24;10Rst\r", true, "pools list\n"),
            ("pools list\r", false, "pools list\n"),
            ("\x1b[24;", false, "24;"),
        ] {
            assert_eq!(take_answer(seen.as_bytes()), (answers, rest.to_owned()), "{seen:?}");
        }
    }
}
