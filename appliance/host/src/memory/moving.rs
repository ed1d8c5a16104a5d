//! Moving what lies on a disk to others, as it behaves: stretch by stretch, all that can be moved or nothing; no disk holds two
//! images afterwards.

use std::collections::BTreeMap;

use super::state::{Lv, Plain, Segment, State, failed};
use crate::HostError;

/// The parts of a group's volumes as they lie afterwards: the volume, which of what it lies on, and its segments.
type Moved = Vec<(String, usize, Vec<Segment>)>;

/// Moves all that lies on a disk of a group to these.
pub(super) fn move_off(state: &mut State, vg: &str, disk: usize, to: &[usize]) -> Result<(), HostError> {
    let members = state.members(vg);
    if !members.contains(&disk) || to.contains(&disk) || to.iter().any(|other| !members.contains(other)) {
        return Err(failed("move_off", "a device that is not in the group, or the same"));
    }
    let mut free: BTreeMap<usize, u64> = to.iter().map(|n| (*n, state.free_extents_of(*n))).collect();
    let mut moved: Moved = Vec::new();
    for (name, lv) in state.vgs.get(vg).into_iter().flat_map(|group| &group.lvs) {
        for (at, plain) in lv.plains().into_iter().enumerate() {
            if plain.taken_on(disk) > 0 {
                let segments = moved_segments(plain, disk, to, &mut free);
                let segments = segments.ok_or_else(|| failed("move_off", "Insufficient free space"))?;
                moved.push((name.clone(), at, segments));
            }
        }
    }
    if moved.is_empty() {
        return Err(failed("move_off", "No data to move"));
    }
    if state.midway {
        // The first stretch lies elsewhere, and the rest where it lay.
        moved.truncate(moved.len().div_ceil(2));
        let lvs = state.vgs.get(vg).map(|group| &group.lvs);
        let before = |name: &str, at: usize| {
            let lv = lvs.and_then(|lvs| lvs.get(name))?;
            lv.plains().into_iter().nth(at).cloned()
        };
        if let [(name, at, segments)] = &mut moved[..]
            && let Some(plain) = before(name, *at).filter(|plain| !plain.level.is_raid())
        {
            *segments = half_moved(&plain, disk, segments);
        }
    }
    let mut lvs = state.vgs.get_mut(vg);
    for (name, at, segments) in moved {
        let lv: Option<&mut Lv> = lvs.as_mut().and_then(|group| group.lvs.get_mut(&name));
        if let Some(plain) = lv.and_then(|lv| lv.plains_mut().into_iter().nth(at)) {
            plain.segments = segments;
        }
    }
    Ok(())
}

/// Of what is to be moved, half of the first stretch.
fn half_moved(plain: &Plain, disk: usize, after: &[Segment]) -> Vec<Segment> {
    let Some(at) = plain.segments.iter().position(|segment| segment.disks.contains(&disk)) else {
        return after.to_vec();
    };
    let (Some(first), Some(target)) = (plain.segments.get(at), after.get(at)) else {
        return after.to_vec();
    };
    let mut half = target.clone();
    half.extents = first.extents.min(target.extents).div_ceil(2);
    let mut rest = first.clone();
    rest.extents -= half.extents;
    let mut segments = plain.segments.clone();
    segments.splice(at..=at, [half, rest]);
    segments.retain(|segment| segment.extents > 0);
    segments
}

fn moved_segments(plain: &Plain, disk: usize, to: &[usize], free: &mut BTreeMap<usize, u64>) -> Option<Vec<Segment>> {
    if plain.level.is_raid() {
        let needed = plain.taken_on(disk);
        let apart = |n: &usize| !plain.segments.iter().any(|segment| segment.disks.contains(n));
        let target = to
            .iter()
            .copied()
            .find(|n| apart(n) && free.get(n).is_some_and(|free| *free >= needed))?;
        *free.get_mut(&target)? -= needed;
        let mut segments = plain.segments.clone();
        let disks = segments.iter_mut().flat_map(|segment| &mut segment.disks);
        disks.filter(|n| **n == disk).for_each(|n| *n = target);
        return Some(segments);
    }
    let mut segments = Vec::new();
    for segment in &plain.segments {
        if !segment.disks.contains(&disk) {
            segments.push(segment.clone());
            continue;
        }
        let mut left = segment.extents;
        for target in to {
            let room = free.get_mut(target)?;
            let extents = left.min(*room);
            if extents > 0 {
                (*room, left) = (*room - extents, left - extents);
                segments.push(Segment {
                    disks: vec![*target],
                    extents,
                });
            }
        }
        if left > 0 {
            return None;
        }
    }
    Some(segments)
}
