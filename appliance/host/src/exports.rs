//! What is exported over NFS, and to whom.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cistern_model::{Client, HeldState, Squash};
use uuid::Uuid;

use crate::HostError;

/// A directory and who may mount it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportEntry {
    /// The directory.
    pub path: PathBuf,
    /// Its `fsid`.
    pub fsid: Uuid,
    /// Its clients, each address or network once; with none, it is known to the server and open to nobody.
    pub clients: Vec<Client>,
    /// Who is who on it.
    pub users: ExportUsers,
}

/// Which users of an export's clients become the anonymous one, and who that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportUsers {
    /// Which.
    pub squash: Squash,
    /// The anonymous user.
    pub anonymous_uid: u32,
    /// The anonymous user's group.
    pub anonymous_gid: u32,
}

impl Default for ExportUsers {
    fn default() -> Self {
        ExportUsers {
            squash: Squash::None,
            anonymous_uid: 65534,
            anonymous_gid: 65534,
        }
    }
}

/// A client as the NFS server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsSession {
    /// What it is called until it ends.
    pub id: String,
    /// The address that it began with: it keeps that one when its client goes on from another.
    pub address: IpAddr,
    /// What it holds, by filesystem; none if that could not be read, which is not the same as nothing.
    pub held: Option<Vec<HeldThere>>,
}

/// What a session holds on one filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldThere {
    /// Where the filesystem is mounted.
    pub path: PathBuf,
    /// What.
    pub held: HeldState,
}

/// The NFS server's exports. What an entry does not say is fixed: `sync,no_subtree_check,mp,fsid=...`. Whatever is changed,
/// a server that starts later has it before its first client, and one that runs has it when the call returns: a client
/// whose access was taken away is refused from then on. Clients whose access does not change are not disturbed.
pub trait Exports: Send + Sync {
    /// What is exported now, sorted by path and client.
    fn current(&self) -> Result<Vec<ExportEntry>, HostError>;

    /// Makes the list of exports exactly this.
    fn replace(&self, entries: &[ExportEntry]) -> Result<(), HostError>;

    /// Makes one export this, and leaves all others. Costs no more where there are thousands.
    fn set(&self, entry: &ExportEntry) -> Result<(), HostError>;

    /// Takes one export away, and leaves all others. No error if it is not there.
    fn remove(&self, path: &Path) -> Result<(), HostError>;

    /// The clients that the server knows now, and what each holds. None if the server is stopped.
    fn sessions(&self) -> Result<Vec<NfsSession>, HostError>;

    /// Ends a session: all that its client holds is revoked, on every export; what it was just asking for is answered
    /// first. No error if it is not there. The client makes a new one, if it is there, and takes back what it can.
    fn expire(&self, session: &str) -> Result<(), HostError>;

    /// After access was taken from these clients of an export (its path, `fsid` and the clients count): returns when nothing
    /// that they asked for before can have an effect any more, and nothing that was answered late lets them in again.
    /// Fails if that takes too long.
    fn settle(&self, entry: &ExportEntry) -> Result<(), HostError>;

    /// Answers clients that came while their export was not mounted, if it is by now: else they may wait for two minutes more. To be
    /// called when something was mounted below exports that were there before, and before it is, so that it is known who was there.
    ///
    /// A client that waits for one of the `unserved` exports, not mounted, and may use another that is mounted, is told that it is not
    /// there, for two minutes or until it is answered here: what it had open there it loses. Nobody else is told so. To be called again
    /// every few seconds while there are any. Does nothing if the server is stopped.
    fn answer_waiting(&self, unserved: &BTreeSet<PathBuf>) -> Result<(), HostError>;

    /// Makes the server let go of a filesystem whose export was taken away, so that it can be unmounted: its cached
    /// entries expire, and opens and locks that clients hold on it are revoked. Does nothing if the server is stopped.
    fn release(&self, path: &Path) -> Result<(), HostError>;
}
