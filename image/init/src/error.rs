//! What can go wrong before systemd runs.
//!
//! Job: name the operation and the object, and keep the cause. Invariant: every variant says which file or device.
//! Not here: what to do about it; `main` prints and restarts.

use std::path::PathBuf;

use nix::errno::Errno;

/// A failed step, with the object that it was about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Mounting `what` on `target`.
    #[error("mount {what} on {target}")]
    Mount {
        what: String,
        target: PathBuf,
        #[source]
        source: Errno,
    },
    /// Opening, reading or making a file of the initramfs.
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Loading one kernel module.
    #[error("load kernel module {path}")]
    Module {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// A loop device operation.
    #[error("{action} loop device {device}")]
    Loop {
        action: &'static str,
        device: PathBuf,
        #[source]
        source: Errno,
    },
    /// Entering the new root.
    #[error("{action} {path}")]
    Switch {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// None of the init programs could be started.
    #[error("start {path}")]
    Start {
        path: PathBuf,
        #[source]
        source: Errno,
    },
}

impl Error {
    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_object_and_its_cause() {
        let error = Error::Mount {
            what: "erofs".into(),
            target: "/root".into(),
            source: Errno::EINVAL,
        };
        assert_eq!(error.chain(), "mount erofs on /root: EINVAL: Invalid argument");
    }
}
