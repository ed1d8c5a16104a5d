//! The one helper program of this crate: `qemu-img`, which makes the files of disks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::accel::INSTALL;
use crate::args::{OVMF_VARS, VARS};
use crate::config::{Boot, Config};
use crate::disk::{Backend, Disk};
use crate::error::{Error, Result};

/// Makes what a machine's description says is to be made anew in `dir`.
pub(crate) fn make_files(config: &Config, dir: &Path, vars: Option<&Path>) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
    for disk in &config.disks {
        make_disk(disk, dir)?;
    }
    if config.boot == Boot::Ovmf {
        let (from, to) = (vars.unwrap_or(Path::new(OVMF_VARS)), dir.join(VARS));
        fs::copy(from, &to).map_err(Error::io("copying the firmware's variables from", from))?;
    }
    Ok(())
}

/// Makes one disk's file, unless it is a file that was given.
pub(crate) fn make_disk(disk: &Disk, dir: &Path) -> Result<()> {
    let (base, size) = match &disk.backend {
        Backend::Blank { size } => (None, Some(*size)),
        Backend::Overlay { base, format, size } => (Some((base, *format)), *size),
        Backend::File { .. } | Backend::Nbd { .. } => return Ok(()),
    };
    let path = disk.path(dir);
    let mut command = Command::new("qemu-img");
    command.env("LC_ALL", "C").args(["create", "-q", "-f", "qcow2"]);
    if let Some((base, format)) = base {
        // QEMU looks for a relative base beside the overlay; ours are relative to where the caller is.
        let base = fs::canonicalize(base).map_err(Error::io("finding", base))?;
        command.arg("-b").arg(base).args(["-F", format.name()]);
    }
    command.arg(&path);
    if let Some(size) = size {
        command.arg(size.get().to_string());
    }
    let missing = |source| Error::Missing {
        program: "qemu-img".into(),
        advice: INSTALL,
        source,
    };
    let output = command.output().map_err(missing)?;
    if !output.status.success() {
        return Err(Error::Tool {
            program: format!("qemu-img create {}", path.display()),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().into(),
        });
    }
    Ok(())
}
