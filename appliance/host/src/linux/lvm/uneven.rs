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
//! An image that is filled counts as lost there: what the others lack it has not.
//!
//! Where filling an image is broken off because what it is filled from cannot be read, the kernel (6.12, md.c) notes for a moment that it
//! was filled up to where it had come with asking, and not with writing. So that is not believed to the last.
//!
//! A volume of striped mirrors of which an image is to be filled is never called uneven: the kernel's comparison (6.12, raid10.c) reads
//! that image too, and where it is the first of its pair copies it over the good one. It is filled, and a scrub compares afterwards.
//!
//! Invariant: the notes of a volume are written only if it is not active, they are what the kernel wrote, and its bitmap
//! names a stretch that they call even, or they count more images as failed than it can do without, or call what is not to be
//! compared uneven, or an image filled to a sector. A cut in between leaves notes that say so on some disks: the bitmap still names it, the newest notes still
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
/// How much further than it was filled an image may be said to be, in sectors: many times what the kernel asks for at a time (md's raid1 and
/// raid10 2 MiB of an image, parity 1 MiB).
const ASKED_FOR: u64 = (64 << 20) / 512;
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
            let mut some = false;
            for (number, notes) in all
                .iter_mut()
                .filter(|(_, notes)| notes.filled > 0 && !notes.is_filled())
            {
                let sector = notes.filled.saturating_sub(ASKED_FOR);
                tracing::info!(
                    vg,
                    volume = name,
                    image = number,
                    from = sector,
                    "it is filled from here on"
                );
                write(*number, notes, &|notes, device, at| {
                    notes.say_filled_to(device, at, sector)
                })?;
                some = true;
            }
            if some {
                flush(operation, nodes())?;
            }
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
            (failed.count_ones() + unfilled(all, newest) <= spared(newest.level)?).then_some(failed)
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

/// How many images are being filled, of those that do not count as failed.
fn unfilled(images: &[(u32, Notes)], newest: &Notes) -> u32 {
    let unfilled = |(number, notes): &&(u32, Notes)| !notes.is_filled() && !newest.counts_as_failed(*number);
    images.iter().filter(unfilled).map(|_| 1).sum()
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
    // What is being filled is lost already.
    let spared = spared(newest.level)?.checked_sub(unfilled(images, newest))?;
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
mod tests;
