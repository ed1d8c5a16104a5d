//! By what nodes are known to a cluster: certificates of their own, from an authority of the cluster's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::cluster::Cluster;

/// How long what is made here holds; a cluster of tests is gone in an hour.
const DAYS: &str = "2";
const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Cluster {
    /// Makes the authority whose certificates the API server takes; the path of its own.
    pub(super) fn make_authority(&self) -> Result<PathBuf> {
        let (key, certificate) = self.authority_files();
        openssl(
            &["req", "-x509", "-days", DAYS, "-subj", "/CN=nodes"],
            KEY,
            &[("-keyout", &key), ("-out", &certificate)],
        )?;
        Ok(certificate)
    }

    /// Makes the key and the certificate of a node: the paths of both.
    pub(super) fn make_node_certificate(&self, node: &str) -> Result<(PathBuf, PathBuf)> {
        let (authority_key, authority) = self.authority_files();
        let path = |ending: &str| self.path(&format!("{node}.{ending}"));
        let (key, request, certificate) = (path("key"), path("csr"), path("crt"));
        openssl(
            &["req", "-subj", &format!("/O=system:nodes/CN=system:node:{node}")],
            KEY,
            &[("-keyout", &key), ("-out", &request)],
        )?;
        openssl(
            &["x509", "-req", "-days", DAYS, "-CAcreateserial"],
            &[],
            &[
                ("-in", &request),
                ("-CA", &authority),
                ("-CAkey", &authority_key),
                ("-out", &certificate),
            ],
        )?;
        Ok((key, certificate))
    }

    fn authority_files(&self) -> (PathBuf, PathBuf) {
        (self.path("nodes.key"), self.path("nodes.crt"))
    }
}

fn openssl(words: &[&str], more: &[&str], files: &[(&str, &Path)]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(words).args(more);
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let output = command.stdin(Stdio::null()).output().context("running openssl")?;
    ensure!(
        output.status.success(),
        "openssl {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
