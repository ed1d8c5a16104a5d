//! How a pool lies on its disks, in whole extents. Pure.
//!
//! Invariant: no disk holds two images of anything; no disk gives more than it has; what is used, kept back and wasted
//! adds up to what there is.
//!
//! The disks of a mirror are paired by size, the largest two first; the data lies on pair after pair, and the copies of
//! what lies on a pair are on its two disks. The striped layouts have one group of all disks, the largest first, with one
//! image of the data on each, all alike. The metadata lies on the first disks of the first group (with `single`, on the
//! two largest disks), in as many copies as the layout can lose disks and one more. Where it lies some extents are kept
//! back: for a repair of it, which writes a new copy, for its growth, and for the RAID bitmaps of a pool that grows.

use cistern_host::RaidLevel;
use cistern_model::{Bytes, DiskId, Layout};

use crate::EngineError;

/// LVM's extent in our groups.
pub(crate) const EXTENT: Bytes = Bytes::mib(4);
/// What LVM keeps of a disk for its label and 64 MiB of metadata, and for alignment.
const LABEL_AND_METADATA: Bytes = Bytes::mib(66);
/// The smallest disk for a pool.
pub(crate) const MINIMUM_DISK: Bytes = Bytes::gib(1);
/// Thin metadata takes at most this much for a chunk that is mapped (the rule of lvmthin(7)).
const METADATA_PER_CHUNK: u64 = 64;
/// Room for the metadata's own structures and its transactions.
const METADATA_BASE: Bytes = Bytes::mib(24);
/// The most that the kernel takes is 15.81 GiB.
pub(crate) const METADATA_LIMIT: Bytes = Bytes::mib(15 * 1024 + 512);
/// Each leg of a RAID volume has one extent of its own metadata.
const RAID_METADATA: u64 = 1;

/// A disk, and the extents that a group can use of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) disk: DiskId,
    pub(crate) extents: u64,
}

impl Member {
    /// A disk that is not yet in a group: no more than what will really be there.
    pub(crate) fn of_size(disk: DiskId, size: Bytes) -> Self {
        let extents = size.saturating_sub(LABEL_AND_METADATA).get() / EXTENT.get();
        Member { disk, extents }
    }
}

/// Disks that make up for each other (or one disk alone), with one image of a part of the data on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// In the order of the images.
    pub(crate) members: Vec<Member>,
    /// Extents of each image.
    pub(crate) image: u64,
}

/// How a pool lies on its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) groups: Vec<Group>,
    /// Where the metadata lies, one copy on each.
    pub(crate) metadata_on: Vec<DiskId>,
    /// Extents of the metadata, on each.
    pub(crate) metadata: u64,
    /// Extents kept back, on each disk where the metadata lies.
    pub(crate) reserve: u64,
    /// What one mapping of the thin pool covers.
    pub(crate) chunk: Bytes,
    /// Disks that the layout has no use for.
    pub(crate) left_out: Vec<Member>,
}

impl Plan {
    /// How its data lies on a group.
    pub(crate) fn level(&self) -> RaidLevel {
        level(self.layout, self.groups.first().map_or(0, |group| group.members.len()))
    }

    /// How its metadata lies.
    pub(crate) fn metadata_level(&self) -> RaidLevel {
        match u32::try_from(self.metadata_on.len()) {
            Ok(copies) if copies > 1 => RaidLevel::Mirror { copies },
            Ok(_) | Err(_) => RaidLevel::Linear,
        }
    }

    /// Extents of data on a group.
    pub(crate) fn data_on(&self, group: &Group) -> u64 {
        group.image * u64::from(self.level().data_images())
    }

    /// What volumes can take together.
    pub(crate) fn usable(&self) -> Bytes {
        EXTENT.saturating_mul(self.groups.iter().map(|group| self.data_on(group)).sum())
    }

    /// The extents that are kept back on a disk.
    pub(crate) fn reserve_on(&self, disk: &DiskId) -> u64 {
        if self.metadata_on.contains(disk) {
            self.reserve
        } else {
            0
        }
    }

