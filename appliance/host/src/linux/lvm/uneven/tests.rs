//! What the kernel's notes on images say, and what is made of it.

use super::*;
use crate::linux::fixture;

fn notes(position: u32) -> Notes {
    Notes {
        images: 2,
        position,
        events: 7,
        failed: 0,
        filled: u64::MAX,
        even: u64::MAX,
        level: 1,
        written_to: None,
    }
}

fn all(change: impl Fn(&mut [Notes])) -> Option<u64> {
    let mut all: Vec<Notes> = (0..2).map(notes).collect();
    change(&mut all);
    uneven_from(&(0..).zip(all).collect::<Vec<_>>())
}

#[test]
fn a_volume_is_uneven_whose_bitmap_names_a_stretch_that_is_called_even() {
    assert_eq!(all(|_| {}), None);
    for dirty in 0..2 {
        let set = |notes: &mut [Notes], even: [u64; 2]| {
            notes[dirty].written_to = Some(4096);
            notes[1 - dirty].written_to = Some(8192);
            (notes[0].even, notes[1].even) = (even[0], even[1]);
        };
        assert_eq!(all(|notes| set(notes, [u64::MAX; 2])), Some(0));
        assert_eq!(all(|notes| set(notes, [0, u64::MAX])), Some(0));
        // The kernel had begun, and was at it when the power went again; that may be noted on one image only.
        assert_eq!(all(|notes| set(notes, [65536; 2])), Some(4096));
        assert_eq!(all(|notes| set(notes, [4096, u64::MAX])), Some(4096));
        // It will.
        assert_eq!(all(|notes| set(notes, [4096; 2])), None);
        assert_eq!(all(|notes| set(notes, [0; 2])), None);
        // Another volume's.
        let parity = |notes: &mut [Notes]| {
            set(notes, [65536; 2]);
            notes
                .iter_mut()
                .for_each(|notes| (notes.level, notes.written_to) = (5, Some(0)));
        };
        assert_eq!(all(parity), Some(STRIPE));
        let other = |notes: &mut [Notes]| {
            set(notes, [u64::MAX; 2]);
            notes[1].position = 0;
        };
        assert_eq!(all(other), None);
    }
    assert_eq!(uneven_from(&[]), None);
}

/// Each image of a volume by what it counts as failed and how often its notes were written; nothing of one that is not
/// there.
fn counted(level: u32, all: &[Option<(u64, u64)>]) -> Option<u64> {
    let images = all.len() as u32;
    let notes = |(position, noted): (u32, &Option<(u64, u64)>)| {
        let (failed, events) = (*noted)?;
        Some((
            position,
            Notes {
                level,
                images,
                failed,
                events,
                ..notes(position)
            },
        ))
    };
    missed_nothing(&(0..).zip(all).filter_map(notes).collect::<Vec<_>>()).map(|(_, left)| left)
}

#[test]
fn of_those_that_failed_the_last_one_too_many_missed_nothing() {
    // One after the other, with and without the first; at once, with and without one of them.
    assert_eq!(
        counted(5, &[Some((0b010, 8)), Some((0, 7)), Some((0b011, 9))]),
        Some(0b010)
    );
    assert_eq!(counted(5, &[Some((0b010, 8)), None, Some((0b011, 9))]), Some(0b010));
    assert_eq!(counted(5, &[Some((0, 7)), Some((0, 7)), Some((0b011, 9))]), Some(0));
    assert_eq!(counted(5, &[Some((0, 7)), None, Some((0b011, 9))]), None);
    // What went on without the first is away: what that has is older.
    assert_eq!(counted(5, &[None, Some((0, 7)), Some((0b011, 9))]), None);
    // The newest notes are those of the second, which count only the first.
    assert_eq!(
        counted(5, &[Some((0b010, 8)), Some((0, 7)), Some((0b011, 8)), Some((0, 7))]),
        None
    );
    // Two of five may fail.
    let five = |noted: [(u64, u64); 5]| counted(6, &noted.map(Some));
    assert_eq!(
        five([(0b111, 9), (0b101, 8), (0b100, 7), (0b111, 9), (0b111, 9)]),
        Some(0b101)
    );
    let (first, second, third) = ((0, 5), (0b00001, 6), (0b00011, 7));
    let rest = (0b00111, 9);
    assert_eq!(five([first, second, third, rest, rest]), Some(0b00011));
    assert_eq!(five([first, second, second, rest, rest]), Some(0b00001));
    assert_eq!(five([first, first, first, rest, rest]), Some(0));
    assert_eq!(
        counted(6, &[Some(first), None, Some(second), Some(rest), Some(rest)]),
        None
    );
    assert_eq!(
        counted(6, &[None, None, Some(third), Some(rest), Some(rest)]),
        Some(0b00011)
    );
    // No more than it can do without, and copies.
    assert_eq!(five([first, second, (0b11, 9), (0b11, 9), (0b11, 9)]), None);
    assert_eq!(counted(1, &[Some((0, 7)), Some((0, 7)), Some((0b011, 9))]), None);
    assert_eq!(counted(5, &[]), None);
}

