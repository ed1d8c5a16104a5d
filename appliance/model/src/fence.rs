//! What it took to cut a client off from a volume.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Volume, VolumeId};

/// What came of taking a client away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientRemoved {
    /// The volume as it is now.
    #[serde(flatten)]
    pub volume: Volume,
    /// One for each NFS session that was cut off: none if nobody had it mounted from there.
    #[serde(default)]
    pub fenced: Vec<FenceReport>,
}

/// How one NFS session was cut off from a volume. From the moment of the answer it can neither read nor write there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FenceReport {
    /// The session's address.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// What it held on the volume when its export was gone.
    pub held: HeldState,
    /// What was done about that.
    pub method: FenceMethod,
    /// What else that touched.
    pub also_touched: Vec<Touched>,
}

/// What a session holds open on a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldState {
    /// Files that it has open.
    pub opens: u32,
    /// Files on which it has byte-range locks, each counted once for each lock owner.
    pub locks: u32,
    /// Files that were delegated to it, on which it may have locks that only it knows of; and layouts.
    pub delegations: u32,
}

/// How a session's state is revoked, the gentlest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FenceMethod {
    /// Not at all: without its export, what it holds is in nobody's way. (If a file was delegated to it, the first other
    /// client that opens it waits up to half a minute, once.)
    None,
    /// The session was ended, on all volumes. Files that its client has open it opens again by itself; its locks are lost
    /// to it.
    ExpireClient,
}

impl FenceMethod {
    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            FenceMethod::None => "none",
            FenceMethod::ExpireClient => "expire-client",
        }
    }
}

impl fmt::Display for FenceMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// State that was not meant and was lost all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Touched {
    /// Whose.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// On which volume.
    pub volume: VolumeId,
    /// What it held there. The locks are lost, and those that its client took under a delegation without telling; what it
    /// has open otherwise it opens again by itself.
    pub held: HeldState,
}
