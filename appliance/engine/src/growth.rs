//! What a pool's disks can give more, in whole extents. Pure.
//!
//! Invariant: asked again after what it said was taken, it says that there is no more. All disks of a group give the same;
//! what the metadata needs for its growth and its repair is kept back first, as it was when the pool was made (`plan`).
//!
//! LVM cannot reshape what lies under a thin pool. It lengthens each image: on the disks that have it, or on those of a
//! further group of the same width.

use std::path::PathBuf;

use cistern_host::RaidLevel;
use cistern_model::{Bytes, DiskId, Layout};

use crate::EngineError;
use crate::plan::{EXTENT, METADATA_LIMIT, full_metadata};

/// A disk of a group, there or about to be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) disk: DiskId,
    pub(crate) node: PathBuf,
    /// The extents that it has.
    pub(crate) extents: u64,
    /// Of which nothing lies on.
    pub(crate) free: u64,
    /// A copy of the pool's metadata lies on it.
    pub(crate) metadata: bool,
}

/// The thin pool as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thin {
    pub(crate) layout: Layout,
    /// How its data lies on each group.
    pub(crate) level: RaidLevel,
    /// What one mapping covers. It was fixed when the pool was made.
    pub(crate) chunk: Bytes,
    /// Its size, which it keeps whatever disks leave it.
    pub(crate) size: Bytes,
    /// The extents of each copy of its metadata.
    pub(crate) metadata: u64,
    /// How many copies of it there are.
    pub(crate) copies: usize,
}

impl Thin {
    /// The most that it can ever hold.
    fn most(&self) -> Bytes {
        let mappings = METADATA_LIMIT.saturating_sub(full_metadata(Bytes::ZERO, self.chunk));
        Bytes::new(mappings.get() / 64).saturating_mul(self.chunk.get())
    }

    /// The extents that are to stay free for each copy of the metadata: what it is to grow by, and twice its size then.
    fn keep(&self, groups: &[Vec<Room>]) -> Result<u64, EngineError> {
        let smallest = |group: &Vec<Room>| group.iter().map(|room| room.extents).min().unwrap_or(0);
        let raw: u64 = groups.iter().map(smallest).sum();
        let data = EXTENT
            .saturating_mul(raw * u64::from(self.level.data_images()))
            .max(self.size);
        let needed = full_metadata(data, self.chunk);
        if needed > METADATA_LIMIT {
            return Err(EngineError::Invalid(format!(
                "a thin pool that was made with chunks of {} can address {} at most, and these disks would make it {data}; \
                 make a further pool of them",
                self.chunk,
                self.most()
            )));
        }
        let needed = needed.get().div_ceil(EXTENT.get());
        Ok((needed * 3).saturating_sub(self.metadata))
    }
}

/// The extents that each group can give of each of its disks.
pub(crate) fn gains(thin: &Thin, groups: &[Vec<Room>]) -> Result<Vec<u64>, EngineError> {
    let mut left = thin.keep(groups)?;
    let mut rooms: Vec<Vec<u64>> = groups
        .iter()
        .map(|g| g.iter().map(|room| room.free).collect())
        .collect();
    for places in metadata_places(thin, groups) {
        let room = places.iter().map(|(group, at)| rooms[*group][*at]).min().unwrap_or(0);
        let kept = room.min(left);
        places.iter().for_each(|(group, at)| rooms[*group][*at] -= kept);
        left -= kept;
    }
    Ok(rooms
        .iter()
        .map(|group| group.iter().copied().min().unwrap_or(0))
        .collect())
}

