//! The engine on a machine in memory: what each operation does and refuses, and what is left after a power cut at every
//! step of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adopt;
mod alerts;
mod capacity;
mod care;
mod changes;
mod clients;
mod clones;
mod crashes;
mod disks;
mod drain;
mod failures;
mod fencing;
mod free_part;
mod growth;
mod histories;
mod kept;
mod keys;
mod layers;
mod mending;
mod moves;
mod moving_nodes;
mod nodes;
mod options;
mod pools;
mod reconcile;
mod refused;
mod replace;
mod rollback;
mod schedules;
mod scrub;
mod shedding;
mod snapshots;
mod status;
mod support;
mod trash;
mod unserved;
mod volumes;
