//! How full is too full. Pure.
//!
//! Invariant: what was promised to volumes is kept before anything else: snapshots and trash have what is reserved for
//! them, and what is promised to nobody, and no more.

use cistern_host::{ThinSize, ThinStatus};
use cistern_model::{Bytes, Percent};
use jiff::Timestamp;

/// Where an alert begins, in percent.
pub(crate) const THRESHOLDS: [f64; 3] = [80.0, 90.0, 95.0];
/// How far below it it ends.
const HYSTERESIS: f64 = 2.0;
/// A pool whose metadata is fuller than this takes no more volumes and snapshots: full metadata needs an offline repair.
pub(crate) const METADATA_LIMIT: f64 = 75.0;
/// An overcommitted pool whose data is fuller than this takes no more volumes.
pub(crate) const DATA_LIMIT: f64 = 90.0;
/// Metadata that is fuller than this is enlarged, if there is room.
const METADATA_GROWS: f64 = 65.0;
/// An overcommitted pool whose data is fuller than this sheds.
pub(crate) const SHED_LIMIT: f64 = 95.0;
/// The most that the kernel takes is 15.81 GiB.
const METADATA_MOST: Bytes = Bytes::mib(15 * 1024 + 512);

/// How many of the thresholds are passed; once passed, one is until there is clearly less.
pub(crate) fn level(percent: Percent, before: usize) -> usize {
    let percent = f64::from(percent);
    let passed = |(number, threshold): (usize, &f64)| {
        let slack = if number < before { HYSTERESIS } else { 0.0 };
        percent >= threshold - slack
    };
    THRESHOLDS.iter().enumerate().take_while(|entry| passed(*entry)).count()
}

/// A number of bytes of which two bounds are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) least: Bytes,
    pub(crate) most: Bytes,
}

/// What of a pool only snapshots and trash hold: all that is mapped, without what volumes map. Where volumes share what they
/// map, each chunk is counted for each of them, and how much all map together is known only between bounds.
pub(crate) fn beside(size: Bytes, status: &ThinStatus, volumes: Between) -> Between {
    let mapped = mapped(size, status);
    Between {
        least: mapped.saturating_sub(volumes.most),
        most: mapped.saturating_sub(volumes.least),
    }
}

/// The most of a pool that only snapshots and trash hold, where its volumes hold so much at least.
pub(crate) fn at_most_beside(size: Bytes, status: &ThinStatus, volumes: Bytes) -> Bytes {
    mapped(size, status).saturating_sub(volumes)
}

fn mapped(size: Bytes, status: &ThinStatus) -> Bytes {
    let mapped = u128::from(size.get()) * u128::from(status.chunks_used) / u128::from(status.chunks.max(1));
    Bytes::new(u64::try_from(mapped).unwrap_or(u64::MAX))
}

/// What volumes hold together at least: of each what it takes, and whether it is a copy. What is exclusive to a copy is held
/// by nothing else. Those that are no copies share nothing with each other. What else a copy maps may be all theirs, or
/// another copy's: the larger of the two is held for certain.
pub(crate) fn held_at_least(volumes: impl IntoIterator<Item = (ThinSize, bool)>) -> Bytes {
    let (mut exclusive, mut originals, mut shared) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
    for (size, is_copy) in volumes {
        if is_copy {
            exclusive = exclusive.saturating_add(size.exclusive);
            shared = shared.max(size.mapped.saturating_sub(size.exclusive));
        } else {
            originals = originals.saturating_add(size.mapped);
        }
    }
    exclusive.saturating_add(originals.max(shared))
}

/// What snapshots and trash may take: what is reserved, or all that is promised to nobody if that is more.
pub(crate) fn allowance(size: Bytes, reserve: Bytes, promised: Bytes) -> Bytes {
    reserve.max(size.saturating_sub(promised))
}

/// Whether a pool's metadata is so full that it is to grow.
pub(crate) fn metadata_is_short(status: &ThinStatus) -> bool {
    f64::from(status.metadata) >= METADATA_GROWS
}

