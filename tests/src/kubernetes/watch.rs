//! When a claim was first seen in each of its phases: told by a watch, as a controller is told, so that neither starting `kubectl`
//! nor asking again and again is in what is measured.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Cluster;

/// How often it is looked whether all that is to run does.
const LOOK: Duration = Duration::from_secs(1);

/// When each claim was seen to be in each phase.
pub type Phases = BTreeMap<(String, String), Instant>;

/// A watch that runs.
pub struct Watch {
    child: Child,
    lines: Receiver<(Instant, String)>,
    seen: Phases,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// Watches the claims of the namespace `default`.
    pub fn watch_claims(&self) -> Result<Watch> {
        let mut command = Command::new(self.file("kubectl")?);
        command
            .arg(format!("--kubeconfig={}", self.config("admin").display()))
            .args(["get", "pvc", "--watch", "-o"])
            .arg(r#"jsonpath={.metadata.name} {.status.phase}{"\n"}"#)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = cistern_qemu::spawn(command, Vec::new()).context("watching the claims")?;
        let output = child.stdout.take().context("a watch's output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody reads it any more.
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Watch {
            child,
            lines,
            seen: Phases::new(),
        })
    }
}

impl Watch {
    /// Waits until so many claims whose names begin so were seen to be bound; what was seen so far. A sidecar that ends meanwhile is
    /// started again, as everywhere.
    pub fn bound(&mut self, cluster: &Cluster, prefix: &str, count: usize, limit: Duration) -> Result<&Phases> {
        let end = Instant::now() + limit;
        loop {
            let is_bound = |(name, phase): &&(String, String)| phase == "Bound" && name.starts_with(prefix);
            let bound = self.seen.keys().filter(is_bound).count();
            if bound >= count {
                return Ok(&self.seen);
            }
            cluster.check_running()?;
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok((at, line)) => {
                    if let Some((name, phase)) = line.split_once(' ') {
                        let key = (name.to_owned(), phase.to_owned());
                        self.seen.entry(key).or_insert(at);
                    }
                }
                Err(RecvTimeoutError::Timeout) if left > LOOK => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{bound} of {count} claims were bound after {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the watch of the claims ended; {bound} of {count} were bound")
                }
            }
        }
    }
}
