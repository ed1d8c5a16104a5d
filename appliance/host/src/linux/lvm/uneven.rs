//! Copies that a power cut left different, and parity that it left of other data.
//!
//! The kernel notes in a bitmap which stretches of a RAID volume are being written to, so that after a power cut it need
//! compare only these. But device mapper's RAID (6.12) writes "all is even" into its notes while it is being written to,
//! and so begins no comparison at the next start, or only behind what one had come to: what one disk has of the last
//! writes and the other has not stays so, and a block may read now as the one and now as the other has it. md's own notes
//! say "nothing is even" from the first write on. So they are made to say that here, before the kernel reads them; it then
//! makes even what the bitmap names, and until then reads of one copy only.
//!
//! Each image's notes also say which others failed. Where two say so of each other, each was used without the other, and
//! what either has alone is lost if the kernel chooses one and fills the other from it. That is for an operator to say.
//!
//! A volume with parity that loses more images than it can do without counts them all as failed, and the kernel does not
//! start it again, though they be back: a cable that came loose is the end of it. But from the moment that it was one too many
//! nothing was answered, so those that were in use until then missed nothing, and are no longer counted (`missed_nothing`).
//!
//! The bitmaps on these are of the moment when they failed; those of the images that noted it are newer, and take their place:
//! what was written since an image failed is named there, so that the kernel brings it up to date.
//!
//! A volume of striped mirrors of which an image is to be filled is never called uneven: the kernel's comparison (6.12, raid10.c) reads
//! that image too, and where it is the first of its pair copies it over the good one. It is filled, and a scrub compares afterwards.
//!
//! Invariant: the notes of a volume are written only if it is not active, they are what the kernel wrote, and its bitmap
//! names a stretch that they call even, or they count more images as failed than it can do without, or call what is not to be
//! compared uneven. A cut in between leaves notes that say so on some disks: the bitmap still names it, the newest notes still
//! count them, and the next start does it again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::{self, LvmCommand};
use super::raid_superblock::{Notes, copy_bitmap};
use super::{LinuxLvm, flush, unexpected};
use crate::HostError;
use crate::linux::{direct, file};

/// The level of striped mirrors.
const STRIPED_MIRRORS: u32 = 10;
/// "All of it is even".
const ALL: u64 = u64::MAX;
/// The sectors of parity that are computed at a time: the least that a comparison can begin behind.
const STRIPE: u64 = 8;
/// What the hidden volumes are called on which the notes lie: `VOLUME_rmeta_IMAGE`.
const NOTES: &str = "_rmeta_";

/// Where notes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    node: PathBuf,
    /// Bytes from the beginning of the device.
    at: u64,
}

/// The notes of a volume's images, by their numbers, as far as their disks are there.
type Volumes = BTreeMap<String, BTreeMap<u32, Place>>;

impl LinuxLvm {
    /// Has the kernel make even what a power cut left uneven of a group's volumes, once they are activated. Says why, if they
    /// must not be.
    pub(super) fn note_uneven(&self, operation: &str, vg: &str) -> Result<Option<String>, HostError> {
        let report = self.run(operation, &parts(vg))?;
        let volumes = places(&report.stdout).map_err(|detail| unexpected(operation, detail))?;
        for (name, images) in volumes {
            if Path::new("/dev/mapper").join(args::dm_name(vg, &name)).exists() {
                continue;
            }
            let mut all = Vec::new();
            for (number, place) in &images {
                match direct::open(&place.node, false).and_then(|device| Notes::read(&device, place.at)) {
                    // Notes that were never written are the kernel's to make.
                    Ok(None) => {}
                    Ok(Some(notes)) => all.push((*number, notes)),
                    // The kernel does without that image too.
                    Err(error) => {
                        let node = place.node.display();
                        tracing::warn!(%error, vg, volume = name, %node, "the notes on an image cannot be read");
                    }
                }
            }
            let write = |number: u32, notes: &mut Notes, what: &dyn Fn(&mut Notes, &File, u64) -> io::Result<()>| {
                let Some(place) = images.get(&number) else {
                    return Ok(());
                };
                let written = direct::open(&place.node, true).and_then(|device| what(notes, &device, place.at));
                written.map_err(|source| file::io(operation, &place.node, source))
            };
            let nodes = || images.values().map(|place| place.node.clone());
            if let Some((before, failed)) = missed_nothing(&all) {
                tracing::warn!(
                    vg,
                    volume = name,
                    before = format!("{before:b}"),
                    failed = format!("{failed:b}"),
                    "more of its images failed than it can do without; those that missed nothing are used again"
                );
                // Their bitmaps first: until the newest notes count them as good they are used by nobody.
                let failed = renew_bitmaps(vg, &images, &all, before, failed);
                flush(operation, nodes())?;
                let Some(failed) = failed else { continue };
                // The newest first: the kernel goes by these.
                let newest = newest(&all).map(|(number, _)| *number);
                all.sort_by_key(|(number, _)| Some(*number) != newest);
                for (number, notes) in all.iter_mut().filter(|(_, notes)| notes.failed == before) {
                    write(*number, notes, &|notes, device, at| {
                        notes.say_failed(device, at, failed)
                    })?;
                }
                flush(operation, nodes())?;
                all.sort_by_key(|(number, _)| *number);
            }
            if let Some((one, other)) = parted(&all) {
                let node = |number| images.get(&number).map(|place| place.node.display().to_string());
                let (one, other) = (node(one).unwrap_or_default(), node(other).unwrap_or_default());
                return Ok(Some(format!(
                    "{one} and {other} hold copies of one another, and each was used without the other: take the disk out \
                     whose data are to be given up"
                )));
            }
            let Some(from) = uneven_from(&all) else {
                continue;
            };
            if from == ALL {
                tracing::info!(
                    vg,
                    volume = name,
                    "one of its images is to be filled first: nothing is made even before"
                );
            } else {
                tracing::info!(
                    vg,
                    volume = name,
                    from,
                    "the power went while it was written to: its images are made even"
                );
            }
            for (number, notes) in all.iter_mut().filter(|(_, notes)| says_otherwise(notes, from)) {
                write(*number, notes, &|notes, device, at| {
                    notes.say_uneven_from(device, at, from)
                })?;
            }
            flush(operation, nodes())?;
        }
        Ok(None)
    }
}

