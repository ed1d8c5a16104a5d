//! How a pool lies on its disks, in whole extents. Pure.
//!
//! Invariant: no disk holds both copies of anything; no disk gives more than it has; what is used, kept back and wasted
//! adds up to what there is.
//!
//! The disks of a mirror are paired by size, the largest two first; the data lies on pair after pair, and the copies of
//! what lies on a pair are on its two disks. The metadata lies on the first pair (with `single`, on the two largest disks,
//! mirrored, where there are two). Where the metadata lies some extents are kept back: for a repair of it, which writes a
//! new copy, for its growth, and for the RAID bitmaps of a pool that grows.

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
const METADATA_LIMIT: Bytes = Bytes::mib(15 * 1024 + 512);
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

/// Disks that hold copies of each other (or one disk alone), and what of the data lies on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) members: Vec<Member>,
    /// Extents of data; each of the members gives as many.
    pub(crate) data: u64,
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
    /// What volumes can take together.
    pub(crate) fn usable(&self) -> Bytes {
        EXTENT.saturating_mul(self.groups.iter().map(|group| group.data).sum())
    }

    /// The extents that this takes or keeps back on a disk.
    #[cfg(test)]
    fn taken_on(&self, disk: &DiskId) -> u64 {
        let mirrored = self.layout == Layout::Mirror;
        let mut taken = 0;
        for (number, group) in self.groups.iter().enumerate() {
            if group.members.iter().any(|m| m.disk == *disk) {
                taken += group.data + if mirrored && number == 0 { RAID_METADATA } else { 0 };
            }
        }
        if self.metadata_on.contains(disk) {
            taken += self.metadata + self.reserve + if self.metadata_on.len() > 1 { RAID_METADATA } else { 0 };
        }
        taken
    }

    /// How many disks may be lost, whichever they are.
    pub(crate) fn survives(&self) -> u32 {
        match self.layout {
            Layout::Single => 0,
            Layout::Mirror => 1,
        }
    }
}

/// The groups that a layout makes of these disks, and those that it leaves out. Deterministic: by size, then by id.
pub(crate) fn groups(layout: Layout, mut members: Vec<Member>) -> (Vec<Vec<Member>>, Vec<Member>) {
    members.sort_by(|a, b| b.extents.cmp(&a.extents).then_with(|| a.disk.cmp(&b.disk)));
    match layout {
        Layout::Single => (members.into_iter().map(|member| vec![member]).collect(), Vec::new()),
        Layout::Mirror => {
            // The smallest is the one whose loss costs least.
            let odd = if members.len() % 2 == 1 { members.pop() } else { None };
            (
                members.chunks(2).map(<[Member]>::to_vec).collect(),
                odd.into_iter().collect(),
            )
        }
    }
}

/// The plan for these groups.
pub(crate) fn plan(layout: Layout, groups: Vec<Vec<Member>>, left_out: Vec<Member>) -> Result<Plan, EngineError> {
    let disks: usize = groups.iter().map(Vec::len).sum();
    let least = layout.minimum_disks();
    if disks < least || groups.is_empty() {
        let given = disks + left_out.len();
        return Err(EngineError::Invalid(format!(
            "layout {layout} takes at least {least} disk(s), and {given} were named"
        )));
    }
    let smallest = |group: &[Member]| group.iter().map(|m| m.extents).min().unwrap_or(0);
    let raw: u64 = groups.iter().map(|group| smallest(group)).sum();
    let (chunk, metadata) = metadata_of(EXTENT.saturating_mul(raw));
    let metadata_on: Vec<DiskId> = match layout {
        Layout::Single => groups.iter().take(2).flatten().map(|m| m.disk.clone()).collect(),
        Layout::Mirror => groups.iter().take(1).flatten().map(|m| m.disk.clone()).collect(),
    };
    let reserve = metadata * 2;
    let metadata_share = metadata + reserve + if metadata_on.len() > 1 { RAID_METADATA } else { 0 };
    let mut planned = Vec::new();
    for (number, members) in groups.into_iter().enumerate() {
        let mut taken = 0;
        if members.iter().any(|m| metadata_on.contains(&m.disk)) {
            taken += metadata_share;
        }
        if layout == Layout::Mirror && number == 0 {
            taken += RAID_METADATA;
        }
        match smallest(&members).checked_sub(taken) {
            Some(data) if data > 0 => planned.push(Group { members, data }),
            Some(_) | None => {
                let names: Vec<&str> = members.iter().map(|m| m.disk.as_str()).collect();
                return Err(EngineError::Invalid(format!(
                    "disk {} is too small: nothing is left of it beside the pool's metadata",
                    names.join(" and ")
                )));
            }
        }
    }
    Ok(Plan {
        layout,
        groups: planned,
        metadata_on,
        metadata,
        reserve,
        chunk,
        left_out,
    })
}

/// The chunk for a pool of this size, and the extents of its metadata when every chunk is mapped. Small chunks make
/// snapshots cheap; they are doubled where the metadata would pass 4 GiB.
fn metadata_of(data: Bytes) -> (Bytes, u64) {
    let mut chunk = Bytes::new(64 << 10);
    let full = |chunk: Bytes| Bytes::new(data.get().div_ceil(chunk.get())).saturating_mul(METADATA_PER_CHUNK);
    while full(chunk) > Bytes::gib(4) {
        chunk = chunk.saturating_mul(2);
    }
    let size = full(chunk)
        .saturating_add(METADATA_BASE)
        .max(Bytes::mib(32))
        .min(METADATA_LIMIT);
    (chunk, size.get().div_ceil(EXTENT.get()))
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
        fn no_disk_gives_more_than_it_has_and_none_holds_both_copies(
            mirror: bool,
            sizes in proptest::collection::vec(1024u64..40_000_000, 1..12),
        ) {
            let layout = if mirror { Layout::Mirror } else { Layout::Single };
            let members: Vec<Member> = sizes.iter().enumerate().map(|(n, mib)| member(n, Bytes::mib(*mib))).collect();
            let there: BTreeMap<DiskId, u64> = members.iter().map(|m| (m.disk.clone(), m.extents)).collect();
            let (grouped, left_out) = groups(layout, members);
            let Ok(plan) = plan(layout, grouped, left_out) else { return Ok(()) };
            let mut seen: Vec<&DiskId> = plan.left_out.iter().map(|m| &m.disk).collect();
            for group in &plan.groups {
                prop_assert_eq!(group.members.len(), if mirror { 2 } else { 1 });
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
            // What is used and what is wasted is all there is.
            for group in &plan.groups {
                let least = group.members.iter().map(|m| m.extents).min().unwrap();
                prop_assert!(group.members.iter().any(|m| plan.taken_on(&m.disk) == m.extents && m.extents == least));
            }
        }
    }
}