    /// The extents that this takes or keeps back on a disk.
    pub(crate) fn taken_on(&self, disk: &DiskId) -> u64 {
        let mut taken = 0;
        for (number, group) in self.groups.iter().enumerate() {
            if group.members.iter().any(|m| m.disk == *disk) {
                taken += group.image + raid_metadata(self.level(), number);
            }
        }
        if self.metadata_on.contains(disk) {
            taken += self.metadata + self.reserve + raid_metadata(self.metadata_level(), 0);
        }
        taken
    }
}

/// How data of a layout lies on a group of so many disks.
pub(crate) fn level(layout: Layout, disks: usize) -> RaidLevel {
    let images = u32::try_from(disks).unwrap_or(u32::MAX);
    match layout {
        Layout::Single => RaidLevel::Linear,
        Layout::Mirror => RaidLevel::Mirror { copies: 2 },
        Layout::StripeMirror => RaidLevel::StripeMirror { images },
        Layout::Parity => RaidLevel::Parity { images },
        Layout::DoubleParity => RaidLevel::DoubleParity { images },
    }
}

/// Extents of RAID metadata beside each image on a group: only the first has it.
fn raid_metadata(level: RaidLevel, group: usize) -> u64 {
    if level.is_raid() && group == 0 {
        RAID_METADATA
    } else {
        0
    }
}

pub(crate) fn by_size(members: &mut [Member]) {
    members.sort_by(|a, b| b.extents.cmp(&a.extents).then_with(|| a.disk.cmp(&b.disk)));
}

/// The groups that a layout makes of these disks, and those that it leaves out. Deterministic: by size, then by id.
pub(crate) fn groups(layout: Layout, mut members: Vec<Member>) -> (Vec<Vec<Member>>, Vec<Member>) {
    by_size(&mut members);
    let odd = match layout {
        // The smallest is the one whose loss costs least.
        Layout::Mirror | Layout::StripeMirror if members.len() % 2 == 1 => members.pop(),
        Layout::Single | Layout::Mirror | Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => None,
    };
    let grouped = match layout {
        Layout::Single => members.chunks(1).map(<[Member]>::to_vec).collect(),
        Layout::Mirror => members.chunks(2).map(<[Member]>::to_vec).collect(),
        Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => vec![members],
    };
    (grouped, odd.into_iter().collect())
}

/// The plan for these groups.
pub(crate) fn plan(layout: Layout, mut groups: Vec<Vec<Member>>, left_out: Vec<Member>) -> Result<Plan, EngineError> {
    let disks: usize = groups.iter().map(Vec::len).sum();
    let least = layout.minimum_disks();
    if disks < least || groups.is_empty() {
        let given = disks + left_out.len();
        return Err(EngineError::Invalid(format!(
            "layout {layout} takes at least {least} disk(s), and {given} were named"
        )));
    }
    groups.iter_mut().for_each(|group| by_size(group));
    let data_level = level(layout, groups.first().map_or(0, Vec::len));
    let smallest = |group: &[Member]| group.iter().map(|m| m.extents).min().unwrap_or(0);
    let raw: u64 = groups.iter().map(|group| smallest(group)).sum();
    let (chunk, metadata) = metadata_of(EXTENT.saturating_mul(raw * u64::from(data_level.data_images())));
    let mut plan = Plan {
        layout,
        groups: Vec::new(),
        metadata_on: metadata_disks(layout, &groups),
        metadata,
        reserve: metadata * 2,
        chunk,
        left_out,
    };
    let metadata_share = plan.metadata + plan.reserve + raid_metadata(plan.metadata_level(), 0);
    for (number, members) in groups.into_iter().enumerate() {
        let rest = |member: &Member| {
            let metadata = if plan.metadata_on.contains(&member.disk) {
                metadata_share
            } else {
                0
            };
            member
                .extents
                .saturating_sub(metadata + raid_metadata(data_level, number))
        };
        match members.iter().min_by_key(|member| rest(member)) {
            Some(member) if rest(member) > 0 => {
                let image = rest(member);
                plan.groups.push(Group { members, image });
            }
            Some(Member { disk, .. }) => {
                return Err(EngineError::Invalid(format!(
                    "disk {disk} is too small: nothing is left of it beside the pool's metadata"
                )));
            }
            None => {}
        }
    }
    Ok(plan)
}

