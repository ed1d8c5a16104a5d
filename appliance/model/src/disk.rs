//! Disks as the appliance sees them. Invariant: a disk's identity is what it says of itself, never a kernel name.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, DiskId, PoolId};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// What it is known by.
    pub id: DiskId,
    /// The kernel's name for it at present (`vda`); for reading along in a log, never to be stored.
    pub kernel_name: String,
    /// Its size.
    pub size: Bytes,
    /// Vendor and model, as it reports them.
    pub model: Option<String>,
    /// Its serial number, as it reports it.
    pub serial: Option<String>,
    /// Its world wide name, as it reports it.
    pub wwn: Option<String>,
    /// Whether it has turning platters.
    pub rotational: bool,
    /// How it is attached.
    pub transport: DiskTransport,
    /// What can be done with it.
    pub state: DiskState,
    /// What was found on it; empty on a blank disk.
    pub signatures: Vec<Signature>,
    /// By how much it is larger than what its pool knows of it: it has grown since. Growing the pool takes that up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_by: Option<Bytes>,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskTransport {
    /// A virtio block device.
    Virtio,
    /// NVMe.
    Nvme,
    /// SATA or PATA.
    Ata,
    /// SCSI or SAS, a RAID controller's disk among them.
    Scsi,
    /// USB.
    Usb,
    /// Any other.
    Other,
}

/// What can be done with a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DiskState {
    /// Blank: it can be given to a pool.
    Available,
    /// It carries something (`signatures` says what); it can be used only once it has been wiped by name.
    HasData,
    /// The system started from it.
    Boot,
    /// It belongs to a pool.
    InPool {
        /// Which.
        pool: PoolId,
    },
    /// Something on the appliance holds it open or has mounted it.
    Busy,
    /// It is read-only or has no medium, or is smaller than a pool's disk may be.
    Unusable {
        /// Which of these.
        why: String,
    },
}

/// Something that was found on a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    /// What it is, in libblkid's words: `xfs`, `gpt`, `LVM2_member`, `linux_raid_member`, `zfs_member`, `ceph_bluestore`.
    pub kind: String,
    /// Where it begins.
    pub offset: Bytes,
    /// Its label, where it has one.
    pub label: Option<String>,
}
