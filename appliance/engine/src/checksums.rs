//! What failed its checksum: counted by disk, told, and made good. Invariant: nothing is written but what another copy says.
//!
//! The kernel reads such a block from another copy and writes it anew. After some twenty of them within an hour it uses the
//! image no more (it takes the disk for a failing one), and would do so again at the next one if it were only asked to use it
//! again: so the image is filled anew, whole, from the others, which also makes right what nobody has read yet. Then all
//! copies are compared, because other volumes have images on that disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_host::RaidImage;
use cistern_model::{AlertKind, DiskId, EventKind, PoolId, Principal, ScrubRequest, Severity};
use jiff::{SignedDuration, Timestamp};

use crate::EngineError;
use crate::alerts::Subject;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::power_lost;
use crate::view::PoolView;
use crate::volumes::bare;

/// An image that fails again so soon after it was filled anew lies on a disk that loses what is written to it.
const FILLED_ONCE_IN: SignedDuration = SignedDuration::from_hours(1);
/// So long nothing must have failed for the alert to end.
const QUIET: SignedDuration = SignedDuration::from_hours(24);

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By disk, since its layers were opened.
    last: BTreeMap<DiskId, u64>,
    /// By disk: how many since the supervisor started, and when the last one was told.
    told: BTreeMap<DiskId, (u64, Timestamp)>,
    /// When a volume's image on a device was last filled anew.
    filled: BTreeMap<(PathBuf, String), Timestamp>,
    /// Pools of which an image was taken back: their copies are to be compared.
    to_heal: BTreeSet<PoolId>,
    started: Option<Timestamp>,
}

impl Engine {
    /// Looks whether disks gave what does not fit its checksum.
    pub(crate) fn look_at_checksums(&self) {
        let pools: Vec<PoolView> = self.view().pools.values().map(bare).collect();
        if pools.iter().any(|pool| pool.tags.layers.checksums) {
            self.count_checksums(&pools);
        }
        self.end_checksum_alerts(&pools);
        self.heal(&pools);
    }

