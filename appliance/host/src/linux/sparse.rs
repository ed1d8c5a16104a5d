//! A new XFS on a device that reads as zeroes, without writing zeroes to it.
//!
//! mkfs.xfs writes the whole of the log, 64 MiB and more, of which all but the first block is zeroes: on a thin volume
//! that is space that is taken for nothing, and most of the time that making one takes. So it makes the filesystem in
//! memory, and what is not zero of that, some hundred KiB, is written to the device.
//!
//! Invariant: the device has a valid superblock at its beginning only once all else is on it, durably.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cistern_model::Bytes;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use super::file;
use super::run::close;
use crate::HostError;

/// What is looked at as one: a block of XFS.
const BLOCK: usize = 4096;
static ZEROES: [u8; BLOCK] = [0; BLOCK];
/// What is read and written at a time.
const PIECE: usize = 1 << 20;
/// The least log that mkfs.xfs makes, and the most; between them it is this share of the filesystem (xfsprogs 6.13).
const LOG: (Bytes, Bytes) = (Bytes::mib(64), Bytes::gib(2));
const LOG_SHARE: u64 = 2048;
/// The share of the memory that is free which a filesystem may take for a moment.
const MEMORY_SHARE: u64 = 4;

/// One at a time, so that the memory is taken once.
static ONE: Mutex<()> = Mutex::new(());

/// Whether there is memory for the log of such a filesystem.
pub(super) fn fits(size: Bytes) -> bool {
    let mut system = match sysinfo::System::new() {
        Ok(system) => system,
        Err(_) => return false,
    };
    system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
    log_of(size).get() <= system.available_memory() / MEMORY_SHARE
}

/// The log that mkfs.xfs makes, about.
fn log_of(size: Bytes) -> Bytes {
    Bytes::new(size.get() / LOG_SHARE).clamp(LOG.0, LOG.1)
}

/// Has a filesystem made in a file of this size in memory, and writes what is not zero of it to a device that reads as
/// zeroes.
pub(super) fn make(
    operation: &str,
    node: &Path,
    size: Bytes,
    mkfs: impl FnOnce(&Path) -> Result<(), HostError>,
) -> Result<(), HostError> {
    let failed = |source| file::io(operation, node, source);
    // mkfs.xfs would see to both.
    let mut device = File::open(node).map_err(failed)?;
    let room = device.seek(io::SeekFrom::End(0)).map_err(failed)?;
    if room < size.get() {
        return Err(failed(io::Error::other("the device is smaller than that")));
    }
    if !is_blank(&device, room).map_err(failed)? {
        return Err(failed(io::Error::other("something is on the device")));
    }
    drop(device);
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = memory(size).map_err(failed)?;
    // As a name that another program can open, for as long as this file is open.
    let name = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()));
    mkfs(&name)?;
    // Fails if the device is in use.
    let device = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(node);
    let device = device.map_err(failed)?;
    let copied = copy(&memory, &device);
    // It is mounted next.
    close(device);
    copied.map_err(failed)
}

