//! The filesystem ioctls that no library has a safe call for: freezing, thawing, and giving free space back.

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

mod raw {
    use super::TrimRange;

    // linux/fs.h: FIFREEZE and FITHAW are declared with an int that is not read.
    nix::ioctl_readwrite!(freeze, b'X', 119, nix::libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, nix::libc::c_int);
    nix::ioctl_readwrite!(trim, b'X', 121, TrimRange);
}

/// Holds all writes to a filesystem back, having made it clean. Fails with `EBUSY` if it is frozen.
pub(super) fn freeze(target: &Path) -> io::Result<()> {
    let file = File::open(target)?;
    // SAFETY: the descriptor is open and the argument a valid int, for as long as the call takes.
    let frozen = unsafe { raw::freeze(file.as_raw_fd(), &mut 0) };
    frozen?;
    Ok(())
}

/// Lets writes go on. False if it was not frozen.
pub(super) fn thaw(target: &Path) -> io::Result<bool> {
    let file = File::open(target)?;
    // SAFETY: as above.
    match unsafe { raw::thaw(file.as_raw_fd(), &mut 0) } {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Discards all free space in pieces of at least `least` bytes, and says how many bytes that was.
pub(super) fn trim(target: &Path, least: u64) -> io::Result<u64> {
    let file = File::open(target)?;
    let mut range = TrimRange {
        start: 0,
        len: u64::MAX,
        minlen: least,
    };
    // SAFETY: the descriptor is open and the argument a valid range, for as long as the call takes.
    let trimmed = unsafe { raw::trim(file.as_raw_fd(), &mut range) };
    trimmed?;
    Ok(range.len)
}
