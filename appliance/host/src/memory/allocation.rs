//! Where LVM lays what a volume takes.

use std::collections::BTreeSet;

use super::state::{Segment, State, failed};
use crate::{HostError, RaidLevel};

/// Finds the extents for a volume or for more of it: on one disk after the other, or on each of those given.
pub(super) fn allocate(
    state: &State,
    operation: &str,
    vg: &str,
    level: RaidLevel,
    extents: u64,
    raid: u64,
    disks: &[usize],
) -> Result<Vec<Segment>, HostError> {
    let members = state.members(vg);
    if extents == 0 || disks.iter().any(|disk| !members.contains(disk)) {
        return Err(failed(operation, "no extents, or a device that is not in the group"));
    }
    let short = || failed(operation, "Insufficient suitable allocatable extents");
    match level {
        RaidLevel::Mirror { .. }
        | RaidLevel::StripeMirror { .. }
        | RaidLevel::Parity { .. }
        | RaidLevel::DoubleParity { .. } => {
            // LVM rounds what is no multiple up, and would then find no room.
            let extents = extents.div_ceil(u64::from(level.data_images()));
            let different: BTreeSet<usize> = disks.iter().copied().collect();
            let room = |disk: &usize| state.free_extents_of(*disk) >= extents + raid;
            if different.len() != level.images() as usize || different.len() != disks.len() || !disks.iter().all(room) {
                return Err(short());
            }
            Ok(vec![Segment {
                disks: disks.to_vec(),
                extents,
            }])
        }
        RaidLevel::Linear => {
            let (mut left, mut segments) = (extents, Vec::new());
            for disk in disks {
                let extents = left.min(state.free_extents_of(*disk));
                if extents > 0 {
                    segments.push(Segment {
                        disks: vec![*disk],
                        extents,
                    });
                    left -= extents;
                }
            }
            if left > 0 { Err(short()) } else { Ok(segments) }
        }
    }
}