/// By how many extents each copy of a pool's metadata is to grow now, where the disk that has least room for its copy has
/// so much; none if it need not or cannot. A quarter at a time, as long as after it there is still room for a whole new
/// copy, which a repair needs.
pub(crate) fn metadata_growth(status: &ThinStatus, extent: Bytes, free: Bytes) -> Option<u64> {
    if !metadata_is_short(status) || extent == Bytes::ZERO {
        return None;
    }
    let now = status.metadata_size.get().div_ceil(extent.get());
    let free = free.get() / extent.get();
    let more = (now / 4).max(1);
    let room = free.checked_sub(more)?;
    let after = extent.saturating_mul(now + more);
    (room >= now + more && after <= METADATA_MOST).then_some(more)
}

/// The log that mkfs.xfs makes of a filesystem so large, about.
pub(crate) fn log_of(size: Bytes) -> Bytes {
    Bytes::new(size.get() / 2048).clamp(Bytes::mib(64), Bytes::gib(2))
}

fn free(size: Bytes, status: &ThinStatus) -> Bytes {
    let chunks = status.chunks.saturating_sub(status.chunks_used);
    let free = u128::from(size.get()) * u128::from(chunks) / u128::from(status.chunks.max(1));
    Bytes::new(u64::try_from(free).unwrap_or(u64::MAX))
}

/// Whether logs that share their space should get their own now, of which they need so much: while there is twice as much
/// left beside the last tenth of the pool, because clients go on writing meanwhile. Later, if they had it before: each
/// snapshot shares them again, and each time costs as much.
pub(crate) fn logs_are_in_danger(size: Bytes, status: &ThinStatus, needed: Bytes, had_their_own: bool) -> bool {
    let least = match had_their_own {
        false => needed.saturating_mul(2).saturating_add(Bytes::new(size.get() / 10)),
        true => needed.saturating_add(Bytes::new(size.get() / 20)),
    };
    needed > Bytes::ZERO && free(size, status) < least
}

/// Whether a log can get its own space, and leave some: a full pool would shut down what it is to keep up.
pub(crate) fn has_room_for_a_log(size: Bytes, status: &ThinStatus, log: Bytes) -> bool {
    free(size, status) > log.saturating_add(Bytes::new(size.get() / 100))
}

/// Something that can be given up to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sheddable<T> {
    pub(crate) kind: ShedKind,
    /// Since when it is in the trash, or when it was taken.
    pub(crate) since: Timestamp,
    pub(crate) what: T,
}

/// In the order in which they go. A snapshot made by hand is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShedKind {
    /// A deleted volume.
    Trash,
    /// A snapshot that a schedule made.
    Scheduled,
}

