//! How full thin pools are, and more room for their metadata.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cistern_model::{Bytes, Percent};

use crate::HostError;

/// A thin pool as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinStatus {
    /// Whether it takes writes.
    pub mode: ThinMode,
    /// How much of its data is mapped.
    pub data: Percent,
    /// How much of its metadata is used.
    pub metadata: Percent,
    /// The size of its metadata.
    pub metadata_size: Bytes,
    /// How many of its chunks of data are mapped.
    pub chunks_used: u64,
    /// Its chunks of data.
    pub chunks: u64,
}

/// Whether a thin pool takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThinMode {
    /// It does.
    Writable,
    /// Its data is full: what needs new space fails. It takes writes again once there is room.
    OutOfData,
    /// Its metadata could not be written, or was full: the next activation checks it, and it takes writes again if it is sound.
    ReadOnly,
    /// The kernel gave it up.
    Failed,
}

/// Thin pools. Names of groups and volumes are LVM's own.
pub trait ThinPools: Send + Sync {
    /// How an active thin pool is, from the kernel itself; a few milliseconds.
    fn status(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError>;

    /// The same once its mapped chunks no longer become fewer by themselves, as they do after a trim: when they were as many for a
    /// second, after a minute at most.
    fn settled(&self, vg: &str, pool: &str) -> Result<ThinStatus, HostError>;

    /// How much each active thin volume of a group maps, by its name. What volumes share is counted for each.
    fn mapped(&self, vg: &str) -> Result<BTreeMap<String, Bytes>, HostError>;

    /// Makes a pool's metadata larger by this many extents, on these physical volumes; copies stay apart.
    fn extend_metadata(&self, vg: &str, pool: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError>;
}
