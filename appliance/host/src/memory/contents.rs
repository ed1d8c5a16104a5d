//! What lies in thin volumes and how much of their pool it takes: filesystems with their files, and whether they can be
//! written to. Not here: the calls of the traits.

use std::collections::BTreeSet;

use cistern_model::Bytes;

use super::state::{EXTENT, Kind, Lv, State, Xfs, failed, lv_of_node};
use crate::HostError;

impl State {
    pub(super) fn xfs(&self, vg: &str, lv: &str) -> Option<&Xfs> {
        match &self.vgs.get(vg)?.lvs.get(lv)?.kind {
            Kind::Thin { xfs, .. } => xfs.as_ref(),
            Kind::Plain(_) | Kind::Pool { .. } => None,
        }
    }

    pub(super) fn xfs_mut(&mut self, vg: &str, lv: &str) -> Option<&mut Xfs> {
        match &mut self.vgs.get_mut(vg)?.lvs.get_mut(lv)?.kind {
            Kind::Thin { xfs, .. } => xfs.as_mut(),
            Kind::Plain(_) | Kind::Pool { .. } => None,
        }
    }

    /// What is written in a group's thin pool.
    pub(super) fn written(&self, vg: &str) -> Bytes {
        let lvs = self.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.keys());
        // What copies have in common is there once; what was deleted is there until it is trimmed.
        let pieces: BTreeSet<(String, Bytes)> = lvs
            .filter_map(|lv| self.xfs(vg, lv))
            .flat_map(|xfs| xfs.pieces().chain(xfs.deleted.iter().cloned()))
            .collect();
        pieces.into_iter().map(|(_, size)| size).sum()
    }

    /// What was trimmed in a group's filesystems is free.
    pub(super) fn discard(&mut self, vg: &str) {
        let lvs = self.vgs.get_mut(vg).into_iter().flat_map(|vg| vg.lvs.values_mut());
        for lv in lvs {
            if let Kind::Thin { xfs: Some(xfs), .. } = &mut lv.kind
                && std::mem::take(&mut xfs.discarding)
            {
                xfs.deleted.clear();
            }
        }
    }

    pub(super) fn pool_size(&self, vg: &str) -> Bytes {
        let lvs = self.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.values());
        let data = lvs.filter_map(|lv| match &lv.kind {
            Kind::Pool { data, .. } => Some(data.extents()),
            Kind::Plain(_) | Kind::Thin { .. } => None,
        });
        EXTENT.saturating_mul(data.sum())
    }

    pub(super) fn write_file(
        &mut self,
        operation: &str,
        vg: &str,
        lv: &str,
        name: &str,
        size: Bytes,
    ) -> Result<(), HostError> {
        let room = self.pool_size(vg).saturating_sub(self.written(vg));
        let Some(xfs) = self.xfs_mut(vg, lv) else {
            return Err(failed(operation, "no filesystem"));
        };
        // What fits is written before the rest is refused; what it had is written over.
        let had = xfs.files.get(name).copied().unwrap_or_default();
        let free = xfs.size.saturating_sub(xfs.used());
        let fits = size.min(room.saturating_add(had)).min(free.saturating_add(had));
        xfs.files.insert(name.to_owned(), fits);
        if fits < size {
            return Err(failed(operation, "No space left on device"));
        }
        Ok(())
    }

    /// Whether the kernel has enough of what a group's thin pool lies on to read and write all of it.
    pub(super) fn serves(&self, vg: &str) -> bool {
        let lvs = self.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.values());
        let pools = lvs.filter(|lv| matches!(lv.kind, Kind::Pool { .. }));
        pools.flat_map(Lv::plains).all(|plain| {
            let used = |image: usize| !plain.dead.contains(&image);
            let used: Vec<bool> = (0..plain.level.images() as usize).map(used).collect();
            plain.level.has_all_data(&used)
        })
    }

    /// Whether something mounted lies on a volume.
    pub(super) fn open(&self, vg: &str, lv: &str) -> bool {
        self.mounts
            .values()
            .any(|source| lv_of_node(source) == Some((vg.to_owned(), lv.to_owned())))
    }
}
