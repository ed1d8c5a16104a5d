//! The Kubernetes side of a lab: the cluster's own programs, its nodes, and cistern-csi where they look for it.

mod cluster;
mod controllers;
mod credentials;
mod csi_sanity;
mod doctor;
mod helm;
mod metrics;
mod node;
mod peers;
pub(crate) mod pods;
mod restarts;
mod watch;

use cluster::{NAMESPACE, free_port};

pub use cluster::Cluster;
pub(crate) use cluster::{MANIFESTS, on_no_node};
pub use controllers::Replica;
pub use csi_sanity::csi_sanity;
pub use doctor::{Diagnosis, Found};
pub use helm::helm_makes_what_is_printed;
pub use metrics::{Calls, Metrics};
pub use node::Node;
pub(crate) use node::PEER_NODE;
pub use watch::{Phases, Watch};
