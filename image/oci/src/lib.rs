//! Packs cistern-csi as a container image: one tar that is an OCI layout and what `docker load` takes, both at once.
//!
//! Invariant: the same executable under the same name gives the same bytes, on any machine at any time; nothing but the
//! executable is in it, and one that would need a library to start is refused.
//!
//! Not here: how the executable is built (`image/csi`), and any registry.

mod executable;
mod image;
mod name;

pub use executable::{Architecture, Unpackable};
pub use image::{PATH, Packed, pack};
pub use name::{BadName, Name};
