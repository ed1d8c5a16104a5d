//! LVM, as it behaves: a group that lacks a disk takes tags and no other change; a volume that lacks one is not activated,
//! but by who says so; what is open is not removed; a thin pool is removed with all that lies in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_model::{Bytes, Percent};

use super::Running;
use super::allocation::allocate;
use super::guards::{check_tags, numbers, ours, roomy, whole};
use super::lvm_report::report;
use super::state::{EXTENT, Kind, Lv, Plain, Pv, SYSTEM_ID, State, Vg, busy, failed};
use super::{raid, thin};
use crate::linux::lvm::args;
use crate::{Activation, HostError, Lvm, LvmState, LvmStep, RaidLevel, TagChange, ThinSize};

/// One that lacks a disk, or that is not finished.
const REFUSED: &str = "Refusing activation";

impl Lvm for Running {
    fn system_id(&self) -> Result<String, HostError> {
        self.look("lvm.system_id", "", |_| Ok(SYSTEM_ID.to_owned()))
    }

    fn command_line(&self, step: &LvmStep) -> Result<Vec<String>, HostError> {
        self.look("lvm.command_line", "", |_| Ok(args::step(step, SYSTEM_ID).line()))
    }

    fn state(&self) -> Result<LvmState, HostError> {
        self.look("lvm.state", "", |state| Ok(report(state)))
    }

    fn hide(&self, nodes: BTreeSet<PathBuf>) {
        // A machine that has lost its power forgets it all the same.
        let _ = self.look("lvm.hide", "", |state| {
            state.hidden = nodes;
            Ok(())
        });
    }

    fn resume(&self, _patience: Duration) -> Result<Vec<String>, HostError> {
        self.look("lvm.resume", "", |state| {
            let volumes = std::mem::take(&mut state.suspended);
            let parts = volumes.iter().filter_map(|volume| volume.split_once('/'));
            Ok(parts.map(|(vg, lv)| args::dm_name(vg, lv)).collect())
        })
    }

    fn remove_pv(&self, node: &Path) -> Result<(), HostError> {
        self.change("lvm.remove_pv", &node.display().to_string(), |state| {
            let at = state.at("remove_pv", node)?;
            match &state.disks[at].pv {
                Some(Pv { vg: None, .. }) => {}
                Some(Pv { vg: Some(_), .. }) | None => return Err(failed("remove_pv", "no free physical volume")),
            }
            state.disks[at].pv = None;
            state.disks[at].writes.push("remove_pv".to_owned());
            Ok(())
        })
    }

    fn create_vg(&self, vg: &str, nodes: &[PathBuf], tags: &[String]) -> Result<(), HostError> {
        self.change("lvm.create_vg", vg, |state| {
            if state.vgs.contains_key(vg) || nodes.is_empty() {
                return Err(failed("create_vg", "the group is there, or would be empty"));
            }
            check_tags("create_vg", tags)?;
            let disks = numbers(state, "create_vg", nodes)?;
            for disk in &disks {
                let found = state.lvm_signatures(*disk);
                if !found.is_empty() || state.disks[*disk].device.busy || state.disks[*disk].device.boot {
                    let id = state.disks[*disk].device.id.clone();
                    state
                        .violations
                        .push(format!("create_vg on {id}, which carries {found:?} or is in use"));
                    return Err(failed("create_vg", "something is on a device"));
                }
            }
            // The labels are written first, one after the other.
            let labelled = if state.midway {
                disks.len().div_ceil(2)
            } else {
                disks.len()
            };
            for disk in disks.into_iter().take(labelled) {
                let uuid = state.fresh_uuid();
                let pv = Pv::of(uuid, vg, state.lvm_size(disk));
                state.disks[disk].writes.push(format!("create_vg {vg}"));
                let vg = (!state.midway).then(|| vg.to_owned());
                state.disks[disk].pv = Some(Pv { vg, ..pv });
            }
            if state.midway {
                return Ok(());
            }
            let group = Vg {
                tags: tags.iter().cloned().collect(),
                system_id: SYSTEM_ID.to_owned(),
                ..Vg::default()
            };
            state.vgs.insert(vg.to_owned(), group);
            Ok(())
        })
    }