/// In the order in which they go: the trash first, then scheduled snapshots, each oldest first.
pub(crate) fn shedding_order<T>(mut all: Vec<Sheddable<T>>) -> Vec<Sheddable<T>> {
    all.sort_by_key(|one| (one.kind, one.since));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_host::ThinMode;

    fn status(metadata: f64, metadata_mib: u64) -> ThinStatus {
        ThinStatus {
            mode: ThinMode::Writable,
            data: Percent::from(50.0),
            metadata: Percent::from(metadata),
            metadata_size: Bytes::mib(metadata_mib),
            chunks_used: 500,
            chunks: 1000,
        }
    }

    #[test]
    fn a_threshold_that_was_passed_is_left_only_when_there_is_clearly_less() {
        let mut before = 0;
        let seen: Vec<usize> = [
            79.9, 80.0, 79.0, 89.0, 90.0, 88.1, 87.9, 95.0, 96.0, 93.5, 92.9, 78.1, 77.9, 100.0,
        ]
        .into_iter()
        .map(|percent| {
            before = level(Percent::from(percent), before);
            before
        })
        .collect();
        assert_eq!(seen, [0, 1, 1, 1, 2, 2, 1, 3, 3, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn what_only_snapshots_hold_is_what_volumes_do_not_map() {
        let between = |least, most| Between {
            least: Bytes::gib(least),
            most: Bytes::gib(most),
        };
        let beside = |volumes| beside(Bytes::gib(10), &status(1.0, 36), volumes);
        assert_eq!(beside(between(3, 3)), between(2, 2));
        assert_eq!(beside(between(1, 9)), between(0, 4));
        let at_most = |held| at_most_beside(Bytes::gib(10), &status(1.0, 36), Bytes::gib(held));
        assert_eq!([at_most(0), at_most(3), at_most(9)], [5, 2, 0].map(Bytes::gib));
    }

    #[test]
    fn volumes_hold_what_each_has_alone_and_of_what_is_shared_no_less_than_the_largest_part() {
        let size = |mapped, exclusive| ThinSize {
            mapped: Bytes::gib(mapped),
            exclusive: Bytes::gib(exclusive),
        };
        let original = |mapped, exclusive| (size(mapped, exclusive), false);
        let copy = |mapped, exclusive| (size(mapped, exclusive), true);
        let held = |volumes: &[(ThinSize, bool)]| held_at_least(volumes.iter().copied());
        assert_eq!(held(&[]), Bytes::ZERO);
        // What originals share with snapshots is theirs.
        assert_eq!(held(&[original(4, 0), original(3, 3)]), Bytes::gib(7));
        assert_eq!(held(&[original(4, 0), copy(5, 2)]), Bytes::gib(6));
        assert_eq!(held(&[original(1, 0), copy(9, 2), copy(5, 1)]), Bytes::gib(10));
        assert_eq!(held(&[copy(4, 4), copy(3, 3)]), Bytes::gib(7));
    }

    #[test]
    fn snapshots_may_take_what_is_promised_to_nobody_and_never_less_than_the_reserve() {
        let gib = Bytes::gib;
        assert_eq!(allowance(gib(10), gib(1), gib(2)), gib(8));
        assert_eq!(allowance(gib(10), gib(1), gib(9)), gib(1));
        assert_eq!(allowance(gib(10), gib(1), gib(30)), gib(1));
        assert_eq!(allowance(gib(10), gib(0), gib(10)), gib(0));
    }

    #[test]
    fn metadata_grows_in_time_and_keeps_room_for_its_repair() {
        let extent = Bytes::mib(4);
        let growth = |percent, free_mib| metadata_growth(&status(percent, 36), extent, Bytes::mib(free_mib));
        assert_eq!(growth(64.9, 1000), None);
        // 9 extents, to be 11: 2 for the growth, and 11 that stay free.
        assert_eq!(growth(65.0, 13 * 4), Some(2));
        assert_eq!(growth(65.0, 13 * 4 - 1), None);
        assert_eq!(metadata_growth(&status(99.0, 15 * 1024), extent, Bytes::gib(100)), None);
        // What the plan keeps back is twice the metadata on each disk: enough for a first growth.
        assert!(growth(70.0, 18 * 4).is_some());
    }

    #[test]
    fn logs_get_their_space_while_there_is_some() {
        let danger = |needed, used| {
            let status = ThinStatus {
                chunks_used: used,
                ..status(1.0, 36)
            };
            let danger = |had| logs_are_in_danger(Bytes::gib(10), &status, Bytes::gib(needed), had);
            assert!(danger(false) || !danger(true), "sooner the first time");
            danger(false)
        };
        // Of a thousand chunks.
        assert!(!danger(0, 1000));
        assert!(!danger(1, 699) && danger(1, 701));
        assert!(!danger(2, 499) && danger(2, 501));
        let room = |log, used| {
            let status = ThinStatus {
                chunks_used: used,
                ..status(1.0, 36)
            };
            has_room_for_a_log(Bytes::gib(10), &status, Bytes::gib(log))
        };
        assert!(room(1, 880) && !room(1, 891) && !room(1, 1000));
        assert_eq!(log_of(Bytes::mib(300)), Bytes::mib(64));
        assert_eq!(log_of(Bytes::gib(1024)), Bytes::mib(512));
        assert_eq!(log_of(Bytes::gib(1 << 20)), Bytes::gib(2));
    }

    #[test]
    fn the_trash_goes_before_snapshots_and_the_oldest_first() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let one = |kind, second| Sheddable {
            kind,
            since: at(second),
            what: second,
        };
        use ShedKind::{Scheduled, Trash};
        let all = vec![one(Scheduled, 1), one(Trash, 9), one(Scheduled, 0), one(Trash, 3)];
        let order: Vec<i64> = shedding_order(all).into_iter().map(|one| one.what).collect();
        assert_eq!(order, [3, 9, 0, 1]);
    }
}
