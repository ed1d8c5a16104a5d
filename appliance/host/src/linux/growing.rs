//! Growing a mounted XFS, so that it is grown for good.
//!
//! The kernel changes the primary superblock in its log, durably, and then writes the copies of it that each allocation
//! group has, past the log, and asks no device to write its cache out. A power cut in between, or soon after, leaves copies
//! of a smaller filesystem: it mounts and works, but a repair that needs them finds another filesystem than there is. So
//! the copies are looked at, whenever a filesystem comes up, and one that is old has the kernel write them all anew.
//!
//! Invariant: when [`to`] returns without an error the filesystem has the size, and so do its copies, on stable storage.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cistern_model::Bytes;

use super::direct::{self, Aligned};
use super::frozen::{self, Geometry};
use super::lvm::flush;
use super::{file, mounts, within};
use crate::HostError;

/// The bytes of a block.
const BLOCK: u64 = 4096;
/// An allocation group has at least so many blocks; XFS leaves out a last one that would have fewer.
const LEAST_GROUP: u64 = 64;
/// A superblock (xfs_format.h): its first bytes, and where the blocks of the filesystem and its groups are counted, big
/// endian.
const MAGIC: &[u8] = b"XFSB";
const BLOCKS: std::ops::Range<usize> = 8..16;
const GROUPS: std::ops::Range<usize> = 88..92;

/// Makes a mounted XFS have this size. Fails if it is larger, or its device smaller.
pub(super) fn to(operation: &str, target: &Path, size: Bytes) -> Result<(), HostError> {
    let geometry = frozen::geometry(target).map_err(|source| file::io(operation, target, source))?;
    let has = Bytes::new(geometry.data_blocks.saturating_mul(geometry.block_size.into()));
    let blocks = grown_blocks(size, geometry.group_blocks.into());
    if geometry.data_blocks == blocks || has == size {
        // It serves all the same: a copy that cannot be read or written is a repair's concern.
        if let Err(error) = renew_copies(operation, target, &geometry) {
            tracing::warn!(%error, "whether the copies of its superblock are as large cannot be told");
        }
        return Ok(());
    }
    if has > size {
        return Err(HostError::Unexpected {
            operation: operation.to_owned(),
            detail: format!("it has {has:#} already, more than {size:#}"),
        });
    }
    grow(operation, target, &geometry, blocks)
}

/// Has the kernel write the copies anew, if one of them is old.
fn renew_copies(operation: &str, target: &Path, geometry: &Geometry) -> Result<(), HostError> {
    let node = device(operation, target)?;
    let looked = direct::open(&node, false).and_then(|device| old_copy(&device, geometry));
    match looked.map_err(|source| file::io(operation, &node, source))? {
        None => Ok(()),
        Some(group) => {
            tracing::info!(
                path = %target.display(),
                group,
                "the power went while its filesystem grew: its superblock's copies are written anew"
            );
            // Told the size that it has, it writes these only.
            grow(operation, target, geometry, geometry.data_blocks)
        }
    }
}

/// Has the kernel grow it and write the copies, and its device keep them.
fn grow(operation: &str, target: &Path, geometry: &Geometry, blocks: u64) -> Result<(), HostError> {
    let node = device(operation, target)?;
    let (path, inodes) = (target.to_owned(), geometry.inodes_max_percent);
    let grown = within::limit(operation, within::GROWING, move || frozen::grow(&path, blocks, inodes))?;
    grown.map_err(|source| file::io(operation, target, source))?;
    flush(operation, [node])
}

/// What a mounted filesystem lies on.
pub(super) fn device(operation: &str, target: &Path) -> Result<PathBuf, HostError> {
    let mounts = mounts::all()?;
    let at = mounts.into_iter().rev().find(|mount| mount.entry.target == target);
    at.map(|mount| mount.entry.source).ok_or_else(|| HostError::Unexpected {
        operation: operation.to_owned(),
        detail: format!("nothing is mounted at {}", target.display()),
    })
}

/// What a filesystem has when it was grown to a size, in blocks.
fn grown_blocks(size: Bytes, group_blocks: u64) -> u64 {
    let blocks = size.get() / BLOCK;
    match blocks.checked_rem(group_blocks) {
        Some(rest) if rest < LEAST_GROUP => blocks - rest,
        Some(_) | None => blocks,
    }
}

/// The first allocation group whose copy of the superblock is not that of a filesystem so large.
fn old_copy(device: &File, geometry: &Geometry) -> io::Result<Option<u32>> {
    let group = u64::from(geometry.group_blocks) * u64::from(geometry.block_size);
    for number in 1..geometry.group_count {
        if !is_current(device, u64::from(number) * group, geometry)? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn is_current(device: &File, at: u64, geometry: &Geometry) -> io::Result<bool> {
    let mut copy = Aligned::read(device, at, direct::BLOCK)?;
    let copy = copy.bytes();
    Ok(copy.starts_with(MAGIC)
        && copy.get(BLOCKS) == Some(&geometry.data_blocks.to_be_bytes())
        && copy.get(GROUPS) == Some(&geometry.group_count.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_filesystem_grows_to_the_block_unless_its_last_allocation_group_would_be_too_small() {
        let group = Bytes::mib(150).get() / BLOCK;
        let grown = |blocks: u64| grown_blocks(Bytes::new(blocks * BLOCK), group);
        assert_eq!(grown(3 * group), 3 * group);
        assert_eq!(grown(3 * group + 64), 3 * group + 64);
        assert_eq!(grown(3 * group + 63), 3 * group);
        assert_eq!(grown_blocks(Bytes::gib(1), 0), 262_144);
    }

    #[test]
    fn a_copy_of_a_smaller_filesystem_is_found() {
        let device = tempfile::tempfile().unwrap();
        let mut geometry = Geometry::default();
        (geometry.block_size, geometry.group_blocks) = (4096, 64);
        (geometry.group_count, geometry.data_blocks) = (3, 160);
        let put = |group: u64, blocks: u64, groups: u32| {
            let mut copy = [0; 4096];
            copy[..4].copy_from_slice(MAGIC);
            copy[BLOCKS].copy_from_slice(&blocks.to_be_bytes());
            copy[GROUPS].copy_from_slice(&groups.to_be_bytes());
            device.write_all_at(&copy, group * 64 * BLOCK).unwrap();
            old_copy(&device, &geometry)
        };
        device.set_len(160 * BLOCK).unwrap();
        assert_eq!(put(1, 128, 2).unwrap(), Some(1));
        // The second was never written.
        assert_eq!(put(1, 160, 3).unwrap(), Some(2));
        assert_eq!(put(2, 128, 3).unwrap(), Some(2));
        assert_eq!(put(2, 160, 3).unwrap(), None);
        device.set_len(128 * BLOCK).unwrap();
        assert!(old_copy(&device, &geometry).is_err());
    }
}
