//! Mending volumes on several disks, by LVM's commands.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::args::{self, LvmCommand};
use super::{LinuxLvm, prepared, raid, raid_report, raid_superblock};
use crate::linux::run::Run;
use crate::{HostError, Lvm as _, RaidStatus, Raids, SyncAction};

/// How often the kernel is asked how far it is.
const PACE: Duration = Duration::from_secs(1);
/// The longest that copying the largest disk may take.
const MOVE_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Raids for LinuxLvm {
    fn raid_status(&self, vg: &str, lv: &str) -> Result<Option<RaidStatus>, HostError> {
        let command = LvmCommand::dmsetup(["status", "--noflush", &args::dm_name(vg, lv)]);
        let operation = format!("ask how {vg}/{lv} is");
        let run = prepared(&operation, &command);
        // One that is not there makes for a failed command.
        Ok(raid_report::status(&self.finished(&run)?.stdout))
    }

    fn wait(&self, vg: &str, lv: &str, limit: Duration) -> Result<Option<RaidStatus>, HostError> {
        let begun = Instant::now();
        loop {
            let status = self.raid_status(vg, lv)?;
            let idle = status
                .as_ref()
                .is_none_or(|status| status.action == SyncAction::Idle && !status.has_stalled());
            if idle || begun.elapsed() >= limit {
                return Ok(status);
            }
            std::thread::sleep(PACE.min(limit));
        }
    }

    fn extend_vg(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        let operation = format!("add {} to {vg}", node.display());
        let nodes = [node.to_owned()];
        self.commits.joined(vg, &nodes);
        let command = raid::extend_vg(vg, node);
        self.commit(&operation, vg, || self.run_with(&operation, &command, &nodes))
    }

    fn resize_pv(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        let operation = format!("take up what {} of {vg} has grown by", node.display());
        self.change(&operation, &raid::resize_pv(node), vg)
    }

    fn move_off(&self, vg: &str, node: &Path, to: &[PathBuf]) -> Result<(), HostError> {
        let operation = format!("move what lies on {} of {vg} to others", node.display());
        let command = raid::move_off(node, to);
        let run = Run {
            limit: MOVE_LIMIT,
            ..prepared(&operation, &command)
        };
        self.commit(&operation, vg, || self.checked(&run).map(drop))
    }

    fn reduce_vg(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        let operation = format!("take {} out of {vg}", node.display());
        // The label goes only once the others keep that the disk is out: else a group could lack a disk that is blank.
        self.change(&operation, &raid::reduce_vg(vg, node), vg)?;
        self.commits.parted(vg, node);
        self.remove_pv(node)
    }

    fn forget_missing(&self, vg: &str) -> Result<(), HostError> {
        self.change(
            &format!("forget the missing disks of {vg}"),
            &raid::forget_missing(vg),
            vg,
        )
    }

    fn restore_pv(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        let operation = format!("take {} back into {vg}", node.display());
        self.commits.joined(vg, &[node.to_owned()]);
        self.change(&operation, &raid::restore_pv(vg, node), vg)
    }

    fn refresh_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        self.run(&format!("refresh {vg}/{lv}"), &raid::refresh_lv(vg, lv))?;
        Ok(())
    }

    fn repair_lv(&self, vg: &str, lv: &str, new: &Path) -> Result<(), HostError> {
        let command = raid::repair_lv(vg, lv, new);
        self.change(&format!("repair {vg}/{lv}"), &command, vg)
    }

    fn replace_image(&self, vg: &str, lv: &str, old: &Path, new: &Path) -> Result<(), HostError> {
        let command = raid::replace_image(vg, lv, old, new);
        self.change(&format!("replace an image of {vg}/{lv}"), &command, vg)
    }

    fn rebuild_image(&self, vg: &str, lv: &str, node: &Path) -> Result<(), HostError> {
        let operation = format!("fill the image of {vg}/{lv} on {} anew", node.display());
        if let Some(status) = self.raid_status(vg, lv)? {
            let table = LvmCommand::dmsetup(["table", &args::dm_name(vg, lv)]);
            let table = self.run(&operation, &table)?.stdout;
            raid_superblock::mend(&operation, &table, &status, node)?;
        }
        self.change(&operation, &raid::rebuild_image(vg, lv, node), vg)
    }

    fn scrub(&self, vg: &str, lv: &str, repair: bool) -> Result<(), HostError> {
        self.run(
            &format!("compare the images of {vg}/{lv}"),
            &raid::scrub(vg, lv, repair),
        )?;
        Ok(())
    }

    fn stop_scrub(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        let comparing = || -> Result<bool, HostError> {
            let action = self.raid_status(vg, lv)?.map(|status| status.action);
            Ok(matches!(action, Some(SyncAction::Check | SyncAction::Repair)))
        };
        if !comparing()? {
            return Ok(());
        }
        let operation = format!("stop comparing the images of {vg}/{lv}");
        match self.run(&operation, &raid::stop_scrub(vg, lv)) {
            // The kernel refuses the word (EINVAL, seen with 6.12) if it has come to the end by then.
            Err(HostError::Failed { .. }) if !comparing()? => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}
