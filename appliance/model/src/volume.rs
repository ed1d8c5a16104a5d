//! Volumes: what a claim becomes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Bytes, Client, Owner, PoolId, PoolName, VolumeId, VolumeName, VolumeOptions, VolumeOptionsChange};

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
    /// How it is.
    pub state: VolumeState,
    /// Why it is so, where `state` is `failed`.
    pub reason: Option<String>,
    /// Who made it.
    pub owner: Owner,
    /// Who may mount it.
    pub clients: Vec<Client>,
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

impl Export {
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
            VolumeState::Deleting => "deleting",
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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
