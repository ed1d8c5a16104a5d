//! What disks say of themselves, by way of smartctl, which knows ATA, SCSI and NVMe.
//!
//! Invariant: a disk that does not turn is not woken; what a disk does not say is not guessed.

use std::path::Path;
use std::time::Duration;

use cistern_model::DiskTransport;
use serde::Deserialize;

use super::kernel_log::KernelLog;
use super::run::Run;
use crate::{BlockDevice, Health, HostError, ReportedErrors, SelfReport};

/// A disk in trouble takes its time over a command; the kernel gives up after 30 s.
const LIMIT: Duration = Duration::from_secs(40);
/// What smartctl is told to end with for a disk that does not turn. Its own answers are sets of bits, among which this one,
/// "bad arguments and all else that can be the matter", does not occur.
const ASLEEP: i32 = 255;

/// Of smartctl's exit status: it could not make out the arguments, open the device, or have a command answered.
const NOT_ASKED: i32 = 0b111;

/// smartctl, and the kernel's log.
#[derive(Debug, Default)]
pub(super) struct LinuxHealth {
    log: KernelLog,
}

impl Health for LinuxHealth {
    fn reported_errors(&self) -> Result<Vec<ReportedErrors>, HostError> {
        self.log.reported_errors()
    }

    fn ask(&self, disk: &BlockDevice) -> Result<SelfReport, HostError> {
        // These have nothing of the kind, and smartctl does not know them; of a part its disk tells.
        if disk.transport == DiskTransport::Virtio || disk.free.is_some() {
            return Ok(SelfReport::Silent);
        }
        let operation = format!("ask disk {} how it is", disk.id);
        let args = arguments(&disk.node);
        let run = Run {
            operation: &operation,
            program: "smartctl",
            args: &args,
            limit: LIMIT,
            preload: None,
        };
        let output = run.finished()?;
        match output.status.code() {
            Some(ASLEEP) => Ok(SelfReport::Asleep),
            Some(_) | None => report(&output.stdout).map_err(|detail| HostError::Unexpected { operation, detail }),
        }
    }
}

fn arguments(node: &Path) -> Vec<String> {
    let sleeping = format!("--nocheck=standby,{ASLEEP}");
    let node = node.display().to_string();
    ["--json=c", &sleeping, "--info", "--health", "--attributes", &node]
        .map(str::to_owned)
        .to_vec()
}

/// What smartctl prints, as far as it is looked at. Absent is what a disk has not, or did not say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Printed {
    smartctl: Smartctl,
    smart_status: Option<Status>,
    ata_smart_attributes: Attributes,
    nvme_smart_health_information_log: Option<NvmeLog>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Smartctl {
    exit_status: i32,
}

#[derive(Debug, Deserialize)]
struct Status {
    passed: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    table: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    id: u32,
    name: String,
    #[serde(default)]
    when_failed: String,
    raw: Raw,
}

