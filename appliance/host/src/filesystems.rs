//! XFS on a device, and mounts.

use std::path::{Path, PathBuf};

use cistern_model::{Bytes, Mode, Signature};
use uuid::Uuid;

use crate::HostError;

/// What a new filesystem is to be. Its features are pinned by the implementation, so that the image before this one can
/// mount what this one made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XfsSpec {
    /// Its UUID.
    pub uuid: Uuid,
    /// Exactly its bytes; a multiple of its 4 KiB blocks, at most the device's size.
    pub size: Bytes,
}

/// What is on a device on which a filesystem is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// It was made just now, and every byte of it reads as zero: a new thin volume. Zeroes need not be written then, and
    /// take no space.
    Zeroes,
    /// Nothing that has a name; but making a filesystem there may have been begun.
    Unnamed,
    /// An XFS that was never finished.
    Unfinished,
}

/// What a filesystem's root directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootSpec {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its mode.
    pub mode: Mode,
}

/// A mount, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The device node or other source, as it was given.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// The filesystem's type.
    pub kind: String,
}

/// How full a mounted filesystem is, as statvfs(3) counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// In all.
    pub total: Bytes,
    /// Not in use.
    pub free: Bytes,
    /// Inodes in use.
    pub inodes: u64,
    /// Inodes in use and those that there is room for now.
    pub inodes_total: u64,
}

/// XFS and mounts.
pub trait Filesystems: Send + Sync {
    /// What is on a device, read from the device itself. Empty if nothing is.
    fn probe(&self, node: &Path) -> Result<Vec<Signature>, HostError>;

    /// Makes an XFS on a device. Fails if something is on it that was not said.
    fn make_xfs(&self, node: &Path, spec: &XfsSpec, ground: Ground) -> Result<(), HostError>;

    /// Mounts an XFS, making the directory if it is not there. Fails if anything is mounted there. That another
    /// filesystem with the same UUID is mounted, of which this one is a copy or the other way round, is no matter.
    fn mount(&self, node: &Path, target: &Path) -> Result<(), HostError>;

    /// The same, and nobody can write to it. What its log holds is written to the device all the same.
    fn mount_read_only(&self, node: &Path, target: &Path) -> Result<(), HostError>;

    /// Holds all writes to a mounted filesystem back, having made it clean. Fails if they are.
    fn freeze(&self, target: &Path) -> Result<(), HostError>;

    /// Lets the writes go on. No error if they were not held back.
    fn thaw(&self, target: &Path) -> Result<(), HostError>;

    /// Writes out all that is on its way to a mounted filesystem. Fails if that cannot be done: only then does the NFS server
    /// find that what it was given unsynced is lost, and has its clients send it again.
    fn sync(&self, target: &Path) -> Result<(), HostError>;

    /// Gives the log of a mounted filesystem space of its own, where a snapshot shares it: one that finds no space shuts its
    /// filesystem down. Writers are held back for moments. Takes the log's size of the pool at most, and none if it has it.
    fn own_log(&self, target: &Path) -> Result<(), HostError>;

    /// Gives what is free in a mounted filesystem back to what lies under it: not only what came free since the last time. The
    /// kernel's XFS does not wait until that is done (xfs_discard_extents); who wants to know asks [`crate::ThinPools::settled`].
    fn trim(&self, target: &Path) -> Result<(), HostError>;

    /// Whether the kernel still serves a mounted filesystem: one that could not write to its log, or found itself damaged,
    /// is shut down, and every use of it fails until it is mounted anew.
    fn is_up(&self, target: &Path) -> Result<bool, HostError>;

    /// Unmounts, and removes the directory. No error if nothing is mounted there. Fails `Busy` if it is in use.
    fn unmount(&self, target: &Path) -> Result<(), HostError>;

    /// All mounts below a directory.
    fn mounts_below(&self, directory: &Path) -> Result<Vec<MountEntry>, HostError>;

    /// Makes a mounted XFS have exactly this size. Nothing happens if it has; fails if it is larger, or its device smaller.
    fn grow_xfs(&self, target: &Path, size: Bytes) -> Result<(), HostError>;

    /// How full a mounted filesystem is.
    fn usage(&self, target: &Path) -> Result<FilesystemUsage, HostError>;

    /// Gives a mounted filesystem's root directory its owner, group and mode, durably.
    fn set_root(&self, target: &Path, root: &RootSpec) -> Result<(), HostError>;
}
