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
}

/// XFS and mounts.
pub trait Filesystems: Send + Sync {
    /// What is on a device, read from the device itself. Empty if nothing is.
    fn probe(&self, node: &Path) -> Result<Vec<Signature>, HostError>;

    /// Makes an XFS on a device that carries nothing, or an XFS that was never finished (`overwrite`).
    fn make_xfs(&self, node: &Path, spec: &XfsSpec, overwrite: bool) -> Result<(), HostError>;

    /// Mounts an XFS, making the directory if it is not there. Fails if anything is mounted there.
    fn mount(&self, node: &Path, target: &Path) -> Result<(), HostError>;

    /// Unmounts, and removes the directory. No error if nothing is mounted there. Fails `Busy` if it is in use.
    fn unmount(&self, target: &Path) -> Result<(), HostError>;

    /// All mounts below a directory.
    fn mounts_below(&self, directory: &Path) -> Result<Vec<MountEntry>, HostError>;

    /// How full a mounted filesystem is.
    fn usage(&self, target: &Path) -> Result<FilesystemUsage, HostError>;

    /// Gives a mounted filesystem's root directory its owner, group and mode, durably.
    fn set_root(&self, target: &Path, root: &RootSpec) -> Result<(), HostError>;
}