/// Gives images that are to be used again the bitmap that lies beside the newest notes: those among `before`, which count as failed,
/// that are not among `failed`, which are to. Which are to count as failed then, with those that take no bitmap; nothing, if these
/// are too many.
///
/// The kernel (6.12, md-bitmap.c) goes by the bitmap of the first image in use. If that is older than the newest notes it says
/// "forcing full recovery", and then fills nothing at all of an image that it takes back: it would be read as it was when it
/// failed.
fn renew_bitmaps(
    vg: &str,
    images: &BTreeMap<u32, Place>,
    all: &[(u32, Notes)],
    before: u64,
    failed: u64,
) -> Option<u64> {
    let (_, newest) = newest(all)?;
    // An image that is being filled may not have all of its bitmap yet.
    let survives = |(number, notes): &&(u32, Notes)| {
        notes.events == newest.events && notes.is_filled() && !newest.counts_as_failed(*number)
    };
    let from = all.iter().find(survives).and_then(|(number, _)| images.get(number));
    let has = |bits: u64, number: u32| bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1);
    let mut lost = 0;
    for (number, to) in images.iter().filter(|(number, _)| has(before & !failed, **number)) {
        let copied = from.ok_or_else(|| std::io::Error::other("no image has a bitmap that is whole"));
        let copied = copied.and_then(|from| {
            let (newest_bitmap, device) = (direct::open(&from.node, false)?, direct::open(&to.node, true)?);
            copy_bitmap((&newest_bitmap, from.at), (&device, to.at), newest.events)
        });
        if let Err(error) = copied {
            tracing::warn!(%error, vg, node = %to.node.display(), "an image was not given the newest bitmap");
            lost |= 1 << number;
        }
    }
    match failed {
        // Nothing is filled from a bitmap, and the kernel drops one that it cannot write to.
        0 => Some(0),
        _ => {
            let failed = failed | lost;
            (failed.count_ones() <= spared(newest.level)?).then_some(failed)
        }
    }
}

/// The newest notes, and whose they are; the kernel goes by these.
fn newest(images: &[(u32, Notes)]) -> Option<&(u32, Notes)> {
    let newer = |best: Option<&(u32, Notes)>, notes: &Notes| best.is_none_or(|(_, best)| notes.events > best.events);
    let mut best = None;
    for image in images {
        if newer(best, &image.1) {
            best = Some(image);
        }
    }
    best
}

/// How many images a volume with parity can do without.
fn spared(level: u32) -> Option<u32> {
    match level {
        4 | 5 => Some(1),
        6 => Some(2),
        _ => None,
    }
}

