//! The handlers, one module for each kind of object. Each parses, calls one operation of the engine and shows its outcome.
//! The attributes on them make the OpenAPI document.

pub(crate) mod alerts;
pub(crate) mod clients;
pub(crate) mod disks;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod growth;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod nodes;
pub(crate) mod options;
pub(crate) mod orphans;
pub(crate) mod pools;
pub(crate) mod snapshots;
pub(crate) mod system;
pub(crate) mod trash;
pub(crate) mod volumes;

use axum::Json;

use crate::problem::Refusal;

/// What most handlers answer.
pub(crate) type Answer<T> = Result<Json<T>, Refusal>;
