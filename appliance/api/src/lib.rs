//! How it is asked for: the routes of the API, who may use them, and what they answer.
//!
//! Invariant: no decision about disks, pools or volumes is made here; a handler parses, calls one operation of the
//! engine, and shows its outcome. Nothing here blocks an async thread.
//!
//! cistern-gate uses the parts that both daemons must agree on: the table of routes, problems, and passing on.

pub mod forward;
pub mod json;
pub mod peer;
pub mod problem;
pub mod service;
pub mod table;
mod token_change;

pub use token_change::{TokenChange, TokenChangeKind};
