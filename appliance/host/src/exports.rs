//! What is exported over NFS, and to whom.

use std::path::PathBuf;

use cistern_model::Client;
use uuid::Uuid;

use crate::HostError;

/// A directory and who may mount it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportEntry {
    /// The directory.
    pub path: PathBuf,
    /// Its `fsid`.
    pub fsid: Uuid,
    /// Its clients; with none, it is known to the server and open to nobody.
    pub clients: Vec<Client>,
}

/// The NFS server's exports. The options are fixed here: `rw,sync,no_subtree_check,no_root_squash,mp,fsid=...`.
pub trait Exports: Send + Sync {
    /// What is exported now, sorted by path and client.
    fn current(&self) -> Result<Vec<ExportEntry>, HostError>;

    /// Makes the list of exports exactly this, so that an NFS server that starts later has it before its first client,
    /// and one that runs has it when this returns. Clients whose access does not change are not disturbed.
    fn replace(&self, entries: &[ExportEntry]) -> Result<(), HostError>;

    /// Makes the server let go of a filesystem whose export was taken away, so that it can be unmounted: its cached
    /// entries expire, and opens and locks that clients hold on it are revoked. Does nothing if the server is stopped.
    fn release(&self, path: &std::path::Path) -> Result<(), HostError>;
}
