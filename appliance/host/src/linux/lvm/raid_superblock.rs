//! The kernel's own notes on an image of a RAID volume (dm-raid's superblock and its bitmap, on a small hidden volume beside
//! the image): what they say; and where garbage lies under them, so that they can be read again. The image could not be
//! filled, because the kernel does not use a device whose superblock it cannot read, whatever else it is told.
//!
//! Invariant: only notes that cannot be read, of an image that is not in use, are written; they become those of an image in
//! use, which say that this one failed. So at every moment, also after a cut, the kernel takes the image for failed, or
//! brings it up to date. Its first block, which makes them valid, is written last.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::linux::direct::{self, Aligned, BLOCK};
use crate::linux::file;
use crate::{HostError, ImageHealth, RaidStatus};

/// LVM makes these volumes one extent large; one that is much larger is not what we think.
const LARGEST: u64 = 64 << 20;
/// The superblock's first bytes (drivers/md/dm-raid.c).
const MAGIC: [u8; 4] = *b"DmRd";
/// Where it has what, little endian: how many images there are, the place of its own among them, how often the notes were
/// written, which images failed, up to where its image was filled, up to where all images are even, and the level.
const IMAGES: usize = 8;
const POSITION: Range<usize> = 12..16;
const EVENTS: usize = 16;
const FAILED: Range<usize> = 24..32;
const FILLED: Range<usize> = 32..40;
const EVEN: Range<usize> = 40..48;
const LEVEL: usize = 48;
/// The bitmap begins in the next block (drivers/md/md-bitmap.h): its first bytes, where it has of which notes it is (as
/// `EVENTS`), the sectors that it speaks of and the bytes that each bit stands for, and where the bits begin.
const BITMAP: u64 = 4096;
const BITMAP_MAGIC: [u8; 4] = *b"bitm";
const BITMAP_EVENTS: Range<usize> = 24..32;
const SECTORS: usize = 40;
const STRETCH: usize = 52;
const BITS: usize = 256;
const SECTOR: u64 = 512;
/// "All of it", in the notes.
const ALL: u64 = u64::MAX;

/// What the kernel notes with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// How many images the volume has.
    pub(super) images: u32,
    /// Which of them this is.
    pub(super) position: u32,
    /// How often the notes were written: the highest of all images' are the newest.
    pub(super) events: u64,
    /// The images that failed, as bits; of those beyond 64 nothing is known here.
    pub(super) failed: u64,
    /// Up to which sector it was filled.
    pub(super) filled: u64,
    /// Up to which sector all images are even.
    pub(super) even: u64,
    /// As in `raid1`.
    pub(super) level: u32,
    /// The first sector of the first stretch of the volume that was being written to.
    pub(super) written_to: Option<u64>,
}

impl Notes {
    /// Reads them; nothing, if there are none.
    pub(super) fn read(device: &File, at: u64) -> io::Result<Option<Self>> {
        let mut superblock = Aligned::read(device, at, BLOCK)?;
        let bytes = superblock.bytes();
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        Ok(Some(Notes {
            images: word(bytes, IMAGES),
            position: word(bytes, POSITION.start),
            events: long(bytes, EVENTS),
            failed: long(bytes, FAILED.start),
            filled: long(bytes, FILLED.start),
            even: long(bytes, EVEN.start),
            level: word(bytes, LEVEL),
            written_to: Bitmap::read(device, at + BITMAP)?.and_then(|mut bitmap| bitmap.first_stretch()),
        }))
    }

    pub(super) fn is_filled(&self) -> bool {
        self.filled == ALL
    }

    pub(super) fn counts_as_failed(&self, image: u32) -> bool {
        self.failed.checked_shr(image).is_some_and(|failed| failed & 1 == 1)
    }

    /// Writes that all is even up to this sector and no further.
    pub(super) fn say_uneven_from(&mut self, device: &File, at: u64, sector: u64) -> io::Result<()> {
        put(device, at, EVEN, sector)?;
        self.even = sector;
        Ok(())
    }

    /// Writes that the image was filled up to this sector and no further.
    pub(super) fn say_filled_to(&mut self, device: &File, at: u64, sector: u64) -> io::Result<()> {
        put(device, at, FILLED, sector)?;
        self.filled = sector;
        Ok(())
    }

