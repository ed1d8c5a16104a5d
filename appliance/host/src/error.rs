//! What goes wrong on a machine. Invariant: an error says which operation on which object, and keeps its cause. Its kind
//! comes from an exit status, an errno or a state that was read, never from a message meant for people.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// An operation on the machine that failed.
#[derive(Debug, Error)]
pub enum HostError {
    /// A program could not be run.
    #[error("{operation}: cannot run {program}")]
    Spawn {
        /// What was to be done to which object.
        operation: String,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{operation}: {program} ended with {status}: {stderr}")]
    Failed {
        /// What was to be done to which object.
        operation: String,
        /// The program.
        program: String,
        /// Its exit status, for people.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// It did not end in time; it was killed.
    #[error("{operation}: no end after {} s", limit.as_secs())]
    TimedOut {
        /// What was to be done to which object.
        operation: String,
        /// The limit.
        limit: Duration,
    },
    /// A system call, a file or the bus failed.
    #[error("{operation}")]
    Io {
        /// What was to be done to which object.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object is held by something else.
    #[error("{operation}: {object} is busy")]
    Busy {
        /// What was to be done.
        operation: String,
        /// The object.
        object: String,
    },
    /// What a tool or the kernel said could not be understood.
    #[error("{operation}: unexpected answer: {detail}")]
    Unexpected {
        /// What was to be done to which object.
        operation: String,
        /// What was not understood.
        detail: String,
    },
    /// The machine has lost its power (the in-memory machine only): nothing after this happened.
    #[error("the power is gone")]
    PowerLost,
}

/// What the caller can make of a [`HostError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostErrorKind {
    /// Something holds the object; later it may go.
    Busy,
    /// It is not known whether it was done; look, then ask again.
    TimedOut,
    /// Any other failure.
    Failed,
    /// The power is gone.
    PowerLost,
}

impl HostError {
    /// What the caller can make of it.
    pub fn kind(&self) -> HostErrorKind {
        match self {
            HostError::Busy { .. } => HostErrorKind::Busy,
            HostError::TimedOut { .. } => HostErrorKind::TimedOut,
            HostError::PowerLost => HostErrorKind::PowerLost,
            HostError::Spawn { .. }
            | HostError::Failed { .. }
            | HostError::Io { .. }
            | HostError::Unexpected { .. } => HostErrorKind::Failed,
        }
    }
}
