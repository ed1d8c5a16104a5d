//! Volumes on several disks, as they behave: an image whose disk goes is not used again before a refresh, a repair or a new
//! activation, even if the disk comes back; a group that was changed without a disk counts it as missing until it is
//! taken back by name; a volume that is being filled takes no new images; an image whose source cannot be read stays as it
//! is, and nothing says so but its letter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_model::Percent;

use super::guards::{numbers, ours, whole};
use super::state::{EXTENT, Kind, Lv, Plain, Pv, Segment, State, failed};
use super::{Running, layers, moving};
use crate::{HostError, ImageHealth, RaidImage, RaidLevel, RaidStatus, RaidVolume, Raids, SyncAction};

const DATA: &str = "_tdata";
const METADATA: &str = "_tmeta";

impl Raids for Running {
    fn raid_status(&self, vg: &str, lv: &str) -> Result<Option<RaidStatus>, HostError> {
        self.look("raids.raid_status", &format!("{vg}/{lv}"), |state| {
            Ok(status(state, vg, lv))
        })
    }

    fn wait(&self, vg: &str, lv: &str, limit: Duration) -> Result<Option<RaidStatus>, HostError> {
        let status = self.raid_status(vg, lv)?;
        if status.as_ref().is_none_or(|status| status.action == SyncAction::Idle) {
            return Ok(status);
        }
        let lock = self
            .inner
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(
            self.inner
                .changed
                .wait_timeout_while(lock, limit, |state| state.filling.is_some() && state.boot == self.boot),
        );
        self.raid_status(vg, lv)
    }

    fn extend_vg(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        self.change("raids.extend_vg", vg, |state| {
            ours(state, "extend_vg", vg)?;
            let disk = state.at("extend_vg", node)?;
            let found = state.lvm_signatures(disk);
            if !found.is_empty() || state.disks[disk].device.busy || state.disks[disk].device.boot {
                let id = state.disks[disk].device.id.clone();
                let violation = format!("extend_vg with {id}, which carries {found:?} or is in use");
                state.violations.push(violation);
                return Err(failed("extend_vg", "something is on the device"));
            }
            let uuid = state.fresh_uuid();
            state.disks[disk].pv = Some(Pv::of(uuid, vg, state.lvm_size(disk)));
            state.disks[disk].writes.push(format!("extend_vg {vg}"));
            if state.midway {
                // The label is written first.
                state.disks[disk].pv.iter_mut().for_each(|pv| pv.vg = None);
                return Ok(());
            }
            state.note_missing(vg);
            Ok(())
        })
    }

    fn resize_pv(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        self.change("raids.resize_pv", vg, |state| {
            whole(state, "resize_pv", vg)?;
            let disk = state.at("resize_pv", node)?;
            let (size, taken) = (
                state.lvm_size(disk),
                state.extents_of(disk) - state.free_extents_of(disk),
            );
            if state.unsummed(disk) {
                let id = state.disks[disk].device.id.clone();
                state
                    .violations
                    .push(format!("resize_pv on {id}, which has no checksums behind"));
            }
            match &mut state.disks[disk].pv {
                Some(pv) if pv.vg.as_deref() == Some(vg) => {
                    if size < EXTENT.saturating_mul(taken) {
                        return Err(failed("resize_pv", "cannot resize: later ones are allocated"));
                    }
                    pv.size = size;
                    Ok(())
                }
                Some(_) | None => Err(failed("resize_pv", "Failed to find physical volume")),
            }
        })
    }

    fn move_off(&self, vg: &str, node: &Path, to: &[PathBuf]) -> Result<(), HostError> {
        self.change("raids.move_off", vg, |state| {
            whole(state, "move_off", vg)?;
            let disk = state.at("move_off", node)?;
            let to = numbers(state, "move_off", to)?;
            moving::move_off(state, vg, disk, &to)
        })
    }

    fn reduce_vg(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        self.change("raids.reduce_vg", vg, |state| {
            whole(state, "reduce_vg", vg)?;
            let disk = state.at("reduce_vg", node)?;
            if !state.members(vg).contains(&disk) || state.free_extents_of(disk) < state.extents_of(disk) {
                return Err(failed("reduce_vg", "Physical volume still in use"));
            }
            if state.members(vg).len() == 1 {
                return Err(failed("reduce_vg", "Can't remove final physical volume"));
            }
            state.disks[disk].writes.push("reduce_vg".to_owned());
            match &mut state.disks[disk].pv {
                // The label is taken off last.
                Some(pv) if state.midway => pv.vg = None,
                pv => *pv = None,
            }
            Ok(())
        })
    }