#[derive(Debug, Deserialize)]
struct Raw {
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NvmeLog {
    critical_warning: u32,
    percentage_used: u32,
    available_spare: u32,
    available_spare_threshold: u32,
    media_errors: u64,
}

/// The bits of an NVMe disk's critical warning; NVMe Base Specification, SMART / Health Information log.
const CRITICAL: [(u32, &str); 6] = [
    (1 << 0, "it has hardly any spare blocks left"),
    (1 << 1, "it is too hot or too cold"),
    (1 << 2, "it gave too many errors to be relied on"),
    (1 << 3, "it takes no more writes"),
    (1 << 4, "what keeps its cache over a power cut has failed"),
    (1 << 5, "its persistent memory is not reliable"),
];

fn report(stdout: &str) -> Result<SelfReport, String> {
    let printed: Printed = serde_json::from_str(stdout).map_err(|error| error.to_string())?;
    let asked = printed.smartctl.exit_status & NOT_ASKED == 0;
    let says_nothing = printed.smart_status.is_none()
        && printed.ata_smart_attributes.table.is_empty()
        && printed.nvme_smart_health_information_log.is_none();
    if says_nothing {
        // Either it has no such thing, or it did not answer: then it errs, and that is noticed elsewhere.
        return Ok(SelfReport::Silent);
    }
    let mut troubles = Vec::new();
    if printed.smart_status.is_some_and(|status| !status.passed) {
        troubles.push("it says that it will fail".to_owned());
    }
    if !asked {
        tracing::debug!(status = printed.smartctl.exit_status, "a disk answered only in part");
    }
    troubles.extend(printed.ata_smart_attributes.table.iter().filter_map(Attribute::trouble));
    troubles.extend(
        printed
            .nvme_smart_health_information_log
            .iter()
            .flat_map(NvmeLog::troubles),
    );
    Ok(SelfReport::Told(troubles))
}

impl Attribute {
    /// Two counts mean the same with every maker: sectors that could not be read and wait to be written anew (197), and
    /// sectors that can be neither read nor written (198). For all others the disk's own threshold is the judge.
    fn trouble(&self) -> Option<String> {
        // Some makers keep other counts in the upper bytes.
        let count = self.raw.value & 0xffff_ffff;
        match self.id {
            197 if count > 0 => Some(format!("it has {count} sectors that cannot be read")),
            198 if count > 0 => Some(format!("it has {count} sectors that are lost")),
            _ if self.when_failed == "now" => Some(format!("its {} is below what it may be", self.name)),
            _ => None,
        }
    }
}

impl NvmeLog {
    fn troubles(&self) -> Vec<String> {
        let warned = CRITICAL.iter().filter(|(bit, _)| self.critical_warning & bit != 0);
        let mut troubles: Vec<String> = warned.map(|(_, words)| (*words).to_owned()).collect();
        if self.percentage_used >= 100 {
            troubles.push(format!("{} % of its life is used up", self.percentage_used));
        }
        if self.available_spare < self.available_spare_threshold && self.critical_warning & 1 == 0 {
            troubles.push(CRITICAL[0].1.to_owned());
        }
        if self.media_errors > 0 {
            troubles.push(format!("it could not keep {} pieces of data whole", self.media_errors));
        }
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fixture;

    const ATA: &str = include_str!("fixtures/smartctl-ata-failing.json");
    const WELL: &str = include_str!("fixtures/smartctl-ata.json");
    const SCSI: &str = include_str!("fixtures/smartctl-scsi.json");
    const NVME: &str = include_str!("fixtures/smartctl-nvme.json");
    const NONE: &str = include_str!("fixtures/smartctl-no-smart.json");

    #[test]
    fn a_disk_that_does_not_turn_is_not_woken() {
        let arguments = arguments(Path::new("/dev/sda"));
        assert_eq!(
            arguments.join(" "),
            "--json=c --nocheck=standby,255 --info --health --attributes /dev/sda"
        );
    }

    #[test]
    fn what_a_failing_disk_says_is_told_in_words() {
        let told = report(fixture(ATA)).unwrap();
        let expected = [
            "it says that it will fail",
            "its Reallocated_Sector_Ct is below what it may be",
            "it has 16 sectors that cannot be read",
            "it has 4 sectors that are lost",
        ];
        assert_eq!(told, SelfReport::Told(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_disk_that_is_well_has_no_trouble_and_one_without_smart_says_nothing() {
        for well in [WELL, NVME] {
            assert_eq!(report(fixture(well)), Ok(SelfReport::Told(Vec::new())));
        }
        for silent in [NONE, SCSI] {
            assert_eq!(report(fixture(silent)), Ok(SelfReport::Silent));
        }
        assert!(report("Segmentation fault").is_err());
    }

    #[test]
    fn each_warning_of_an_nvme_disk_has_its_words() {
        let log = |critical_warning| NvmeLog {
            critical_warning,
            ..NvmeLog::default()
        };
        for (bit, words) in CRITICAL {
            assert_eq!(log(bit).troubles(), [words]);
        }
        let worn = NvmeLog {
            percentage_used: 103,
            media_errors: 2,
            available_spare: 3,
            available_spare_threshold: 10,
            ..NvmeLog::default()
        };
        assert_eq!(worn.troubles().len(), 3);
        assert!(
            NvmeLog {
                percentage_used: 99,
                ..NvmeLog::default()
            }
            .troubles()
            .is_empty()
        );
    }
}
