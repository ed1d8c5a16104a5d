//! Groups that others made: LVM lets no machine touch one of another system ID, and none touch one that was exported.

use std::path::Path;

use cistern_model::{Bytes, Mode};
use uuid::Uuid;

use super::state::{Kind, SYSTEM_ID, Xfs, busy, failed, lv_of_node};
use super::{MemoryHost, Running};
use crate::{HostError, RootSpec, Takeover, XfsFound};

impl Takeover for Running {
    fn take_group(&self, vg: &str, from: &str) -> Result<(), HostError> {
        self.change("takeover.take_group", vg, |state| {
            let missing = state.missing(vg) > 0;
            let group = state
                .vgs
                .get_mut(vg)
                .filter(|group| group.system_id == from && !group.exported);
            let group = group.ok_or_else(|| failed("take_group", "Cannot access VG with system ID"))?;
            if missing {
                return Err(failed("take_group", "Cannot change VG while PVs are missing"));
            }
            group.system_id = SYSTEM_ID.to_owned();
            Ok(())
        })
    }

    fn import_group(&self, vg: &str) -> Result<(), HostError> {
        self.change("takeover.import_group", vg, |state| {
            if state.missing(vg) > 0 {
                return Err(failed("import_group", "Cannot change VG while PVs are missing"));
            }
            let group = state.vgs.get_mut(vg).filter(|group| group.exported);
            let group = group.ok_or_else(|| failed("import_group", "Volume group is not exported"))?;
            group.exported = false;
            group.system_id = SYSTEM_ID.to_owned();
            Ok(())
        })
    }

    fn export_group(&self, vg: &str) -> Result<(), HostError> {
        self.change("takeover.export_group", vg, |state| {
            if state.missing(vg) > 0 {
                return Err(failed("export_group", "Cannot change VG while PVs are missing"));
            }
            let group = state
                .vgs
                .get_mut(vg)
                .filter(|group| group.system_id == SYSTEM_ID && !group.exported);
            let group = group.ok_or_else(|| failed("export_group", "no such group of this machine"))?;
            if group.lvs.values().any(|lv| lv.active) {
                return Err(busy("export_group", vg));
            }
            group.exported = true;
            group.system_id.clear();
            Ok(())
        })
    }

    fn xfs_on(&self, node: &Path) -> Result<Option<XfsFound>, HostError> {
        self.look("takeover.xfs_on", &node.display().to_string(), |state| {
            let missing = || failed("xfs_on", "no such device");
            // A whole disk: of what may be on one, no XFS is told of here.
            if state.raw_at("xfs_on", node).is_ok() {
                return Ok(None);
            }
            let (vg, lv) = lv_of_node(node).ok_or_else(missing)?;
            let there = state.vgs.get(&vg).and_then(|vg| vg.lvs.get(&lv)).filter(|lv| lv.active);
            match there.map(|lv| &lv.kind) {
                Some(Kind::Thin { xfs, .. }) => Ok(xfs.as_ref().map(|xfs| XfsFound {
                    uuid: xfs.uuid,
                    size: xfs.size,
                })),
                Some(Kind::Plain(_) | Kind::Pool { .. }) => Ok(None),
                None => Err(missing()),
            }
        })
    }
}

impl MemoryHost {
    /// Gives a group to another machine, as if its disks had been moved here from it.
    pub fn give_group(&self, vg: &str, system_id: &str) {
        if let Some(group) = self.lock().vgs.get_mut(vg) {
            group.system_id = system_id.to_owned();
            group.lvs.values_mut().for_each(|lv| lv.active = false);
        }
    }

    /// Puts an XFS of this size with a file on a thin volume, whoever made that.
    pub fn put_xfs(&self, vg: &str, lv: &str, size: Bytes, file: &str) {
        let mut state = self.lock();
        let uuid = Uuid::from_u128(u128::from(state.next_uuid));
        let lv = state.vgs.get_mut(vg).and_then(|vg| vg.lvs.get_mut(lv));
        if let Some(Kind::Thin { xfs, .. }) = lv.map(|lv| &mut lv.kind) {
            *xfs = Some(Xfs {
                uuid,
                size,
                complete: true,
                sparse: false,
                root: Some(RootSpec {
                    uid: 0,
                    gid: 0,
                    mode: Mode::OPEN,
                }),
                damaged: false,
                files: [(file.to_owned(), Bytes::mib(1))].into(),
                deleted: Default::default(),
                discarding: false,
            });
        }
    }
}
