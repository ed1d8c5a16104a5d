//! Layers between disks and LVM, as they behave: what lies on them is not seen before they are open; a restart and a
//! pulled disk close them; a wrong key opens nothing; checksums tell garbage from data, and a copy that is left heals it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId, Signature};

use super::state::{State, busy, failed};
use super::{MemoryHost, Running};
use crate::linux::layers::{args, growth};
use crate::{FoundLayers, HostError, LayerKey, LayerSpec, LayerStack, Layers, OpenLayers};

/// So many corrected read errors within an hour, and the kernel uses an image no more (`MD_DEFAULT_MAX_CORRECTED_READ_ERRORS`).
const MOST_CORRECTED: u64 = 20;

/// The layers on a disk.
#[derive(Debug, Clone)]
pub(super) struct Laid {
    stack: LayerStack,
    label: String,
    key: Option<String>,
    /// The partition is there and nothing is in it.
    bare: bool,
    pub(super) open: bool,
    /// The disk's size when they were laid, or took up what it had grown by.
    took: Bytes,
    /// What came by that has no checksums.
    unsummed: bool,
    /// Since they were opened.
    mismatches: u64,
    /// Blocks that somebody wrote below them.
    garbage: u64,
    /// Of how many of them the kernel still has the checksum in memory, as it was.
    remembered: u64,
    /// The kernel has given up an image here for too many errors.
    worn: bool,
}

impl Laid {
    pub(super) fn close(&mut self) {
        (self.open, self.mismatches) = (false, 0);
    }

    /// What is in the partition is gone, and the partition is there.
    pub(super) fn empty(&mut self) {
        self.bare = true;
    }
}

/// What came of reading all that is in a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllRead {
    /// Blocks of garbage that were handed to the reader.
    pub wrong: u64,
    /// Blocks that could not be read.
    pub errors: u64,
}

impl State {
    /// Whether LVM can see what is on a disk: it is there, its layers, if it has any, are open, and it is not hidden.
    pub(super) fn readable(&self, disk: usize) -> bool {
        let hidden = self.hidden.contains(&self.lvm_node(disk));
        let disk = &self.disks[disk];
        disk.attached && !disk.device.is_unmade() && disk.layers.as_ref().is_none_or(|laid| laid.open) && !hidden
    }

    /// The node at which LVM finds what is on a disk.
    pub(super) fn lvm_node(&self, disk: usize) -> PathBuf {
        let disk = &self.disks[disk];
        match &disk.layers {
            None => disk.device.node.clone(),
            Some(laid) => top(&disk.device.id, laid.stack),
        }
    }

    /// The size of what LVM finds on a disk.
    pub(super) fn lvm_size(&self, disk: usize) -> Bytes {
        let disk = &self.disks[disk];
        match &disk.layers {
            None => disk.device.size,
            Some(laid) => laid.stack.rest_of(laid.took),
        }
    }

    pub(super) fn found_layers(&self, disk: usize) -> Option<FoundLayers> {
        let laid = self.disks[disk].layers.as_ref()?;
        let open = laid.open.then(|| OpenLayers {
            node: self.lvm_node(disk),
            size: self.lvm_size(disk),
        });
        Some(FoundLayers {
            stack: laid.stack,
            label: (laid.stack.encrypted() && !laid.bare).then(|| laid.label.clone()),
            open,
        })
    }

    /// What LVM finds at its node: its own label, or what is on a disk that has no layers.
    pub(super) fn lvm_signatures(&self, disk: usize) -> Vec<Signature> {
        match self.disks[disk].layers {
            None => self.signatures(disk),
            Some(_) => self.label(disk).into_iter().collect(),
        }
    }

    /// Whether LVM would be given what reads as an error.
    pub(super) fn unsummed(&self, disk: usize) -> bool {
        self.disks[disk].layers.as_ref().is_some_and(|laid| laid.unsummed)
    }