    fn count_checksums(&self, pools: &[PoolView]) {
        let counts = match self.0.host.layers.mismatches() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!(%error, "what failed its checksum is not known");
                return;
            }
        };
        let busy = self.0.layers.busy();
        let disks: Vec<(DiskId, u64)> = {
            let devices = locked(&self.0.devices);
            let of = |device: &cistern_host::BlockDevice| Some((device.id.clone(), *counts.get(device.lvm_node())?));
            devices.iter().filter_map(of).collect()
        };
        for (disk, count) in disks.into_iter().filter(|(disk, _)| !busy.contains(disk)) {
            let before = locked(&self.0.layers.counts).last.insert(disk.clone(), count);
            // Counted anew since they were opened.
            let more = count.checked_sub(before.unwrap_or(0)).unwrap_or(count);
            if more > 0
                && let Some(pool) = pools.iter().find(|pool| pool.tags.holds(&disk))
            {
                self.tell_checksums(pool, &disk, more);
            }
        }
    }

    fn tell_checksums(&self, pool: &PoolView, disk: &DiskId, more: u64) {
        let now = self.0.host.machine.now();
        let all = {
            let mut counts = locked(&self.0.layers.counts);
            let told = counts.told.entry(disk.clone()).or_insert((0, now));
            *told = (told.0 + more, now);
            told.0
        };
        let name = &pool.tags.name;
        let (severity, what) = match pool.tags.layout.survives() > 0 {
            true => (Severity::Warning, "another copy was read instead, and written over it"),
            false => (Severity::Error, "there is no other copy: reading it is an error"),
        };
        let object = Some(disk.to_string());
        let message = format!("disk {disk} of pool {name} gave what does not fit its checksum, {more} time(s); {what}");
        self.record(EventKind::ChecksumErrors, severity, object, None, message);
        let message = format!(
            "disk {disk} of pool {name} gave what does not fit its checksum, {all} time(s) since the supervisor started; {what}"
        );
        self.raise_alert(AlertKind::ChecksumErrors, &Subject::object(disk), severity, message);
        self.use_again(pool, disk);
    }

    /// An image that the kernel ceased to use for too many such errors is used again.
    fn use_again(&self, pool: &PoolView, disk: &DiskId) {
        if pool.tags.layout.survives() == 0 {
            return;
        }
        if let Err(error) = self.look_at_raids() {
            tracing::warn!(%error, "how the pools' disks are cannot be told");
        }
        let failed = {
            let view = self.view();
            let now = view.pools.get(&pool.id);
            let node = self.node_in(pool, disk);
            now.zip(node)
                .is_some_and(|(now, node)| now.failed_nodes().contains(&node))
        };
        if failed {
            self.try_again(pool.id);
            if let Err(error) = self.reconcile() {
                tracing::warn!(%error, "an image could not be taken back");
            }
        }
    }

    /// Images that the kernel ceased to use, on devices that gave what does not fit its checksum, are filled anew; whether
    /// there were any. Only once for what was counted so far: what fails again without more of it fails for another reason.
    pub(crate) fn fill_garbled_anew(&self, pool: &PoolView, failed: &BTreeSet<PathBuf>) -> Result<bool, EngineError> {
        if !pool.tags.layers.checksums || pool.missing > 0 {
            return Ok(false);
        }
        let counts = self.0.host.layers.mismatches();
        let counts = counts.doing(|| "ask what failed its checksum".to_owned())?;
        let now = self.0.host.machine.now();
        let mut any = false;
        for node in failed {
            // Counted anew since the layers were opened.
            if counts.get(node).copied().unwrap_or_default() == 0 {
                continue;
            }
            let here = |image: &RaidImage| image.failed && image.nodes.contains(node);
            let may_be_filled = |raid: &&cistern_host::RaidVolume| {
                let before = locked(&self.0.layers.counts)
                    .filled
                    .insert((node.clone(), raid.name.clone()), now);
                before.is_none_or(|before| now.duration_since(before) >= FILLED_ONCE_IN)
            };
            let given_up: Vec<_> = pool
                .raids
                .iter()
                .filter(|raid| raid.images.iter().any(here) && raid.has_all_data_without(node))
                .filter(may_be_filled)
                .collect();
            if given_up.is_empty() {
                continue;
            }
            self.forget_checksums(pool);
            let filled = given_up.into_iter().try_for_each(|raid| {
                let rebuild = || self.0.host.raids.rebuild_image(&raid.vg, &raid.name, node);
                let doing = || format!("fill what {} has of pool {} anew", node.display(), pool.tags.name);
                self.change_lvm(pool.id, doing, rebuild, |_| {})
            });
            match filled {
                Ok(()) => {}
                Err(error) if power_lost(&error) => return Err(error),
                // Then it is a disk that errs, like any other.
                Err(error) => {
                    tracing::warn!(error = error.problem().detail, "an image could not be filled anew");
                    continue;
                }
            }
            let message = format!(
                "pool {}: so much of disk {} did not fit its checksum that the kernel gave it up; it is filled anew from the others",
                pool.tags.name,
                self.name_of(node)
            );
            let object = Some(pool.id.to_string());
            self.record(EventKind::PoolChanged, Severity::Warning, object, None, message);
            any = true;
        }
        if any {
            self.note_taken_back(pool);
            self.read_lvm()?;
        }
        Ok(any)
    }

    /// What is compared or written from now on is compared with, and written with, the checksums on the disks.
    pub(crate) fn forget_checksums(&self, pool: &PoolView) {
        if pool.tags.layers.checksums
            && let Err(error) = self.0.host.layers.forget_checksums()
        {
            tracing::warn!(%error, "checksums that are in memory may hide some that are wrong");
        }
    }

    /// An image of a pool is used again: its copies are to be compared.
    pub(crate) fn note_taken_back(&self, pool: &PoolView) {
        // If it fails again before anybody looks, that is news.
        locked(&self.0.failures.told).remove(&pool.id);
        if pool.tags.layers.checksums {
            locked(&self.0.layers.counts).to_heal.insert(pool.id);
        }
    }

    /// Compares the copies of pools of which an image was taken back, once they are whole.
    fn heal(&self, pools: &[PoolView]) {
        let due = locked(&self.0.layers.counts).to_heal.clone();
        for id in due {
            let Some(pool) = pools.iter().find(|pool| pool.id == id) else {
                locked(&self.0.layers.counts).to_heal.remove(&id);
                continue;
            };
            let request = ScrubRequest { repair: true };
            if self.scrub_pool(&Principal::local(), &pool.vg(), &request).is_ok() {
                locked(&self.0.layers.counts).to_heal.remove(&id);
            }
        }
    }

    fn end_checksum_alerts(&self, pools: &[PoolView]) {
        let is_one = |alert: &cistern_model::Alert| alert.kind == AlertKind::ChecksumErrors;
        if !self.0.alerts.active().iter().any(is_one) {
            return;
        }
        let now = self.0.host.machine.now();
        let recent: BTreeSet<String> = {
            let mut counts = locked(&self.0.layers.counts);
            let started = *counts.started.get_or_insert(now);
            let members = pools
                .iter()
                .flat_map(|pool| pool.tags.groups.iter().flatten().chain(&pool.tags.spares));
            let last = |disk: &DiskId| counts.told.get(disk).map_or(started, |(_, at)| *at);
            members
                .filter(|disk| now.duration_since(last(disk)) < QUIET)
                .map(ToString::to_string)
                .collect()
        };
        self.clear_alerts_but(AlertKind::ChecksumErrors, |disk| recent.contains(disk));
    }
}