    fn forget_missing(&self, vg: &str) -> Result<(), HostError> {
        self.change("raids.forget_missing", vg, |state| {
            ours(state, "forget_missing", vg)?;
            let missing: Vec<usize> = state.members(vg).into_iter().filter(|n| !state.there(*n)).collect();
            if missing.iter().any(|n| state.free_extents_of(*n) < state.extents_of(*n)) {
                return Err(failed("forget_missing", "There are still partial LVs"));
            }
            for disk in missing {
                if let Some(pv) = &mut state.disks[disk].pv {
                    (pv.vg, pv.missing) = (None, false);
                }
            }
            Ok(())
        })
    }

    fn restore_pv(&self, vg: &str, node: &Path) -> Result<(), HostError> {
        self.change("raids.restore_pv", vg, |state| {
            ours(state, "restore_pv", vg)?;
            let disk = state.at("restore_pv", node)?;
            if state.disks[disk].errs {
                return Err(failed("restore_pv", "Failed to write VG"));
            }
            match &mut state.disks[disk].pv {
                Some(pv) if pv.vg.as_deref() == Some(vg) && pv.missing => pv.missing = false,
                Some(_) | None => return Err(failed("restore_pv", "PV was not missing. No PV has been restored.")),
            }
            Ok(())
        })
    }

    fn refresh_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        self.change("raids.refresh_lv", &format!("{vg}/{lv}"), |state| {
            let there = (0..state.disks.len())
                .map(|n| state.there(n) && !state.disks[n].errs && !super::layers::fails_again(state, n));
            let there: Vec<bool> = there.collect();
            let unreadable = state.unreadable();
            let found = ours(state, "refresh_lv", vg)?.lvs.get_mut(lv);
            let found = found
                .filter(|lv| lv.active)
                .ok_or_else(|| failed("refresh_lv", "no such active volume"))?;
            for plain in found.plains_mut() {
                let back = |image: &usize| {
                    let mut disks = plain.segments.iter().filter_map(|segment| segment.disks.get(*image));
                    disks.all(|disk| there[*disk])
                };
                let (gone, back): (BTreeSet<usize>, BTreeSet<usize>) =
                    plain.dead.iter().copied().partition(|image| !back(image));
                plain.dead = gone;
                let again: BTreeSet<usize> = std::mem::take(&mut plain.stalled);
                again.union(&back).for_each(|image| plain.fill(*image, &unreadable));
            }
            Ok(())
        })
    }

    fn repair_lv(&self, vg: &str, lv: &str, new: &Path) -> Result<(), HostError> {
        self.change("raids.repair_lv", &format!("{vg}/{lv}"), |state| {
            let plain = settled(state, "repair_lv", vg, lv)?;
            let lost: Vec<usize> = numbered(&state.images_there(&plain), false);
            let new = numbers(state, "repair_lv", &[new.to_owned()])?[0];
            if !plain.level.has_all_data(&state.images_there(&plain)) {
                return Err(failed("repair_lv", "not enough operational devices"));
            }
            // One device takes one image.
            match lost[..] {
                [] => Ok(()),
                [image, ..] => put(state, "repair_lv", vg, lv, image, new),
            }
        })
    }

    fn replace_image(&self, vg: &str, lv: &str, old: &Path, new: &Path) -> Result<(), HostError> {
        self.change("raids.replace_image", &format!("{vg}/{lv}"), |state| {
            whole(state, "replace_image", vg)?;
            let plain = settled(state, "replace_image", vg, lv)?;
            let disks = numbers(state, "replace_image", &[old.to_owned(), new.to_owned()])?;
            let image = plain
                .segments
                .iter()
                .find_map(|segment| segment.disks.iter().position(|d| *d == disks[0]))
                .ok_or_else(|| failed("replace_image", "does not contain devices specified to replace"))?;
            let mut good = state.images_there(&plain);
            good[image] = false;
            plain.dead.iter().for_each(|dead| good[*dead] = false);
            if !plain.level.has_all_data(&good) {
                return Err(failed("replace_image", "not enough operational devices"));
            }
            put(state, "replace_image", vg, lv, image, disks[1])
        })
    }

    fn rebuild_image(&self, vg: &str, lv: &str, node: &Path) -> Result<(), HostError> {
        self.change("raids.rebuild_image", &format!("{vg}/{lv}"), |state| {
            whole(state, "rebuild_image", vg)?;
            let plain = settled(state, "rebuild_image", vg, lv)?;
            let disk = numbers(state, "rebuild_image", &[node.to_owned()])?[0];
            let mut segments = plain.segments.iter();
            let image = segments.find_map(|segment| segment.disks.iter().position(|d| *d == disk));
            let image = image.ok_or_else(|| failed("rebuild_image", "no image on that device"))?;
            let mut good = state.images_there(&plain);
            good[image] = false;
            plain.dead.iter().for_each(|dead| good[*dead] = false);
            if !plain.level.is_raid() || !plain.level.has_all_data(&good) {
                return Err(failed("rebuild_image", "not enough operational devices"));
            }
            let unreadable = state.unreadable();
            if let Some(plain) = part(state, vg, lv) {
                plain.dead.remove(&image);
                plain.fill(image, &unreadable);
            }
            super::layers::write_over(state, disk);
            if state.slow {
                state.filling = Some(Percent::from(0.0));
            }
            Ok(())
        })
    }

    fn scrub(&self, vg: &str, lv: &str, repair: bool) -> Result<(), HostError> {
        self.change("raids.scrub", &format!("{vg}/{lv}"), |state| {
            let plain = settled(state, "scrub", vg, lv)?;
            if !plain.level.is_raid() {
                return Err(failed("scrub", "it is not on several disks"));
            }
            let action = if repair { SyncAction::Repair } else { SyncAction::Check };
            // The kernel tells what a check found, and 0 after a repair (`raid_status` in dm-raid.c).
            let found = match repair {
                true => 0,
                false => *state.differ.get(&format!("{vg}/{lv}")).unwrap_or(&0),
            };
            state.mismatches.insert(format!("{vg}/{lv}"), found);
            let disks: Vec<usize> = plain
                .segments
                .iter()
                .flat_map(|segment| segment.disks.clone())
                .collect();
            layers::heal(state, &disks);
            if repair {
                state.differ.remove(&format!("{vg}/{lv}"));
            }
            if state.slow {
                state.filling = Some(Percent::from(0.0));
                state.comparing = Some(action);
            }
            Ok(())
        })
    }

    fn stop_scrub(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        let stopped = self.change("raids.stop_scrub", &format!("{vg}/{lv}"), |state| {
            if state.comparing.take().is_some() {
                state.filling = None;
            }
            Ok(())
        });
        self.inner.changed.notify_all();
        stopped
    }
}

