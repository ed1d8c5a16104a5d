//! What disks say of their own health, and the kernel of them.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::{BlockDevice, HostError};

/// What a disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SelfReport {
    /// It has nothing to say: a virtual disk, or one behind a controller that does not pass the question on.
    #[default]
    Silent,
    /// It does not turn, and was left so.
    Asleep,
    /// What is the matter, a sentence's part each (`it has 8 sectors that cannot be read`); empty: it is well.
    Told(Vec<String>),
}

/// What the kernel has told of a disk's requests that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedErrors {
    /// The disk's node.
    pub node: PathBuf,
    /// How many it told of since the disk appeared; it does not tell of each where there are very many.
    pub count: u64,
    /// When the last one failed.
    pub last: Timestamp,
}

/// What disks say of their own health, and what the kernel says of them.
pub trait Health: Send + Sync {
    /// Asks a disk, unless that would wake it. May take as long as a command to a disk that hangs: seconds.
    fn ask(&self, disk: &BlockDevice) -> Result<SelfReport, HostError>;

    /// What the kernel has told of the disks that are there. Never waits for a disk.
    fn reported_errors(&self) -> Result<Vec<ReportedErrors>, HostError>;
}
