//! cistern-csi: what Kubernetes' stock sidecars and kubelets drive Cistern by. Over CSI on a Unix socket on one side, over the
//! appliance's API on the other.
//!
//! Invariant: the plugin keeps nothing: what is true of a volume is on its appliance, what is mounted is in the node's kernel.

pub mod access;
pub mod appliances;
pub mod controller;
pub mod deadlines;
pub mod handle;
pub mod identity;
pub mod inflight;
pub mod lists;
mod looks;
pub mod models;
pub mod mount;
pub mod mount_options;
pub mod node;
pub mod nodes;
pub mod parameters;
pub mod placement;
mod publishing;
pub mod refusal;
pub mod registry;
pub mod secrets;
pub mod snapshots;
mod volumes;
pub mod zone;

/// The Container Storage Interface's messages.
#[allow(missing_docs, clippy::all, reason = "made from proto/csi.proto")]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How a kubelet gets to know a plugin.
#[allow(missing_docs, clippy::all, reason = "made from proto/registration.proto")]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
