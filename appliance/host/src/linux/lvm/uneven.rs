//! Copies that a power cut left different, and parity that it left of other data.
//!
//! The kernel notes in a bitmap which stretches of a RAID volume are being written to, so that after a power cut it need
//! compare only these. But device mapper's RAID (6.12) writes "all is even" into its notes while it is being written to,
//! and so begins no comparison at the next start: what one disk has of the last writes and the other has not stays so, and
//! a block may read now as the one and now as the other has it. md's own notes say "nothing is even" from the first write
//! on. So that is written into them here, before the kernel reads them; it then makes those stretches even that the bitmap
//! names, and until then reads of one copy only.
//!
//! Each image's notes also say which others failed. Where two say so of each other, each was used without the other, and
//! what either has alone is lost if the kernel chooses one and fills the other from it. That is for an operator to say.
//!
//! Invariant: the notes of a volume are written only if it is not active, they are what the kernel wrote, and its bitmap
//! names a stretch. A cut in between leaves notes that say so on some disks: the bitmap still names it, and the next start
//! does it again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::{self, LvmCommand};
use super::raid_superblock::Notes;
use super::{LinuxLvm, flush, unexpected};
use crate::HostError;
use crate::linux::{direct, file};

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
                let failed = |source| file::io(operation, &place.node, source);
                let device = direct::open(&place.node, false).map_err(failed)?;
                // Notes that were never written are the kernel's to make.
                if let Some(notes) = Notes::read(&device, place.at).map_err(failed)? {
                    all.push((*number, notes));
                }
            }
            if let Some((one, other)) = parted(&all) {
                let node = |number| images.get(&number).map(|place| place.node.display().to_string());
                let (one, other) = (node(one).unwrap_or_default(), node(other).unwrap_or_default());
                return Ok(Some(format!(
                    "{one} and {other} hold copies of one another, and each was used without the other: take the disk out \
                     whose data are to be given up"
                )));
            }
            if !is_uneven(&all) {
                continue;
            }
            tracing::info!(
                vg,
                volume = name,
                "the power went while it was written to: its images are made even"
            );
            for (number, notes) in &mut all {
                let Some(place) = images.get(number) else { continue };
                let written = direct::open(&place.node, true).and_then(|device| notes.say_uneven(&device, place.at));
                written.map_err(|source: io::Error| file::io(operation, &place.node, source))?;
            }
            flush(operation, images.into_values().map(|place| place.node))?;
        }
        Ok(None)
    }
}

/// Two images that each count the other as failed.
fn parted(images: &[(u32, Notes)]) -> Option<(u32, u32)> {
    images.iter().find_map(|(one, notes)| {
        let of_each_other = |(other, others): &&(u32, Notes)| {
            one != other && notes.counts_as_failed(*other) && others.counts_as_failed(*one)
        };
        images.iter().find(of_each_other).map(|(other, _)| (*one, *other))
    })
}

/// Whether these images of a volume are to be compared, and can be.
fn is_uneven(images: &[(u32, Notes)]) -> bool {
    let Some((_, newest)) = images.iter().max_by_key(|(_, notes)| notes.events) else {
        return false;
    };
    let usable = |(number, notes): &&(u32, Notes)| notes.is_filled() && !newest.counts_as_failed(*number);
    let usable = images.iter().filter(usable).count();
    // Parity cannot be made anew without an image: the kernel would not start the volume. Of copies that are left, those of
    // one stretch can be compared.
    let can = match newest.level {
        1 => usable > 1,
        10 => true,
        _ => usable == newest.images as usize,
    };
    let ours = images
        .iter()
        .all(|(number, notes)| notes.position == *number && notes.says_even());
    can && ours && images.iter().any(|(_, notes)| notes.was_written_to)
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
            was_written_to: false,
        }
    }

    fn all(change: impl Fn(&mut [Notes])) -> bool {
        let mut all: Vec<Notes> = (0..2).map(notes).collect();
        change(&mut all);
        is_uneven(&(0..).zip(all).collect::<Vec<_>>())
    }

    #[test]
    fn a_volume_is_uneven_whose_bitmap_names_a_stretch() {
        assert!(!all(|_| {}));
        for dirty in 0..2 {
            assert!(all(|notes| notes[dirty].was_written_to = true));
            // The kernel is at it.
            assert!(!all(|notes| {
                notes[dirty].was_written_to = true;
                notes[0].even = 4096;
            }));
            // Another volume's.
            assert!(!all(|notes| {
                notes[dirty].was_written_to = true;
                notes[1].position = 0;
            }));
        }
        assert!(!is_uneven(&[]));
    }

    #[test]
    fn images_that_were_used_without_each_other_are_told() {
        let parted = |failed: &[u64]| {
            let notes = |position: u32| Notes {
                failed: failed[position as usize],
                ..notes(position)
            };
            super::parted(
                &(0..failed.len() as u32)
                    .map(|number| (number, notes(number)))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(parted(&[0b10, 0b01]), Some((0, 1)));
        assert_eq!(parted(&[0, 0b100, 0b010, 0]), Some((1, 2)));
        for none in [&[0, 0][..], &[0b10, 0], &[0b10, 0b10], &[0b100, 0b001, 0b010], &[]] {
            assert_eq!(parted(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_lacks_an_image_is_compared_only_if_there_are_copies() {
        let there = |level, count: u32, failed| {
            let notes = |position| Notes {
                images: 4,
                level,
                failed,
                was_written_to: true,
                ..notes(position)
            };
            is_uneven(&(0..count).map(|number| (number, notes(number))).collect::<Vec<_>>())
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
