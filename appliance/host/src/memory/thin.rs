//! Thin pools: what is mapped is what files take, and the metadata is as full as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cistern_model::{Bytes, Percent};

use super::Running;
use super::state::{EXTENT, Kind, Segment, State, Vg, Xfs, failed};
use crate::{HostError, ThinMode, ThinPools, ThinSize, ThinStatus};

const CHUNK: u64 = 64 << 10;

impl ThinPools for Running {
    fn status(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError> {
        self.look("thin.status", &format!("{vg}/{pool}"), |state| {
            let status = status(state, vg, pool);
            // Meanwhile.
            state.discard(vg);
            status
        })
    }

    fn settled(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError> {
        self.look("thin.settled", &format!("{vg}/{pool}"), |state| {
            state.discard(vg);
            status(state, vg, pool)
        })
    }

    fn mapped(&self, vg: &str) -> Result<BTreeMap<String, Bytes>, HostError> {
        self.look("thin.mapped", vg, |state| {
            let lvs = state.vgs.get(vg).into_iter().flat_map(|vg| &vg.lvs);
            let active = lvs.filter(|(_, lv)| lv.active && matches!(lv.kind, Kind::Thin { .. }));
            Ok(active
                .map(|(name, _)| {
                    let mapped = state.xfs(vg, name).map_or(Bytes::ZERO, super::state::Xfs::mapped);
                    (name.clone(), mapped)
                })
                .collect())
        })
    }

    fn extend_metadata(&self, vg: &str, pool: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError> {
        self.change("thin.extend_metadata", &format!("{vg}/{pool}"), |state| {
            let short = || failed("extend_metadata", "Insufficient suitable allocatable extents");
            if state.missing(vg) > 0 {
                return Err(failed("extend_metadata", "Cannot change VG while PVs are missing"));
            }
            let lv = state.vgs.get(vg).and_then(|vg| vg.lvs.get(pool));
            let metadata = match lv.map(|lv| &lv.kind) {
                Some(Kind::Pool { metadata, .. }) => metadata,
                Some(Kind::Plain(_) | Kind::Thin { .. }) | None => {
                    return Err(failed("extend_metadata", "no such pool"));
                }
            };
            let given = |disk: usize| nodes.contains(&state.lvm_node(disk));
            let room = |disk: &usize| given(*disk) && state.free_extents_of(*disk) >= extents;
            // Where each copy lies already, or else on disks that hold none.
            let now = metadata.segments.iter().map(|segment| &segment.disks);
            let copies = metadata.level.images() as usize;
            let there = now.clone().find(|disks| disks.iter().all(room)).cloned();
            let members = state.members(vg).into_iter();
            let others = members.filter(|disk| !now.clone().flatten().any(|held| held == disk) && room(disk));
            let disks = there.unwrap_or_else(|| others.take(copies).collect());
            if disks.len() != copies {
                return Err(short());
            }
            let lv = state.vgs.get_mut(vg).and_then(|vg| vg.lvs.get_mut(pool));
            if let Some(Kind::Pool { metadata, .. }) = lv.map(|lv| &mut lv.kind) {
                let (before, more) = (metadata.extents(), extents);
                metadata.segments.push(Segment { disks, extents });
                if let Some(more) = &mut state.thin_stuck {
                    *more += extents;
                    return Ok(());
                }
                // What is used stays the same.
                #[expect(clippy::cast_precision_loss, reason = "a few thousand extents")]
                let share = before as f64 / (before + more) as f64;
                state.metadata_percent = Percent::from(f64::from(state.metadata_percent) * share);
            }
            Ok(())
        })
    }
}

/// What each thin volume of a pool takes: what copies of a filesystem have in common is exclusive to none.
pub(super) fn sizes(group: &Vg, pool: &str) -> Result<BTreeMap<String, ThinSize>, HostError> {
    let Some(pool) = group.lvs.get(pool) else {
        return Ok(BTreeMap::new());
    };
    let pieces = |xfs: Option<&Xfs>| -> BTreeSet<(String, Bytes)> {
        let written = xfs
            .into_iter()
            .flat_map(|xfs| xfs.pieces().chain(xfs.deleted.iter().cloned()));
        written.collect()
    };
    let thin = group.lvs.iter().filter_map(|(name, lv)| match &lv.kind {
        Kind::Thin { xfs, .. } => Some((name, pieces(xfs.as_ref()))),
        Kind::Plain(_) | Kind::Pool { .. } => None,
    });
    let thin: Vec<(&String, BTreeSet<(String, Bytes)>)> = thin.collect();
    if !thin.is_empty() && !pool.active {
        return Err(failed("thin_sizes", "Device does not exist."));
    }
    let sum = |pieces: &mut dyn Iterator<Item = &(String, Bytes)>| pieces.map(|(_, size)| *size).sum();
    let of = |(name, own): &(&String, BTreeSet<(String, Bytes)>)| {
        let shared = |piece: &&(String, Bytes)| {
            thin.iter()
                .any(|(other, pieces)| other != name && pieces.contains(*piece))
        };
        let size = ThinSize {
            mapped: sum(&mut own.iter()),
            exclusive: sum(&mut own.iter().filter(|piece| !shared(piece))),
        };
        ((*name).clone(), size)
    };
    Ok(thin.iter().map(of).collect())
}

fn status(state: &State, vg: &str, pool: &str) -> Result<ThinStatus, HostError> {
    let lv = state.vgs.get(vg).and_then(|vg| vg.lvs.get(pool));
    let metadata = match lv.filter(|lv| lv.active).map(|lv| &lv.kind) {
        Some(Kind::Pool { metadata, .. }) => {
            EXTENT.saturating_mul(metadata.extents().saturating_sub(state.thin_stuck.unwrap_or(0)))
        }
        Some(Kind::Plain(_) | Kind::Thin { .. }) | None => {
            return Err(failed("thin.status", "no such active pool"));
        }
    };
    let (written, size) = (state.written(vg), state.pool_size(vg));
    Ok(ThinStatus {
        mode: match state.thin_stuck {
            Some(_) => ThinMode::ReadOnly,
            None if written >= size => ThinMode::OutOfData,
            None => ThinMode::Writable,
        },
        data: Percent::of(written, size),
        metadata: state.metadata_percent,
        metadata_size: metadata,
        chunks_used: written.get().div_ceil(CHUNK),
        chunks: size.get() / CHUNK,
    })
}
