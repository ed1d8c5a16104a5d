//! The programs of Kubernetes and its siblings that tests run against, built from tests/peers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cli::top;

/// The paths of a peer's programs and files, which are built if they have not been.
pub(super) fn files(peer: &str) -> Result<Vec<PathBuf>> {
    let build = top()?.join("tests/peers/build");
    let output = Command::new(&build).arg(peer).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("running {}", build.display()))?;
    ensure!(output.status.success(), "building {peer} ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("the paths of programs")?;
    Ok(text.lines().map(PathBuf::from).collect())
}
