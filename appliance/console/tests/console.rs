//! The session on the console, driven over a pseudo-terminal: one that answers about its cursor, and one that does not.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetwinsize;

const SOON: Duration = Duration::from_secs(20);

struct Session {
    child: Child,
    keyboard: File,
    terminal: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    /// Starts `cistern console` on a terminal without a size, with itself as the controlling one.
    fn start(answers: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", env!("CARGO_BIN_EXE_cistern"), "console"])
            .env("TERM", "linux")
            .env("CISTERN_ENDPOINT", "unix:/nonexistent/api.sock")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let (mut reader, mut keyboard) = (master.try_clone().unwrap(), master.try_clone().unwrap());
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if answers && chunk[..count].windows(4).any(|w| w == b"\x1b[6n") {
                    let _ = keyboard.write_all(b"\x1b[5;1R");
                }
                let _ = send.send(chunk[..count].to_vec());
            }
        });
        Session {
            child,
            keyboard: master,
            terminal,
            screen,
            seen: String::new(),
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text, and forgets all up to its end.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + SOON;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.push_str(&String::from_utf8_lossy(&chunk)),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
    }

    fn ended(&mut self) -> bool {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What works on every terminal.
fn mistakes_and_commands(session: &mut Session, enter: &str) {
    session.expect("Waiting for the supervisor");
    session.expect("cistern> ");
    assert_eq!(tcgetwinsize(&session.terminal).unwrap().ws_col, 80, "it has a size now");
    for (line, answer) in [
        ("volumes frobnicate", "unrecognized subcommand"),
        ("volumes create 'unclosed", "error: a quote is not closed"),
        ("volumes list", "error: unix:/nonexistent/api.sock cannot be reached"),
        ("clients add x 10.0.0.1/24", "bits set beyond its prefix"),
        ("help", "Go to a root shell"),
        ("completion bash", "_cistern"),
    ] {
        session.type_keys(&format!("{line}{enter}"));
        session.expect(answer);
        session.expect("cistern> ");
    }
}

#[test]
fn on_a_terminal_that_answers_nothing_the_prompt_still_works() {
    let mut session = Session::start(false);
    mistakes_and_commands(&mut session, "\n");
    session.type_keys("volumes li\x03");
    session.expect("cistern> ");
    session.type_keys("shell\n");
    session.expect("Type `root`");
    session.type_keys("no\n");
    session.expect("no shell was started");
    session.expect("cistern> ");
    session.type_keys("shell\n");
    session.expect("Type `root`");
    session.type_keys("root\n");
    session.expect("could not be recorded as an event");
    session.expect("# ");
    session.type_keys("echo I am $((40 + 2))\n");
    session.expect("I am 42");
    session.type_keys("exit\n");
    session.expect("cistern> ");
    session.type_keys("exit\n");
    assert!(session.ended());
}

#[test]
fn on_a_terminal_that_answers_there_are_completion_and_history() {
    let mut session = Session::start(true);
    mistakes_and_commands(&mut session, "\r");
    session.type_keys("volu\t");
    session.expect("volumes ");
    session.type_keys("\x03");
    session.expect("cistern> ");
    session.type_keys("pools show a-long-name\r");
    session.expect("cannot be reached");
    session.expect("cistern> ");
    session.type_keys("\x1b[A");
    session.expect("a-long-name");
    session.type_keys("\x03");
    session.expect("cistern> ");
    session.type_keys("exit\r");
    assert!(session.ended());
}

#[test]
fn what_is_typed_before_the_prompt_is_not_lost() {
    let mut session = Session::start(false);
    session.type_keys("volumes frobnicate\n");
    session.expect("unrecognized subcommand");
    session.expect("cistern> ");
}

/// Between two lines the terminal's modes change twice; what is typed in that moment is meant for the next line.
#[test]
fn what_is_typed_while_a_command_ends_is_not_lost() {
    let mut session = Session::start(true);
    session.expect("cistern> ");
    for n in 0..900u64 {
        session.type_keys("\r");
        std::thread::sleep(Duration::from_micros(n % 300 * 10));
        session.type_keys(&format!("word{n}\r"));
        session.expect(&format!("unrecognized subcommand 'word{n}'"));
    }
    session.type_keys("\rshell\r");
    session.expect("Type `root`");
    session.type_keys("no\r");
    session.expect("no shell was started");
    session.type_keys("shell\r");
    session.expect("Type `root`");
    session.type_keys("root\r");
    session.expect("# ");
    session.type_keys("echo I am $((40 + 2))\rexit\r");
    session.expect("I am 42");
    session.expect("cistern> ");
    session.type_keys("exit\r");
    assert!(session.ended());
}
