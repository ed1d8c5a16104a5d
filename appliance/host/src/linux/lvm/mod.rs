//! LVM, by its own commands. Each call is one command; what could not be done is looked at afterwards, in the report or
//! the kernel, to say whether something holds it.

pub(crate) mod args;
mod durable;
mod gone;
mod limits;
mod messages;
mod raid;
mod raid_report;
mod raid_superblock;
mod raids;
mod report;
mod sight;
mod suspended;
mod takeover;
mod thin;
mod uneven;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cistern_model::Bytes;

use self::args::LvmCommand;
use self::durable::Commits;
pub(super) use self::durable::flush;
use self::sight::{Sight, prepared};
use super::disks::{self, held};
use super::file;
use super::run::{Output, Run};
use crate::{Activation, HostError, Lvm, LvmState, LvmStep, RaidLevel, TagChange, ThinSize};

/// LVM on this machine.
#[derive(Debug, Default)]
pub(super) struct LinuxLvm {
    counting: Mutex<()>,
    commits: Commits,
    sight: Sight,
}

impl LinuxLvm {
    fn run(&self, operation: &str, command: &LvmCommand) -> Result<Output, HostError> {
        self.checked(&prepared(operation, command))
    }

    /// Runs a command; any exit status but 0 is an error.
    fn checked(&self, run: &Run<'_>) -> Result<Output, HostError> {
        let output = self.finished(run)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(run.failed(&output)),
        }
    }

    /// Runs a command to its end, whatever that is.
    fn finished(&self, run: &Run<'_>) -> Result<Output, HostError> {
        match args::are_lvms(run.args) {
            true => self.sight.finished(run),
            // It looks at no devices but those that it is told.
            false => run.finished(),
        }
    }

    /// Runs a command that commits something to a group.
    fn change(&self, operation: &str, command: &LvmCommand, vg: &str) -> Result<(), HostError> {
        self.commit(operation, vg, || self.run(operation, command).map(drop))
    }

    /// Runs a command on volumes; a failure while one of them is open is `Busy`.
    fn run_on(&self, operation: &str, command: &LvmCommand, vg: &str, lv: Option<&str>) -> Result<(), HostError> {
        match self.run(operation, command) {
            Ok(_) => Ok(()),
            Err(error @ HostError::Failed { .. }) if self.open(operation, vg, lv).unwrap_or(false) => {
                tracing::debug!(%error, "it is open");
                Err(busy(
                    operation,
                    &lv.map_or_else(|| vg.to_owned(), |lv| format!("{vg}/{lv}")),
                ))
            }
            Err(error) => Err(error),
        }
    }

    fn open(&self, operation: &str, vg: &str, lv: Option<&str>) -> Result<bool, HostError> {
        let output = self.run(operation, &args::open_lvs(vg))?;
        report::any_open(&output.stdout, lv).map_err(|detail| unexpected(operation, detail))
    }

    /// Runs a command on a device; a failure while it is held is `Busy`.
    fn run_with(&self, operation: &str, command: &LvmCommand, nodes: &[PathBuf]) -> Result<(), HostError> {
        match self.run(operation, command) {
            Ok(_) => Ok(()),
            Err(error @ HostError::Failed { .. }) => match nodes.iter().find(|node| held(node)) {
                Some(node) => Err(busy(operation, &node.to_string_lossy())),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// Where what LVM uses of a device ends.
pub(super) fn used(operation: &str, node: &Path) -> Result<Bytes, HostError> {
    let output = prepared(operation, &args::used(node)).checked()?;
    report::used(&output.stdout).map_err(|detail| unexpected(operation, detail))
}

fn busy(operation: &str, object: &str) -> HostError {
    HostError::Busy {
        operation: operation.to_owned(),
        object: object.to_owned(),
    }
}

fn unexpected(operation: &str, detail: String) -> HostError {
    HostError::Unexpected {
        operation: operation.to_owned(),
        detail,
    }
}

impl Lvm for LinuxLvm {
    fn system_id(&self) -> Result<String, HostError> {
        let operation = "read the LVM system ID";
        let text = file::read(operation, args::SYSTEM_ID_FILE)?;
        let id = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'));
        // LVM drops other characters without a word; then ours would not be the one that groups carry.
        let plain = |id: &str| id.len() <= 128 && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
        match id {
            Some(id) if plain(id) => Ok(id.to_owned()),
            Some(_) | None => Err(unexpected(operation, format!("{:?}", text.trim()))),
        }
    }

    fn command_line(&self, step: &LvmStep) -> Result<Vec<String>, HostError> {
        Ok(args::step(step, &self.system_id()?).line())
    }

    fn state(&self) -> Result<LvmState, HostError> {
        let operation = "list LVM's volumes";
        let system_id = self.system_id()?;
        let command = args::report();
        let run = prepared(operation, &command);
        let output = self.finished(&run)?;
        // A group that lacks a device makes for a failed command and a good report.
        match report::state(&output.stdout, &system_id) {
            Ok(mut state) => {
                if !state.raids.is_empty() {
                    // LVM says of an image that the kernel ceased to fill the same as of a whole one.
                    let health = self.finished(&prepared(operation, &raid::raid_health()))?;
                    raid_report::note_health(&mut state.raids, &health.stdout);
                }
                self.learn(operation, &state.pvs);
                Ok(state)
            }
            Err(_) if !output.status.success() => Err(run.failed(&output)),
            Err(detail) => Err(unexpected(operation, detail)),
        }
    }

    fn hide(&self, nodes: BTreeSet<PathBuf>) {
        self.sight.hide(nodes);
    }

    fn resume(&self, patience: Duration) -> Result<Vec<String>, HostError> {
        self.resume_suspended(patience)
    }

    fn remove_pv(&self, node: &Path) -> Result<(), HostError> {
        let operation = format!("take LVM's label off {}", node.display());
        self.run_with(&operation, &args::remove_pv(node), &[node.to_owned()])?;
        durable::flush(&operation, [node.to_owned()])?;
        // udev is told by the kernel, some time later; who lists disks next is to find this one blank.
        disks::refresh(&operation, node)
    }

    fn create_vg(&self, vg: &str, nodes: &[PathBuf], tags: &[String]) -> Result<(), HostError> {
        let operation = format!("make volume group {vg}");
        let system_id = self.system_id()?;
        let command = args::create_vg(vg, &system_id, nodes, tags);
        self.commits.joined(vg, nodes);
        self.commit(&operation, vg, || self.run_with(&operation, &command, nodes))
    }

    fn remove_vg(&self, vg: &str) -> Result<(), HostError> {
        self.change(&format!("remove volume group {vg}"), &args::remove_vg(vg), vg)
    }

    fn tag_vg(&self, vg: &str, change: &TagChange) -> Result<(), HostError> {
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(());
        }
        self.change(&format!("tag volume group {vg}"), &args::tag_vg(vg, change), vg)
    }

    fn create_lv(
        &self,
        vg: &str,
        lv: &str,
        level: RaidLevel,
        extents: u64,
        nodes: &[PathBuf],
        tags: &[String],
    ) -> Result<(), HostError> {
        let command = args::create_lv(vg, lv, level, extents, nodes, tags);
        self.change(&format!("make volume {vg}/{lv}"), &command, vg)
    }

    fn extend_lv(&self, vg: &str, lv: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError> {
        self.change(
            &format!("extend volume {vg}/{lv}"),
            &args::extend_lv(vg, lv, extents, nodes),
            vg,
        )
    }

    fn convert_to_thin_pool(&self, vg: &str, data: &str, metadata: &str, chunk: Bytes) -> Result<(), HostError> {
        let command = args::convert_to_thin_pool(vg, data, metadata, chunk);
        self.change(&format!("make {vg}/{data} a thin pool"), &command, vg)
    }

    fn create_thin(&self, vg: &str, pool: &str, lv: &str, size: Bytes, tags: &[String]) -> Result<(), HostError> {
        let command = args::create_thin(vg, pool, lv, size, tags);
        self.run_thin(&format!("make thin volume {vg}/{lv}"), &command, vg)
    }

    fn create_thin_snapshot(
        &self,
        vg: &str,
        origin: &str,
        lv: &str,
        tags: &[String],
        active: bool,
    ) -> Result<(), HostError> {
        let command = args::create_thin_snapshot(vg, origin, lv, tags, active);
        self.run_thin(&format!("make {vg}/{lv}, a snapshot of {origin}"), &command, vg)
    }

    fn rename_lv(&self, vg: &str, from: &str, to: &str) -> Result<(), HostError> {
        let command = args::rename_lv(vg, from, to);
        self.run_thin(&format!("rename {vg}/{from} to {to}"), &command, vg)
    }

    fn extend_thin(&self, vg: &str, lv: &str, size: Bytes) -> Result<(), HostError> {
        self.run_thin(
            &format!("extend thin volume {vg}/{lv}"),
            &args::extend_thin(vg, lv, size),
            vg,
        )
    }

    fn tag_lv(&self, vg: &str, lv: &str, change: &TagChange) -> Result<(), HostError> {
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(());
        }
        self.change(&format!("tag volume {vg}/{lv}"), &args::tag_lv(vg, lv, change), vg)
    }

    fn activate_lv(&self, vg: &str, lv: &str, mode: Activation) -> Result<(), HostError> {
        self.run(&format!("activate {vg}/{lv}"), &args::activate_lv(vg, lv, mode))?;
        Ok(())
    }

    fn activate_vg(&self, vg: &str, mode: Activation) -> Result<(), HostError> {
        let operation = format!("activate {vg}");
        let activate = args::activate_vg(vg, mode);
        match self.note_uneven(&operation, vg) {
            Ok(None) => {}
            Ok(Some(why)) => return Err(unexpected(&operation, why)),
            // It is served as it has been for as long as there is device mapper's RAID.
            Err(error) => tracing::warn!(%error, vg, "whether its images are even cannot be told"),
        }
        let activated = self.run(&operation, &activate);
        // Now, while nothing of it is mounted: what is made now is a copy of what nobody is writing to.
        match self.finish_half_made(&operation, vg) {
            // One that the kernel did not have could not be activated.
            Ok(true) if activated.is_err() => self.run(&operation, &activate).map(drop),
            Ok(_) => activated.map(drop),
            Err(error) => {
                tracing::warn!(%error, vg, "whether a volume was half made cannot be told");
                activated.map(drop)
            }
        }
    }

    fn deactivate_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        let operation = format!("deactivate {vg}/{lv}");
        self.run_on(&operation, &args::deactivate_lv(vg, lv), vg, Some(lv))
    }

    fn deactivate_vg(&self, vg: &str) -> Result<(), HostError> {
        self.run_on(&format!("deactivate {vg}"), &args::deactivate_vg(vg), vg, None)
    }

    fn remove_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        let operation = format!("remove {vg}/{lv}");
        let command = args::remove_lv(vg, lv);
        let removed = self.commit(&operation, vg, || self.run_on(&operation, &command, vg, Some(lv)));
        match removed {
            Err(HostError::Failed { .. }) => self.run_thin(&operation, &command, vg),
            outcome => outcome,
        }
    }

    fn thin_sizes(&self, vg: &str, pool: &str) -> Result<BTreeMap<String, ThinSize>, HostError> {
        let operation = format!("count what the volumes of {vg}/{pool} take");
        // The kernel keeps one such view of a pool's metadata at a time.
        let _one = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = format!("{}-tpool", args::dm_name(vg, pool));
        let metadata = PathBuf::from(format!("/dev/mapper/{}", args::dm_name(vg, &format!("{pool}_tmeta"))));
        let ids = self.run(&operation, &args::thin_ids(vg))?;
        let ids = report::thin_ids(&ids.stdout, pool).map_err(|detail| unexpected(&operation, detail))?;
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        // One may be left from a count that was cut short; without any this fails, which is no matter.
        let _ = self.run(&operation, &args::metadata_snapshot(&layer, false));
        self.run(&operation, &args::metadata_snapshot(&layer, true))?;
        let counted = self.run(&operation, &args::thin_ls(&metadata));
        let released = self.run(&operation, &args::metadata_snapshot(&layer, false));
        let counted = report::thin_ls(&counted?.stdout).map_err(|detail| unexpected(&operation, detail))?;
        released?;
        let known = ids
            .into_iter()
            .filter_map(|(id, name)| Some((name, *counted.get(&id)?)));
        Ok(known.collect())
    }

    fn lies_on_gone(&self, vg: &str) -> Result<bool, HostError> {
        self.gone(vg)
    }

    fn node(&self, vg: &str, lv: &str) -> PathBuf {
        PathBuf::from(format!("/dev/{vg}/{lv}"))
    }
}
