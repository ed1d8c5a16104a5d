//! What a command can end with. Invariant: each error has an exit code and, where there is a way out, says it.

use cistern_client::ClientError;
use cistern_model::{ErrorKind, Invalid, Problem};
use thiserror::Error;

use crate::output::shown;

/// A command that did not do what was asked.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The appliance refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An argument is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A job ended with an error.
    #[error("{}", .0.detail)]
    Job(Problem),
    /// It would destroy something and was not confirmed.
    #[error("{what} was not confirmed, so nothing was done")]
    NotConfirmed {
        /// What.
        what: String,
        /// How to confirm.
        hint: &'static str,
    },
    /// No appliance is known.
    #[error("no appliance is known to this user")]
    NoProfile,
    /// Something about the settings or the arguments, with a kind of its own.
    #[error("{message}")]
    Other {
        /// Its kind.
        kind: ErrorKind,
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A cluster and its appliances were looked at, and something is the matter.
    #[error("{}", found(*errors, *warnings))]
    Found {
        /// What the worst of it is like.
        kind: ErrorKind,
        /// How much of it is serious.
        errors: usize,
        /// How much of it somebody should look at.
        warnings: usize,
    },
    /// Reading or writing on this machine failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which file.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The reader of the output went away.
    #[error("the output was closed")]
    Closed,
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        CliError::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn other(kind: ErrorKind, message: impl Into<String>, hint: Option<&str>) -> Self {
        CliError::Other {
            kind,
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    /// The exit code: the kind's, or 1 for a fault on this machine.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Client(error) => error.kind().exit_code(),
            CliError::Invalid(_) | CliError::NotConfirmed { .. } => ErrorKind::Invalid.exit_code(),
            CliError::Job(problem) => problem.kind.exit_code(),
            CliError::Other { kind, .. } | CliError::Found { kind, .. } => kind.exit_code(),
            CliError::NoProfile => ErrorKind::Unauthenticated.exit_code(),
            CliError::Io { .. } => 1,
            CliError::Closed => 0,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            CliError::Client(error) => error.hint(),
            CliError::NotConfirmed { hint, .. } => Some((*hint).to_owned()),
            CliError::NoProfile => Some(
                "cistern enrol https://ADDRESS:8443 --code CODE --fingerprint FINGERPRINT, as the appliance's console shows them"
                    .to_owned(),
            ),
            CliError::Other { hint, .. } => hint.clone(),
            CliError::Invalid(_)
            | CliError::Job(_)
            | CliError::Found { .. }
            | CliError::Io { .. }
            | CliError::Closed => None,
        }
    }

    /// Says it on the standard error output.
    pub(crate) fn report(&self) {
        if matches!(self, CliError::Closed) {
            return;
        }
        eprintln!("error: {}", shown(&self.to_string()));
        if let Some(hint) = self.hint() {
            eprintln!("  hint: {}", shown(&hint));
        }
    }
}

/// In words: `1 error and 2 warnings were found`.
fn found(errors: usize, warnings: usize) -> String {
    let count = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        many => Some(format!("{many} {word}s")),
    };
    let all: Vec<String> = [count(errors, "error"), count(warnings, "warning")]
        .into_iter()
        .flatten()
        .collect();
    let verb = if errors + warnings == 1 { "was" } else { "were" };
    format!("{} {verb} found", all.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_ends_with_its_exit_code_whether_from_a_request_or_a_job() {
        for kind in ErrorKind::ALL {
            let problem = Problem::new(kind, "why");
            assert_eq!(CliError::Job(problem.clone()).exit_code(), kind.exit_code());
            assert_eq!(
                CliError::from(ClientError::Problem(problem)).exit_code(),
                kind.exit_code()
            );
        }
        assert_eq!(found(1, 0), "1 error was found");
        assert_eq!(found(1, 2), "1 error and 2 warnings were found");
        let bad = "10.0.0.1/24".parse::<cistern_model::Client>().unwrap_err();
        assert_eq!(CliError::from(bad).exit_code(), 3);
        assert_eq!(CliError::io("x", std::io::Error::other("y")).exit_code(), 1);
    }
}
