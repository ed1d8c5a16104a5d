//! What disks say of their own health.

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

/// What disks say of their own health.
pub trait Health: Send + Sync {
    /// Asks a disk, unless that would wake it. May take as long as a command to a disk that hangs: seconds.
    fn ask(&self, disk: &BlockDevice) -> Result<SelfReport, HostError>;
}