/// The disks for the metadata.
fn metadata_disks(layout: Layout, groups: &[Vec<Member>]) -> Vec<DiskId> {
    let copies = match layout {
        Layout::Single | Layout::Mirror | Layout::StripeMirror | Layout::Parity => 2,
        Layout::DoubleParity => 3,
    };
    let first = match layout {
        Layout::Single => groups.len(),
        Layout::Mirror | Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => 1,
    };
    let disks = groups.iter().take(first).flatten().map(|m| m.disk.clone());
    disks.take(copies).collect()
}

/// The chunk for a pool of this size, and the extents of its metadata when every chunk is mapped. Small chunks make
/// snapshots cheap; they are doubled where the metadata would pass 4 GiB.
fn metadata_of(data: Bytes) -> (Bytes, u64) {
    let mut chunk = Bytes::new(64 << 10);
    while mappings(data, chunk) > Bytes::gib(4) {
        chunk = chunk.saturating_mul(2);
    }
    let size = full_metadata(data, chunk).min(METADATA_LIMIT);
    (chunk, size.get().div_ceil(EXTENT.get()))
}

/// What the mappings of so much data take at most.
fn mappings(data: Bytes, chunk: Bytes) -> Bytes {
    Bytes::new(data.get().div_ceil(chunk.get().max(1))).saturating_mul(METADATA_PER_CHUNK)
}

