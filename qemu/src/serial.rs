//! A serial console: everything it prints is logged, and a script can wait for text and type.
//!
//! Invariant: every byte is in the log file before anything matches on it, and a console outlives its QEMU: after a power
//! cut the same log goes on, and text already matched is not matched again.
//!
//! Not here: what is typed and awaited; that is a scenario's business.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use regex::bytes::{Regex, RegexBuilder};

use crate::ansi::Stripper;
use crate::error::{Error, Evidence, Result};

/// How many lines of a log are told with an error.
const TAIL_LINES: usize = 25;

/// The answer to "where is the cursor": row 24, column 1. A line editor only needs to know that it is at a line's start.
const CURSOR: &[u8] = b"\x1b[24;1R";

/// A handle to a serial console; its clones are the same console.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

struct Inner {
    vm: String,
    log: PathBuf,
    stderr: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    /// What was printed, without escape sequences.
    text: Vec<u8>,
    /// Up to where it was matched.
    cursor: usize,
    line: Option<UnixStream>,
    /// Which connection `line` is, so that the end of an old one does not end a new one.
    connection: u64,
    tap: Option<Tap>,
}

type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// What a pattern matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was printed since the last match, up to this one.
    pub before: String,
    /// The text that matched.
    pub text: String,
    /// What the pattern's groups matched, the first group first.
    pub groups: Vec<Option<String>>,
}

impl Found {
    /// What the first group matched, or all that matched if the pattern has none.
    pub fn first(&self) -> &str {
        self.groups.iter().flatten().next().unwrap_or(&self.text)
    }
}

impl Console {
    /// A console that logs to `log`; `stderr` is where QEMU's complaints are kept.
    pub(crate) fn new(vm: &str, log: PathBuf, stderr: PathBuf) -> Console {
        let inner = Inner {
            vm: vm.into(),
            log,
            stderr,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        };
        Console { inner: Arc::new(inner) }
    }

