//! Pools: disks joined in one layout, from which volumes are cut.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, DiskId, Invalid, LastScrub, Layers, Percent, PoolId, PoolName, ScrubEvery};

/// How data lies on a pool's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One copy, over one disk or more. A lost disk loses the pool.
    Single,
    /// Two copies, over two, four or more disks. Any one disk may be lost.
    Mirror,
    /// Two copies, striped over pairs of disks: four, six or more. Any one disk may be lost.
    StripeMirror,
    /// Striped with one parity, over three disks or more. Any one disk may be lost; it has a write hole.
    Parity,
    /// Striped with two parities, over five disks or more. Any two disks may be lost; it has a write hole.
    DoubleParity,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 5] = [
        Layout::Single,
        Layout::Mirror,
        Layout::StripeMirror,
        Layout::Parity,
        Layout::DoubleParity,
    ];

    /// The name in JSON, on the command line and in tags.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Single => "single",
            Layout::Mirror => "mirror",
            Layout::StripeMirror => "stripe-mirror",
            Layout::Parity => "parity",
            Layout::DoubleParity => "double-parity",
        }
    }

    /// The least number of disks it takes.
    pub const fn minimum_disks(self) -> usize {
        match self {
            Layout::Single => 1,
            Layout::Mirror => 2,
            Layout::StripeMirror => 4,
            Layout::Parity => 3,
            Layout::DoubleParity => 5,
        }
    }

    /// How many disks may be lost, whichever they are.
    pub const fn survives(self) -> u32 {
        match self {
            Layout::Single => 0,
            Layout::Mirror | Layout::StripeMirror | Layout::Parity => 1,
            Layout::DoubleParity => 2,
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
        Layout::ALL.into_iter().find(|l| l.name() == text).ok_or_else(|| {
            Invalid::new(
                "layout",
                text,
                "give single, mirror, stripe-mirror, parity or double-parity",
            )
        })
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
    /// How long deleted volumes stay in the trash, in seconds; 0: they are gone at once. A day if not given. Not part of
    /// what makes a repeated request the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash_seconds: Option<u32>,
    /// Disks that lie in wait: one takes the place of a disk that fails, by itself. All must be blank.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<DiskId>,
    /// What lies between the disks and LVM.
    #[serde(default, skip_serializing_if = "Layers::is_none")]
    pub layers: Layers,
}

/// Which disk of a pool another one is to take the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// The disk that goes, there or not.
    pub old: DiskId,
    /// The one that takes its place: a blank one, or a spare of the pool.
    pub new: DiskId,
}

/// A disk that is to be a spare of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpareRequest {
    /// Which.
    pub disk: DiskId,
}

/// What a request for a pool would come to. Nothing is touched to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolPlan {
    /// The request that it answers.
    pub request: PoolRequest,
    /// The disks as they would be joined. With `mirror` and `stripe-mirror` the disks of each inner list hold copies of
    /// each other; with `parity` and `double-parity` there is one list, and its disks make up for each other.
    pub groups: Vec<Vec<DiskId>>,
    /// What volumes can take together.
    pub usable: Bytes,
    /// How many disks may be lost, whichever they are.
    pub survives: u32,
    /// Which failures it survives and which not, in sentences.
    pub failures: String,
    /// What is not used, and why.
    pub wasted: Vec<Waste>,
    /// What to know before choosing this, each in sentences.
    pub warnings: Vec<String>,
    /// The commands that would be run, each as a program and its arguments. The pool's id in them is a placeholder: it
    /// is chosen when the pool is made.
    pub commands: Vec<Vec<String>>,
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
    /// What lies between its disks and LVM.
    #[serde(default, deserialize_with = "Layers::of_answer")]
    pub layers: Layers,
    /// How it is.
    pub state: PoolState,
    /// Why it is so, where `state` is not `ready`.
    pub reason: Option<String>,
    /// Its disks that are there.
    pub disks: Vec<DiskId>,
    /// Its spare disks that are there.
    #[serde(default)]
    pub spares: Vec<DiskId>,
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
    /// By how much its size can be raised with the disks that it has: they have grown, or larger ones took their place.
    #[serde(default)]
    pub growable: Bytes,
    /// What is really written.
    pub used: Bytes,
    /// How full the pool's own metadata is, in percent.
    pub metadata_percent: Percent,
    /// How far the copies agree, in percent; below 100 while a new or repaired mirror is filled.
    pub sync_percent: Percent,
    /// How many volumes it holds.
    pub volumes: u32,
    /// How many snapshots it holds.
    #[serde(default)]
    pub snapshots: u32,
    /// How many deleted volumes are in its trash.
    #[serde(default)]
    pub trashed: u32,
    /// How long deleted volumes stay in the trash, in seconds; 0: they are gone at once.
    #[serde(default)]
    pub trash_seconds: u32,
    /// How often its copies are compared by themselves; `none` where there is one copy.
    #[serde(default = "never")]
    pub scrub: ScrubEvery,
    /// When its copies were last compared, and what came of it; none if they never were.
    #[serde(default)]
    pub last_scrub: Option<LastScrub>,
}

/// What an appliance that does not say so allows.
fn hundred() -> u32 {
    100
}

/// What an appliance that does not say so does.
fn never() -> ScrubEvery {
    ScrubEvery::None
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
