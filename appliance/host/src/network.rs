//! Links and addresses.

use cistern_model::Interface;

use crate::{ChangeSink, HostError};

/// Links and addresses, by way of rtnetlink.
pub trait Network: Send + Sync {
    /// All interfaces but the loopback, by name.
    fn interfaces(&self) -> Result<Vec<Interface>, HostError>;

    /// Reports [`Change::Network`](crate::Change::Network) from now on, for as long as the process lives.
    fn watch(&self, sink: ChangeSink) -> Result<(), HostError>;
}
