//! The trash: deleted volumes that can be had back for a while.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Bytes, Labels, Owner, PoolId, PoolName, VolumeId, VolumeName};

/// How long deleted volumes stay in the trash where nothing else is said: a day.
pub const DEFAULT_TRASH_SECONDS: u32 = 24 * 60 * 60;

/// A deleted volume in the trash. Nobody can mount it; its name is free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashedVolume {
    /// Its id, as it was and as it will be again if it is undeleted.
    pub id: VolumeId,
    /// What it was called.
    pub name: VolumeName,
    /// Its pool's id.
    pub pool: PoolId,
    /// Its pool's name.
    pub pool_name: PoolName,
    /// The bytes of its filesystem.
    pub size: Bytes,
    /// Whose it is.
    pub owner: Owner,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was deleted.
    #[schema(value_type = String, format = DateTime)]
    pub deleted: Timestamp,
    /// When it will be gone for good; earlier if the pool runs short of space.
    #[schema(value_type = String, format = DateTime)]
    pub purged: Timestamp,
}

/// A volume that is to be had back from the trash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UndeleteRequest {
    /// What it is to be called, if its name was taken meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<VolumeName>,
}
