//! Pools: disks joined in one layout, from which volumes are cut.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, DiskId, Invalid, Percent, PoolId, PoolName};

/// How data lies on a pool's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One copy, over one disk or more. A lost disk loses the pool.
    Single,
    /// Two copies, over two, four or more disks. Any one disk may be lost.
    Mirror,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 2] = [Layout::Single, Layout::Mirror];

    /// The name in JSON, on the command line and in tags.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Single => "single",
            Layout::Mirror => "mirror",
        }
    }

    /// The least number of disks it takes.
    pub const fn minimum_disks(self) -> usize {
        match self {
            Layout::Single => 1,
            Layout::Mirror => 2,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layout {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Layout::ALL
            .into_iter()
            .find(|l| l.name() == text)
            .ok_or_else(|| Invalid::new("layout", text, "give single or mirror"))
    }
}

/// What a new pool is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// Its name, unique on the appliance.
    pub name: PoolName,
    /// How data lies on its disks.
    pub layout: Layout,
    /// The disks to join, each by its id. All must be blank.
    #[schema(min_items = 1)]
    pub disks: Vec<DiskId>,
}

/// What a request for a pool would come to. Nothing is touched to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolPlan {
    /// The request that it answers.
    pub request: PoolRequest,
    /// The disks as they would be joined: the disks of each inner list hold copies of each other.
    pub groups: Vec<Vec<DiskId>>,
    /// What volumes can take together.
    pub usable: Bytes,
    /// How many disks may be lost, whichever they are.
    pub survives: u32,
    /// What is not used, and why.
    pub wasted: Vec<Waste>,
}

/// Space that a layout leaves unused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waste {
    /// On which disk.
    pub disk: DiskId,
    /// How much.
    pub size: Bytes,
    /// Why.
    pub why: String,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Its id; also its volume group's name.
    pub id: PoolId,
    /// Its name.
    pub name: PoolName,
    /// How data lies on its disks.
    pub layout: Layout,
    /// How it is.
    pub state: PoolState,
    /// Why it is so, where `state` is not `ready`.
    pub reason: Option<String>,
    /// Its disks that are there.
    pub disks: Vec<DiskId>,
    /// How many of its disks are not there.
    pub missing_disks: u32,
    /// What volumes can take together.
    pub size: Bytes,
    /// The sum of its volumes' sizes, which was promised to them.
    pub promised: Bytes,
    /// What a new volume can take at most: the rest of what may be promised, which is `size` without `reserve`, times the
    /// overcommit.
    pub available: Bytes,
    /// How much may be promised to volumes, in percent of what is not reserved.
    #[serde(default = "hundred")]
    pub overcommit_percent: u32,
    /// What is kept for snapshots and trash.
    #[serde(default)]
    pub reserve: Bytes,
    /// What only snapshots and trash hold, as last measured.
    #[serde(default)]
    pub snapshots_used: Bytes,
    /// What is really written.
    pub used: Bytes,
    /// How full the pool's own metadata is, in percent.
    pub metadata_percent: Percent,
    /// How far the copies agree, in percent; below 100 while a new or repaired mirror is filled.
    pub sync_percent: Percent,
    /// How many volumes it holds.
    pub volumes: u32,
}

/// What an appliance that does not say so allows.
fn hundred() -> u32 {
    100
}

/// How a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolState {
    /// Being made; if that was interrupted it is finished or undone.
    Creating,
    /// Whole and served.
    Ready,
    /// Served, but a disk is missing or failed.
    Degraded,
    /// Not served: more is missing than the layout can do without, or it cannot be activated.
    Incomplete,
    /// Being deleted; if that was interrupted it is finished.
    Deleting,
}

impl PoolState {
    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            PoolState::Creating => "creating",
            PoolState::Ready => "ready",
            PoolState::Degraded => "degraded",
            PoolState::Incomplete => "incomplete",
            PoolState::Deleting => "deleting",
        }
    }
}
