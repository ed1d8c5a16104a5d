//! How it is asked for: the routes of the API, who may use them, and what they answer.
//!
//! Invariant: no decision about disks, pools or volumes is made here; a handler parses, calls one operation of the
//! engine, and shows its outcome. Nothing here blocks an async thread.
//!
//! cistern-gate uses the parts that both daemons must agree on: the table of routes, problems, and passing on.

mod app;
mod extract;
pub mod forward;
mod health;
pub mod json;
mod metrics;
mod openapi;
pub mod peer;
pub mod problem;
mod router;
mod routes;
pub mod service;
pub mod table;
mod token_change;
mod unknown_field;

pub use app::{App, OPERATION_LIMIT, OPERATIONS};
pub use extract::BODY_LIMIT;
pub use openapi::document;
pub use router::router;
pub use token_change::{TokenChange, TokenChangeKind};
