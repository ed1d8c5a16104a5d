//! Runs programs. The only place in Cistern that does.
//!
//! Invariant: a program gets an argument list (never a shell), a fixed environment, no input but a few lines at most, and a
//! limit; at the limit its whole process group is asked to end, and then killed. What it prints is captured, never shown.
//! Between its fork and its exec a program has copies of all that is open here, and [`close`] waits for that: a device that
//! was opened exclusively would stay busy for as long, for whoever mounts it next.
//!
//! Not here: what any program's arguments or output mean.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::HostError;

/// Where programs are looked for; never the caller's path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of standard error an error carries.
const STDERR_KEPT: usize = 2000;
/// More output than this is no report of anything.
const OUTPUT_LIMIT: usize = 256 << 20;
/// Read while a program is between its fork and its exec.
static STARTING: RwLock<()> = RwLock::new(());
/// How long a program that is to end has for that. LVM lets no signal through while it holds a group, and so ends only
/// where nothing is half done and no device is suspended.
const GRACE: Duration = Duration::from_secs(60);
/// How long to wait for a killed program before it is left to a thread of its own: one that hangs in the kernel goes
/// only when its disk answers.
const REAP: Duration = Duration::from_secs(2);

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

/// One run of a program.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// What is done to which object, for errors.
    pub(crate) operation: &'a str,
    /// The program, looked up in the system's directories.
    pub(crate) program: &'a str,
    /// Its arguments.
    pub(crate) args: &'a [String],
    /// How long it may take.
    pub(crate) limit: Duration,
    /// A library that is loaded into it.
    pub(crate) preload: Option<&'a str>,
}

/// Closes a file for good: when this returns, no program that is just starting has it open either.
pub(crate) fn close(file: File) {
    drop(file);
    drop(STARTING.write().unwrap_or_else(PoisonError::into_inner));
}

impl Run<'_> {
    /// Runs it; any exit status but 0 is an error.
    pub(crate) fn checked(&self) -> Result<Output, HostError> {
        self.checked_with("")
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn finished(&self) -> Result<Output, HostError> {
        self.finished_with("")
    }

    /// Runs it with a few lines, no more than a pipe holds, as its input; any exit status but 0 is an error.
    pub(crate) fn checked_with(&self, input: &str) -> Result<Output, HostError> {
        let output = self.finished_with(input)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(self.failed(&output)),
        }
    }

    fn finished_with(&self, input: &str) -> Result<Output, HostError> {
        let started = Instant::now();
        let output = self.run(started, input)?;
        tracing::debug!(
            program = self.program,
            args = ?self.args,
            status = %output.status,
            ms = started.elapsed().as_millis() as u64,
            "{}", self.operation
        );
        Ok(output)
    }

    /// The error for a run that ended badly.
    pub(crate) fn failed(&self, output: &Output) -> HostError {
        let status = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        HostError::Failed {
            operation: self.operation.to_owned(),
            program: self.program.to_owned(),
            status,
            stderr: tail(&output.stderr),
        }
    }

    fn run(&self, started: Instant, input: &str) -> Result<Output, HostError> {
        let starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(self.program)
            .args(self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .envs(self.preload.map(|library| ("LD_PRELOAD", library)))
            .current_dir("/")
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| HostError::Spawn {
                operation: self.operation.to_owned(),
                program: self.program.to_owned(),
                source,
            })?;
        drop(starting);
        let deadline = started + self.limit;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read it says itself why; closing it tells the end.
            let _ = stdin.write_all(input.as_bytes());
        }
        let ended = capture(&mut child, deadline).and_then(|pipes| {
            let status = wait(&mut child, deadline)?;
            Ok(status.zip(pipes))
        });
        match ended {
            Ok(Some((status, (stdout, stderr)))) => Ok(Output {
                status,
                stdout: String::from_utf8_lossy(&stdout).into_owned(),
                stderr: String::from_utf8_lossy(&stderr).into_owned(),
            }),
            Ok(None) => {
                kill(child);
                Err(HostError::TimedOut {
                    operation: self.operation.to_owned(),
                    limit: self.limit,
                })
            }
            Err(source) => {
                kill(child);
                Err(HostError::Io {
                    operation: self.operation.to_owned(),
                    source,
                })
            }
        }
    }
}

