//! The Kubernetes side of a lab: the cluster's own programs, and cistern-csi where they look for it.

mod cluster;
mod csi_sanity;
mod doctor;
mod peers;

use cluster::NAMESPACE;

pub use cluster::Cluster;
pub(crate) use cluster::{MANIFESTS, NODE};
pub use csi_sanity::csi_sanity;
pub use doctor::{Diagnosis, Found};
