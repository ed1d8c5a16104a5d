//! LVM: physical volumes, volume groups, logical volumes and their tags. Only single commands, and one report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cistern_model::{Bytes, Percent};

use crate::{HostError, LvmStep, RaidLevel, RaidVolume};

/// Everything that LVM sees at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LvmState {
    /// The physical volumes; one that a group lacks is there with no node.
    pub pvs: Vec<PhysicalVolume>,
    /// The volume groups, those of other machines (another system ID) among them.
    pub vgs: Vec<VolumeGroup>,
    /// The logical volumes of the groups that this machine may touch, the hidden ones left out.
    pub lvs: Vec<LogicalVolume>,
    /// What the thin pools among them lie on.
    pub raids: Vec<RaidVolume>,
}

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// LVM's UUID for it.
    pub uuid: String,
    /// The device node; none if the device is missing.
    pub node: Option<PathBuf>,
    /// The node of one that is there again, and that its group still counts as missing.
    pub returned: Option<PathBuf>,
    /// Its group; none if it is in none yet.
    pub vg: Option<String>,
    /// What its group can use of it.
    pub size: Bytes,
    /// What of that is not allocated.
    pub free: Bytes,
}

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The system ID of the machine that it belongs to; empty if it belongs to none.
    pub system_id: String,
    /// Whether that is this machine, or none, and it was not given up: whether LVM lets us touch it.
    pub ours: bool,
    /// Whether it was given up, to be imported by whoever wants it.
    pub exported: bool,
    /// Its extents' size.
    pub extent: Bytes,
    /// What is not allocated.
    pub free: Bytes,
    /// How many of its physical volumes are missing.
    pub missing: u32,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its group.
    pub vg: String,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its size.
    pub size: Bytes,
    /// What it is and how it is.
    pub attributes: LvAttributes,
    /// The thin pool that it lies in; none if in none.
    pub thin_pool: Option<String>,
    /// For a thin pool or a thin volume that is active: how much of it is written.
    pub data_percent: Option<Percent>,
    /// For a thin pool that is active: how full its metadata is.
    pub metadata_percent: Option<Percent>,
    /// For a RAID volume, or a thin pool on one, that is active: how far the copies agree.
    pub sync_percent: Option<Percent>,
}

/// What a logical volume is and how it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LvAttributes {
    /// It is a thin pool.
    pub thin_pool: bool,
    /// It is a thin volume.
    pub thin_volume: bool,
    /// It is active: its node is there.
    pub active: bool,
    /// A physical volume under it is missing.
    pub partial: bool,
    /// The kernel or LVM asks for a repair or a refresh of it.
    pub unhealthy: bool,
    /// It was to lie on several disks, and what made it was cut short before the images' own metadata was cleared. LVM never
    /// activates it; it can only be removed.
    pub unfinished: bool,
}

/// What must be there for a volume to be activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Every disk.
    Complete,
    /// Whatever is there. LVM checks nothing then: only for volumes of which the caller has counted the images.
    Partial,
}

/// What a thin volume takes of its pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThinSize {
    /// What it refers to.
    pub mapped: Bytes,
    /// What of that nothing else in the pool refers to.
    pub exclusive: Bytes,
}

/// Tags to take away and to add in one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagChange {
    /// To add.
    pub add: Vec<String>,
    /// To take away; one that is not there is no error.
    pub remove: Vec<String>,
}

/// LVM. Names of groups and volumes are LVM's own. Each call is one command, committed or not as a whole.
pub trait Lvm: Send + Sync {
    /// The system ID that groups made here carry.
    fn system_id(&self) -> Result<String, HostError>;

    /// The program and the arguments by which a step is done on Linux. Runs nothing.
    fn command_line(&self, step: &LvmStep) -> Result<Vec<String>, HostError>;

    /// Everything that there is. One report of all.
    fn state(&self) -> Result<LvmState, HostError>;

    /// What LVM does not see from now on, in place of what was named before: to all calls it is as if it were not there. For
    /// devices that fail what is written to them, because LVM changes nothing in a group of which it cannot write to each
    /// device that it sees, and for further paths to a disk, because it changes nothing where it sees one label twice. It is not kept over
    /// a restart.
    fn hide(&self, nodes: BTreeSet<PathBuf>);

    /// Lets I/O go on to volumes that a command which was cut short has left suspended, as their group says they are to be;
    /// the names of their devices: `vg-lv`, hyphens within each part doubled. Nobody may begin a command meanwhile. Fails
    /// `Busy`, having done nothing, if one runs and does not end within `patience`.
    fn resume(&self, patience: Duration) -> Result<Vec<String>, HostError>;

