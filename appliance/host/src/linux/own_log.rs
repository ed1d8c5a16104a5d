//! A log of an XFS that has all of its space.
//!
//! A snapshot of a thin volume shares the volume's log too: each stretch of it takes new space when it is next written. A
//! file that finds no space is its writer's trouble; a log that finds none shuts the filesystem down. So where space runs
//! short the log is written over with what it holds, before there is none.
//!
//! Invariant: the log is written only while its filesystem is frozen, and with the bytes that were read from it then; so a
//! power cut at any moment leaves what was there. Nothing stays frozen.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::direct::{self, Aligned};
use super::frozen::{self, Geometry};
use super::{file, growing};
use crate::HostError;

/// Writers are held back for one such piece at a time.
const PIECE: u64 = 16 << 20;

/// Writes the log of a mounted filesystem over with what it holds.
pub(super) fn write_over(operation: &str, target: &Path) -> Result<(), HostError> {
    let failed = |source| file::io(operation, target, source);
    let geometry = frozen::geometry(target).map_err(failed)?;
    let node = growing::device(operation, target)?;
    let device = direct::open(&node, true).map_err(|source| file::io(operation, &node, source))?;
    let directory = File::open(target).map_err(failed)?;
    let (begin, end) = place(&geometry);
    let mut at = begin;
    while at < end {
        let length = PIECE.min(end - at);
        frozen::freeze_at(&directory).map_err(failed)?;
        let written = Aligned::read(&device, at, length as usize)
            .and_then(|mut piece| device.write_all_at(piece.bytes(), at))
            .and_then(|()| device.sync_data());
        let thawed = frozen::thaw_at(&directory);
        written.map_err(|source| file::io(operation, &node, source))?;
        thawed.map_err(failed)?;
        at += length;
    }
    Ok(())
}

/// Where the log begins and ends, in bytes: a block is counted by its group and its place in that.
fn place(geometry: &Geometry) -> (u64, u64) {
    let (block, group) = (u64::from(geometry.block_size), u64::from(geometry.group_blocks));
    let bits = group.next_power_of_two().trailing_zeros();
    let (number, within) = (geometry.log_start >> bits, geometry.log_start & ((1 << bits) - 1));
    let begin = (number * group + within) * block;
    (begin, begin + u64::from(geometry.log_blocks) * block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_lies_where_mkfs_put_it() {
        let mut geometry = Geometry::default();
        (geometry.block_size, geometry.group_blocks) = (4096, 40448);
        // mkfs.xfs 6.13, 316 MiB in two groups: logstart = 65546, which is block 10 of the second group.
        (geometry.log_start, geometry.log_blocks) = (65546, 16384);
        let begin = (40448 + 10) * 4096;
        assert_eq!(place(&geometry), (begin, begin + (64 << 20)));
        (geometry.group_blocks, geometry.log_start) = (65536, 2 * 65536 + 7);
        assert_eq!(place(&geometry).0, (2 * 65536 + 7) * 4096);
    }
}
