//! What disks say of themselves, as a test has them say it.

use cistern_model::DiskId;
use jiff::Timestamp;

use super::state::failed;
use super::{MemoryHost, Running};
use crate::{BlockDevice, Health, HostError, SelfReport};

impl Health for Running {
    fn ask(&self, disk: &BlockDevice) -> Result<SelfReport, HostError> {
        self.look("health.ask", disk.id.as_str(), |state| {
            let there = state.disk(&disk.id).filter(|record| record.attached);
            let record = there.ok_or_else(|| failed("ask", "No such device"))?;
            Ok(record.says.clone())
        })
    }
}

impl MemoryHost {
    /// What a disk says of itself from now on.
    pub fn let_disk_say(&self, disk: &DiskId, says: SelfReport) {
        self.change_disk(disk, |record| record.says = says);
    }

    /// When the image was made: a clock that shows an earlier time was never set.
    pub fn set_built(&self, built: Timestamp) {
        self.lock().built = built;
    }

    /// Whether nothing keeps the clock right.
    pub fn let_clock_drift(&self, drifts: bool) {
        self.lock().clock_drifts = drifts;
    }
}
