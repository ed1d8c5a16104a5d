//! What is on the disks and not explained, and pools that can be taken in or given up.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, Client, DiskId, Layout, PoolId, PoolName, PoolPlan, VolumeName};

/// Something on the disks that is no pool and no volume of this appliance. It is left alone until somebody says what is
/// to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orphan {
    /// What it is called on the disks: a volume group, `GROUP/VOLUME`, or a disk.
    pub object: String,
    /// What it is.
    pub kind: OrphanKind,
    /// Why it is none of ours.
    pub why: String,
    /// The pool's name, where it is a pool.
    pub name: Option<String>,
    /// The LVM system ID of the machine that it belongs to.
    pub system_id: Option<String>,
    /// Its size, where that is known.
    pub size: Option<Bytes>,
    /// The disks that it lies on and that are there.
    pub disks: Vec<DiskId>,
    /// The command that takes it over, where there is one.
    pub adopt: Option<String>,
    /// The command that removes it, with all that is in it, or how to go about it.
    pub remove: String,
}

/// What an orphan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrphanKind {
    /// A pool that another appliance uses or used.
    ForeignPool,
    /// A pool that an appliance gave up, to be imported.
    ReleasedPool,
    /// An encrypted pool whose key is not here.
    LockedPool,
    /// A volume group that is no pool of an appliance.
    Group,
    /// A volume in a pool of this appliance that is no volume of Cistern's.
    Volume,
    /// A disk with LVM's label that is in no group.
    Label,
}

impl OrphanKind {
    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            OrphanKind::ForeignPool => "foreign-pool",
            OrphanKind::ReleasedPool => "released-pool",
            OrphanKind::LockedPool => "locked-pool",
            OrphanKind::Group => "group",
            OrphanKind::Volume => "volume",
            OrphanKind::Label => "label",
        }
    }
}

/// Takes a volume that is none of Cistern's, and holds an XFS, as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The volume, as the list of orphans calls it.
    pub object: String,
    /// What it is to be called.
    pub name: VolumeName,
    /// Who may mount it.
    #[serde(default)]
    pub clients: Vec<Client>,
}

/// Removes a volume that is none of Cistern's, with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveOrphanRequest {
    /// The volume, as the list of orphans calls it.
    pub object: String,
    /// The same once more.
    pub confirm: String,
}

/// Takes in a pool that another appliance made, with all its volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The pool.
    pub pool: PoolId,
    /// What it is to be called here, if another name than it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PoolName>,
    /// For a pool that was not released: the system ID of the appliance that it is taken from. That is a promise that
    /// that appliance does not use it any more, which cannot be seen from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_from: Option<String>,
}

/// A heketi topology, and what pool this appliance would make of its own node in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyRequest {
    /// What the pool is to be called.
    pub name: PoolName,
    /// How data is to lie on its disks.
    pub layout: Layout,
    /// The topology.
    pub topology: Topology,
}

/// A topology, in heketi's form (`topology.json`). What else is in it is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// The clusters.
    pub clusters: Vec<TopologyCluster>,
}

/// A cluster of a topology.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopologyCluster {
    /// Its nodes.
    #[serde(default)]
    pub nodes: Vec<TopologyNode>,
}

/// A node of a topology, and its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopologyNode {
    /// What it is called.
    pub node: TopologyName,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<TopologyDevice>,
}

/// What a node of a topology is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopologyName {
    /// Its names and addresses.
    #[serde(default)]
    pub hostnames: TopologyHostnames,
}

/// The names and addresses of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopologyHostnames {
    /// Those that heketi manages it by.
    #[serde(default)]
    pub manage: Vec<String>,
    /// Those that it serves storage by.
    #[serde(default)]
    pub storage: Vec<String>,
}

/// A device of a node: its path, or its path with more said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TopologyDevice {
    /// Its path.
    Path(String),
    /// Its path, and whether what is on it may be destroyed.
    Named {
        /// Its path.
        name: String,
        /// Whether what is on it may be destroyed. Cistern destroys nothing so: a disk is wiped by name.
        #[serde(default)]
        destroydata: bool,
    },
}

impl TopologyDevice {
    /// Its path.
    pub fn path(&self) -> &str {
        match self {
            TopologyDevice::Path(path) | TopologyDevice::Named { name: path, .. } => path,
        }
    }
}

/// What a topology comes to on this appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopologyPlan {
    /// The node that this appliance is, as the topology calls it.
    pub node: String,
    /// The plan for its devices.
    pub plan: PoolPlan,
    /// What was passed over, and why.
    pub skipped: Vec<Skipped>,
}

/// Something in a topology that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Skipped {
    /// A device or a node.
    pub what: String,
    /// Why.
    pub why: String,
}