    /// Writes that these images failed, as bits, and no others.
    pub(super) fn say_failed(&mut self, device: &File, at: u64, failed: u64) -> io::Result<()> {
        put(device, at, FAILED, failed)?;
        self.failed = failed;
        Ok(())
    }
}

/// Writes one number into notes, which must be there.
fn put(device: &File, at: u64, place: Range<usize>, number: u64) -> io::Result<()> {
    let mut superblock = Aligned::read(device, at, BLOCK)?;
    let bytes = superblock.bytes();
    if !bytes.starts_with(&MAGIC) {
        return Err(io::Error::other("its notes are gone"));
    }
    if let Some(old) = bytes.get_mut(place) {
        old.copy_from_slice(&number.to_le_bytes());
    }
    device.write_all_at(bytes, at)
}

/// The bitmap that begins here; nothing, if there is none.
struct Bitmap {
    /// How many stretches it speaks of.
    bits: u64,
    /// The sectors of one.
    stretch: u64,
    /// All of its blocks.
    all: Aligned,
}

impl Bitmap {
    fn read(device: &File, at: u64) -> io::Result<Option<Self>> {
        let mut head = Aligned::read(device, at, BLOCK)?;
        let bytes = head.bytes();
        if !bytes.starts_with(&BITMAP_MAGIC) {
            return Ok(None);
        }
        let stretch = u64::from(word(bytes, STRETCH)) / SECTOR;
        let Some(bits) = long(bytes, SECTORS)
            .checked_add(stretch.saturating_sub(1))
            .and_then(|sum| sum.checked_div(stretch))
        else {
            return Err(io::Error::other("a bitmap of nothing"));
        };
        if bits / 8 > LARGEST {
            return Err(io::Error::other(format!("a bitmap of {bits} bits")));
        }
        let whole = BITS + usize::try_from(bits.div_ceil(8)).map_err(io::Error::other)?;
        let all = Aligned::read(device, at, whole.next_multiple_of(BLOCK))?;
        Ok(Some(Bitmap { bits, stretch, all }))
    }

    /// The first sector of the first stretch of which the bit is set.
    fn first_stretch(&mut self) -> Option<u64> {
        let set = self.all.bytes().get(BITS..).unwrap_or_default();
        let first = set.iter().zip(0..).find(|(byte, _)| **byte != 0);
        let bit = first.map(|(byte, place)| place * 8 + u64::from(byte.trailing_zeros()));
        // What is behind the last bit is of no meaning.
        bit.filter(|bit| *bit < self.bits).map(|bit| bit * self.stretch)
    }
}