/// The volume that a name of LVM's own belongs to: itself, or the thin pool of which it is a part.
fn whose(lv: &str) -> &str {
    let part = lv.strip_suffix(DATA).or_else(|| lv.strip_suffix(METADATA));
    part.unwrap_or(lv)
}

/// What goes by LVM's own name: a plain volume, or a part of a thin pool.
fn part<'a>(state: &'a mut State, vg: &str, lv: &str) -> Option<&'a mut Plain> {
    let found = state.vgs.get_mut(vg)?.lvs.get_mut(whose(lv))?;
    match &mut found.kind {
        Kind::Pool { data, .. } if lv.ends_with(DATA) => Some(data),
        Kind::Pool { metadata, .. } if lv.ends_with(METADATA) => Some(metadata),
        Kind::Plain(plain) if whose(lv) == lv => Some(plain),
        Kind::Plain(_) | Kind::Pool { .. } | Kind::Thin { .. } => None,
    }
}

fn settled(state: &mut State, operation: &str, vg: &str, lv: &str) -> Result<Plain, HostError> {
    ours(state, operation, vg)?;
    if state.filling.is_some() {
        return Err(failed(operation, "Unable to replace devices while it is not in-sync"));
    }
    let plain = part(state, vg, lv).cloned();
    plain.ok_or_else(|| failed(operation, "no such volume"))
}

fn numbered(images: &[bool], wanted: bool) -> Vec<usize> {
    let found = images.iter().enumerate().filter(|(_, there)| **there == wanted);
    found.map(|(number, _)| number).collect()
}

/// Moves an image, whole, to a disk of the group.
fn put(state: &mut State, operation: &str, vg: &str, lv: &str, image: usize, disk: usize) -> Result<(), HostError> {
    let members = state.members(vg);
    let free = state.free_extents_of(disk);
    let unreadable = state.unreadable();
    let short = || failed(operation, "Insufficient suitable allocatable extents");
    let plain = part(state, vg, lv).ok_or_else(|| failed(operation, "no such volume"))?;
    let extents: u64 = plain.segments.iter().map(|segment| segment.extents).sum();
    let taken = plain.segments.iter().any(|segment| segment.disks.contains(&disk));
    if !members.contains(&disk) || taken || free < extents + u64::from(plain.level.is_raid()) {
        return Err(short());
    }
    let before = plain.segments.clone();
    for segment in &mut plain.segments {
        if let Some(at) = segment.disks.get_mut(image) {
            *at = disk;
        }
    }
    plain.dead.remove(&image);
    plain.fill(image, &unreadable);
    state.note_missing(vg);
    if state.midway {
        leave_extracted(state, vg, lv, image, &before);
    }
    if state.slow {
        state.filling = Some(Percent::from(0.0));
    }
    Ok(())
}