    /// Takes over one end of a line whose other end QEMU has.
    pub(crate) fn attach(&self, line: UnixStream) -> Result<()> {
        let log = &self.inner.log;
        let mut reader = line.try_clone().map_err(Error::io("sharing the serial line of", log))?;
        let connection = {
            let mut state = self.lock();
            if state.file.is_none() {
                let file = File::options().create(true).append(true).open(log);
                state.file = Some(file.map_err(Error::io("opening", log))?);
            }
            state.line = Some(line);
            state.connection += 1;
            state.connection
        };
        let console = self.clone();
        let work = move || {
            let mut stripper = Stripper::default();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                console.take(&buffer[..count], &mut stripper);
            }
            let mut state = console.lock();
            if state.connection == connection {
                state.line = None;
            }
            console.inner.changed.notify_all();
        };
        let thread = std::thread::Builder::new().name(format!("serial {}", self.inner.vm));
        thread
            .spawn(work)
            .map(drop)
            .map_err(Error::io("starting a thread for", log))
    }

    fn take(&self, piece: &[u8], stripper: &mut Stripper) {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(file) = &mut state.file {
            // A full disk must not stop the guest; what it printed is still in memory.
            let _ = file.write_all(piece);
        }
        let seen = stripper.feed(piece, &mut state.text);
        match &mut state.tap {
            // A person's terminal answers for itself.
            Some(tap) => tap(piece),
            None => {
                for _ in 0..seen.cursor_queries {
                    if let Some(line) = &mut state.line {
                        let _ = line.write_all(CURSOR);
                    }
                }
            }
        }
        self.inner.changed.notify_all();
    }

    /// Waits until the regular expression `pattern` matches what was printed since the last match. `^` and `$` match at
    /// each line.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::NotRunning`] carry the last lines of the log.
    pub fn expect(&self, pattern: &str, within: Duration) -> Result<Found> {
        let regex = RegexBuilder::new(pattern).multi_line(true).build();
        let regex = regex.map_err(|source| Error::Pattern {
            pattern: pattern.into(),
            source: Box::new(source),
        })?;
        let began = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(found) = state.find(&regex) {
                return Ok(found);
            }
            let left = within.saturating_sub(began.elapsed());
            let (vm, evidence) = (self.inner.vm.clone(), |state: &State| Box::new(self.evidence_of(state)));
            if state.line.is_none() {
                let operation = format!("awaiting {pattern:?} on the console");
                let status = "the serial line is closed".into();
                return Err(Error::NotRunning {
                    vm,
                    operation,
                    status,
                    evidence: evidence(&state),
                });
            }
            if left.is_zero() {
                let awaited = format!("{pattern:?} on the console");
                return Err(Error::Timeout {
                    vm,
                    awaited,
                    after: within,
                    evidence: evidence(&state),
                });
            }
            let waited = self.inner.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Types `text` and the return key.
    pub fn send_line(&self, text: &str) -> Result<()> {
        self.send(format!("{text}\r").as_bytes())
    }

    /// Types these bytes.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        // Typed outside the lock: a guest that does not read must not stop its own output.
        let line = self.lock().line.as_ref().map(UnixStream::try_clone);
        let Some(line) = line else {
            return Err(Error::NotRunning {
                vm: self.inner.vm.clone(),
                operation: "typing on the console".into(),
                status: "the serial line is closed".into(),
                evidence: Box::new(self.evidence()),
            });
        };
        let log = &self.inner.log;
        line.and_then(|mut line| line.write_all(bytes))
            .map_err(Error::io("typing on the console that logs to", log))
    }

    /// Forgets what was printed so far: the next match starts after it.
    pub fn skip(&self) {
        let mut state = self.lock();
        state.cursor = state.text.len();
    }

    /// All that was printed since the machine was first started, without escape sequences.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().text).into_owned()
    }

    /// The file that has every byte.
    pub fn log(&self) -> &Path {
        &self.inner.log
    }

    /// The last that was heard of the machine.
    pub fn evidence(&self) -> Evidence {
        self.evidence_of(&self.lock())
    }

    /// Gives each piece that is printed to `tap` too, which answers the terminal's queries from now on.
    pub fn tap(&self, tap: impl FnMut(&[u8]) + Send + 'static) {
        self.lock().tap = Some(Box::new(tap));
    }

    /// Whether QEMU holds the other end of the line.
    pub fn is_open(&self) -> bool {
        self.lock().line.is_some()
    }

    pub(crate) fn vm(&self) -> &str {
        &self.inner.vm
    }

    /// Waits until all that QEMU printed before it ended is in the log.
    pub(crate) fn drain(&self, within: Duration) {
        let state = self.lock();
        let closed = self
            .inner
            .changed
            .wait_timeout_while(state, within, |state| state.line.is_some());
        let mut state = closed.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        if let Some(line) = state.line.take() {
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    fn evidence_of(&self, state: &State) -> Evidence {
        let stderr = std::fs::read(&self.inner.stderr).unwrap_or_default();
        Evidence {
            serial: tail(&state.text),
            stderr: tail(&stderr),
            log: self.inner.log.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn find(&mut self, regex: &Regex) -> Option<Found> {
        let unseen = &self.text[self.cursor..];
        let captures = regex.captures(unseen)?;
        let whole = captures.get(0)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = Found {
            before: text(&unseen[..whole.start()]),
            text: text(whole.as_bytes()),
            groups: captures
                .iter()
                .skip(1)
                .map(|group| group.map(|m| text(m.as_bytes())))
                .collect(),
        };
        self.cursor += whole.end();
        Some(found)
    }
}

/// The last lines of `text`.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (tempfile::TempDir, Console, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::new("vm", dir.path().join("serial.log"), dir.path().join("stderr"));
        let (ours, theirs) = UnixStream::pair().unwrap();
        console.attach(ours).unwrap();
        (dir, console, theirs)
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn text_that_comes_late_and_in_pieces_matches_once() {
        let (_dir, console, mut guest) = console();
        let typist = std::thread::spawn(move || {
            for piece in ["code: \x1b[1m12", "34\x1b[0m-5", "678\r\nlog", "in: login: "] {
                std::thread::sleep(Duration::from_millis(10));
                guest.write_all(piece.as_bytes()).unwrap();
            }
            guest
        });
        let code = console.expect(r"^code: (\d{4}-\d{4})$", SOON).unwrap();
        assert_eq!((code.first(), code.before.as_str()), ("1234-5678", ""));
        console.expect("login:", SOON).unwrap();
        console.expect("login:", SOON).unwrap();
        let again = console.expect("login:", Duration::from_millis(20)).unwrap_err();
        assert!(matches!(again, Error::Timeout { .. }), "{again}");
        drop(typist.join());
    }

    #[test]
    fn a_timeout_tells_the_last_lines_and_the_log_has_every_byte() {
        let (dir, console, mut guest) = console();
        let printed = (0..100).map(|n| format!("line {n}\x1b[K\r\n")).collect::<String>();
        guest.write_all(printed.as_bytes()).unwrap();
        console.expect("line 99", SOON).unwrap();
        let error = console
            .expect("never", Duration::from_millis(20))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 99") && error.contains("line 75\n") && !error.contains("line 74\n"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("serial.log")).unwrap(), printed);
    }

    #[test]
    fn a_line_editor_that_asks_for_the_cursor_is_answered_and_what_is_typed_arrives() {
        let (_dir, console, mut guest) = console();
        guest.write_all(b"\x1b[6n").unwrap();
        console.send_line("pools list").unwrap();
        let mut heard = Vec::new();
        while heard.len() < CURSOR.len() + 11 {
            let mut piece = [0; 64];
            let count = guest.read(&mut piece).unwrap();
            heard.extend(&piece[..count]);
        }
        let heard = String::from_utf8(heard).unwrap();
        assert!(
            heard.contains("\x1b[24;1R") && heard.contains("pools list\r"),
            "{heard:?}"
        );
    }

    #[test]
    fn a_machine_that_ends_is_told_at_once_and_its_last_words_still_match() {
        let (_dir, console, mut guest) = console();
        guest.write_all(b"panic\n").unwrap();
        drop(guest);
        console.expect("panic", SOON).unwrap();
        let began = Instant::now();
        let error = console.expect("login", Duration::from_secs(60)).unwrap_err();
        assert!(
            matches!(error, Error::NotRunning { .. }) && began.elapsed() < SOON,
            "{error}"
        );
    }
}
