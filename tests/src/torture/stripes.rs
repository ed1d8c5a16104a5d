//! Which bytes of a pool with parity the write hole may have cost at a cut, and no others: those whose row of blocks, one
//! block of each disk, was being written when the power went.
//!
//! Invariant: a row counts as being written only if the journal of the disks says so: one of its blocks was written and
//! not flushed at the cut, or some of its blocks were written just before the cut and others just after. Everything else
//! has its parity, and is not lost with a disk.
//!
//! Not here: who asks the machines, and what was promised (`ledger`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use cistern_qemu::{Action, Event, Position, Recording};

/// The kernel computes parity by rows of blocks of this many bytes (raid5's stripe heads are pages), in sectors.
const PAGE: u64 = 8;
const SECTOR: u64 = 512;
/// How many entries of the journal lie at most between the writes of one row: they are sent together, and each disk takes
/// at most some hundreds of requests at a time.
const TOGETHER: u64 = 1024;

/// How the data of a pool lies on its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stripes {
    /// Pages in a disk's part of a stripe.
    part: u64,
    /// How many parts of a stripe are data.
    data: u64,
    /// Where the image of the data is on each disk, in sectors.
    images: BTreeMap<String, Range<u64>>,
}

/// Rows that were being written when the power went, by the number of their page in each image.
pub(super) type Rows = BTreeSet<u64>;

impl Stripes {
    /// Reads them out of `dmsetup table` and `lsblk -rno MAJ:MIN,SERIAL`, which tells whose disks the numbers are.
    pub(super) fn read(tables: &str, serials: &str) -> Result<Self> {
        let serials: BTreeMap<&str, &str> = serials.lines().filter_map(|line| line.trim().split_once(' ')).collect();
        let (mut shape, mut images) = (None, BTreeMap::new());
        for line in tables.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, _, _, "raid", kind, _, part, ..] if name.ends_with("_tdata:") => {
                    let parity = if kind.starts_with("raid6") { 2 } else { 1 };
                    shape = Some((part.parse::<u64>()? / PAGE, parity));
                }
                [name, _, length, "linear", device, start] if name.contains("_tdata_rimage_") => {
                    let serial = serials.get(device).with_context(|| format!("whose is {device}?"))?;
                    let (start, length): (u64, u64) = (start.parse()?, length.parse()?);
                    images.insert(serial.trim().to_owned(), start..start + length);
                }
                _ => {}
            }
        }
        let (part, parity) = shape.with_context(|| format!("there is no parity in {tables}"))?;
        ensure!(images.len() as u64 > parity && part > 0, "no images in {tables}");
        let data = images.len() as u64 - parity;
        Ok(Stripes { part, data, images })
    }

    /// The rows that were being written at a moment.
    pub(super) fn being_written(&self, disks: &Recording, at: Position) -> Rows {
        let before = disks.events(Position(at.0.saturating_sub(TOGETHER)), at);
        let after = disks.events(at, Position(at.0 + TOGETHER));
        let mut rows = self.rows(&disks.unsafe_at(at));
        // Blocks that are safe already are in the row of one that had not come.
        rows.extend(self.rows(&before).intersection(&self.rows(&after)));
        rows
    }

    /// The rows that were written to.
    fn rows(&self, events: &[Event]) -> Rows {
        let changes = events.iter().filter(|event| match event.action {
            Action::Write | Action::Zeroes | Action::Trim => true,
            Action::Flush { .. } | Action::Mark(_) => false,
        });
        let ranges = changes.filter_map(|event| {
            let image = self.images.get(event.disk.as_deref()?)?;
            let from = (event.offset / SECTOR).max(image.start);
            let to = (event.offset + event.length).div_ceil(SECTOR).min(image.end);
            (from < to).then(|| (from - image.start) / PAGE..(to - image.start).div_ceil(PAGE))
        });
        ranges.flatten().collect()
    }

    /// Whether a page of the pool's data is in one of these rows.
    fn is_in(&self, rows: &Rows, page: u64) -> bool {
        rows.contains(&(page / self.part / self.data * self.part + page % self.part))
    }
}

/// Where volumes and snapshots have their bytes in the pool, and files theirs in the volumes, as `check.sh where` tells it.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Pages in a block of the thin pool.
    block: u64,
    /// The numbers that the thin pool has for volumes and snapshots, by id.
    numbers: BTreeMap<String, u64>,
    /// By that number: the first block there, the first block in the pool, how many.
    blocks: BTreeMap<u64, Vec<(u64, u64, u64)>>,
    /// The sectors of files, by the volume's id and the file's name.
    files: BTreeMap<(String, String), Vec<Range<u64>>>,
}