/// The end of a message, at a character's border.
fn tail(text: &str) -> String {
    let text = text.trim();
    let start = text.len().saturating_sub(STDERR_KEPT);
    let start = (start..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[start..].to_owned()
}

type Pipes = (Vec<u8>, Vec<u8>);

/// Reads both pipes to their ends; `None` at the deadline.
fn capture(child: &mut Child, deadline: Instant) -> io::Result<Option<Pipes>> {
    // They stay open: a program that is asked to end may still say something, and must not die of that.
    let (Some(out), Some(err)) = (child.stdout.as_mut(), child.stderr.as_mut()) else {
        return Err(io::Error::other("the program has no pipes"));
    };
    unblock(out.as_fd())?;
    unblock(err.as_fd())?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut waiting = Vec::with_capacity(2);
        if out_open {
            waiting.push(PollFd::new(out.as_fd(), PollFlags::POLLIN));
        }
        if err_open {
            waiting.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left.min(Duration::from_secs(3600))).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        out_open = out_open && drain(out, &mut stdout)?;
        err_open = err_open && drain(err, &mut stderr)?;
        if stdout.len() > OUTPUT_LIMIT || stderr.len() > OUTPUT_LIMIT {
            return Err(io::Error::other("the program prints without end"));
        }
    }
    Ok(Some((stdout, stderr)))
}

fn unblock(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads what is there; whether more may come.
fn drain(pipe: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    match pipe.read_to_end(into) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Waits for a program that has closed its pipes, which is at its end but for moments.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn kill(mut child: Child) {
    let group = Pid::from_raw(child.id().cast_signed());
    if killpg(group, Signal::SIGTERM).is_ok() && matches!(wait(&mut child, Instant::now() + GRACE), Ok(Some(_))) {
        // What it started itself has no such need.
        let _ = killpg(group, Signal::SIGKILL);
        return;
    }
    if let Err(errno) = killpg(group, Signal::SIGKILL) {
        tracing::warn!(%group, %errno, "cannot kill a program that took too long");
    }
    if !matches!(wait(&mut child, Instant::now() + REAP), Ok(Some(_))) {
        thread::spawn(move || child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostErrorKind;

    fn shell(script: &str, limit: Duration) -> Result<Output, HostError> {
        let args = ["-c".to_owned(), script.to_owned()];
        Run {
            operation: "test",
            program: "sh",
            args: &args,
            limit,
            preload: None,
        }
        .checked()
    }

    #[test]
    fn both_outputs_are_captured_without_blocking_each_other() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; head -c 300000 /dev/zero | tr '\\0' y";
        let output = shell(script, Duration::from_secs(20)).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    }

    #[test]
    fn the_environment_is_ours_and_input_is_empty() {
        let output = shell("cat; echo $LC_ALL:$HOME", Duration::from_secs(20)).unwrap();
        assert_eq!(output.stdout, "C:\n");
    }

    #[test]
    fn an_exit_status_is_an_error_that_carries_the_message() {
        let error = shell("echo why >&2; exit 5", Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.to_string(), "test: sh ended with exit status 5: why");
    }

    #[test]
    fn at_the_limit_the_whole_group_is_killed() {
        let started = Instant::now();
        let error = shell("sleep 600 & sleep 600", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.kind(), HostErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn a_program_at_its_limit_may_finish_what_it_is_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "trap 'echo done > {}; exit' TERM; while :; do sleep 0.1; done",
            file.path().display()
        );
        let error = shell(&script, Duration::from_secs(2)).unwrap_err();
        assert_eq!(error.kind(), HostErrorKind::TimedOut);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "done\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let run = Run {
            operation: "test",
            program: "no-such-program",
            args: &[],
            limit: Duration::from_secs(1),
            preload: None,
        };
        let error = run.checked().unwrap_err();
        assert_eq!(error.to_string(), "test: cannot run no-such-program");
    }

    #[test]
    fn what_was_closed_is_held_by_no_program_that_just_starts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let exclusive = || {
            let file = File::open(file.path()).unwrap();
            // A lock stays with the copies of a file that a fork makes, as an exclusive open of a device does.
            file.try_lock().map(|()| file)
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        shell("", Duration::from_secs(20)).unwrap();
                    }
                });
            }
            let mut held = 0;
            for _ in 0..500 {
                match exclusive() {
                    Ok(file) => close(file),
                    Err(_) => held += 1,
                }
                thread::sleep(Duration::from_micros(200));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(held, 0);
        });
    }
}
