//! Programs of a cluster that end: a sidecar is started again, as a kubelet does, and anything else fails the scenario.
//!
//! Invariant: a sidecar that ended although nothing was done to it or to its plugin fails the scenario too, at its end, and is told with
//! what it said last.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::cluster::{Cluster, Running};
use super::controllers::PLUGIN;

const SIDECAR: &str = "csi-";
/// What a sidecar says that ends because it leads no more: the API server did not answer in time.
const LOST_LEASE: &str = "stopped leading";
/// How often that may be: a machine that emulates several others stalls.
const LOST_LEASES: usize = 2;

/// Who ended, and whether that was to be expected.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// How often each may still end because its plugin was killed.
    expected: BTreeMap<String, usize>,
    /// How often each lost its lease.
    lost_leases: BTreeMap<String, usize>,
    /// What ended by itself, and what it said last.
    by_themselves: Vec<String>,
}

impl Restarts {
    /// Notes that one ended, which said this last.
    fn ended(&mut self, name: &str, said: &str) {
        if let Some(left) = self.expected.get_mut(name)
            && *left > 0
        {
            *left -= 1;
            return;
        }
        if said.to_lowercase().contains(LOST_LEASE) {
            let lost = self.lost_leases.entry(name.to_owned()).or_default();
            *lost += 1;
            if *lost <= LOST_LEASES {
                println!("     {name} lost its lease and was started again");
                return;
            }
        }
        self.by_themselves
            .push(format!("--- {name} ended by itself, and said last\n{said}\n"));
    }
}

impl Cluster {
    /// Kills a program, as a machine does that runs out of memory. It is started again; if it is the plugin, so are its sidecars, which
    /// end with their connection to it.
    pub fn kill(&self, name: &str) -> Result<()> {
        let mut running = self.take(name)?;
        running.child.kill().with_context(|| format!("killing {name}"))?;
        running.child.wait().with_context(|| format!("waiting for {name}"))?;
        if name == PLUGIN {
            let children = self.children.borrow();
            let mut restarts = self.restarts.borrow_mut();
            for sidecar in children.keys().filter(|name| name.starts_with(SIDECAR)) {
                *restarts.expected.entry(sidecar.clone()).or_default() += 1;
            }
        }
        self.start_again(name, &running)
    }

    /// Takes steps while a program does not run.
    pub fn without(&self, name: &str, steps: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
        let mut running = self.take(name)?;
        running.child.kill().with_context(|| format!("killing {name}"))?;
        running.child.wait().with_context(|| format!("waiting for {name}"))?;
        steps(self)?;
        self.start_again(name, &running)
    }

    /// Fails if something ended that nobody starts again; starts sidecars that ended.
    pub(super) fn check_running(&self) -> Result<()> {
        let ended: Vec<String> = {
            let mut children = self.children.borrow_mut();
            let ended = children
                .iter_mut()
                .filter_map(|(name, running)| match running.child.try_wait() {
                    Ok(None) => None,
                    Ok(Some(_)) | Err(_) => Some(name.clone()),
                });
            ended.collect()
        };
        for name in ended {
            let said = self.last_lines(&name);
            ensure!(name.starts_with(SIDECAR), "{name} ended, and said last\n{said}");
            let running = self.take(&name)?;
            self.restarts.borrow_mut().ended(&name, &said);
            self.start_again(&name, &running)?;
        }
        Ok(())
    }

    /// Fails if a sidecar ended to which nothing was done.
    pub(super) fn none_ended_by_itself(&self) -> Result<()> {
        self.check_running()?;
        let count = self.restarts.borrow().by_themselves.len();
        ensure!(
            count == 0,
            "sidecars ended by themselves and had to be started again, {count} times; what they said last is told first"
        );
        Ok(())
    }

    /// What ended to which nothing was done, for a report.
    pub(super) fn ended_by_itself(&self) -> String {
        self.restarts.borrow().by_themselves.concat()
    }

    fn take(&self, name: &str) -> Result<Running> {
        let running = self.children.borrow_mut().remove(name);
        running.with_context(|| format!("{name} does not run"))
    }

    fn start_again(&self, name: &str, ended: &Running) -> Result<()> {
        self.run_program(
            name,
            ended.program.clone(),
            ended.arguments.clone(),
            ended.environment.clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_that_ends_is_told_unless_its_plugin_was_killed_or_its_lease_lost() {
        let mut restarts = Restarts::default();
        restarts.expected.insert("csi-attacher".to_owned(), 1);
        restarts.ended("csi-attacher", "Lost connection to CSI driver, exiting");
        for _ in 0..LOST_LEASES {
            restarts.ended("csi-attacher", "\"Stopped leading\"");
        }
        assert!(restarts.by_themselves.is_empty(), "{restarts:?}");
        // Once is expected, and no lease is lost again and again.
        restarts.ended("csi-attacher", "panic");
        restarts.ended("csi-attacher", "\"Stopped leading\"");
        restarts.ended("csi-resizer", "panic");
        assert_eq!(restarts.by_themselves.len(), 3);
        assert!(restarts.by_themselves.concat().contains("csi-resizer ended by itself"));
    }
}