impl Places {
    pub(super) fn read(told: &str) -> Result<Self> {
        let mut places = Places::default();
        for line in told.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["block", sectors] => places.block = sectors.parse::<u64>()? / PAGE,
                ["thin", number, id] => drop(places.numbers.insert((*id).to_owned(), number.parse()?)),
                ["map", number, there, here, count] => {
                    let blocks = places.blocks.entry(number.parse()?).or_default();
                    blocks.push((there.parse()?, here.parse()?, count.parse()?));
                }
                ["extent", id, file, first, last] => {
                    let file = places.files.entry(((*id).to_owned(), (*file).to_owned())).or_default();
                    file.push(first.parse()?..last.parse::<u64>()? + 1);
                }
                _ => {}
            }
        }
        ensure!(places.block > 0 && !places.numbers.is_empty(), "no places in {told}");
        Ok(places)
    }

    /// Whether all is known that there is to know of a file: where it is in its volume, and where that is in the pool.
    pub(super) fn knows(&self, id: &str, file: &str) -> bool {
        let blocks = self.numbers.get(id).and_then(|number| self.blocks.get(number));
        let extents = self.files.get(&(id.to_owned(), file.to_owned()));
        let (Some(blocks), Some(extents)) = (blocks, extents) else {
            return false;
        };
        extents.iter().all(|sectors| {
            let block = sectors.start / PAGE / self.block;
            blocks
                .iter()
                .any(|(there, _, count)| (*there..there + count).contains(&block))
        })
    }

    /// Whether the write hole may have cost this file of a volume or a snapshot, or anything in it, if none is named: a file
    /// that is not there any more, or a filesystem that cannot be read, may be so for any of its blocks.
    pub(super) fn may_be_hit(&self, stripes: &Stripes, rows: &Rows, id: &str, file: Option<&str>) -> bool {
        let blocks = self.numbers.get(id).and_then(|number| self.blocks.get(number));
        let hit = |page| stripes.is_in(rows, page);
        let mut blocks = blocks.into_iter().flatten();
        let extents = file.and_then(|file| self.files.get(&(id.to_owned(), file.to_owned())));
        let Some(extents) = extents else {
            return blocks.any(|(_, here, count)| (here * self.block..(here + count) * self.block).any(hit));
        };
        let pages: BTreeSet<u64> = extents
            .iter()
            .flat_map(|sectors| sectors.start / PAGE..sectors.end.div_ceil(PAGE))
            .collect();
        blocks.any(|(there, here, count)| {
            let within = pages.range(there * self.block..(there + count) * self.block);
            within
                .into_iter()
                .any(|page| hit(page - there * self.block + here * self.block))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parity over three disks; the first begins its image later, because metadata lies before it.
    const TABLES: &str = "pool--1-data_tdata: 0 6144 raid raid5_ls 3 128 region_size 4096 3 254:1 254:2 254:3 254:4 254:5 254:6\n\
        pool--1-data_tdata_rimage_0: 0 3072 linear 8:0 4096\n\
        pool--1-data_tdata_rimage_1: 0 3072 linear 8:16 2048\n\
        pool--1-data_tdata_rimage_2: 0 3072 linear 8:32 2048\n\
        pool--1-data_tmeta_rimage_0: 0 2048 linear 8:0 2048\n";
    const SERIALS: &str = "8:0 CUT1\n8:16 CUT2\n8:32 CUT3\n254:1 \n";
    const PLACES: &str = "block 128\nthin 1 vol-a\nthin 2 vol-b\nmap 1 0 0 2\nmap 1 7 4 1\nmap 2 0 2 2\n\
        extent vol-a f0 64 79\nextent vol-a f1 896 1023\n";

    fn stripes() -> Stripes {
        Stripes::read(TABLES, SERIALS).unwrap()
    }

    fn write(disk: &str, sector: u64, sectors: u64) -> Event {
        Event {
            at: Position(1),
            disk: Some(disk.to_owned()),
            action: Action::Write,
            offset: sector * SECTOR,
            length: sectors * SECTOR,
            through: false,
        }
    }

    #[test]
    fn a_row_is_the_same_place_of_all_images_wherever_these_lie() {
        let stripes = stripes();
        assert_eq!((stripes.part, stripes.data), (16, 2));
        for disk in [write("CUT1", 4096 + 64, 8), write("CUT3", 2048 + 64, 1)] {
            assert_eq!(stripes.rows(&[disk]), Rows::from([8]));
        }
        // The metadata before the image, and another machine's disk.
        assert_eq!(
            stripes.rows(&[write("CUT1", 2048, 64), write("SYSTEM", 4096, 8)]),
            Rows::new()
        );
        let flush = Event {
            action: Action::Flush { covers: Position(0) },
            ..write("CUT2", 2048, 0)
        };
        assert_eq!(stripes.rows(&[flush]), Rows::new());
    }

    #[test]
    fn only_what_shares_a_row_with_a_write_under_way_may_be_hit() {
        let (stripes, places) = (stripes(), Places::read(PLACES).unwrap());
        let hit = |rows: &[u64], id: &str, file: Option<&str>| {
            places.may_be_hit(&stripes, &rows.iter().copied().collect(), id, file)
        };
        // Nothing was being written.
        assert!(!hit(&[], "vol-a", None) && !hit(&[], "vol-a", Some("f0")));
        // f0 is in pages 8 and 9 of block 0, the first part of the first stripe; so is row 8.
        assert!(hit(&[8], "vol-a", Some("f0")) && hit(&[9], "vol-a", Some("f0")));
        assert!(!hit(&[7], "vol-a", Some("f0")) && !hit(&[10], "vol-a", Some("f0")));
        assert!(hit(&[7], "vol-a", None), "the filesystem has other blocks there");
        // f1 is in block 7 of its volume, which is block 4 of the pool: in the third stripe.
        assert!(hit(&[32], "vol-a", Some("f1")) && !hit(&[16], "vol-a", Some("f1")));
        // The second stripe is of the other volume alone.
        assert!(hit(&[16], "vol-b", None) && !hit(&[16], "vol-a", None) && !hit(&[8], "vol-b", None));
        assert!(places.knows("vol-a", "f0") && places.knows("vol-a", "f1"));
        assert!(!places.knows("vol-a", "f2") && !places.knows("vol-c", "f0"));
        // What is not there has no blocks.
        assert!(!hit(&[8], "vol-c", None));
    }
}
