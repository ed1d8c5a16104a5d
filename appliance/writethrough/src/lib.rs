//! Loaded into LVM's commands (`LD_PRELOAD`): what they write to disks is on the disks when the write has ended.
//!
//! LVM writes the text of a group's metadata first, and then the header that points to it, and asks no disk to write its
//! cache out, neither between the two nor after them (2.03.31). A disk that keeps the header and loses the text when the
//! power goes leaves a group that cannot be read; where all of a group's disks do, the group is gone. Here every device that
//! LVM opens past the page cache and for writing is opened with `O_DSYNC` too: the kernel then ends a write when the disk
//! has it for good.
//!
//! Invariant: nothing else is changed, and nothing is done that could fail.

use std::ffi::{c_char, c_int};

use nix::libc;

/// Takes the place of the C library's `open64`, by which LVM opens devices.
///
/// # Safety
///
/// As of open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the arguments are those of the caller, who promised what open(2) asks for; where the caller gave no mode, the
    // kernel looks at none.
    unsafe { libc::openat(libc::AT_FDCWD, path, written_through(flags), mode) }
}

/// The same under the name that programs built without large files use.
///
/// # Safety
///
/// As of open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as above.
    unsafe { open64(path, flags, mode) }
}

fn written_through(flags: c_int) -> c_int {
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    match writes && flags & libc::O_DIRECT != 0 {
        true => flags | libc::O_DSYNC,
        false => flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_past_the_page_cache_is_written_through() {
        let direct = libc::O_DIRECT | libc::O_NOATIME;
        assert_eq!(
            written_through(libc::O_RDWR | direct),
            libc::O_RDWR | direct | libc::O_DSYNC
        );
        assert_eq!(
            written_through(libc::O_WRONLY | direct),
            libc::O_WRONLY | direct | libc::O_DSYNC
        );
        for flags in [libc::O_RDONLY | direct, libc::O_RDWR, libc::O_WRONLY | libc::O_CREAT] {
            assert_eq!(written_through(flags), flags);
        }
    }
}