/// What the metadata takes when every chunk is mapped; the kernel's limit is not looked at.
pub(crate) fn full_metadata(data: Bytes, chunk: Bytes) -> Bytes {
    let size = mappings(data, chunk).saturating_add(METADATA_BASE);
    size.max(Bytes::mib(32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn member(number: usize, size: Bytes) -> Member {
        Member::of_size(format!("serial-{number:03}").parse().unwrap(), size)
    }

    fn planned(layout: Layout, sizes: &[u64]) -> Result<Plan, EngineError> {
        let members = sizes
            .iter()
            .enumerate()
            .map(|(n, gib)| member(n, Bytes::gib(*gib)))
            .collect();
        let (groups, left_out) = groups(layout, members);
        plan(layout, groups, left_out)
    }

    fn names(group: &Group) -> Vec<&str> {
        group
            .members
            .iter()
            .map(|m| &m.disk.as_str()["serial-".len()..])
            .collect()
    }

    fn shape(plan: &Plan) -> Vec<Vec<&str>> {
        plan.groups.iter().map(names).collect()
    }

    #[test]
    fn a_mirror_pairs_its_disks_by_size_and_leaves_an_odd_one_out() {
        for (sizes, expected, odd) in [
            (&[4, 4][..], vec![vec!["000", "001"]], None),
            (&[2, 8, 4, 8], vec![vec!["001", "003"], vec!["002", "000"]], None),
            (&[8, 2, 8], vec![vec!["000", "002"]], Some("serial-001")),
        ] {
            let plan = planned(Layout::Mirror, sizes).unwrap();
            assert_eq!(shape(&plan), expected);
            assert_eq!(plan.left_out.first().map(|m| m.disk.as_str()), odd);
        }
    }

    #[test]
    fn two_disks_of_ten_gib_mirrored_hold_almost_ten_gib() {
        let plan = planned(Layout::Mirror, &[10, 10]).unwrap();
        // 2543 extents a disk: 2 of RAID metadata, 9 of thin metadata, 18 kept back.
        assert_eq!(
            (plan.metadata, plan.reserve, plan.usable()),
            (9, 18, EXTENT.saturating_mul(2514))
        );
    }

    #[test]
    fn striped_layouts_take_one_image_of_each_disk_and_metadata_in_a_copy_more_than_may_be_lost() {
        for (layout, sizes, metadata_on, data_images) in [
            (Layout::StripeMirror, &[10, 10, 10, 10][..], 2, 2),
            (Layout::Parity, &[10, 10, 10], 2, 2),
            (Layout::DoubleParity, &[10, 10, 10, 10, 10], 3, 3),
        ] {
            let plan = planned(layout, sizes).unwrap();
            assert_eq!(
                (plan.groups.len(), plan.metadata_on.len()),
                (1, metadata_on),
                "{layout}"
            );
            let (image, metadata) = (plan.groups[0].image, plan.metadata);
            // 2543 extents a disk: 2 of RAID metadata; thrice the thin metadata.
            assert_eq!(image, 2543 - 2 - 3 * metadata, "{layout}");
            assert_eq!(plan.usable(), EXTENT.saturating_mul(image * data_images), "{layout}");
        }
    }

    #[test]
    fn a_stripe_mirror_leaves_the_smallest_of_an_odd_number_out() {
        let plan = planned(Layout::StripeMirror, &[4, 4, 2, 4, 4]).unwrap();
        assert_eq!(plan.groups[0].members.len(), 4);
        assert_eq!(plan.left_out[0].disk.as_str(), "serial-002");
    }

    #[test]
    fn metadata_is_mirrored_wherever_there_are_two_disks() {
        assert_eq!(planned(Layout::Single, &[4]).unwrap().metadata_on.len(), 1);
        assert_eq!(planned(Layout::Single, &[4, 4, 4]).unwrap().metadata_on.len(), 2);
        assert_eq!(planned(Layout::Mirror, &[4, 4, 4, 4]).unwrap().metadata_on.len(), 2);
    }

    #[test]
    fn too_few_or_too_small_disks_are_refused() {
        for (layout, sizes) in [
            (Layout::Single, &[][..]),
            (Layout::Mirror, &[]),
            (Layout::Mirror, &[10]),
            (Layout::Single, &[0]),
            (Layout::StripeMirror, &[10, 10, 10]),
            (Layout::Parity, &[10, 10]),
            (Layout::DoubleParity, &[10, 10, 10, 10]),
        ] {
            assert!(
                matches!(planned(layout, sizes), Err(EngineError::Invalid(_))),
                "{layout} {sizes:?}"
            );
        }
    }

    #[test]
    fn the_chunk_grows_with_the_pool_so_that_the_kernel_can_address_it() {
        for (tib, chunk_kib) in [(1, 64), (4, 64), (5, 128), (64, 1024), (1000, 16384)] {
            let (chunk, metadata) = metadata_of(Bytes::gib(tib << 10));
            assert_eq!(chunk, Bytes::new(chunk_kib << 10), "{tib} TiB");
            assert!(EXTENT.saturating_mul(metadata) <= METADATA_LIMIT);
        }
    }

    proptest! {
        #[test]
        fn no_disk_gives_more_than_it_has_and_none_holds_two_images(
            layout in proptest::sample::select(Layout::ALL.to_vec()),
            sizes in proptest::collection::vec(1024u64..40_000_000, 1..12),
        ) {
            let members: Vec<Member> = sizes.iter().enumerate().map(|(n, mib)| member(n, Bytes::mib(*mib))).collect();
            let there: BTreeMap<DiskId, u64> = members.iter().map(|m| (m.disk.clone(), m.extents)).collect();
            let (grouped, left_out) = groups(layout, members);
            let Ok(plan) = plan(layout, grouped, left_out) else { return Ok(()) };
            let mut seen: Vec<&DiskId> = plan.left_out.iter().map(|m| &m.disk).collect();
            for group in &plan.groups {
                prop_assert_eq!(group.members.len(), plan.level().images() as usize);
                seen.extend(group.members.iter().map(|m| &m.disk));
            }
            seen.sort();
            let count = seen.len();
            seen.dedup();
            prop_assert_eq!((seen.len(), count), (there.len(), there.len()));
            let mut copies = plan.metadata_on.clone();
            copies.dedup();
            prop_assert_eq!(copies.len(), plan.metadata_on.len());
            for (disk, extents) in &there {
                prop_assert!(plan.taken_on(disk) <= *extents);
            }
            // As much is used as can be: in each group some disk gives all that it has.
            for group in &plan.groups {
                prop_assert!(group.members.iter().any(|m| plan.taken_on(&m.disk) == m.extents));
            }
        }
    }
}
