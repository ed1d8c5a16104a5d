//! The kernel's own notes on an image of a RAID volume (dm-raid's superblock and its bitmap, on a small hidden volume beside
//! the image): where garbage lies under them, the image cannot be filled, because the kernel does not use a device whose
//! superblock it cannot read, whatever else it is told.
//!
//! Invariant: only notes that cannot be read, of an image that is not in use, are written; they become those of an image in
//! use, which say that this one failed. So at every moment, also after a cut, the kernel takes the image for failed, or
//! brings it up to date. Its first block, which makes them valid, is written last.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::linux::file;
use crate::{HostError, ImageHealth, RaidStatus};

/// What direct reading and writing is aligned to, and what the superblock lies in.
const BLOCK: usize = 4096;
/// LVM makes these volumes one extent large; one that is much larger is not what we think.
const LARGEST: u64 = 64 << 20;
/// The superblock's first bytes (drivers/md/dm-raid.c).
const MAGIC: [u8; 4] = *b"DmRd";
/// Where it has the place of its image among the others, 4 bytes, little endian.
const POSITION: std::ops::Range<usize> = 12..16;

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
        OpenOptions::new()
            .read(true)
            .write(place == failed)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(Path::new("/dev/block").join(notes))
    };
    let failed_notes = open(failed).map_err(io)?;
    if Aligned::read(&failed_notes).is_ok() {
        return Ok(());
    }
    let mut notes = open(good).and_then(|notes| Aligned::read(&notes)).map_err(io)?;
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
    notes.write(&failed_notes).map_err(io)
}

/// Bytes where direct reading can put them.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// All that is on a device.
    fn read(device: &File) -> io::Result<Self> {
        let length = io::Seek::seek(&mut &*device, io::SeekFrom::End(0))?;
        if length == 0 || length > LARGEST || length % BLOCK as u64 != 0 {
            return Err(io::Error::other(format!("notes of {length} bytes")));
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let memory = vec![0; length + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        let mut own = Aligned { memory, start, length };
        device.read_exact_at(own.bytes(), 0)?;
        Ok(own)
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..)
            .and_then(|bytes| bytes.get_mut(..self.length))
            .unwrap_or_default()
    }

    /// The first block comes last, each durably.
    fn write(mut self, device: &File) -> io::Result<()> {
        let (first, rest) = self.bytes().split_at(BLOCK);
        device.write_all_at(rest, BLOCK as u64)?;
        device.sync_data()?;
        device.write_all_at(first, 0)?;
        device.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
