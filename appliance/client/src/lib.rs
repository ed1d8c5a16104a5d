//! The typed client of Cistern's API: one method for each route, over HTTPS with a pinned certificate or over the
//! appliance's own Unix socket.
//!
//! Invariant: nothing is sent to a server before its certificate was found to be the pinned one, and every failure has an
//! [`ErrorKind`](cistern_model::ErrorKind), so that a caller need not know HTTP.
//!
//! Not here: where tokens and fingerprints are kept, and anything that is printed.

mod error;
mod events;
mod growth;
mod pages;
mod pin;
mod routes;
mod snapshots;
mod transport;

pub use error::ClientError;
pub use events::EventStream;
pub use pin::{BadFingerprint, Fingerprint};
pub use routes::{Created, PoolCreation, VolumeQuery};
pub use snapshots::SnapshotQuery;
pub use transport::{Client, Endpoint, SOCKET, Timeouts, presented_fingerprint};