/// LVM takes an image that it replaced out of its volume with one commit, and removes it with another: between the two, what
/// it lay on is a volume of its own (`_lv_raid_rebuild_or_replace` in raid_manip.c).
fn leave_extracted(state: &mut State, vg: &str, lv: &str, image: usize, before: &[Segment]) {
    let on = |extents: u64, segment: &Segment| Segment {
        disks: segment.disks.get(image).copied().into_iter().collect(),
        extents,
    };
    let data = before.iter().map(|segment| on(segment.extents, segment)).collect();
    let metadata = before.iter().take(1).map(|segment| on(1, segment)).collect();
    let Some(group) = state.vgs.get_mut(vg) else { return };
    for (part, segments) in [("rimage", data), ("rmeta", metadata)] {
        let left = Lv {
            tags: BTreeSet::new(),
            active: false,
            skipped: false,
            kind: Kind::Plain(Plain {
                level: RaidLevel::Linear,
                segments,
                dead: BTreeSet::new(),
                stalled: BTreeSet::new(),
                unfinished: false,
            }),
        };
        group.lvs.insert(format!("{lv}_{part}_{image}_extracted"), left);
    }
}

/// A disk that would hold two images, if these segments were added.
pub(super) fn shared(plain: &Plain, more: &[Segment]) -> Option<usize> {
    let all = || {
        plain
            .segments
            .iter()
            .chain(more)
            .flat_map(|segment| segment.disks.iter().enumerate())
    };
    let twice = |(image, disk): (usize, &usize)| all().any(|(other, same)| same == disk && other != image);
    plain
        .level
        .is_raid()
        .then(|| all().find(|entry| twice(*entry)).map(|(_, disk)| *disk))?
}

fn status(state: &State, vg: &str, lv: &str) -> Option<RaidStatus> {
    let found = state.vgs.get(vg)?.lvs.get(whose(lv)).filter(|lv| lv.active)?;
    let plain = match &found.kind {
        Kind::Pool { data, .. } if lv.ends_with(DATA) => data,
        Kind::Pool { metadata, .. } if lv.ends_with(METADATA) => metadata,
        Kind::Plain(plain) if whose(lv) == lv => plain,
        Kind::Plain(_) | Kind::Pool { .. } | Kind::Thin { .. } => return None,
    };
    if !plain.level.is_raid() {
        return None;
    }
    let health = |image| match plain.dead.contains(&image) {
        true => ImageHealth::Failed,
        false if plain.stalled.contains(&image) => ImageHealth::Filling,
        false => ImageHealth::Good,
    };
    Some(RaidStatus {
        images: (0..plain.level.images() as usize).map(health).collect(),
        done: state.filling.unwrap_or(Percent::FULL),
        action: match (state.filling, state.comparing) {
            (None, _) => SyncAction::Idle,
            (Some(_), Some(action)) => action,
            (Some(_), None) => SyncAction::Recover,
        },
        mismatches: *state.mismatches.get(&format!("{vg}/{lv}")).unwrap_or(&0),
    })
}

/// What a thin pool lies on.
pub(super) fn volumes(state: &State, vg: &str, pool: &str, data: &Plain, metadata: &Plain) -> [RaidVolume; 2] {
    let mut volumes = [(data, DATA), (metadata, METADATA)].map(|(plain, suffix)| RaidVolume {
        vg: vg.to_owned(),
        name: format!("{pool}{suffix}"),
        size: EXTENT.saturating_mul(plain.extents()),
        level: Some(plain.level),
        images: match plain.level {
            RaidLevel::Linear => vec![image(state, plain, None)],
            RaidLevel::Mirror { .. }
            | RaidLevel::StripeMirror { .. }
            | RaidLevel::Parity { .. }
            | RaidLevel::DoubleParity { .. } => (0..plain.level.images() as usize)
                .map(|number| image(state, plain, Some(number)))
                .collect(),
        },
    });
    for volume in &mut volumes {
        if let Some(status) = status(state, vg, &volume.name) {
            volume.note_health(&status);
        }
    }
    volumes
}

fn image(state: &State, plain: &Plain, number: Option<usize>) -> RaidImage {
    let disks = plain.segments.iter().flat_map(|segment| match number {
        None => segment.disks.clone(),
        Some(number) => segment.disks.get(number).copied().into_iter().collect(),
    });
    let disks: Vec<usize> = disks.collect();
    let mut nodes: Vec<_> = disks
        .iter()
        .filter(|n| state.readable(**n))
        .map(|n| state.lvm_node(*n))
        .collect();
    nodes.sort();
    nodes.dedup();
    let missing = disks.iter().any(|n| !state.there(*n));
    RaidImage {
        nodes,
        missing,
        failed: !missing && number.is_some_and(|number| plain.dead.contains(&number)),
        behind: false,
        stalled: false,
    }
}