    /// Takes the physical volume's label off a device that is in no group.
    fn remove_pv(&self, node: &Path) -> Result<(), HostError>;

    /// Makes the devices physical volumes, each with a metadata area large enough for thousands of volumes, and a group of
    /// them, with its tags and this machine's system ID: all in one command, so that no device carries a label of LVM's
    /// and is in no group. Fails if anything is on one of them.
    fn create_vg(&self, vg: &str, nodes: &[PathBuf], tags: &[String]) -> Result<(), HostError>;

    /// Removes a group that has no volumes. Its physical volumes stay.
    fn remove_vg(&self, vg: &str) -> Result<(), HostError>;

    /// Changes a group's tags in one commit.
    fn tag_vg(&self, vg: &str, change: &TagChange) -> Result<(), HostError>;

    /// Makes a plain volume of `extents` extents on exactly these physical volumes, inactive, with its tags. Image by
    /// image it lies on them in the order in which they are given.
    fn create_lv(
        &self,
        vg: &str,
        lv: &str,
        level: RaidLevel,
        extents: u64,
        nodes: &[PathBuf],
        tags: &[String],
    ) -> Result<(), HostError>;

    /// Grows a plain volume, or the data of a thin pool, by `extents` extents on exactly these physical volumes. Give as
    /// many as it has images, in their order: each takes one image of what is added.
    fn extend_lv(&self, vg: &str, lv: &str, extents: u64, nodes: &[PathBuf]) -> Result<(), HostError>;

    /// Makes of two plain volumes a thin pool under the name of the first, the second being its metadata.
    fn convert_to_thin_pool(&self, vg: &str, data: &str, metadata: &str, chunk: Bytes) -> Result<(), HostError>;

    /// Makes a thin volume, with its tags in the same commit, and activates it. `size` is rounded up to extents.
    fn create_thin(&self, vg: &str, pool: &str, lv: &str, size: Bytes, tags: &[String]) -> Result<(), HostError>;

    /// Makes a thin volume that holds what `origin`, a thin volume too, holds now, with its tags in the same commit. An
    /// `origin` that is mounted is made clean for the moment. With `active` it is activated, now and with its group;
    /// else only by itself.
    fn create_thin_snapshot(
        &self,
        vg: &str,
        origin: &str,
        lv: &str,
        tags: &[String],
        active: bool,
    ) -> Result<(), HostError>;

    /// Gives a volume another name, which nothing else has. What is mounted stays mounted.
    fn rename_lv(&self, vg: &str, from: &str, to: &str) -> Result<(), HostError>;

    /// Makes a thin volume larger: `size`, rounded up to extents, in all. Fails if it has that or more.
    fn extend_thin(&self, vg: &str, lv: &str, size: Bytes) -> Result<(), HostError>;

    /// Changes a volume's tags in one commit.
    fn tag_lv(&self, vg: &str, lv: &str, change: &TagChange) -> Result<(), HostError>;

    /// Activates a volume, and what lies under it. No error if it is active.
    fn activate_lv(&self, vg: &str, lv: &str, mode: Activation) -> Result<(), HostError>;

    /// Deactivates a volume. No error if it is not active. Fails `Busy` if it is open.
    fn deactivate_lv(&self, vg: &str, lv: &str) -> Result<(), HostError>;

    /// Activates all volumes of a group but the snapshots that were made inactive. No error for those that are active.
    /// Fails if any cannot be activated, having activated the others.
    fn activate_vg(&self, vg: &str, mode: Activation) -> Result<(), HostError>;

    /// Deactivates all volumes of a group. Fails `Busy` if one is open.
    fn deactivate_vg(&self, vg: &str) -> Result<(), HostError>;

    /// Removes a volume and what is in it. Fails `Busy` if it is open.
    fn remove_lv(&self, vg: &str, lv: &str) -> Result<(), HostError>;

    /// What each thin volume of an active pool takes, by the volume's name. Counted from the pool's metadata, which takes
    /// seconds where much is written.
    fn thin_sizes(&self, vg: &str, pool: &str) -> Result<BTreeMap<String, ThinSize>, HostError>;

    /// Whether an active volume of the group lies on a device that is gone. The kernel keeps to that device, also when the disk
    /// is there again as another one, until the volume is activated anew or, of one with images, refreshed.
    fn lies_on_gone(&self, vg: &str) -> Result<bool, HostError>;

    /// The node of an active volume.
    fn node(&self, vg: &str, lv: &str) -> PathBuf;
}
