//! The Kubernetes side of a lab: the cluster's own programs, its nodes, and cistern-csi where they look for it.

mod cluster;
mod credentials;
mod csi_sanity;
mod doctor;
mod node;
mod peers;

use cluster::NAMESPACE;

pub use cluster::Cluster;
pub(crate) use cluster::MANIFESTS;
pub use csi_sanity::csi_sanity;
pub use doctor::{Diagnosis, Found};
pub use node::Node;
pub(crate) use node::PEER_NODE;
