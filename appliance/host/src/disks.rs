//! Block devices: what is attached, and what is on it.

use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId, DiskTransport, Signature};

use crate::{ChangeSink, FoundLayers, HostError};

/// The partition type of what is free of the disk that the system started from, once it is used.
pub const FREE_PARTITION: &str = "ec81951b-f887-44e5-bec7-80fd9c321421";
/// The name of that partition: ours, in the form that this version knows.
pub const FREE_PARTITION_NAME: &str = "cistern-1-free";
/// What such a part is listed as, in place of a vendor's words.
pub const FREE_PART_MODEL: &str = "free part of the boot disk";

/// What is free of the disk that the system started from, as a device of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreePart {
    /// Its partition is there.
    Made,
    /// There is only room for it: nothing is at the device's node, and what lies there is not known.
    Room {
        /// The node of the disk.
        disk: PathBuf,
        /// The number that the partition will have.
        number: u32,
        /// Where on the disk it will begin.
        start: Bytes,
    },
}

/// A whole disk, or the free part of one, as the machine sees it at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// What it is known by. Two paths to one disk have one id.
    pub id: DiskId,
    /// The device node, valid only now (`/dev/vda`): of several paths to it, the one by which it is used.
    pub node: PathBuf,
    /// The nodes of its other paths, and of their partitions. Nothing is to be done by them, and LVM is to see none of them.
    pub other_nodes: Vec<PathBuf>,
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
    /// Whether it takes discards.
    pub discards: bool,
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
    /// That it is no whole disk, but what is free of the one that the system started from.
    pub free: Option<FreePart>,
}

impl BlockDevice {
    /// Whether there is only room for it.
    pub fn is_unmade(&self) -> bool {
        matches!(self.free, Some(FreePart::Room { .. }))
    }

    /// Whether this is its node, by any of its paths.
    pub fn is_at(&self, node: &Path) -> bool {
        self.node == node || self.other_nodes.iter().any(|other| other == node)
    }

    /// The node at which LVM finds what is on it: its own, or that of the layers that are open on it.
    pub fn lvm_node(&self) -> &Path {
        let open = self.layers.as_ref().and_then(|layers| layers.open.as_ref());
        open.map_or(&self.node, |open| &open.node)
    }

    /// What LVM is sure to find of it: all of it, or what its layers leave of all of it. If it has grown, that is what there
    /// will be once [`Layers::grow`](crate::Layers::grow) has taken that up.
    pub fn lvm_size(&self) -> Bytes {
        match &self.layers {
            None => self.size,
            Some(found) => found.stack.rest_of(self.size),
        }
    }
}

/// Block devices.
pub trait Disks: Send + Sync {
    /// All whole disks that could carry data: no loop, RAM, optical, zram or device-mapper devices. Waits (with a limit)
    /// for devices that are still appearing. And, where the system was installed on a disk with a GPT, what is free
    /// of it: the partition of ours that is there, or the largest room for one.
    fn list(&self) -> Result<Vec<BlockDevice>, HostError>;

    /// The program and the arguments by which the partition for a free part is made on Linux. Runs nothing.
    fn part_line(&self, part: &BlockDevice) -> Vec<String>;

    /// Makes the partition for a free part, and returns once its node is there. Writes nothing but the partition table:
    /// what lay in the room lies in the partition. No error if it is there.
    fn make_part(&self, part: &BlockDevice) -> Result<(), HostError>;

    /// What is on the device now, read from the device itself: every signature, not only the first.
    fn signatures(&self, node: &Path) -> Result<Vec<Signature>, HostError>;

    /// Removes every signature from the device and its partitions, and its partition table. Fails `Busy` if it is held, by whatever path.
    fn wipe(&self, node: &Path) -> Result<(), HostError>;

    /// Reports [`Change::Disks`](crate::Change::Disks) from now on, for as long as the process lives.
    fn watch(&self, sink: ChangeSink) -> Result<(), HostError>;
}
