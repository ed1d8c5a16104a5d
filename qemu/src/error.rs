//! What can go wrong with a virtual machine, told so that the report alone is enough to understand it.
//!
//! Invariant: an error that concerns a running machine carries its [`Evidence`], the last lines of its serial console and
//! what QEMU said on its standard error. Nothing here is decided from a message meant for people.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// The last that was heard of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The last lines of the first serial console, without escape sequences.
    pub serial: String,
    /// The last lines that QEMU wrote to its standard error.
    pub stderr: String,
    /// The whole serial log.
    pub log: PathBuf,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.stderr.trim().is_empty() {
            write!(f, "\n--- QEMU said\n{}", self.stderr.trim_end())?;
        }
        if !self.serial.trim().is_empty() {
            write!(
                f,
                "\n--- end of {}\n{}\n---",
                self.log.display(),
                self.serial.trim_end()
            )?;
        }
        Ok(())
    }
}

/// An error of a virtual machine or of what it is made of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, socket or process operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was done, such as `reading`.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program is not there, or cannot be run.
    #[error("{program} cannot be run; install it with: {advice}")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        advice: &'static str,
        /// Why it could not be run.
        #[source]
        source: io::Error,
    },
    /// This QEMU corrupts its guests' memory under software emulation.
    #[error("QEMU {found} is too old: 9.0 or newer is needed (older ones corrupt a guest's memory). {advice}")]
    TooOld {
        /// The version that is installed.
        found: String,
        /// How to get a newer one.
        advice: &'static str,
    },
    /// A helper program ended with an error.
    #[error("{program} failed ({status}): {stderr}")]
    Tool {
        /// The program and its main argument.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The description of a machine asks for what cannot be.
    #[error("VM {vm}: {problem}")]
    Config {
        /// The machine's name.
        vm: String,
        /// What cannot be.
        problem: String,
    },
    /// QEMU ended, or was never started, and the operation needs it.
    #[error("VM {vm}: {operation}: QEMU is not running ({status}){evidence}")]
    NotRunning {
        /// The machine's name.
        vm: String,
        /// What was asked of it.
        operation: String,
        /// How it ended.
        status: String,
        /// The last that was heard of it.
        evidence: Box<Evidence>,
    },
    /// Something did not happen in time.
    #[error("VM {vm}: {awaited} did not happen within {after:?}{evidence}")]
    Timeout {
        /// The machine's name.
        vm: String,
        /// What was waited for.
        awaited: String,
        /// How long.
        after: Duration,
        /// The last that was heard of the machine.
        evidence: Box<Evidence>,
    },
    /// QEMU or the guest agent refused a command.
    #[error("VM {vm}: {command} was refused ({class}): {description}{evidence}")]
    Refused {
        /// The machine's name.
        vm: String,
        /// The command.
        command: String,
        /// QEMU's class of errors.
        class: String,
        /// What it said.
        description: String,
        /// The last that was heard of the machine.
        evidence: Box<Evidence>,
    },
    /// QEMU or the guest agent answered with something that is no answer.
    #[error("VM {vm}: {command} was answered with nonsense")]
    Protocol {
        /// The machine's name.
        vm: String,
        /// The command.
        command: String,
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A saved state cannot be used any more.
    #[error("the saved state {} cannot be used: {problem}", path.display())]
    Stale {
        /// Its directory.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A block server was asked for what cannot be.
    #[error("block server: {problem}")]
    Block {
        /// What cannot be.
        problem: String,
    },
    /// A pattern to expect is no regular expression.
    #[error("the pattern {pattern:?} is not valid")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        #[source]
        source: Box<regex::Error>,
    },
}

/// What an error means to who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The machine that runs the tests lacks something.
    Host,
    /// What was asked for cannot be: the caller is to change.
    Usage,
    /// The virtual machine is gone.
    Ended,
    /// The virtual machine is there, but what was awaited did not happen.
    Timeout,
    /// QEMU or the guest agent said no.
    Refused,
}

impl Error {
    /// What this error means to who gets it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } | Error::Missing { .. } | Error::TooOld { .. } | Error::Tool { .. } => ErrorKind::Host,
            Error::Config { .. } | Error::Stale { .. } | Error::Block { .. } | Error::Pattern { .. } => {
                ErrorKind::Usage
            }
            Error::NotRunning { .. } => ErrorKind::Ended,
            Error::Timeout { .. } => ErrorKind::Timeout,
            Error::Refused { .. } | Error::Protocol { .. } => ErrorKind::Refused,
        }
    }

    /// Makes a function for `map_err` that says what was done to which path.
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }
}
