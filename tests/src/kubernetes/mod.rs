//! The Kubernetes side of a lab: the cluster's own programs, and cistern-csi where they look for it.

mod cluster;
mod csi_sanity;
mod peers;

pub use cluster::Cluster;
pub(crate) use cluster::{MANIFESTS, NODE};
pub use csi_sanity::csi_sanity;