/// Gives an image of a volume the bitmap of another one, as of the newest notes: how often these were written. Each of the
/// two is a device and where the image's notes begin on it.
pub(super) fn copy_bitmap(from: (&File, u64), to: (&File, u64), events: u64) -> io::Result<()> {
    let none = || io::Error::other("it has no bitmap");
    let mut bitmap = Bitmap::read(from.0, from.1 + BITMAP)?.ok_or_else(none)?;
    let old = Bitmap::read(to.0, to.1 + BITMAP)?.ok_or_else(none)?;
    if (old.bits, old.stretch) != (bitmap.bits, bitmap.stretch) {
        return Err(io::Error::other("its bitmap is not one of the same volume"));
    }
    if let Some(place) = bitmap.all.bytes().get_mut(BITMAP_EVENTS) {
        place.copy_from_slice(&events.to_le_bytes());
    }
    write(bitmap.all, to.0, to.1 + BITMAP)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

/// The devices of a volume's images in their order, from its table: of the notes and of the image.
///
/// `START LENGTH raid TYPE COUNT PARAMETERS... IMAGES (NOTES IMAGE)...`, a device as MAJOR:MINOR or as `-`.
pub(super) fn devices(table: &str) -> Option<Vec<(String, String)>> {
    let words: Vec<&str> = table.split_whitespace().collect();
    let ["raid", _, count, rest @ ..] = words.get(2..)? else {
        return None;
    };
    let (images, devices) = rest.get(count.parse::<usize>().ok()?..)?.split_first()?;
    let (pairs, []) = devices.as_chunks::<2>() else {
        return None;
    };
    (images.parse() == Ok(pairs.len())).then(|| {
        let pair = |[notes, image]: &[&str; 2]| ((*notes).to_owned(), (*image).to_owned());
        pairs.iter().map(pair).collect()
    })
}

/// Which image of a volume lies on this device, and one that is in use: places in [`devices`].
fn places(devices: &[(String, String)], status: &RaidStatus, node: &Path) -> io::Result<Option<(usize, usize)>> {
    let name = std::fs::canonicalize(node)?;
    let name = name.file_name().unwrap_or_default();
    let health = |place: &usize| status.images.get(*place);
    let on_node = |place: &usize| {
        devices
            .get(*place)
            .is_some_and(|(_, image)| below(image).join(name).exists())
    };
    let of = (0..devices.len()).find(|place| on_node(place) && health(place) == Some(&ImageHealth::Failed));
    let good = (0..devices.len()).find(|place| health(place) == Some(&ImageHealth::Good));
    Ok(of.zip(good))
}

/// What a device of device mapper's lies on.
fn below(device: &str) -> PathBuf {
    Path::new("/sys/dev/block").join(device).join("slaves")
}

/// Makes the notes on a volume's failed image on this device readable, if they are not.
pub(super) fn mend(operation: &str, table: &str, status: &RaidStatus, node: &Path) -> Result<(), HostError> {
    let Some(devices) = devices(table) else {
        return Err(HostError::Unexpected {
            operation: operation.to_owned(),
            detail: table.trim().to_owned(),
        });
    };
    let io = |source| file::io(operation, node, source);
    let Some((failed, good)) = places(&devices, status, node).map_err(io)? else {
        return Ok(());
    };
    let open = |place: usize| {
        let notes = devices.get(place).map_or("-", |(notes, _)| notes.as_str());
        direct::open(&Path::new("/dev/block").join(notes), place == failed)
    };
    let failed_notes = open(failed).map_err(io)?;
    if all(&failed_notes).is_ok() {
        return Ok(());
    }
    let mut notes = open(good).and_then(|notes| all(&notes)).map_err(io)?;
    let position = u32::try_from(failed).unwrap_or(u32::MAX).to_le_bytes();
    let bytes = notes.bytes();
    if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
        return Err(HostError::Unexpected {
            operation: operation.to_owned(),
            detail: "no superblock of dm-raid's on the image that is in use".to_owned(),
        });
    }
    if let Some(place) = bytes.get_mut(POSITION) {
        place.copy_from_slice(&position);
    }
    tracing::info!(?devices, failed, good, "the notes on an image are made readable");
    write(notes, &failed_notes, 0).map_err(io)
}

/// All that is on a device.
fn all(device: &File) -> io::Result<Aligned> {
    let length = io::Seek::seek(&mut &*device, io::SeekFrom::End(0))?;
    if length == 0 || length > LARGEST || length % BLOCK as u64 != 0 {
        return Err(io::Error::other(format!("notes of {length} bytes")));
    }
    Aligned::read(device, 0, usize::try_from(length).map_err(io::Error::other)?)
}

