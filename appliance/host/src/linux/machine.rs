//! The machine as a whole: load, memory, names, power.

use std::io;
use std::path::Path;

use cistern_model::{Bytes, Enrolment, Load, Memory, PowerAction};
use jiff::Timestamp;

use super::file;
use super::systemd::Systemd;
use crate::{HostError, Machine, MachineFacts};

const LIVE: &str = "/run/cistern/live";
/// All of the root's files have the time of what the image was made from.
const IMAGE: &str = "/etc/os-release";
const ENROLMENT: &str = "/run/cistern-gate/enrolment.json";

/// This machine.
#[derive(Debug)]
pub(super) struct LinuxMachine {
    systemd: Systemd,
}

impl LinuxMachine {
    pub(super) fn new(systemd: Systemd) -> Self {
        LinuxMachine { systemd }
    }
}

fn failed(operation: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
    HostError::Io {
        operation: operation.to_owned(),
        source: io::Error::other(error),
    }
}

impl Machine for LinuxMachine {
    fn facts(&self) -> Result<MachineFacts, HostError> {
        let operation = "read what the machine is";
        let kernel = file::read(operation, "/proc/sys/kernel/osrelease")?;
        let booted = booted(&file::read(operation, "/proc/stat")?);
        Ok(MachineFacts {
            kernel: kernel.trim().to_owned(),
            machine_id: file::read(operation, "/etc/machine-id")?.trim().to_owned(),
            booted: booted.ok_or_else(|| HostError::Unexpected {
                operation: operation.to_owned(),
                detail: "/proc/stat has no boot time".to_owned(),
            })?,
            live: Path::new(LIVE).exists(),
            built: file::modified(operation, IMAGE)?,
        })
    }

    fn hostname(&self) -> Result<String, HostError> {
        let name = file::read("read the host name", "/proc/sys/kernel/hostname")?;
        Ok(name.trim().to_owned())
    }

    fn load(&self) -> Result<Load, HostError> {
        let operation = "read the load";
        let load = sysinfo::System::load_average().map_err(|error| failed(operation, error.to_string()))?;
        let cpus = std::thread::available_parallelism().map_err(|error| failed(operation, error))?;
        Ok(Load {
            one: load.one,
            five: load.five,
            fifteen: load.fifteen,
            cpus: cpus.get().try_into().unwrap_or(u32::MAX),
        })
    }

    fn memory(&self) -> Result<Memory, HostError> {
        let operation = "read the memory";
        let mut system = sysinfo::System::new().map_err(|error| failed(operation, error.to_string()))?;
        system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
        Ok(Memory {
            total: Bytes::new(system.total_memory()),
            available: Bytes::new(system.available_memory()),
        })
    }

    fn enrolment(&self) -> Result<Option<Enrolment>, HostError> {
        let operation = "read how to enrol";
        let Some(text) = file::read_if_there(operation, ENROLMENT)? else {
            return Ok(None);
        };
        let enrolment = serde_json::from_str(&text).map_err(|error| HostError::Unexpected {
            operation: format!("{operation}: {ENROLMENT}"),
            detail: error.to_string(),
        })?;
        Ok(Some(enrolment))
    }

    fn power(&self, action: PowerAction) -> Result<(), HostError> {
        self.systemd.power(action)
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn clock_is_kept(&self) -> Result<bool, HostError> {
        self.systemd.clock_is_kept()
    }
}

/// The line `btime SECONDS` of /proc/stat.
fn booted(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_kernels_start_is_read() {
        assert_eq!(
            booted("cpu 1 2\nbtime 1795254300\n").map(|t| t.as_second()),
            Some(1_795_254_300)
        );
        assert_eq!(booted("cpu 1 2\n"), None);
    }
}
