//! Reading devices past the page cache: what a filesystem or the kernel's RAID writes there is not what the cache has.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// What direct reading and writing is aligned to.
pub(super) const BLOCK: usize = 4096;

/// Opens a device for direct reading, and writing if it is to be written.
pub(super) fn open(node: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(node)
}

/// Bytes where direct reading can put them.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// So many bytes from this place on, both multiples of [`BLOCK`].
    pub(super) fn read(device: &File, at: u64, length: usize) -> io::Result<Self> {
        let memory = vec![0; length + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        let mut own = Aligned { memory, start, length };
        device.read_exact_at(own.bytes(), at)?;
        Ok(own)
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..)
            .and_then(|bytes| bytes.get_mut(..self.length))
            .unwrap_or_default()
    }
}