#[test]
fn what_is_being_filled_counts_as_lost() {
    // By what each counts as failed, how often its notes were written, and how far it was filled.
    let counted = |level, all: &[(u64, u64, u64)]| {
        let notes = |position: u32| {
            let (failed, events, filled) = all[position as usize];
            Notes {
                level,
                images: all.len() as u32,
                failed,
                events,
                filled,
                ..notes(position)
            }
        };
        let all: Vec<_> = (0..all.len() as u32).map(|n| (n, notes(n))).collect();
        missed_nothing(&all).map(|(_, left)| left)
    };
    // What the second was being filled from went.
    let (rest, filling) = ((0b001, 9, ALL), (0b001, 9, 4096));
    assert_eq!(counted(5, &[(0, 8, ALL), filling, rest]), Some(0));
    assert_eq!(counted(5, &[(0, 8, ALL), rest, rest]), None);
    // Of two that went one after the other the last one is enough, and of two that went at once both.
    let (rest, filling) = ((0b101, 9, ALL), (0b101, 9, 0));
    assert_eq!(
        counted(6, &[(0, 7, ALL), filling, (0b001, 8, ALL), rest, rest]),
        Some(0b001)
    );
    assert_eq!(counted(6, &[(0, 7, ALL), filling, (0, 7, ALL), rest, rest]), Some(0));
    // Two are being filled, and it has all the others.
    assert_eq!(
        counted(6, &[(0, 7, 0), (0, 7, 4096), (0, 7, ALL), (0, 7, ALL), (0, 7, ALL)]),
        None
    );
    // More of them than it can do without: nothing was ever there.
    assert_eq!(counted(5, &[(0b100, 7, 0), (0b100, 7, 0), (0, 6, ALL)]), None);
}

#[test]
fn images_that_were_used_without_each_other_are_told() {
    // What each counts as failed, and how often its notes were written.
    let parted = |all: &[(u64, u64)]| {
        let notes = |position: u32| {
            let (failed, events) = all[position as usize];
            let images = all.len() as u32;
            Notes {
                failed,
                events,
                images,
                ..notes(position)
            }
        };
        super::parted(
            &(0..all.len() as u32)
                .map(|number| (number, notes(number)))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(parted(&[(0b10, 7), (0b01, 7)]), Some((0, 1)));
    assert_eq!(parted(&[(0b10, 7), (0b01, 9)]), Some((1, 0)));
    for none in [
        &[(0, 7), (0, 7)][..],
        &[(0b10, 9), (0, 7)],
        &[(0b10, 9), (0b10, 7)],
        // The first was lost and is back and filled, and then the second was lost, which still counts the first.
        &[(0b0010, 9), (0b0001, 7), (0b0010, 9), (0b0010, 9)],
        &[],
    ] {
        assert_eq!(parted(none), None, "{none:?}");
    }
    // Two of four went on without the other two.
    assert_eq!(
        parted(&[(0b1100, 9), (0b1100, 9), (0b0011, 8), (0b0011, 8)]),
        Some((0, 2))
    );
}

#[test]
fn what_lacks_an_image_is_compared_only_if_there_are_copies() {
    let there = |level, count: u32, failed| {
        let notes = |position| Notes {
            images: 4,
            level,
            failed,
            written_to: Some(0),
            ..notes(position)
        };
        uneven_from(&(0..count).map(|number| (number, notes(number))).collect::<Vec<_>>()).is_some()
    };
    for (level, count, failed, uneven) in [
        (1, 1, 0, false),
        (1, 2, 0b10, false),
        (1, 3, 0b10, true),
        (10, 4, 0, true),
        (10, 3, 0, true),
        (5, 4, 0, true),
        (5, 3, 0, false),
        (5, 4, 0b10, false),
        (6, 4, 0, true),
        (6, 3, 0, false),
    ] {
        assert_eq!(there(level, count, failed), uneven, "{level} {count} {failed}");
    }
}

#[test]
fn striped_mirrors_are_not_compared_while_one_of_them_is_to_be_filled() {
    let there = |change: &dyn Fn(&mut [Notes])| {
        let notes = |position| Notes {
            images: 4,
            level: STRIPED_MIRRORS,
            written_to: Some(0),
            ..notes(position)
        };
        let mut all: Vec<Notes> = (0..4).map(notes).collect();
        change(&mut all);
        uneven_from(&(0..).zip(all).collect::<Vec<_>>())
    };
    assert_eq!(there(&|_| {}), Some(0));
    // One that failed is back; it is filled, not read.
    assert_eq!(there(&|all| (all[1].failed, all[1].events) = (0b1, 9)), None);
    assert_eq!(there(&|all| all[2].filled = 4096), None);
    // A comparison had begun, which the kernel would go on with.
    let begun = |all: &mut [Notes]| (all[2].filled, all[0].even) = (4096, 8192);
    assert_eq!(there(&begun), Some(ALL));
    let mut all: Vec<Notes> = (0..2).map(notes).collect();
    all[0].even = 8192;
    assert!(says_otherwise(&all[0], ALL) && !says_otherwise(&all[1], ALL));
    assert!(says_otherwise(&all[0], 0) && !says_otherwise(&all[0], 8192));
}

#[test]
fn notes_lie_where_lvm_says() {
    let volumes = places(fixture(include_str!("../../fixtures/pvs-segments.json"))).unwrap();
    let place = |node: &str, at| Place { node: node.into(), at };
    let expected = BTreeMap::from([
        (
            "data_tdata".to_owned(),
            BTreeMap::from([(0, place("/dev/vdb", 5 << 20)), (1, place("/dev/vdc", 5 << 20))]),
        ),
        (
            "data_tmeta".to_owned(),
            BTreeMap::from([(0, place("/dev/vdb", 1 << 20))]),
        ),
    ]);
    assert_eq!(volumes, expected);
}