    fn remove_vg(&self, vg: &str) -> Result<(), HostError> {
        self.change("lvm.remove_vg", vg, |state| {
            if !whole(state, "remove_vg", vg)?.lvs.is_empty() {
                return Err(failed("remove_vg", "it has volumes"));
            }
            for disk in state.members(vg) {
                if let Some(pv) = &mut state.disks[disk].pv {
                    pv.vg = None;
                }
            }
            state.vgs.remove(vg);
            Ok(())
        })
    }

    fn tag_vg(&self, vg: &str, change: &TagChange) -> Result<(), HostError> {
        self.change("lvm.tag_vg", vg, |state| {
            check_tags("tag_vg", &change.add)?;
            state.note_missing(vg);
            let group = ours(state, "tag_vg", vg)?;
            group.tags.retain(|tag| !change.remove.contains(tag));
            group.tags.extend(change.add.iter().cloned());
            Ok(())
        })
    }

    fn create_lv(
        &self,
        vg: &str,
        lv: &str,
        level: RaidLevel,
        extents: u64,
        nodes: &[PathBuf],
        tags: &[String],
    ) -> Result<(), HostError> {
        self.change("lvm.create_lv", &format!("{vg}/{lv}"), |state| {
            let disks = numbers(state, "create_lv", nodes)?;
            check_tags("create_lv", tags)?;
            if whole(state, "create_lv", vg)?.lvs.contains_key(lv) {
                return Err(failed("create_lv", "it is there"));
            }
            let raid = u64::from(level.is_raid());
            let segments = allocate(state, "create_lv", vg, level, extents, raid, &disks)?;
            let unfinished = state.midway && level.is_raid();
            let made = Lv {
                tags: tags.iter().cloned().collect(),
                active: false,
                skipped: unfinished,
                kind: Kind::Plain(Plain {
                    level,
                    segments,
                    dead: BTreeSet::new(),
                    stalled: BTreeSet::new(),
                    unfinished,
                }),
            };
            whole(state, "create_lv", vg)?.lvs.insert(lv.to_owned(), made);
            Ok(())
        })
    }

