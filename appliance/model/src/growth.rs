//! More room for a pool: further disks, and disks that have become larger; and a disk that leaves it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, DiskId, Layout, PoolName, Waste};

/// Disks that a pool is to have besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDisksRequest {
    /// Each by its id; all must be blank. With layout `single` one or more, with `mirror` an even number, with the others
    /// as many as the pool has now, or a multiple of that: LVM adds a further group and cannot reshape one.
    #[schema(min_items = 1)]
    pub disks: Vec<DiskId>,
}

/// A disk that is to leave a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Which. It is blank afterwards. One that was just being added, and on which nothing lies yet, leaves together with
    /// those that were being added with it.
    pub disk: DiskId,
}

/// What adding disks, or taking up what they have grown by, would come to. Nothing is touched to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrowthPlan {
    /// The pool.
    pub pool: PoolName,
    /// How data lies on its disks.
    pub layout: Layout,
    /// The groups of disks that give more; the disks of each give the same.
    pub groups: Vec<GroupGrowth>,
    /// What volumes can take together now.
    pub size: Bytes,
    /// What they could take afterwards.
    pub size_after: Bytes,
    /// What of the disks would not be used, and why.
    pub wasted: Vec<Waste>,
    /// What to know before doing this, each in sentences.
    pub warnings: Vec<String>,
    /// The commands that would be run, each as a program and its arguments.
    pub commands: Vec<Vec<String>>,
}

/// What a group of disks would give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupGrowth {
    /// Its disks, which make up for each other, or one disk alone.
    pub disks: Vec<DiskId>,
    /// What is taken of each of them.
    pub of_each: Bytes,
    /// What volumes can take more.
    pub usable: Bytes,
}
