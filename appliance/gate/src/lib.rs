//! cistern-gate: what stands between the network and cisternd. It has no rights on the machine; it holds the certificate and
//! the tokens, lets in what a token's role allows, and passes it on to cisternd's socket.
//!
//! Invariant: bytes from the network are parsed here and nowhere with more rights.
//!
//! Not here: anything about disks, pools or volumes, and any decision that depends on one.

mod answer;
pub mod enrolment;
pub mod gate;
pub mod identity;
mod lent;
pub mod limits;
mod pace;
mod places;
pub mod secret;
pub mod server;
pub mod store;
pub mod tokens;
