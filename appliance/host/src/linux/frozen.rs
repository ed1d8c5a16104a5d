//! The filesystem ioctls that no library has a safe call for: freezing, thawing, giving free space back, and how large an XFS
//! is and is to be.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::errno::Errno;

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
#[derive(Debug)]
pub(super) struct TrimRange {
    start: u64,
    len: u64,
    minlen: u64,
}

/// `struct xfs_fsop_geom_v1` of xfs_fs.h.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Geometry {
    pub(super) block_size: u32,
    rt_extent_size: u32,
    pub(super) group_blocks: u32,
    pub(super) group_count: u32,
    pub(super) log_blocks: u32,
    sector_size: u32,
    inode_size: u32,
    /// The share of the filesystem that inodes may take.
    pub(super) inodes_max_percent: u32,
    pub(super) data_blocks: u64,
    rt_blocks: u64,
    rt_extents: u64,
    pub(super) log_start: u64,
    uuid: [u8; 16],
    stripe: [u32; 2],
    version: i32,
    flags: u32,
    log_sector_size: u32,
    rt_sector_size: u32,
    directory_block_size: u32,
}

/// `struct xfs_growfs_data` of xfs_fs.h.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Growth {
    blocks: u64,
    inodes_max_percent: u32,
}

mod raw {
    use super::{Geometry, Growth, TrimRange};

    // linux/fs.h: FIFREEZE and FITHAW are declared with an int that is not read.
    nix::ioctl_readwrite!(freeze, b'X', 119, nix::libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, nix::libc::c_int);
    nix::ioctl_readwrite!(trim, b'X', 121, TrimRange);
    // xfs_fs.h: XFS_IOC_FSGEOMETRY_V1.
    nix::ioctl_read!(geometry, b'X', 100, Geometry);
    // xfs_fs.h: XFS_IOC_FSGROWFSDATA.
    nix::ioctl_write_ptr!(grow, b'X', 110, Growth);
}

/// How large the XFS is that a path lies in, as it is now: what stands in its superblock on the device may be older than its log.
pub(super) fn geometry(target: &Path) -> io::Result<Geometry> {
    let file = File::open(target)?;
    let mut geometry = Geometry::default();
    // SAFETY: the descriptor is open and the argument as large as the kernel's structure, for as long as the call takes.
    let asked = unsafe { raw::geometry(file.as_raw_fd(), &mut geometry) };
    asked?;
    Ok(geometry)
}

/// Makes an XFS have so many blocks, and writes all copies of its superblock, also if it has so many.
pub(super) fn grow(target: &Path, blocks: u64, inodes_max_percent: u32) -> io::Result<()> {
    let file = File::open(target)?;
    let growth = Growth {
        blocks,
        inodes_max_percent,
    };
    // SAFETY: the descriptor is open and the argument the kernel's structure, for as long as the call takes.
    let grown = unsafe { raw::grow(file.as_raw_fd(), &growth) };
    grown?;
    Ok(())
}

/// Holds all writes to a filesystem back, having made it clean. Fails with `EBUSY` if it is frozen.
pub(super) fn freeze(target: &Path) -> io::Result<()> {
    freeze_at(&File::open(target)?)
}

/// The same of one whose directory is open: of one that is shut down meanwhile none can be opened any more.
pub(super) fn freeze_at(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open and the argument a valid int, for as long as the call takes.
    let frozen = unsafe { raw::freeze(file.as_raw_fd(), &mut 0) };
    frozen?;
    Ok(())
}

/// Lets writes go on. False if it was not frozen.
pub(super) fn thaw(target: &Path) -> io::Result<bool> {
    thaw_at(&File::open(target)?)
}

/// The same of one whose directory is open.
pub(super) fn thaw_at(file: &File) -> io::Result<bool> {
    // SAFETY: as above.
    match unsafe { raw::thaw(file.as_raw_fd(), &mut 0) } {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends discards of all free space in pieces of at least `least` bytes. What XFS then says of how much that was is all that
/// it was asked for.
pub(super) fn trim(target: &Path, least: u64) -> io::Result<()> {
    let file = File::open(target)?;
    let mut range = TrimRange {
        start: 0,
        len: u64::MAX,
        minlen: least,
    };
    // SAFETY: the descriptor is open and the argument a valid range, for as long as the call takes.
    let trimmed = unsafe { raw::trim(file.as_raw_fd(), &mut range) };
    trimmed?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_large_as_the_kernel_s() {
        assert_eq!(std::mem::size_of::<Geometry>(), 112);
        assert_eq!(std::mem::size_of::<Growth>(), 16);
    }
}
