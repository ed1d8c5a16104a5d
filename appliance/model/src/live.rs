//! Who is connected to the NFS server now. Invariant: what a client holds is told by volume; that it has one mounted and nothing open
//! there is not known to the server, and so is not told.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{HeldState, VolumeId};

/// A client that the NFS server knows now: something is mounted there, or was until a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LiveClient {
    /// The address that its session began with: it keeps that one when the client goes on from another.
    #[schema(value_type = String, example = "10.0.0.7")]
    pub address: IpAddr,
    /// What it holds open, by volume; none if that is nothing.
    pub holds: Vec<Holding>,
}

/// What a client holds on one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holding {
    /// Which.
    pub volume: VolumeId,
    /// What.
    pub held: HeldState,
}
