//! The whole machine, started from all of its disks as a cut left them: also the one with its state, where keys, records,
//! tokens and its certificate are.
//!
//! Invariant: what was promised is there, and the laptop that was enrolled before the pool was made finds the same
//! appliance, which knows it.

use anyhow::{Context, Result};
use cistern_model::Pool;

use super::checker::{self, PATH, SCRIPT};
use super::ledger::Verdict;
use super::{Plan, Recorded, SYSTEM};
use crate::cli::Cli;
use crate::lab::{Machine, Site};

/// Starts it, and looks at all of it.
pub(super) fn check(site: &Site, recorded: &Recorded, plan: &Plan) -> Result<Verdict> {
    let view = recorded.disks.cut(&plan.cut)?;
    let pool_disks: Result<Vec<_>, _> = view
        .names()
        .into_iter()
        .filter(|name| *name != SYSTEM)
        .map(|name| view.disk(name))
        .collect();
    let pool_disks = pool_disks?;
    let count = pool_disks.len();
    let machine = Machine::default().system(view.disk(SYSTEM)?).pool_disks(pool_disks);
    let lab = site.boot_beside(&format!("boot-{}", plan.number), machine)?;
    lab.check(|lab| {
        lab.appliance.banner_within(checker::START)?;
        lab.wait_for_api()?;
        let shell = lab.appliance.root_shell()?;
        shell.install(PATH, SCRIPT)?;
        let (told, mut verdict) = checker::examine(&shell, plan, recorded, count)?;
        let known = Cli::new(&recorded.laptop, &lab.appliance.url()?)?;
        if let Err(error) = known.json::<Vec<Pool>>(&["pools", "list"]) {
            verdict
                .lost
                .push(format!("the laptop is not known any more: {error:#}"));
        }
        if !verdict.lost.is_empty() {
            let evidence = shell.run_for(&format!("bash {PATH} evidence"), checker::LIMIT)?;
            let file = lab.directory().join("lost.txt");
            std::fs::write(&file, format!("{plan:#?}\n{verdict:#?}\n{told}\n{evidence}"))
                .with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(verdict)
    })
}
