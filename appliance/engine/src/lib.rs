//! What is done: operations on disks, pools and volumes, and reconciling the machine with what its disks say.
//!
//! Knows the traits of `cistern_host` and never Linux; knows nothing of HTTP. All calls block.

mod clients;
mod disks;
mod engine;
mod error;
mod events;
mod jobs;
mod locks;
mod plan;
mod pool_steps;
mod pools;
mod react;
mod reconcile;
mod status;
mod tags;
mod view;
mod volume_steps;
mod volumes;

pub use engine::{Config, Engine};
pub use error::EngineError;
pub use pools::PoolCreation;
pub use status::{Health, Metrics};
pub use volumes::{Created, VolumeFilter};
