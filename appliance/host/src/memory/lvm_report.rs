//! What LVM tells of all there is.

use cistern_model::{Bytes, Percent};

use super::guards::belongs_here;
use super::raid;
use super::state::{EXTENT, Kind, Lv, State};
use crate::{LogicalVolume, LvAttributes, LvmState, PhysicalVolume, VolumeGroup};

pub(super) fn report(state: &State) -> LvmState {
    let mut report = LvmState::default();
    let visible = |vg: &str| {
        let members = state.members(vg);
        members.is_empty() || members.iter().any(|n| state.readable(*n))
    };
    for (number, disk) in state.disks.iter().enumerate() {
        let Some(pv) = &disk.pv else { continue };
        if pv.vg.as_ref().map_or(!state.readable(number), |vg| !visible(vg)) {
            continue;
        }
        report.pvs.push(PhysicalVolume {
            uuid: pv.uuid.clone(),
            node: state.there(number).then(|| state.lvm_node(number)),
            returned: (state.readable(number) && pv.missing).then(|| state.lvm_node(number)),
            vg: pv.vg.clone(),
            size: EXTENT.saturating_mul(state.extents_of(number)),
            free: EXTENT.saturating_mul(state.free_extents_of(number)),
        });
    }
    for (name, vg) in state.vgs.iter().filter(|(name, _)| visible(name)) {
        let free = state
            .members(name)
            .into_iter()
            .map(|disk| state.free_extents_of(disk))
            .sum();
        report.vgs.push(VolumeGroup {
            name: name.clone(),
            tags: vg.tags.iter().cloned().collect(),
            system_id: vg.system_id.clone(),
            ours: belongs_here(vg),
            exported: vg.exported,
            extent: EXTENT,
            free: EXTENT.saturating_mul(free),
            missing: state.missing(name),
        });
        if belongs_here(vg) {
            for (lv_name, lv) in &vg.lvs {
                if let Kind::Pool { data, metadata } = &lv.kind {
                    report.raids.extend(raid::volumes(state, name, lv_name, data, metadata));
                }
            }
            report.lvs.extend(
                vg.lvs
                    .iter()
                    .map(|(lv_name, lv)| logical_volume(state, name, lv_name, lv)),
            );
        }
    }
    report
}

fn logical_volume(state: &State, vg: &str, name: &str, lv: &Lv) -> LogicalVolume {
    let pool = matches!(lv.kind, Kind::Pool { .. });
    let thin_pool = state.vgs.get(vg).and_then(|vg| {
        let mut pools = vg.lvs.iter().filter(|(_, lv)| matches!(lv.kind, Kind::Pool { .. }));
        pools.next().map(|(name, _)| name.clone())
    });
    let (size, thin, written) = match &lv.kind {
        Kind::Plain(plain) => (EXTENT.saturating_mul(plain.extents()), false, None),
        Kind::Pool { data, .. } => {
            let size = EXTENT.saturating_mul(data.extents());
            (size, false, Some(Percent::of(state.written(vg), size)))
        }
        Kind::Thin { size, xfs } => {
            let mapped = xfs.as_ref().map_or(Bytes::ZERO, super::state::Xfs::mapped);
            (*size, true, Some(Percent::of(mapped, *size)))
        }
    };
    LogicalVolume {
        vg: vg.to_owned(),
        name: name.to_owned(),
        tags: lv.tags.iter().cloned().collect(),
        size,
        attributes: LvAttributes {
            thin_pool: pool,
            thin_volume: thin,
            active: lv.active,
            partial: state.partial(vg, lv),
            unhealthy: lv
                .plains()
                .iter()
                .any(|plain| plain.level.is_raid() && !plain.dead.is_empty()),
            unfinished: lv.plains().iter().any(|plain| plain.unfinished),
        },
        thin_pool: thin_pool.filter(|_| thin),
        data_percent: written.filter(|_| lv.active),
        metadata_percent: (pool && lv.active).then_some(state.metadata_percent),
        sync_percent: (!thin && lv.active).then_some(state.filling.unwrap_or(Percent::FULL)),
    }
}