/// The first block comes last, each durably.
fn write(mut blocks: Aligned, device: &File, at: u64) -> io::Result<()> {
    let (first, rest) = blocks.bytes().split_at(BLOCK);
    device.write_all_at(rest, at + BLOCK as u64)?;
    device.sync_data()?;
    device.write_all_at(first, at)?;
    device.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes as the kernel (6.12) writes them, of a volume of 70 stretches.
    fn written(bits: &[u8]) -> File {
        let device = tempfile::tempfile().unwrap();
        let mut superblock = [0; 8192];
        superblock[..4].copy_from_slice(&MAGIC);
        superblock[IMAGES] = 2;
        superblock[POSITION.start] = 1;
        superblock[EVENTS] = 9;
        superblock[FAILED.start] = 0b10;
        superblock[FILLED].fill(0xFF);
        superblock[EVEN].fill(0xFF);
        superblock[LEVEL] = 1;
        let bitmap = &mut superblock[4096..];
        bitmap[..4].copy_from_slice(&BITMAP_MAGIC);
        bitmap[SECTORS..SECTORS + 4].copy_from_slice(&(69_u32 * 4096 + 1).to_le_bytes());
        bitmap[STRETCH..STRETCH + 4].copy_from_slice(&(2_u32 << 20).to_le_bytes());
        bitmap[BITS..BITS + bits.len()].copy_from_slice(bits);
        device.write_all_at(&superblock, 4096).unwrap();
        device
    }

    #[test]
    fn notes_are_read_and_written() {
        let device = written(&[0, 0, 0, 0, 1]);
        let mut notes = Notes::read(&device, 4096).unwrap().unwrap();
        let expected = Notes {
            images: 2,
            position: 1,
            events: 9,
            failed: 0b10,
            filled: ALL,
            even: ALL,
            level: 1,
            written_to: Some(32 * 4096),
        };
        assert_eq!(notes, expected);
        assert!(notes.is_filled());
        assert!(notes.counts_as_failed(1) && !notes.counts_as_failed(0) && !notes.counts_as_failed(64));
        notes.say_uneven_from(&device, 4096, 8192).unwrap();
        notes.say_failed(&device, 4096, 0b1).unwrap();
        notes.say_filled_to(&device, 4096, 4096).unwrap();
        assert!(!notes.is_filled());
        let now = Notes::read(&device, 4096).unwrap().unwrap();
        let changed = Notes {
            even: 8192,
            failed: 0b1,
            filled: 4096,
            ..expected
        };
        assert_eq!(now, changed);
        assert_eq!(now, notes);
        // Nothing was ever written there.
        assert_eq!(Notes::read(&device, 0).unwrap(), None);
        assert!(notes.say_uneven_from(&device, 0, 0).is_err());
    }

    #[test]
    fn a_bit_is_seen_up_to_the_last() {
        let first = |bits: &[u8]| {
            let notes = Notes::read(&written(bits), 4096).unwrap().unwrap();
            notes.written_to.map(|sector| sector / 4096)
        };
        assert_eq!(first(&[0; 9]), None);
        assert_eq!(first(&[0b110]), Some(1));
        assert_eq!(first(&[0, 0b1000_0000, 1]), Some(15));
        assert_eq!(first(&[0, 0, 0, 0, 0, 0, 0, 0, 0b10_0000]), Some(69));
        // There are 70.
        assert_eq!(first(&[0, 0, 0, 0, 0, 0, 0, 0, 0b1100_0000, 0xFF]), None);
    }

    #[test]
    fn an_image_gets_the_bitmap_of_another_one_and_keeps_its_notes() {
        let (newest, back) = (written(&[0, 0, 0, 0, 1]), written(&[1]));
        let before = Notes::read(&back, 4096).unwrap().unwrap();
        copy_bitmap((&newest, 4096), (&back, 4096), 47).unwrap();
        let now = Notes::read(&back, 4096).unwrap().unwrap();
        let expected = Notes {
            written_to: Some(32 * 4096),
            ..before
        };
        assert_eq!(now, expected);
        let mut bitmap = Bitmap::read(&back, 8192).unwrap().unwrap();
        assert_eq!(long(bitmap.all.bytes(), BITMAP_EVENTS.start), 47);

        // Of another volume, and nothing.
        let other = written(&[1]);
        other
            .write_all_at(&(4_u32 << 20).to_le_bytes(), 8192 + STRETCH as u64)
            .unwrap();
        assert!(copy_bitmap((&newest, 4096), (&other, 4096), 47).is_err());
        assert!(copy_bitmap((&newest, 4096), (&back, 0), 47).is_err());
        assert!(copy_bitmap((&newest, 0), (&back, 4096), 47).is_err());
        assert_eq!(Notes::read(&back, 4096).unwrap().unwrap(), now);
    }

    #[test]
    fn the_devices_are_those_of_the_table() {
        let pair = |notes: &str, image: &str| (notes.to_owned(), image.to_owned());
        // Both as the kernel (6.12) printed them.
        assert_eq!(
            devices("0 3809280 raid raid1 3 0 region_size 4096 2 254:7 254:8 254:9 254:10\n"),
            Some(vec![pair("254:7", "254:8"), pair("254:9", "254:10")])
        );
        assert_eq!(
            devices("0 65536 raid raid5_ls 5 128 region_size 4096 rebuild 1 3 254:2 254:3 - - 254:6 254:7"),
            Some(vec![pair("254:2", "254:3"), pair("-", "-"), pair("254:6", "254:7")])
        );
        for no in [
            "",
            "0 8 linear 254:1 0",
            "0 8 raid raid1 9 0 2 - - - -",
            "0 8 raid raid1 1 0 2 - - -",
            "0 8 raid raid1 1 0 3 - - - -",
            "0 8 raid",
        ] {
            assert_eq!(devices(no), None, "{no}");
        }
    }
}
