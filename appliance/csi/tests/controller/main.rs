//! The controller against a whole appliance: what it answers to what cannot be, and to appliances that are not as they should be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access_modes;
mod bad_ids;
mod bad_input;
mod bad_secrets;
mod busy;
mod deadlines;
mod earlier;
mod groups;
mod lanes;
mod listed;
mod other_appliances;
mod placement;
mod requests;
mod sizes;
mod support;
mod zones;
