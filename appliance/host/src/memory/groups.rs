//! Volume groups and what is in them.

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{Bytes, DiskId};
use uuid::Uuid;

use super::state::State;
use crate::{RaidLevel, RootSpec};

/// What an empty XFS keeps of its size for itself, mostly its log.
const EMPTY_XFS: Bytes = Bytes::mib(68);
/// What of that is written where all reads as zero already.
const SPARSE_XFS: Bytes = Bytes::mib(2);

#[derive(Debug, Clone)]
pub(super) struct Pv {
    pub(super) uuid: String,
    pub(super) vg: Option<String>,
    /// Its group was changed while it was not there, and counts it as missing until it is taken back.
    pub(super) missing: bool,
    /// The device's size when it was last told to LVM.
    pub(super) size: Bytes,
}

impl Pv {
    pub(super) fn of(uuid: String, vg: &str, size: Bytes) -> Self {
        Pv {
            uuid,
            vg: Some(vg.to_owned()),
            missing: false,
            size,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Vg {
    pub(super) tags: BTreeSet<String>,
    pub(super) system_id: String,
    pub(super) exported: bool,
    pub(super) lvs: BTreeMap<String, Lv>,
    /// Physical volumes that were wiped under it.
    pub(super) lost: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Lv {
    pub(super) tags: BTreeSet<String>,
    pub(super) active: bool,
    /// It is not activated with its group.
    pub(super) skipped: bool,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Plain(Plain),
    Pool { data: Plain, metadata: Plain },
    Thin { size: Bytes, xfs: Option<Xfs> },
}

/// A linear volume or one on several disks, as extents on disks (by their number).
#[derive(Debug, Clone)]
pub(super) struct Plain {
    pub(super) level: RaidLevel,
    pub(super) segments: Vec<Segment>,
    /// Images that the kernel does not use, by their number: of a linear volume the one that there is, if it lacks a disk.
    /// Gone with the next activation.
    pub(super) dead: BTreeSet<usize>,
    /// Images that could not be filled to their end, by their number.
    pub(super) stalled: BTreeSet<usize>,
    /// The images' own metadata was not cleared when it was made.
    pub(super) unfinished: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// One disk for each image, in their order.
    pub(super) disks: Vec<usize>,
    /// Of each image.
    pub(super) extents: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Xfs {
    pub(super) uuid: Uuid,
    pub(super) size: Bytes,
    pub(super) complete: bool,
    /// All read as zero when it was made: most of what it keeps for itself was not written.
    pub(super) sparse: bool,
    pub(super) root: Option<RootSpec>,
    pub(super) damaged: bool,
    pub(super) files: BTreeMap<String, Bytes>,
    /// What files took that were deleted, and is not given back yet.
    pub(super) deleted: BTreeSet<(String, Bytes)>,
    /// It was trimmed, and the pool is not done with it.
    pub(super) discarding: bool,
}

impl Plain {
    /// The kernel uses the images that are there.
    pub(super) fn assemble(&mut self, there: &[bool]) {
        self.dead.clear();
        if self.level.is_raid() {
            let lost = |segment: &Segment| -> Vec<usize> {
                let images = segment.disks.iter().enumerate();
                images.filter(|(_, disk)| !there[**disk]).map(|(n, _)| n).collect()
            };
            self.dead = self.segments.iter().flat_map(lost).collect();
        }
    }

    /// Fills an image from the others, as far as these can be read.
    pub(super) fn fill(&mut self, image: usize, unreadable: &[bool]) {
        let readable = |other: usize| {
            let mut disks = self.segments.iter().filter_map(|segment| segment.disks.get(other));
            other != image && !self.dead.contains(&other) && disks.all(|disk| !unreadable[*disk])
        };
        let sources: Vec<bool> = (0..self.level.images() as usize).map(readable).collect();
        if !self.level.is_raid() || self.level.has_all_data(&sources) {
            self.stalled.remove(&image);
        } else {
            self.stalled.insert(image);
        }
    }

    pub(super) fn extents(&self) -> u64 {
        let image: u64 = self.segments.iter().map(|s| s.extents).sum();
        image * u64::from(self.level.data_images())
    }

    pub(super) fn taken_on(&self, disk: usize) -> u64 {
        // Each image has an extent of RAID metadata, beside its first segment.
        let raid = |number: usize| u64::from(self.level.is_raid() && number == 0);
        let segments = self.segments.iter().enumerate();
        segments
            .filter(|(_, s)| s.disks.contains(&disk))
            .map(|(n, s)| s.extents + raid(n))
            .sum()
    }
}

impl Lv {
    pub(super) fn plains_mut(&mut self) -> Vec<&mut Plain> {
        match &mut self.kind {
            Kind::Plain(plain) => vec![plain],
            Kind::Pool { data, metadata, .. } => vec![data, metadata],
            Kind::Thin { .. } => Vec::new(),
        }
    }

    pub(super) fn plains(&self) -> Vec<&Plain> {
        match &self.kind {
            Kind::Plain(plain) => vec![plain],
            Kind::Pool { data, metadata, .. } => vec![data, metadata],
            Kind::Thin { .. } => Vec::new(),
        }
    }
}

impl Xfs {
    /// What is written, as pieces that copies of it share: its first contents, and each file.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (String, Bytes)> + '_ {
        let uuid = self.uuid;
        let written = if self.sparse { SPARSE_XFS } else { EMPTY_XFS };
        let empty = (uuid.to_string(), written.min(self.size));
        let files = self
            .files
            .iter()
            .map(move |(name, size)| (format!("{uuid}/{name}"), *size));
        std::iter::once(empty).chain(files)
    }

    /// What its pool has of it. Files that were deleted are not given back before a trim.
    pub(super) fn mapped(&self) -> Bytes {
        let pieces = self.pieces().chain(self.deleted.iter().cloned());
        pieces.map(|(_, size)| size).sum()
    }

    /// What is not free in it.
    pub(super) fn used(&self) -> Bytes {
        EMPTY_XFS
            .min(self.size)
            .saturating_add(self.files.values().copied().sum())
    }
}

impl State {
    /// Whether LVM removes a volume while its group lacks a disk (lvremove(8) does): one of which no thin pool has to be told.
    pub(super) fn is_plain(&self, vg: &str, lv: &str) -> bool {
        let lv = self.vgs.get(vg).and_then(|group| group.lvs.get(lv));
        lv.is_some_and(|lv| matches!(lv.kind, Kind::Plain(_)))
    }

    pub(super) fn add_group(&mut self, vg: &str, system_id: &str, disks: &[DiskId], tags: &[&str]) {
        for id in disks {
            let uuid = self.fresh_uuid();
            if let Some(disk) = self.disk_mut(id) {
                let size = disk.device.size;
                disk.pv = Some(Pv::of(uuid, vg, size));
            }
        }
        let group = Vg {
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            system_id: system_id.to_owned(),
            ..Vg::default()
        };
        self.vgs.insert(vg.to_owned(), group);
    }

    pub(super) fn add_strange_volume(&mut self, vg: &str, lv: &str, tags: &[&str]) {
        let Some(group) = self.vgs.get_mut(vg) else { return };
        let pool = group.lvs.values().any(|lv| matches!(lv.kind, Kind::Pool { .. }));
        let kind = if pool {
            Kind::Thin {
                size: Bytes::gib(1),
                xfs: None,
            }
        } else {
            Kind::Plain(Plain {
                level: RaidLevel::Linear,
                segments: Vec::new(),
                dead: BTreeSet::new(),
                stalled: BTreeSet::new(),
                unfinished: false,
            })
        };
        let strange = Lv {
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            active: false,
            skipped: false,
            kind,
        };
        group.lvs.insert(lv.to_owned(), strange);
    }
}
