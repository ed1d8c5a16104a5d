//! Events: what happened, in the order in which it happened.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: grows by one from event to event, and leaps ahead when the supervisor starts.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// What.
    pub kind: EventKind,
    /// How serious.
    pub severity: Severity,
    /// The id of the object that it happened to, where there is one.
    pub object: Option<String>,
    /// Who caused it (a token's name or `local`), where somebody did.
    pub actor: Option<String>,
    /// In a sentence.
    pub message: String,
}

/// What happened. The names are stable; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The supervisor started and has reconciled what it found.
    Started,
    /// A disk appeared.
    DiskAdded,
    /// A disk vanished.
    DiskRemoved,
    /// A disk was wiped.
    DiskWiped,
    /// A pool was made.
    PoolCreated,
    /// A pool was deleted.
    PoolDeleted,
    /// A pool's state changed.
    PoolChanged,
    /// A pool's copies were compared.
    PoolScrubbed,
    /// A disk gave what does not fit its checksum.
    ChecksumErrors,
    /// The key of an encrypted pool was read, or given.
    PoolKeyUsed,
    /// A volume was made.
    VolumeCreated,
    /// A volume was deleted.
    VolumeDeleted,
    /// A volume's state changed.
    VolumeChanged,
    /// A volume was deleted and is in the trash.
    VolumeTrashed,
    /// A volume was taken back out of the trash.
    VolumeUndeleted,
    /// A volume in the trash is gone for good.
    VolumePurged,
    /// A volume became again what one of its snapshots is.
    VolumeRolledBack,
    /// A snapshot was made.
    SnapshotCreated,
    /// A snapshot was deleted.
    SnapshotDeleted,
    /// Who may mount a snapshot changed, or whether it is served.
    SnapshotChanged,
    /// A client was allowed to mount a volume.
    ClientAdded,
    /// A client was no longer allowed to mount a volume.
    ClientRemoved,
    /// A volume was published to a node, or to other addresses of one.
    NodePublished,
    /// A volume is no longer published to a node.
    NodeUnpublished,
    /// A client that was no longer allowed was cut off from what it held.
    ClientFenced,
    /// A service's state changed.
    ServiceChanged,
    /// A network interface's state or addresses changed.
    NetworkChanged,
    /// Something was found on the disks that the appliance cannot explain. It was left alone.
    OrphanFound,
    /// Something that the appliance could not explain was removed, by name.
    OrphanRemoved,
    /// A pool that another appliance made was taken in.
    PoolImported,
    /// A pool was given up, for another appliance to import.
    PoolReleased,
    /// Somebody went to a root shell on the console.
    RootShell,
    /// A token was made or taken back.
    TokenChanged,
    /// An alert was raised, or became more serious or less.
    AlertRaised,
    /// An alert's cause has ended.
    AlertCleared,
    /// Somebody said that an alert was seen.
    AlertAcknowledged,
    /// The system restarts or is shut down, as it was told to.
    Shutdown,
    /// A record on the state partition was not understood, and set aside.
    RecordUnreadable,
}

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something is not served.
    Error,
}