/// Whether a device reads as zeroes where signatures are: libblkid knows of none that is not within these of its ends.
fn is_blank(device: &File, size: u64) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    for at in [0, PIECE as u64, size.saturating_sub(PIECE as u64)] {
        let length = piece
            .len()
            .min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
        device.read_exact_at(&mut piece[..length], at)?;
        if !runs(&piece[..length]).is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn memory(size: Bytes) -> io::Result<File> {
    let memory = File::from(memfd_create(c"xfs", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(size.get())?;
    Ok(memory)
}

/// Copies what is not zero, the first block last.
fn copy(from: &File, to: &File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while let Some(data) = seek(from, at, Whence::SeekData)? {
        let end = seek(from, data, Whence::SeekHole)?.unwrap_or(data);
        at = data;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut piece[..length];
            from.read_exact_at(piece, at)?;
            for (start, run) in runs(piece) {
                let offset = at + start as u64;
                // The superblock.
                let skip = if offset == 0 { BLOCK.min(run.len()) } else { 0 };
                to.write_all_at(&run[skip..], offset + skip as u64)?;
            }
            at += length as u64;
        }
    }
    to.sync_all()?;
    let mut superblock = [0; BLOCK];
    from.read_exact_at(&mut superblock, 0)?;
    to.write_all_at(&superblock, 0)?;
    to.sync_all()
}

/// Where data, or a hole, begins, from there on; none if there is none.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, offset, whence) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The stretches of whole blocks that are not all zero, with where they begin.
fn runs(piece: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut begun = None;
    for (number, block) in piece.chunks(BLOCK).enumerate() {
        // As one comparison of memory: a log is tens of MiB.
        let zero = *block == ZEROES[..block.len()];
        match (zero, begun) {
            (false, None) => begun = Some(number * BLOCK),
            (true, Some(start)) => {
                runs.push((start, &piece[start..number * BLOCK]));
                begun = None;
            }
            (false, Some(_)) | (true, None) => {}
        }
    }
    runs.extend(begun.map(|start| (start, &piece[start..])));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_zero_is_written() {
        let mut piece = vec![0_u8; 10 * BLOCK];
        assert!(runs(&piece).is_empty());
        for block in [0, 3, 4, 9] {
            piece[block * BLOCK + 17] = 1;
        }
        let found: Vec<(usize, usize)> = runs(&piece)
            .iter()
            .map(|(at, run)| (at / BLOCK, run.len() / BLOCK))
            .collect();
        assert_eq!(found, [(0, 1), (3, 2), (9, 1)]);
    }

    #[test]
    fn a_copy_is_the_same_and_as_sparse_whatever_lies_where() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("device");
        let size = Bytes::mib(300);
        File::create(&node).unwrap().set_len(size.get()).unwrap();
        let places = [0, 5 * 4096, (1 << 20) - 4096, (64 << 20) + 8192, size.get() - 4096];
        let written = make("test", &node, size, |memory| {
            let file = OpenOptions::new().write(true).open(memory).unwrap();
            // What mkfs.xfs does to a log.
            file.write_all_at(&vec![0; 8 << 20], 100 << 20).unwrap();
            places.iter().for_each(|at| file.write_all_at(&[7; 4096], *at).unwrap());
            Ok(())
        });
        written.unwrap();
        let device = File::open(&node).unwrap();
        for at in places {
            let mut block = [0; 4096];
            device.read_exact_at(&mut block, at).unwrap();
            assert_eq!(block, [7; 4096], "{at}");
        }
        let blocks = std::os::unix::fs::MetadataExt::blocks(&device.metadata().unwrap());
        assert!(blocks * 512 < 1 << 20, "{blocks}");
    }

    #[test]
    fn nothing_is_written_if_the_filesystem_could_not_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("device");
        File::create(&node).unwrap().set_len(1 << 20).unwrap();
        let failed = make("test", &node, Bytes::mib(1), |memory| {
            std::fs::write(memory, b"XFSB").unwrap();
            Err(file::io("test", memory, io::Error::other("no")))
        });
        assert!(failed.is_err());
        assert!(std::fs::read(&node).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_has_something_on_it_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("device");
        let size = Bytes::mib(300);
        // A filesystem's, VMFS', and what ZFS and MD keep at the end.
        for at in [0, 65536, 1 << 20, size.get() - (512 << 10), size.get() - 512] {
            let device = File::create(&node).unwrap();
            device.set_len(size.get()).unwrap();
            device.write_all_at(b"mark", at).unwrap();
            let made = make("test", &node, size, |_| panic!("it was to be refused"));
            let told = format!("{:?}", made.unwrap_err());
            assert!(told.contains("something is on the device"), "{at}: {told}");
        }
    }

    #[test]
    fn a_log_is_a_share_of_its_filesystem_within_bounds() {
        assert_eq!(log_of(Bytes::mib(300)), Bytes::mib(64));
        assert_eq!(log_of(Bytes::gib(512)), Bytes::mib(256));
        assert_eq!(log_of(Bytes::gib(100 << 10)), Bytes::gib(2));
    }
}
