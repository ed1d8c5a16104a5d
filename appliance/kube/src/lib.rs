//! What a cluster is given to use appliances.
//!
//! Invariant: there is one source, the templates beside this code; the manifests, the chart and the kustomize base are that source
//! with other words put in. Nothing here asks a cluster or an appliance for anything; what others saw of both is compared in
//! `doctor`.
//!
//! Not here: the plugin itself, which is `csi`.

#[cfg(test)]
mod access;
mod chart;
mod dashboard;
pub mod doctor;
mod fit;
mod manifests;
mod rules;
mod schema;
mod volume;

pub use chart::{Chart, RELEASE, chart, kustomize};
pub use dashboard::dashboard;
pub use fit::Unfit;
pub use manifests::{Appliance, IMAGE, Installation, SIDECARS};
pub use rules::rules;
pub use volume::{Source, persistent_volume};
