//! A TPM 2 for a machine, by swtpm(8), which keeps what it knows beside the machine's disks.
//!
//! Invariant: it has one line, to the machine's QEMU, and ends with it; what it keeps outlives both.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::spawn::spawn;

const PROGRAM: &str = "swtpm";

/// One that runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Tpm(Child);

impl Tpm {
    /// Starts it at its end of the line.
    pub(crate) fn start(dir: &Path, line: OwnedFd) -> Result<Tpm> {
        let state = dir.join("tpm");
        fs::create_dir_all(&state).map_err(Error::io("making", &state))?;
        let log = dir.join("swtpm.stderr");
        let stderr = File::options().create(true).append(true).open(&log);
        let mut command = Command::new(PROGRAM);
        command
            .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,clientfd={}", line.as_raw_fd()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.map_err(Error::io("opening", &log))?);
        let missing = |source| Error::Missing {
            program: PROGRAM.into(),
            advice: "apt-get install swtpm",
            source,
        };
        Ok(Tpm(spawn(command, vec![line]).map_err(missing)?))
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // It may have ended with its line; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
