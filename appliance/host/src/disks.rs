//! Block devices: what is attached, and what is on it.

use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId, DiskTransport, Signature};

use crate::{ChangeSink, FoundLayers, HostError};

/// A whole disk as the machine sees it at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// What it is known by. Two paths to one disk have one id.
    pub id: DiskId,
    /// The device node, valid only now (`/dev/vda`).
    pub node: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// Vendor and model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world wide name.
    pub wwn: Option<String>,
    /// Whether it has turning platters.
    pub rotational: bool,
    /// Whether it can be written to.
    pub read_only: bool,
    /// How it is attached.
    pub transport: DiskTransport,
    /// What is on it, itself and its partition table, as udev last saw it; [`Disks::signatures`] looks anew.
    pub signatures: Vec<Signature>,
    /// Whether it or one of its partitions is mounted, or held by another device (device mapper, md) that is not LVM.
    pub busy: bool,
    /// Whether the running system started from it.
    pub boot: bool,
    /// The layers of ours that it carries.
    pub layers: Option<FoundLayers>,
}

impl BlockDevice {
    /// The node at which LVM finds what is on it: its own, or that of the layers that are open on it.
    pub fn lvm_node(&self) -> &Path {
        let open = self.layers.as_ref().and_then(|layers| layers.open.as_ref());
        open.map_or(&self.node, |open| &open.node)
    }

    /// The size of what LVM finds.
    pub fn lvm_size(&self) -> Bytes {
        match &self.layers {
            None => self.size,
            Some(layers) => layers.open.as_ref().map_or(Bytes::ZERO, |open| open.size),
        }
    }
}

/// Block devices.
pub trait Disks: Send + Sync {
    /// All whole disks that could carry data: no loop, RAM, optical, zram or device-mapper devices. Waits (with a limit)
    /// for devices that are still appearing.
    fn list(&self) -> Result<Vec<BlockDevice>, HostError>;

    /// What is on the device now, read from the device itself: every signature, not only the first.
    fn signatures(&self, node: &Path) -> Result<Vec<Signature>, HostError>;

    /// Removes every signature from the device and its partitions, and its partition table. Fails `Busy` if it is held.
    fn wipe(&self, node: &Path) -> Result<(), HostError>;

    /// Reports [`Change::Disks`](crate::Change::Disks) from now on, for as long as the process lives.
    fn watch(&self, sink: ChangeSink) -> Result<(), HostError>;
}
