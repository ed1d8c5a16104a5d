//! The only door to the machine.
//!
//! A small trait for each concern, so that the engine can be run on Linux and on a machine that exists only in memory.
//! All calls block and have a limit of their own; callers keep them off async threads.
//!
//! Invariant: a trait tells facts and does single acts; it decides nothing. What a pool or a volume is, is not known
//! here: there are only disks, LVM objects, filesystems, exports, services.
//!
//! - [`linux`]: the real machine. The only code in Cistern that runs a program, opens a device or reads /proc or /sys.
//! - [`memory`]: a machine in memory that behaves like it, faults and power cuts included.

mod disks;
mod error;
mod exports;
mod filesystems;
mod health;
mod layers;
pub mod linux;
mod lvm;
mod lvm_step;
mod machine;
pub mod memory;
mod network;
mod raid;
mod raids;
mod records;
mod seals;
mod services;
mod takeover;
mod thin;

use std::sync::Arc;

pub use disks::{BlockDevice, Disks, FREE_PART_MODEL, FREE_PARTITION, FREE_PARTITION_NAME, FreePart};
pub use error::{HostError, HostErrorKind};
pub use exports::{ExportEntry, ExportUsers, Exports, HeldThere, NfsSession};
pub use filesystems::{FilesystemUsage, Filesystems, Ground, MountEntry, RootSpec, XfsSpec};
pub use health::{Health, ReportedErrors, SelfReport};
pub use layers::{FoundLayers, LAYERED_PARTITION, LayerKey, LayerSpec, LayerStack, Layers, OpenLayers};
pub use lvm::{
    Activation, LogicalVolume, LvAttributes, Lvm, LvmState, PhysicalVolume, TagChange, ThinSize, VolumeGroup,
};
pub use lvm_step::LvmStep;
pub use machine::{Machine, MachineFacts};
pub use network::Network;
pub use raid::RaidLevel;
pub use raids::{ImageHealth, RaidImage, RaidStatus, RaidVolume, Raids, SyncAction};
pub use records::Records;
pub use seals::Seals;
pub use services::{Service, Services};
pub use takeover::{Takeover, XfsFound};
pub use thin::{ThinMode, ThinPools, ThinStatus};

/// A change that somebody may want to react to. It says only what kind: the reader looks at the state anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A disk came, went or changed its size or content.
    Disks,
    /// A network link or address changed.
    Network,
    /// One of [`Service`]'s units changed its state.
    Services,
}

/// Where [`Change`]s are reported. Called from a thread of the host's; must return at once.
pub type ChangeSink = Arc<dyn Fn(Change) + Send + Sync>;

/// A machine: one implementation of each trait.
#[derive(Clone)]
pub struct Host {
    /// Block devices.
    pub disks: Arc<dyn Disks>,
    /// What lies between disks and LVM.
    pub layers: Arc<dyn Layers>,
    /// LVM.
    pub lvm: Arc<dyn Lvm>,
    /// Volumes on several disks.
    pub raids: Arc<dyn Raids>,
    /// How full thin pools are.
    pub thin: Arc<dyn ThinPools>,
    /// Groups and volumes that others made.
    pub takeover: Arc<dyn Takeover>,
    /// XFS and mounts.
    pub filesystems: Arc<dyn Filesystems>,
    /// What is exported over NFS.
    pub exports: Arc<dyn Exports>,
    /// The units that Cistern stands on.
    pub services: Arc<dyn Services>,
    /// Links and addresses.
    pub network: Arc<dyn Network>,
    /// Load, memory, power.
    pub machine: Arc<dyn Machine>,
    /// What disks say of themselves.
    pub health: Arc<dyn Health>,
    /// What the appliance keeps for itself.
    pub records: Arc<dyn Records>,
    /// Secrets that only this machine can read again.
    pub seals: Arc<dyn Seals>,
}
