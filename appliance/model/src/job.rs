//! Jobs: work that takes longer than a request should, with its progress. A job is kept after it has ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{JobId, Owner, Problem};

/// A piece of long work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What is done.
    pub kind: JobKind,
    /// The name or id of the object that it is done to.
    pub target: String,
    /// Who asked for it.
    pub owner: Owner,
    /// How far it is.
    #[serde(flatten)]
    pub state: JobState,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Makes a pool.
    CreatePool,
    /// Deletes a pool.
    DeletePool,
    /// Puts a disk of a pool in the place of another.
    ReplaceDisk,
    /// Compares a pool's copies.
    ScrubPool,
    /// Adds disks to a pool.
    AddDisks,
    /// Takes up what a pool's disks have grown by.
    GrowPool,
    /// Empties a disk of a pool and takes it out.
    DrainDisk,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum JobState {
    /// Under way.
    Running {
        /// Steps done.
        done: u32,
        /// Steps in all.
        total: u32,
        /// The step under way, for people.
        step: String,
    },
    /// Ended well.
    Succeeded,
    /// Ended with an error.
    Failed {
        /// Which.
        problem: Problem,
    },
}
