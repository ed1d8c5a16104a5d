//! Volumes: what a claim becomes.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Bytes, Client, Invalid, Labels, Owner, PoolId, PoolName, PublishedNode, Schedule, SnapshotId, VolumeId, VolumeName,
    VolumeOptions, VolumeOptionsChange,
};

/// The smallest volume: mkfs.xfs (6.13) refuses anything below exactly this. A smaller request is raised to it.
pub const MINIMUM_VOLUME: Bytes = Bytes::mib(300);

/// What a new volume is to be. Asking again with the same name and the same values gives the same volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeRequest {
    /// Its name, unique in its pool.
    pub name: VolumeName,
    /// Its pool, by name.
    pub pool: PoolName,
    /// How much it is to hold, in bytes. Raised to 300 MiB if it is less, unless `limit` forbids.
    pub size: Bytes,
    /// The most it may be, in bytes; a request that would have to be raised above it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
    /// Who may mount it from the start. Nobody, if empty. Not part of what makes a repeated request the same.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// How it is to be served, where that differs from the usual. Not part of what makes a repeated request the same.
    #[serde(default)]
    pub options: VolumeOptionsChange,
    /// What it is to hold from the start: what a snapshot or another volume of the same pool holds. Nothing, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "snap-0f8fad5bd9cb469fa16570867728950e")]
    pub source: Option<VolumeSource>,
    /// Its labels from the start. Not part of what makes a repeated request the same.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Which snapshots are made of it by themselves, from the start. None, if not given. Not part of what makes a repeated request the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::Keep>)]
    pub schedule: Option<Schedule>,
}

/// What is to change in a volume; what is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeChange {
    /// Its new name, unique in its pool. Its id, its export and its clients stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VolumeName>,
    /// How much it is to hold from now on, in bytes, in all. Never less than it holds now; the same is no change. Its
    /// clients see it without mounting anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// All of its labels, in place of those that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Which snapshots are made of it by themselves, and how many are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::Keep>)]
    pub schedule: Option<Schedule>,
    /// Whose it is from now on. Only for admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// How many files a filesystem has and can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inodes {
    /// Files, directories and all else that takes an inode.
    pub used: u64,
    /// How many there can be, as far as can be said now: XFS makes inodes where it has free space.
    pub total: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its id, made by the appliance.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// Its pool's id.
    pub pool: PoolId,
    /// Its pool's name.
    pub pool_name: PoolName,
    /// The bytes of its filesystem: exactly what was asked for, or the minimum.
    pub size: Bytes,
    /// What its files take, where it is mounted.
    pub used: Option<Bytes>,
    /// How many files it has and can have, where it is mounted.
    #[serde(default)]
    pub inodes: Option<Inodes>,
    /// How it is.
    pub state: VolumeState,
    /// Why it is so, where `state` is `failed`.
    pub reason: Option<String>,
    /// Who made it.
    pub owner: Owner,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
    /// Which snapshots are made of it by themselves, and how many are kept.
    #[serde(default, deserialize_with = "Schedule::of_answer")]
    #[schema(value_type = crate::Keep)]
    pub schedule: Schedule,
    /// What it was made of, which may be gone: neither needs the other.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub source: Option<VolumeSource>,
    /// Who may mount it, beside the nodes that it is published to.
    pub clients: Vec<Client>,
    /// The nodes that it is published to.
    #[serde(default)]
    pub nodes: Vec<PublishedNode>,
    /// How it is served.
    #[serde(default)]
    pub options: VolumeOptions,
    /// What to mount.
    pub export: Export,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// How a volume is reached over NFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// The path to mount, on any of the appliance's addresses.
    #[schema(example = "/volumes/vol-0f8fad5bd9cb469fa16570867728950e")]
    pub path: String,
    /// The export's `fsid`, by which file handles stay valid over reboots and moves.
    #[schema(value_type = String)]
    pub fsid: Uuid,
}

impl Volume {
    /// All that may mount it: its clients and its nodes' addresses, in order and each once.
    pub fn peers(&self) -> Vec<Client> {
        let nodes = self.nodes.iter().map(|node| (&node.addresses[..], node.read_only));
        crate::peers(self.clients.iter().copied(), nodes)
    }
}

impl Export {
    /// The export of this snapshot, which is read-only.
    pub fn of_snapshot(snapshot: SnapshotId) -> Self {
        Export {
            path: format!("/volumes/{snapshot}"),
            fsid: snapshot.uuid(),
        }
    }

    /// The export of this volume.
    pub fn of(volume: VolumeId) -> Self {
        Export {
            path: format!("/volumes/{volume}"),
            fsid: volume.uuid(),
        }
    }
}

/// How a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Being made. Asking for it again continues.
    Creating,
    /// Served to its clients.
    Ready,
    /// It exists and cannot be served; `reason` says why. Its clients wait.
    Failed,
    /// Becoming what one of its snapshots is; if that was interrupted it is finished. Not served meanwhile.
    RollingBack,
    /// Being deleted; if that was interrupted it is finished.
    Deleting,
}

impl VolumeState {
    /// The name in JSON, in tags and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            VolumeState::Creating => "creating",
            VolumeState::Ready => "ready",
            VolumeState::Failed => "failed",
            VolumeState::RollingBack => "rolling-back",
            VolumeState::Deleting => "deleting",
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a volume is made of: a snapshot or a volume, told by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VolumeSource {
    /// A snapshot: what its volume held then.
    Snapshot(SnapshotId),
    /// Another volume: what it holds now.
    Volume(VolumeId),
}

impl FromStr for VolumeSource {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let snapshot = text.parse().map(VolumeSource::Snapshot);
        snapshot
            .or_else(|_: Invalid| text.parse().map(VolumeSource::Volume))
            .map_err(|_| Invalid::new("source", text, "give a snapshot's or a volume's id"))
    }
}

impl TryFrom<String> for VolumeSource {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<VolumeSource> for String {
    fn from(source: VolumeSource) -> String {
        source.to_string()
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeSource::Snapshot(id) => id.fmt(f),
            VolumeSource::Volume(id) => id.fmt(f),
        }
    }
}

/// A client that is to be allowed to mount a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientRequest {
    /// An address or a network; with `:ro` behind it, to read only. One that is known already may from then on what is
    /// said now.
    pub client: Client,
}