    /// Fails if checksums are to be noted as never written on a disk that takes no discards.
    fn takes(&self, disk: usize, spec: &LayerSpec) -> Result<(), HostError> {
        match spec.stack.checksums() && spec.discards && !self.disks[disk].device.discards {
            true => Err(failed("layers", "BLKDISCARD ioctl failed: Operation not supported")),
            false => Ok(()),
        }
    }

    fn held_by_lvm(&self, disk: usize) -> bool {
        let vg = self.disks[disk].pv.as_ref().and_then(|pv| pv.vg.as_ref());
        let group = vg.and_then(|vg| self.vgs.get(vg));
        group.is_some_and(|group| group.lvs.values().any(|lv| lv.active))
    }

    fn open_layers(&mut self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        let operation = "open_layers";
        let at = self.raw_at(operation, &spec.node)?;
        let laid = self.disks[at].layers.as_mut();
        let laid = laid.ok_or_else(|| failed(operation, "no partition of ours"))?;
        if laid.bare || laid.stack != spec.stack {
            return Err(failed(operation, "no such layers"));
        }
        if laid.key.as_deref() != key.map(LayerKey::reveal) {
            return Err(failed(operation, "No key available with this passphrase."));
        }
        laid.open = true;
        self.take_unused_back();
        Ok(())
    }
}

fn top(disk: &DiskId, stack: LayerStack) -> PathBuf {
    args::mapper(args::names(disk, stack).last().map_or("", String::as_str))
}

impl Layers for Running {
    fn command_lines(&self, spec: &LayerSpec) -> Vec<Vec<String>> {
        args::lines(spec)
    }

    fn node(&self, disk: &DiskId, stack: LayerStack) -> PathBuf {
        top(disk, stack)
    }

    fn make(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        self.change("layers.make", spec.disk.as_str(), |state| {
            let at = state.raw_at("make_layers", &spec.node)?;
            let found = state.signatures(at);
            let device = &state.disks[at].device;
            if !found.is_empty() || device.busy || device.boot || device.free.is_some() {
                let violation = format!("layers on {}, which carries {found:?} or is in use", device.id);
                state.violations.push(violation);
                return Err(failed("make_layers", "something is on the device"));
            }
            if spec.stack.encrypted() != key.is_some() {
                return Err(failed(
                    "make_layers",
                    "a key without encryption, or the other way round",
                ));
            }
            let bare = state.midway;
            state.takes(at, spec)?;
            let disk = &mut state.disks[at];
            let took = disk.device.size;
            disk.writes.push(format!("layers {}", spec.stack));
            disk.layers = Some(Laid {
                stack: spec.stack,
                label: spec.label.clone(),
                key: key.map(|key| key.reveal().to_owned()),
                bare,
                open: !bare,
                took,
                unsummed: false,
                mismatches: 0,
                garbage: 0,
                remembered: 0,
                worn: false,
            });
            Ok(())
        })
    }

    fn open(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        self.change("layers.open", spec.disk.as_str(), |state| state.open_layers(spec, key))
    }

    fn growth_lines(&self, spec: &LayerSpec, size: Bytes) -> Vec<Vec<String>> {
        growth::growth_lines(spec, size)
    }

    fn grow(&self, spec: &LayerSpec, key: Option<&LayerKey>) -> Result<(), HostError> {
        self.change("layers.grow", spec.disk.as_str(), |state| {
            let operation = "grow_layers";
            let at = state.raw_at(operation, &spec.node)?;
            state.takes(at, spec)?;
            let used = state.disks[at].pv.as_ref().is_some_and(|pv| pv.vg.is_some());
            let (midway, size) = (state.midway, state.disks[at].device.size);
            let laid = state.disks[at].layers.as_mut();
            let laid = laid.filter(|laid| laid.open && laid.stack == spec.stack && used);
            let laid = laid.ok_or_else(|| failed(operation, "no such layers are open, or LVM does not use them"))?;
            if laid.key.as_deref() != key.map(LayerKey::reveal) {
                return Err(failed(operation, "No key available with this passphrase."));
            }
            // A kernel that loads a table anew counts anew.
            (laid.took, laid.mismatches) = (size.max(laid.took), 0);
            laid.unsummed = midway && laid.stack.checksums();
            Ok(())
        })
    }

