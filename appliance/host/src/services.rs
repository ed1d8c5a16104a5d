//! The units that Cistern stands on.

use cistern_model::ServiceState;

use crate::{ChangeSink, HostError};

/// A unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The kernel's NFS server.
    NfsServer,
    /// It answers the server's questions about exports.
    NfsMountd,
    /// It keeps the server's clients over a restart.
    NfsdCld,
    /// It holds TLS and tokens.
    Gate,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 4] = [Service::NfsServer, Service::NfsMountd, Service::NfsdCld, Service::Gate];

    /// The unit's name without `.service`.
    pub const fn name(self) -> &'static str {
        match self {
            Service::NfsServer => "nfs-server",
            Service::NfsMountd => "nfs-mountd",
            Service::NfsdCld => "nfsdcld",
            Service::Gate => "cistern-gate",
        }
    }
}

/// Services, by way of systemd.
pub trait Services: Send + Sync {
    /// How a service is.
    fn state(&self, service: Service) -> Result<ServiceState, HostError>;

    /// Starts it if it does not run, and waits until it does. Says whether it had to.
    fn ensure_started(&self, service: Service) -> Result<bool, HostError>;

    /// Reports [`Change::Services`](crate::Change::Services) from now on, for as long as the process lives.
    fn watch(&self, sink: ChangeSink) -> Result<(), HostError>;
}