    fn extend_lv(&self, vg: &str, lv: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError> {
        self.change("lvm.extend_lv", &format!("{vg}/{lv}"), |state| {
            let disks = numbers(state, "extend_lv", nodes)?;
            let plain = match whole(state, "extend_lv", vg)?.lvs.get(lv).map(|lv| &lv.kind) {
                Some(Kind::Plain(plain) | Kind::Pool { data: plain, .. }) => plain.clone(),
                Some(Kind::Thin { .. }) | None => {
                    return Err(failed("extend_lv", "no such plain volume, nor a pool"));
                }
            };
            // LVM would.
            if plain.unfinished {
                state
                    .violations
                    .push(format!("extend_lv of {vg}/{lv}, which is unfinished"));
            }
            let more = allocate(state, "extend_lv", vg, plain.level, extents, 0, &disks)?;
            if let Some(disk) = raid::shared(&plain, &more) {
                let id = state.disks[disk].device.id.clone();
                state.violations.push(format!("extend_lv puts two images on {id}"));
            }
            let thin_pool = matches!(
                whole(state, "extend_lv", vg)?.lvs.get(lv).map(|lv| &lv.kind),
                Some(Kind::Pool { .. })
            );
            let plain = match whole(state, "extend_lv", vg)?.lvs.get_mut(lv).map(|lv| &mut lv.kind) {
                Some(Kind::Plain(plain) | Kind::Pool { data: plain, .. }) => plain,
                Some(Kind::Thin { .. }) | None => return Ok(()),
            };
            plain.segments.extend(more);
            // What is added is made to agree.
            let raid = plain.level.is_raid();
            if raid && state.slow && thin_pool {
                state.filling = Some(Percent::from(0.0));
            }
            Ok(())
        })
    }

    fn convert_to_thin_pool(&self, vg: &str, data: &str, metadata: &str, chunk: Bytes) -> Result<(), HostError> {
        self.change("lvm.convert_to_thin_pool", &format!("{vg}/{data}"), |state| {
            let operation = "convert_to_thin_pool";
            let good = chunk >= Bytes::new(64 << 10) && chunk <= Bytes::gib(1) && chunk.get().is_power_of_two();
            if !good {
                return Err(failed(operation, "no chunk size"));
            }
            let group = whole(state, operation, vg)?;
            let plain = |lv: Option<&Lv>| match lv.map(|lv| &lv.kind) {
                // Both are activated for it.
                Some(Kind::Plain(plain)) if plain.unfinished => Err(failed(operation, REFUSED)),
                Some(Kind::Plain(plain)) => Ok(plain.clone()),
                Some(Kind::Pool { .. } | Kind::Thin { .. }) | None => Err(failed(operation, "no such plain volume")),
            };
            let (d, m) = (plain(group.lvs.get(data))?, plain(group.lvs.get(metadata))?);
            group.lvs.remove(metadata);
            if let Some(lv) = group.lvs.get_mut(data) {
                lv.kind = Kind::Pool { data: d, metadata: m };
            }
            Ok(())
        })
    }

    fn create_thin(&self, vg: &str, pool: &str, lv: &str, size: Bytes, tags: &[String]) -> Result<(), HostError> {
        self.change("lvm.create_thin", &format!("{vg}/{lv}"), |state| {
            check_tags("create_thin", tags)?;
            let group = whole(state, "create_thin", vg)?;
            let in_pool = matches!(group.lvs.get(pool).map(|lv| &lv.kind), Some(Kind::Pool { .. }));
            if !in_pool || group.lvs.contains_key(lv) {
                return Err(failed("create_thin", "no such pool, or the volume is there"));
            }
            roomy(state, "create_thin", vg)?;
            let group = whole(state, "create_thin", vg)?;
            if let Some(pool) = group.lvs.get_mut(pool) {
                pool.active = true;
            }
            let made = Lv {
                tags: tags.iter().cloned().collect(),
                active: true,
                skipped: false,
                kind: Kind::Thin {
                    size: size.round_up(EXTENT),
                    xfs: None,
                },
            };
            group.lvs.insert(lv.to_owned(), made);
            Ok(())
        })
    }

    fn create_thin_snapshot(
        &self,
        vg: &str,
        origin: &str,
        lv: &str,
        tags: &[String],
        active: bool,
    ) -> Result<(), HostError> {
        self.change("lvm.create_thin_snapshot", &format!("{vg}/{lv}"), |state| {
            check_tags("create_thin_snapshot", tags)?;
            let group = whole(state, "create_thin_snapshot", vg)?;
            let copied = match group.lvs.get(origin).map(|lv| &lv.kind) {
                Some(Kind::Thin { size, xfs }) => Kind::Thin {
                    size: *size,
                    xfs: xfs.clone(),
                },
                Some(Kind::Plain(_) | Kind::Pool { .. }) | None => {
                    return Err(failed("create_thin_snapshot", "no such thin volume"));
                }
            };
            if group.lvs.contains_key(lv) {
                return Err(failed("create_thin_snapshot", "the volume is there"));
            }
            roomy(state, "create_thin_snapshot", vg)?;
            let group = whole(state, "create_thin_snapshot", vg)?;
            let made = Lv {
                tags: tags.iter().cloned().collect(),
                active,
                skipped: !active,
                kind: copied,
            };
            group.lvs.insert(lv.to_owned(), made);
            let pools = group.lvs.values_mut().filter(|lv| matches!(lv.kind, Kind::Pool { .. }));
            pools.for_each(|pool| pool.active |= active);
            Ok(())
        })
    }

    fn rename_lv(&self, vg: &str, from: &str, to: &str) -> Result<(), HostError> {
        self.change("lvm.rename_lv", &format!("{vg}/{from}"), |state| {
            let group = whole(state, "rename_lv", vg)?;
            if group.lvs.contains_key(to) {
                return Err(failed("rename_lv", "the name is taken"));
            }
            let renamed = group.lvs.remove(from);
            let renamed = renamed.ok_or_else(|| failed("rename_lv", "no such volume"))?;
            group.lvs.insert(to.to_owned(), renamed);
            let (old, new) = (
                PathBuf::from(format!("/dev/{vg}/{from}")),
                PathBuf::from(format!("/dev/{vg}/{to}")),
            );
            for (target, source) in state.mounts.iter_mut().filter(|(_, source)| **source == old) {
                // The kernel keeps the name that it was given.
                state.given.entry(target.clone()).or_insert(old.clone());
                source.clone_from(&new);
            }
            Ok(())
        })
    }

    fn extend_thin(&self, vg: &str, lv: &str, size: Bytes) -> Result<(), HostError> {
        self.change("lvm.extend_thin", &format!("{vg}/{lv}"), |state| {
            let group = whole(state, "extend_thin", vg)?;
            match group.lvs.get_mut(lv).map(|lv| &mut lv.kind) {
                Some(Kind::Thin { size: has, .. }) if *has < size.round_up(EXTENT) => {
                    *has = size.round_up(EXTENT);
                    Ok(())
                }
                Some(Kind::Thin { .. }) => Err(failed("extend_thin", "New size does not exceed the old one")),
                Some(Kind::Plain(_) | Kind::Pool { .. }) | None => Err(failed("extend_thin", "no such thin volume")),
            }
        })
    }

    fn tag_lv(&self, vg: &str, lv: &str, change: &TagChange) -> Result<(), HostError> {
        self.change("lvm.tag_lv", &format!("{vg}/{lv}"), |state| {
            check_tags("tag_lv", &change.add)?;
            state.note_missing(vg);
            let lv = ours(state, "tag_lv", vg)?.lvs.get_mut(lv);
            let lv = lv.ok_or_else(|| failed("tag_lv", "no such volume"))?;
            lv.tags.retain(|tag| !change.remove.contains(tag));
            lv.tags.extend(change.add.iter().cloned());
            Ok(())
        })
    }

    fn activate_lv(&self, vg: &str, lv: &str, mode: Activation) -> Result<(), HostError> {
        self.change("lvm.activate_lv", &format!("{vg}/{lv}"), |state| {
            if !activate(state, vg, lv, mode)? {
                return Err(failed("activate_lv", REFUSED));
            }
            Ok(())
        })
    }

    fn activate_vg(&self, vg: &str, mode: Activation) -> Result<(), HostError> {
        self.change("lvm.activate_vg", vg, |state| {
            let lvs = ours(state, "activate_vg", vg)?.lvs.iter();
            let names: Vec<String> = lvs
                .filter(|(_, lv)| !lv.skipped)
                .map(|(name, _)| name.clone())
                .collect();
            let mut all = true;
            for lv in names {
                all &= activate(state, vg, &lv, mode)?;
            }
            if all {
                Ok(())
            } else {
                Err(failed("activate_vg", REFUSED))
            }
        })
    }

    fn deactivate_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        self.change("lvm.deactivate_lv", &format!("{vg}/{lv}"), |state| {
            if state.open(vg, lv) {
                return Err(busy("deactivate_lv", lv));
            }
            let found = ours(state, "deactivate_lv", vg)?.lvs.get_mut(lv);
            found.ok_or_else(|| failed("deactivate_lv", "no such volume"))?.active = false;
            Ok(())
        })
    }

