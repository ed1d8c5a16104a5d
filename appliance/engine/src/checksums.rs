//! What failed its checksum: counted by disk, told, and made good. Invariant: nothing is written but what another copy says.
//!
//! The kernel reads such a block from another copy and writes it anew. After some twenty of them it uses the image no more
//! (it takes the disk for a failing one): then the image is taken back at once, and all copies are compared, which writes
//! anew whatever else fails its checksum and knows no such limit.

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{AlertKind, DiskId, EventKind, PoolId, Principal, ScrubRequest, Severity};
use jiff::{SignedDuration, Timestamp};

use crate::alerts::Subject;
use crate::engine::{Engine, locked};
use crate::view::PoolView;
use crate::volumes::bare;

/// So long nothing must have failed for the alert to end.
const QUIET: SignedDuration = SignedDuration::from_hours(24);

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By disk, since its layers were opened.
    last: BTreeMap<DiskId, u64>,
    /// By disk: how many since the supervisor started, and when the last one was told.
    told: BTreeMap<DiskId, (u64, Timestamp)>,
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
        let disks: Vec<(DiskId, u64)> = {
            let devices = locked(&self.0.devices);
            let of = |device: &cistern_host::BlockDevice| Some((device.id.clone(), *counts.get(device.lvm_node())?));
            devices.iter().filter_map(of).collect()
        };
        for (disk, count) in disks {
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

    /// An image of a pool is used again: its copies are to be compared.
    pub(crate) fn note_taken_back(&self, pool: &PoolView) {
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