    fn close(&self, node: &Path) -> Result<(), HostError> {
        self.change("layers.close", &node.display().to_string(), |state| {
            let at = state.raw_at("close_layers", node)?;
            let open = state.disks[at].layers.as_ref().is_some_and(|laid| laid.open);
            if open && state.held_by_lvm(at) {
                return Err(busy("close_layers", &state.lvm_node(at).display().to_string()));
            }
            state.disks[at].layers.iter_mut().for_each(Laid::close);
            Ok(())
        })
    }

    fn mismatches(&self) -> Result<BTreeMap<PathBuf, u64>, HostError> {
        self.look("layers.mismatches", "", |state| {
            let counted = |n: usize| {
                let laid = state.disks[n].layers.as_ref()?;
                (laid.open && laid.stack.checksums()).then(|| (state.lvm_node(n), laid.mismatches))
            };
            Ok((0..state.disks.len()).filter_map(counted).collect())
        })
    }

    fn forget_checksums(&self) -> Result<(), HostError> {
        self.change("layers.forget_checksums", "", |state| {
            let laid = state.disks.iter_mut().filter_map(|disk| disk.layers.as_mut());
            laid.for_each(|laid| laid.remembered = 0);
            Ok(())
        })
    }
}

impl MemoryHost {
    /// Somebody writes so many blocks of garbage to a disk, below its layers.
    pub fn garble(&self, disk: &DiskId, blocks: u64) {
        self.change_disk(disk, |disk| {
            if let Some(laid) = &mut disk.layers {
                laid.garbage += blocks;
                laid.remembered += blocks;
            }
        });
    }

    /// Somebody reads all that is in a group. What fails its checksum is read from another copy, and written anew; after
    /// too many such the kernel uses the image no more.
    pub fn read_all(&self, vg: &str) -> AllRead {
        let mut state = self.lock();
        let mut read = AllRead::default();
        for disk in state.members(vg) {
            let lvs = state.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.values());
            let redundant = lvs
                .flat_map(super::state::Lv::plains)
                .filter(|plain| plain.taken_on(disk) > 0)
                .all(|plain| plain.level.is_raid());
            let Some(laid) = &mut state.disks[disk].layers else {
                continue;
            };
            if laid.garbage == 0 || !laid.open {
                continue;
            }
            if !laid.stack.checksums() {
                read.wrong += laid.garbage;
                continue;
            }
            laid.mismatches += laid.garbage;
            if !redundant {
                read.errors += laid.garbage;
            } else if laid.garbage > MOST_CORRECTED {
                laid.garbage -= MOST_CORRECTED;
                laid.worn = true;
                state.drop_images_on(disk);
            } else {
                laid.garbage = 0;
            }
        }
        read
    }

    /// How many blocks of garbage are left on a disk.
    pub fn garbage_on(&self, disk: &DiskId) -> u64 {
        let state = self.lock();
        let laid = state.disk(disk).and_then(|disk| disk.layers.as_ref());
        laid.map_or(0, |laid| laid.garbage)
    }
}

/// Whether the kernel, which goes on counting, would give up an image on this disk again at the first block of garbage.
pub(super) fn fails_again(state: &State, disk: usize) -> bool {
    let laid = state.disks[disk].layers.as_ref();
    laid.is_some_and(|laid| laid.worn && laid.garbage > 0)
}

/// All that an image has on a disk is written anew; what the kernel remembers a checksum of is as before on the disk.
pub(super) fn write_over(state: &mut State, disk: usize) {
    if let Some(laid) = &mut state.disks[disk].layers {
        (laid.garbage, laid.worn) = (laid.remembered, false);
    }
}

/// Comparing all copies finds what fails its checksum, and writes it anew from the others, with `repair` or without.
pub(super) fn heal(state: &mut State, disks: &[usize]) {
    for disk in disks {
        if let Some(laid) = &mut state.disks[*disk].layers
            && laid.stack.checksums()
        {
            laid.mismatches += laid.garbage;
            laid.garbage = laid.remembered;
        }
    }
}
