//! What Cistern's things are: sizes, ids, names, and the requests and answers of its API.
//!
//! Invariant: a value that exists is valid. Each type is made only by parsing, whether from text, from JSON or from an
//! LVM tag, so nothing behind the front door checks a name or a size twice.
//!
//! Not here: any I/O, any clock, any knowledge of LVM, HTTP or Linux.

mod access;
mod alert;
mod bytes;
mod client;
mod disk;
mod event;
mod fence;
mod growth;
mod id;
mod job;
mod label;
mod layers;
mod live;
mod name;
mod node;
mod options;
mod orphan;
mod pool;
mod pool_settings;
mod problem;
mod scrub;
mod snapshot;
mod system;
mod text;
mod trash;
mod volume;

pub use access::{EnrolRequest, Enrolment, Principal, Role, Token, TokenCreated, TokenRequest};
pub use alert::{Acknowledgement, Alert, AlertId, AlertKind};
pub use bytes::{Bytes, Percent};
pub use client::Client;
pub use disk::{Disk, DiskState, DiskTransport, Signature};
pub use event::{Event, EventKind, Severity};
pub use fence::{ClientRemoved, FenceMethod, FenceReport, HeldState, Touched};
pub use growth::{AddDisksRequest, DrainRequest, GroupGrowth, GrowthPlan};
pub use id::{DiskId, JobId, PoolId, SnapshotId, TokenId, VolumeId};
pub use job::{Job, JobKind, JobState};
pub use label::{Label, Labels, MOST_LABELS};
pub use layers::{Encryption, Layers, PoolKey, PoolKeyRequest};
pub use live::{Holding, LiveClient};
pub use name::{NodeName, Owner, PoolName, SnapshotName, TokenName, VolumeName};
pub use node::{MOST_ADDRESSES, NodeAccess, PublishedNode, peers};
pub use options::{Mode, Security, Squash, TransportSecurity, VolumeOptions, VolumeOptionsChange};
pub use orphan::{
    AdoptRequest, ImportRequest, Orphan, OrphanKind, RemoveOrphanRequest, Skipped, Topology, TopologyCluster,
    TopologyDevice, TopologyHostnames, TopologyName, TopologyNode, TopologyPlan, TopologyRequest,
};
pub use pool::{Layout, Pool, PoolPlan, PoolRequest, PoolState, ReplaceRequest, SpareRequest, Waste};
pub use pool_settings::{Overcommit, PoolChange, Reserve};
pub use problem::{ErrorKind, Invalid, Problem};
pub use scrub::{LastScrub, ScrubEvery, ScrubRequest};
pub use snapshot::{
    GroupSnapshotRequest, Keep, MOST_IN_GROUP, MOST_KEPT, Period, RollbackRequest, Schedule, Snapshot, SnapshotClients,
    SnapshotRequest, SnapshotState,
};
pub use system::{Interface, Load, Memory, PowerAction, ServiceState, ServiceStatus, System};
pub use text::{is_hidden, quoted, refuse_hidden};
pub use trash::{DEFAULT_TRASH_SECONDS, TrashedVolume, UndeleteRequest};
pub use volume::{
    ClientRequest, Export, Inodes, MINIMUM_VOLUME, Volume, VolumeChange, VolumeRequest, VolumeSource, VolumeState,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in a stable order.
    pub items: Vec<T>,
    /// Give this as `continue` to get the next page; absent on the last one.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}
