//! What LVM refuses before it does anything: groups that are not there, of another machine, or not whole; tags that it cannot
//! write; a pool that is full.

use std::path::PathBuf;

use super::state::{SYSTEM_ID, State, Vg, failed};
use crate::HostError;

pub(super) fn numbers(state: &State, operation: &str, nodes: &[PathBuf]) -> Result<Vec<usize>, HostError> {
    nodes.iter().map(|node| state.at(operation, node)).collect()
}

/// A group that this machine may touch.
pub(super) fn ours<'a>(state: &'a mut State, operation: &str, vg: &str) -> Result<&'a mut Vg, HostError> {
    let foreign = state.vgs.get(vg).is_some_and(|vg| !belongs_here(vg));
    if foreign {
        state
            .violations
            .push(format!("{operation} on {vg}, a group of another machine"));
    }
    let group = state.vgs.get_mut(vg).filter(|vg| belongs_here(vg));
    group.ok_or_else(|| failed(operation, "no such group"))
}

/// A group that can be changed otherwise than in its tags: LVM refuses one that lacks a disk, and cannot change one of which
/// it sees a disk and cannot write to it.
pub(super) fn whole<'a>(state: &'a mut State, operation: &str, vg: &str) -> Result<&'a mut Vg, HostError> {
    if state.missing(vg) > 0 {
        return Err(failed(operation, "Cannot change VG while PVs are missing"));
    }
    let errs = |disk: &usize| state.disks[*disk].errs && state.readable(*disk);
    if state.members(vg).iter().any(errs) {
        return Err(failed(operation, "Failed to write VG"));
    }
    ours(state, operation, vg)
}

/// LVM makes no volume in a thin pool that is full.
pub(super) fn roomy(state: &State, operation: &str, vg: &str) -> Result<(), HostError> {
    if state.written(vg) >= state.pool_size(vg) {
        return Err(failed(operation, "free space in thin pool reached threshold"));
    }
    Ok(())
}

pub(super) fn belongs_here(vg: &Vg) -> bool {
    (vg.system_id.is_empty() || vg.system_id == SYSTEM_ID) && !vg.exported
}

pub(super) fn check_tags(operation: &str, tags: &[String]) -> Result<(), HostError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-/=!:#&".contains(c);
    let good = |tag: &String| !tag.is_empty() && tag.len() <= 1024 && tag.chars().all(allowed);
    match tags.iter().find(|tag| !good(tag)) {
        None => Ok(()),
        Some(tag) => Err(failed(operation, &format!("Invalid tag: {tag:?}"))),
    }
}
