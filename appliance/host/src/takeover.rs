//! Groups and volumes that others made: taking them over, giving them up, and looking at what is in them.

use std::path::Path;

use cistern_model::Bytes;
use uuid::Uuid;

use crate::HostError;

/// An XFS on a device, from its superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XfsFound {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its size, to the byte.
    pub size: Bytes,
}

/// Taking over and giving up. Names of groups and volumes are LVM's own.
pub trait Takeover: Send + Sync {
    /// Gives a group of another machine, whose system ID is `from`, this machine's system ID. Whether that machine still
    /// uses it cannot be known here.
    fn take_group(&self, vg: &str, from: &str) -> Result<(), HostError>;

    /// Takes in a group that another machine gave up with [`Takeover::export_group`].
    fn import_group(&self, vg: &str) -> Result<(), HostError>;

    /// Gives up a group of which no volume is active: it belongs to no machine, and none uses it before it is imported.
    fn export_group(&self, vg: &str) -> Result<(), HostError>;

    /// What XFS is on a device; none if there is no XFS.
    fn xfs_on(&self, node: &Path) -> Result<Option<XfsFound>, HostError>;
}