/// Where extents are kept back for the metadata, in this order: each a set of disks (their group, their place in it) of
/// which each takes one copy. First those where it lies.
fn metadata_places(thin: &Thin, groups: &[Vec<Room>]) -> Vec<Vec<(usize, usize)>> {
    let all = groups.iter().enumerate();
    let all = all.flat_map(|(group, rooms)| rooms.iter().enumerate().map(move |(at, room)| (group, at, room)));
    let (held, others): (Vec<_>, Vec<_>) = all.partition(|(_, _, room)| room.metadata);
    let place = |(group, at, _): &(usize, usize, &Room)| (*group, *at);
    let mut places = vec![held.iter().map(place).collect::<Vec<_>>()];
    match thin.layout {
        Layout::Single => places.extend(
            others
                .chunks(thin.copies.max(1))
                .map(|some| some.iter().map(place).collect()),
        ),
        Layout::Mirror | Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => {
            for group in 0..groups.len() {
                let here = others.iter().filter(|(of, ..)| *of == group);
                let first: Vec<_> = here.take(thin.copies).map(place).collect();
                places.extend((first.len() == thin.copies).then_some(first));
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Member, groups, level, plan};
    use proptest::prelude::*;

    fn disk(number: usize) -> DiskId {
        format!("serial-{number:03}").parse().unwrap()
    }

    /// A pool as it was planned, its groups with what is free of each disk.
    fn made(layout: Layout, sizes: &[u64]) -> Option<(Thin, Vec<Vec<Room>>)> {
        let members = sizes.iter().enumerate();
        let members = members.map(|(n, mib)| Member::of_size(disk(n), Bytes::mib(*mib)));
        let (grouped, left_out) = groups(layout, members.collect());
        let plan = plan(layout, grouped, left_out).ok()?;
        let room = |member: &Member| Room {
            disk: member.disk.clone(),
            node: PathBuf::new(),
            extents: member.extents,
            free: member.extents - plan.taken_on(&member.disk) + plan.reserve_on(&member.disk),
            metadata: plan.metadata_on.contains(&member.disk),
        };
        let rooms = plan.groups.iter().map(|group| group.members.iter().map(room).collect());
        let thin = Thin {
            layout,
            level: level(layout, plan.groups[0].members.len()),
            chunk: plan.chunk,
            size: plan.usable(),
            metadata: plan.metadata,
            copies: plan.metadata_on.len(),
        };
        Some((thin, rooms.collect()))
    }

    fn blank(first: usize, sizes: &[u64]) -> Vec<Room> {
        let rooms = sizes.iter().enumerate().map(|(n, mib)| {
            let member = Member::of_size(disk(first + n), Bytes::mib(*mib));
            Room {
                disk: member.disk,
                node: PathBuf::new(),
                extents: member.extents,
                free: member.extents,
                metadata: false,
            }
        });
        rooms.collect()
    }

    fn take(groups: &mut [Vec<Room>], gains: &[u64]) {
        for (group, gain) in groups.iter_mut().zip(gains) {
            group.iter_mut().for_each(|room| room.free -= gain);
        }
    }

    #[test]
    fn a_further_pair_gives_all_but_what_the_larger_metadata_needs() {
        let (thin, mut groups) = made(Layout::Mirror, &[10 << 10, 10 << 10]).unwrap();
        groups.push(blank(2, &[10 << 10, 12 << 10]));
        // 2543 extents each; metadata for twice the data is 11 extents where it was 9: 3 x 11 - 9 are to be free, and 18
        // are.
        assert_eq!(thin.metadata, 9);
        assert_eq!(gains(&thin, &groups).unwrap(), [0, 2543 - 6]);
    }

    #[test]
    fn a_group_gives_what_its_smallest_disk_has_grown_by() {
        let (thin, mut groups) = made(Layout::Parity, &[10 << 10, 10 << 10, 10 << 10]).unwrap();
        let mut grow = |at: usize, by: u64| {
            let room = &mut groups[0][at];
            (room.extents, room.free) = (room.extents + by, room.free + by);
        };
        grow(0, 1000);
        grow(2, 500);
        assert_eq!(gains(&thin, &groups).unwrap(), [0]);
        let room = &mut groups[0][1];
        (room.extents, room.free) = (room.extents + 500, room.free + 500);
        let gained = gains(&thin, &groups).unwrap()[0];
        assert!((495..=500).contains(&gained), "{gained}");
    }

    #[test]
    fn no_more_is_added_than_the_pool_s_chunks_can_address() {
        let (thin, mut groups) = made(Layout::Single, &[4 << 20]).unwrap();
        assert_eq!(thin.chunk, Bytes::new(64 << 10));
        groups.push(blank(1, &[10 << 20]));
        assert!(gains(&thin, &groups).is_ok());
        groups.push(blank(2, &[4 << 20]));
        let refused = gains(&thin, &groups).unwrap_err().to_string();
        assert!(
            refused.contains("chunks of 64 KiB") && refused.contains("15.5 TiB"),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn a_pool_gains_nothing_as_it_was_made_and_what_is_added_once(
            layout in proptest::sample::select(Layout::ALL.to_vec()),
            sizes in proptest::collection::vec(1024u64..4_000_000, 1..9),
            more in proptest::collection::vec(1024u64..4_000_000, 8),
            grown in proptest::collection::vec(0u64..100_000, 9),
        ) {
            let Some((thin, mut groups)) = made(layout, &sizes) else { return Ok(()) };
            let none = vec![0; groups.len()];
            prop_assert_eq!(gains(&thin, &groups).unwrap(), none.clone());
            groups.push(blank(sizes.len(), &more[..groups[0].len()]));
            for (room, by) in groups.iter_mut().flatten().zip(grown) {
                (room.extents, room.free) = (room.extents + by, room.free + by);
            }
            let Ok(gained) = gains(&thin, &groups) else { return Ok(()) };
            take(&mut groups, &gained);
            let nothing = vec![0; groups.len()];
            prop_assert_eq!(gains(&thin, &groups).unwrap(), nothing);
        }
    }
}
