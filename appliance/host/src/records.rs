//! What the appliance keeps for itself beside what is on the pools' disks: small files on the state partition.

use crate::HostError;

/// Small text files, known by a name. Nothing about a pool or a volume is kept here: that is in LVM's tags.
pub trait Records: Send + Sync {
    /// The whole text; none if it was never written. After a power cut the last line may be a part of one. Bytes that are
    /// no UTF-8 become U+FFFD.
    fn read(&self, name: &str) -> Result<Option<String>, HostError>;

    /// Replaces the text, durably: from now on, and after a power cut, it is the old or the new one, whole.
    fn replace(&self, name: &str, text: &str) -> Result<(), HostError>;

    /// Removes it, durably. No error if it is not there.
    fn remove(&self, name: &str) -> Result<(), HostError>;

    /// Adds to the end, making the file if it is not there. Outlives the process; a power cut may take it, or a part of
    /// it, until [`Records::sync`]. After an error it is not known how much of it is there.
    fn append(&self, name: &str, text: &str) -> Result<(), HostError>;

    /// Makes durable what was appended.
    fn sync(&self, name: &str) -> Result<(), HostError>;
}