/// Which images of a volume with parity count as failed by its newest notes, if that is more than it can do without; and which
/// of them are to count, without those that missed nothing.
///
/// The kernel answers nothing before all images that are in use have noted that one failed. So one that was in use until it
/// was one too many has noted all that had failed before, and it alone missed nothing. If several have not noted one another,
/// they failed at once, if their notes are of the same moment: of one that is not there that cannot be told.
fn missed_nothing(images: &[(u32, Notes)]) -> Option<(u64, u64)> {
    let (_, newest) = newest(images)?;
    let spared = spared(newest.level)?;
    if newest.images > u64::BITS || newest.failed.count_ones() <= spared {
        return None;
    }
    let failed = |number: &u32| newest.counts_as_failed(*number);
    let until_the_end = |(number, notes): &&(u32, Notes)| {
        let at_once = |other: u32| {
            let same = |(number, other_notes): &(u32, Notes)| {
                *number == other
                    && other_notes.is_filled()
                    && other_notes.position == other
                    && (other_notes.events, other_notes.failed) == (notes.events, notes.failed)
            };
            images.iter().any(same)
        };
        let unnoted = (0..newest.images).filter(|other| failed(other) && !notes.counts_as_failed(*other));
        failed(number) && !notes.counts_as_failed(*number) && { unnoted }.all(at_once)
    };
    let last = images
        .iter()
        .filter(until_the_end)
        .max_by_key(|(_, notes)| notes.events)?;
    let left = newest.failed & last.1.failed;
    (left.count_ones() <= spared).then_some((newest.failed, left))
}

/// Two images of which each was used without the other. One that only missed what was written since counts none of those
/// as failed that went on.
fn parted(images: &[(u32, Notes)]) -> Option<(u32, u32)> {
    let (first, newest) = newest(images)?;
    let went_on = || (0..newest.images).filter(|image| !newest.counts_as_failed(*image));
    let alone = |(other, notes): &&(u32, Notes)| {
        newest.counts_as_failed(*other)
            && went_on().next().is_some()
            && went_on().all(|image| notes.counts_as_failed(image))
    };
    images.iter().find(alone).map(|(other, _)| (*first, *other))
}

/// Whether notes say something else than that all is even up to this sector, or further than that.
fn says_otherwise(notes: &Notes, from: u64) -> bool {
    notes.even > from || from == ALL && notes.even != ALL
}

/// From which sector on these images of a volume are to be compared, if they are to be and can be; [`ALL`] if they are said to be and
/// must not.
fn uneven_from(images: &[(u32, Notes)]) -> Option<u64> {
    let (_, newest) = newest(images)?;
    let usable = |(number, notes): &&(u32, Notes)| notes.is_filled() && !newest.counts_as_failed(*number);
    let usable = images.iter().filter(usable).count();
    if newest.level == STRIPED_MIRRORS && usable < images.len() {
        return images.iter().any(|(_, notes)| notes.even < ALL).then_some(ALL);
    }
    // Parity cannot be made anew without an image: the kernel would not start the volume. Of copies that are left, those of
    // one stretch can be compared.
    let can = match newest.level {
        1 => usable > 1,
        STRIPED_MIRRORS => true,
        _ => usable == newest.images as usize,
    };
    let ours = images.iter().all(|(number, notes)| notes.position == *number);
    let first = images.iter().filter_map(|(_, notes)| notes.written_to).min()?;
    // From nothing on the kernel compares what the bitmap names; from any other sector on all there is, and so it does where a
    // comparison was broken off, whose rest the bitmap may not name (a volume that was made larger).
    let broken_off = |(_, notes): &&(u32, Notes)| notes.even > 0 && notes.even < u64::MAX;
    let from = match images.iter().find(broken_off) {
        None => 0,
        Some(_) if newest.level > 1 && newest.level < STRIPED_MIRRORS => first.max(STRIPE),
        Some(_) => first,
    };
    // What is noted on every image it does anyway.
    (can && ours && images.iter().any(|(_, notes)| notes.even > from)).then_some(from)
}

fn parts(vg: &str) -> LvmCommand {
    let fields = "pv_name,pe_start,vg_extent_size,pvseg_start,lv_name";
    let words = [
        "--segments",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        fields,
        "-S",
    ];
    LvmCommand::new("pvs", words).with([format!("vg_name={vg}")])
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    pvseg: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    pv_name: String,
    pe_start: String,
    vg_extent_size: String,
    pvseg_start: String,
    lv_name: String,
}

fn places(report: &str) -> Result<Volumes, String> {
    let report: Report = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let mut volumes = Volumes::new();
    for row in report.report.into_iter().flat_map(|section| section.pvseg) {
        let Some((volume, image)) = row.lv_name.trim_matches(['[', ']']).rsplit_once(NOTES) else {
            continue;
        };
        // A disk that is not there has no node.
        if !row.pv_name.starts_with('/') {
            continue;
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("no number: {text:?}"));
        let Ok(image) = image.parse() else { continue };
        let offset = number(&row.pvseg_start)?.checked_mul(number(&row.vg_extent_size)?);
        let at = offset.and_then(|offset| offset.checked_add(number(&row.pe_start).ok()?));
        let place = Place {
            node: row.pv_name.into(),
            at: at.ok_or_else(|| format!("{} lies beyond all disks", row.lv_name))?,
        };
        volumes.entry(volume.to_owned()).or_default().insert(image, place);
    }
    Ok(volumes)
}

#[cfg(test)]
mod tests {
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
        let volumes = places(fixture(include_str!("../fixtures/pvs-segments.json"))).unwrap();
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
}
