//! What disks say of themselves, as a test has them say it.

use cistern_model::DiskId;
use jiff::Timestamp;

use super::{MemoryHost, Running};
use crate::{BlockDevice, Health, HostError, ReportedErrors, SelfReport};

impl Health for Running {
    fn ask(&self, disk: &BlockDevice) -> Result<SelfReport, HostError> {
        self.look("health.ask", disk.id.as_str(), |state| {
            // One that does not answer has said nothing; that it is gone is noticed elsewhere.
            let there = state.disk(&disk.id).filter(|record| record.attached);
            Ok(there.map_or(SelfReport::Silent, |record| record.says.clone()))
        })
    }

    fn reported_errors(&self) -> Result<Vec<ReportedErrors>, HostError> {
        self.look("health.reported_errors", "", |state| {
            let there = state.disks.iter().filter(|record| record.attached);
            let reported = there.filter_map(|record| {
                let (count, last) = record.reported?;
                let node = record.device.node.clone();
                Some(ReportedErrors { node, count, last })
            });
            Ok(reported.collect())
        })
    }
}

impl MemoryHost {
    /// What a disk says of itself from now on.
    pub fn let_disk_say(&self, disk: &DiskId, says: SelfReport) {
        self.change_disk(disk, |record| record.says = says);
    }

    /// The kernel tells that so many more requests of a disk failed, now.
    pub fn let_requests_fail(&self, disk: &DiskId, count: u64) {
        let now = self.lock().clock;
        self.change_disk(disk, |record| {
            let before = record.reported.map_or(0, |(before, _)| before);
            record.reported = Some((before + count, now));
        });
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
