//! Disks that are there, err, and erred again when they were asked back. LVM changes nothing in a group while it cannot write
//! to each of its devices that it sees: so it is kept from seeing them, and to the pool they are as good as gone.
//!
//! Invariant: only a disk that the kernel uses no image of, and that its pool can do without, is shunned; that is forgotten
//! when any disk comes or goes, and at a restart, so that one that was put right is a disk like any other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cistern_host::BlockDevice;
use cistern_model::{DiskId, EventKind, Severity};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::view::PoolView;

/// What is shunned.
#[derive(Debug, Default)]
pub(crate) struct Shunned {
    disks: Mutex<BTreeSet<DiskId>>,
    /// What LVM was last told not to see.
    hidden: Mutex<BTreeSet<PathBuf>>,
}

impl Engine {
    /// Keeps LVM from seeing those of these devices of a pool that it can do without.
    pub(crate) fn shun(&self, pool: &PoolView, nodes: &BTreeSet<PathBuf>) -> Result<(), EngineError> {
        let spared = |node: &Path| pool.raids.iter().all(|raid| raid.has_all_data_without(node));
        let erring: Vec<DiskId> = {
            let devices = locked(&self.0.devices);
            let erring = devices
                .iter()
                .filter(|device| nodes.contains(device.lvm_node()) && spared(device.lvm_node()));
            erring.map(|device| device.id.clone()).collect()
        };
        if erring.is_empty() {
            return Ok(());
        }
        locked(&self.0.shunned.disks).extend(erring.iter().cloned());
        let devices = locked(&self.0.devices).clone();
        self.hide_shunned(&devices);
        for disk in &erring {
            let message = format!(
                "disk {disk} erred again; pool {} does without it until it is replaced, or taken out and put in again",
                pool.tags.name
            );
            self.record(
                EventKind::PoolChanged,
                Severity::Warning,
                Some(pool.id.to_string()),
                None,
                message,
            );
        }
        self.read_lvm()
    }

    /// A pool as it is once those of its disks are shunned that the kernel uses no image of, though it was asked to.
    pub(crate) fn without_erring(&self, pool: PoolView) -> Result<PoolView, EngineError> {
        if pool.failed_nodes().is_empty() || pool.tags.layout.survives() == 0 {
            return Ok(pool);
        }
        // What was asked back may be in use since it was last looked at.
        self.read_lvm()?;
        let Some(pool) = self.view().pools.get(&pool.id).cloned() else {
            return Ok(pool);
        };
        let failed = pool.failed_nodes();
        if failed.is_empty() || self.fill_garbled_anew(&pool, &failed)? {
            return Ok(pool);
        }
        self.shun(&pool, &failed)?;
        Ok(self.view().pools.get(&pool.id).cloned().unwrap_or(pool))
    }

    /// Keeps LVM from seeing what is shunned, and from seeing a disk by more than one of its paths: two nodes with one label are
    /// duplicates to it, and it changes nothing in their group. To be called with all disks whenever they were listed.
    pub(crate) fn hide_shunned(&self, devices: &[BlockDevice]) {
        let nodes: BTreeSet<PathBuf> = {
            let mut disks = locked(&self.0.shunned.disks);
            disks.retain(|disk| devices.iter().any(|device| device.id == *disk));
            let shunned = devices.iter().filter(|device| disks.contains(&device.id));
            let shunned = shunned.map(|device| device.lvm_node().to_owned());
            let others = devices.iter().flat_map(|device| device.other_nodes.iter().cloned());
            shunned.chain(others).collect()
        };
        let mut hidden = locked(&self.0.shunned.hidden);
        // Also what was said before: a start that is tried again lets LVM see all at first.
        if *hidden != nodes || !nodes.is_empty() {
            self.0.host.lvm.hide(nodes.clone());
            *hidden = nodes;
        }
    }

    /// Something is different: all may be tried again, but those whose place is just being taken.
    pub(crate) fn try_shunned_again(&self) {
        let going: BTreeSet<DiskId> = {
            let view = self.view();
            let replacing = view.pools.values().filter_map(|pool| pool.tags.replacing.as_ref());
            replacing.map(|(old, _)| old.clone()).collect()
        };
        locked(&self.0.shunned.disks).retain(|disk| going.contains(disk));
        let devices = locked(&self.0.devices).clone();
        self.hide_shunned(&devices);
    }

    /// A disk that was wiped is one like any other.
    pub(crate) fn forgive(&self, disk: &DiskId) {
        if locked(&self.0.shunned.disks).remove(disk) {
            let devices = locked(&self.0.devices).clone();
            self.hide_shunned(&devices);
        }
    }

    /// Whether a disk is shunned.
    pub(crate) fn is_shunned(&self, disk: &DiskId) -> bool {
        locked(&self.0.shunned.disks).contains(disk)
    }
}
