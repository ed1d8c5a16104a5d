//! What goes wrong in an operation. Invariant: an error says which object, what is the matter and what to do, keeps its
//! cause, and has a kind that every front door maps.

use std::error::Error as _;

use cistern_host::{HostError, HostErrorKind};
use cistern_model::{DiskId, ErrorKind, Invalid, Problem};
use thiserror::Error;

/// An operation that failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A value in the request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// No such object, or none that the caller may see.
    #[error("there is no {what} {name}")]
    NotFound {
        /// What kind of object.
        what: &'static str,
        /// Its name or id, as it was given.
        name: String,
    },
    /// The caller's role does not allow this.
    #[error("{0}")]
    Forbidden(String),
    /// The name is in use by an object that differs from what was asked for.
    #[error("{0}")]
    NameTaken(String),
    /// The object's state does not allow this now.
    #[error("{0}")]
    Conflict(String),
    /// A disk cannot be used.
    #[error("disk {disk} cannot be used: {why}")]
    DiskInUse {
        /// Which.
        disk: DiskId,
        /// Why, and what to do.
        why: String,
    },
    /// More space was asked for than there is.
    #[error("{0}")]
    NoSpace(String),
    /// Something that this needs is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// The machine failed at a step.
    #[error("{doing}")]
    Host {
        /// What the step was for.
        doing: String,
        /// What failed.
        #[source]
        source: HostError,
    },
}

impl EngineError {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EngineError::Invalid(_) => ErrorKind::Invalid,
            EngineError::NotFound { .. } => ErrorKind::NotFound,
            EngineError::Forbidden(_) => ErrorKind::Forbidden,
            EngineError::NameTaken(_) => ErrorKind::NameTaken,
            EngineError::Conflict(_) => ErrorKind::Conflict,
            EngineError::DiskInUse { .. } => ErrorKind::DiskInUse,
            EngineError::NoSpace(_) => ErrorKind::NoSpace,
            EngineError::Unavailable(_) => ErrorKind::Unavailable,
            EngineError::Host { source, .. } => match source.kind() {
                HostErrorKind::Busy => ErrorKind::Conflict,
                HostErrorKind::TimedOut => ErrorKind::TimedOut,
                HostErrorKind::Failed => ErrorKind::Internal,
                HostErrorKind::PowerLost => ErrorKind::Unavailable,
            },
        }
    }

    /// The error as the API answers it, its causes in its detail.
    pub fn problem(&self) -> Problem {
        let mut detail = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            detail.push_str(": ");
            detail.push_str(&error.to_string());
            cause = error.source();
        }
        Problem::new(self.kind(), detail)
    }
}

impl From<Invalid> for EngineError {
    fn from(invalid: Invalid) -> Self {
        EngineError::Invalid(invalid.to_string())
    }
}

/// Says what a call to the machine was for.
pub(crate) trait Doing<T> {
    /// Wraps the error, with what was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, EngineError>;
}

impl<T> Doing<T> for Result<T, HostError> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, EngineError> {
        self.map_err(|source| EngineError::Host { doing: what(), source })
    }
}