    fn deactivate_vg(&self, vg: &str) -> Result<(), HostError> {
        self.change("lvm.deactivate_vg", vg, |state| {
            let names: Vec<String> = ours(state, "deactivate_vg", vg)?.lvs.keys().cloned().collect();
            if names.iter().any(|lv| state.open(vg, lv)) {
                return Err(busy("deactivate_vg", vg));
            }
            ours(state, "deactivate_vg", vg)?
                .lvs
                .values_mut()
                .for_each(|lv| lv.active = false);
            Ok(())
        })
    }

    fn remove_lv(&self, vg: &str, lv: &str) -> Result<(), HostError> {
        self.change("lvm.remove_lv", &format!("{vg}/{lv}"), |state| {
            let changeable = if state.is_plain(vg, lv) { ours } else { whole };
            let group = changeable(state, "remove_lv", vg)?;
            let removed: Vec<String> = match group.lvs.get(lv).map(|lv| &lv.kind) {
                None => return Err(failed("remove_lv", "no such volume")),
                Some(Kind::Pool { .. }) => {
                    let thin = |lv: &Lv| matches!(lv.kind, Kind::Thin { .. });
                    let thin = group
                        .lvs
                        .iter()
                        .filter(|(_, lv)| thin(lv))
                        .map(|(name, _)| name.clone());
                    thin.chain([lv.to_owned()]).collect()
                }
                Some(Kind::Plain(_) | Kind::Thin { .. }) => vec![lv.to_owned()],
            };
            if let Some(open) = removed.iter().find(|name| state.open(vg, name)) {
                return Err(busy("remove_lv", open));
            }
            let group = ours(state, "remove_lv", vg)?;
            removed.iter().for_each(|name| drop(group.lvs.remove(name)));
            Ok(())
        })
    }

    fn thin_sizes(&self, vg: &str, pool: &str) -> Result<BTreeMap<String, ThinSize>, HostError> {
        self.look("lvm.thin_sizes", &format!("{vg}/{pool}"), |state| {
            thin::sizes(ours(state, "thin_sizes", vg)?, pool)
        })
    }

    fn lies_on_gone(&self, vg: &str) -> Result<bool, HostError> {
        self.look("lvm.lies_on_gone", vg, |state| {
            let lvs = state.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.values());
            let active = lvs.filter(|lv| lv.active);
            Ok(active.flat_map(Lv::plains).any(|plain| !plain.dead.is_empty()))
        })
    }

    fn node(&self, vg: &str, lv: &str) -> PathBuf {
        PathBuf::from(format!("/dev/{vg}/{lv}"))
    }
}

/// Whether it is active now.
fn activate(state: &mut State, vg: &str, lv: &str, mode: Activation) -> Result<bool, HostError> {
    let Some(found) = ours(state, "activate", vg)?.lvs.get(lv) else {
        return Err(failed("activate", "no such volume"));
    };
    if found.active {
        return Ok(true);
    }
    if found.plains().iter().any(|plain| plain.unfinished) {
        return Ok(false);
    }
    let found = state.vgs.get(vg).and_then(|vg| vg.lvs.get(lv));
    if found.is_some_and(|lv| state.partial(vg, lv)) {
        match mode {
            Activation::Complete => return Ok(false),
            // LVM would, and then reads of what is lost fail: who asks has to have counted. What it left of an image nobody reads.
            Activation::Partial
                if !lv.ends_with("_extracted") && !found.is_some_and(|lv| state.has_all_data(vg, lv)) =>
            {
                let why = format!("{vg}/{lv} was activated and not all of its data is there");
                state.violations.push(why);
            }
            Activation::Partial => {}
        }
    }
    let there: Vec<bool> = (0..state.disks.len()).map(|n| state.there(n)).collect();
    let unreadable = state.unreadable();
    let Some(group) = state.vgs.get_mut(vg) else {
        return Ok(false);
    };
    let thin = matches!(group.lvs.get(lv).map(|lv| &lv.kind), Some(Kind::Thin { .. }));
    for (name, lv_there) in &mut group.lvs {
        // A thin volume takes its pool along.
        if name == lv || (thin && matches!(lv_there.kind, Kind::Pool { .. })) {
            if !lv_there.active {
                for plain in lv_there.plains_mut() {
                    plain.assemble(&there);
                    // What was broken off is gone on with.
                    let stalled = plain.stalled.clone();
                    stalled.iter().for_each(|image| plain.fill(*image, &unreadable));
                }
            }
            lv_there.active = true;
        }
    }
    Ok(true)
}
