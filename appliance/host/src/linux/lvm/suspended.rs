//! Devices that a command of LVM's left suspended. Every I/O to them waits, and so do the clients of what lies there.
//!
//! A command suspends, commits and resumes. If it ends between these (killed; or the supervisor, and it with it), nobody
//! resumes: LVM does not look for that. Whether the commit was done decides which table is right, so LVM is asked to make
//! the devices as the group says; what it does not reach goes on with the table that it has.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::args::LvmCommand;
use super::{LinuxLvm, busy, file};
use crate::HostError;

const OPERATION: &str = "let suspended volumes go on";
/// How often it is looked whether the last command has ended.
const PACE: Duration = Duration::from_millis(100);
const SEPARATOR: char = '|';

impl LinuxLvm {
    pub(super) fn resume_suspended(&self, patience: Duration) -> Result<Vec<String>, HostError> {
        let begun = Instant::now();
        while let Some(process) = running()? {
            if begun.elapsed() >= patience {
                return Err(busy(OPERATION, &format!("LVM (process {process})")));
            }
            thread::sleep(PACE);
        }
        let found = self.suspended()?;
        if found.is_empty() {
            return Ok(found);
        }
        let groups: BTreeSet<String> = found.iter().filter_map(|name| group(name)).collect();
        for vg in groups {
            // That it fails is no reason to leave the others.
            if let Err(error) = self.run(OPERATION, &refresh(&vg)) {
                tracing::warn!(%error, vg, "its suspended volumes go on as they are");
            }
        }
        for name in self.suspended()? {
            self.run(OPERATION, &resume(&name))?;
        }
        Ok(found)
    }

    fn suspended(&self) -> Result<Vec<String>, HostError> {
        Ok(suspended(&self.run(OPERATION, &info())?.stdout))
    }
}

/// A process that is LVM, whoever started it. One that was killed counts until the kernel has let it go.
fn running() -> Result<Option<String>, HostError> {
    let failed = |source| file::io(OPERATION, "/proc", source);
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // One that ends meanwhile has none; all of LVM's commands are one program.
        let program = fs::read_link(entry.path().join("exe"));
        if program.is_ok_and(|program| program.file_name().is_some_and(|name| name == "lvm")) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn info() -> LvmCommand {
    LvmCommand::dmsetup([
        "info",
        "--columns",
        "--noheadings",
        "--separator",
        &SEPARATOR.to_string(),
        "-o",
        "name,uuid,suspended",
    ])
}

fn resume(name: &str) -> LvmCommand {
    LvmCommand::dmsetup(["resume", name])
}

fn refresh(vg: &str) -> LvmCommand {
    LvmCommand::new("vgchange", ["--refresh", vg])
}

/// The names of LVM's devices that are suspended, out of `NAME|UUID|Suspended`.
fn suspended(info: &str) -> Vec<String> {
    let line = |line: &str| {
        let (name, rest) = line.trim().split_once(SEPARATOR)?;
        let (uuid, state) = rest.split_once(SEPARATOR)?;
        (uuid.starts_with("LVM-") && state == "Suspended").then(|| name.to_owned())
    };
    info.lines().filter_map(line).collect()
}

/// The group in a device's name: up to the first hyphen that is not doubled.
fn group(name: &str) -> Option<String> {
    let mut rest = name;
    let mut group = String::new();
    loop {
        let (before, after) = rest.split_once('-')?;
        group.push_str(before);
        match after.strip_prefix('-') {
            Some(after) => {
                group.push('-');
                rest = after;
            }
            None => return Some(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lvm_s_own_devices_are_resumed() {
        let info = "p--1-data-tpool|LVM-abc-tpool|Active\np--1-vol--a|LVM-abcdef|Suspended\n\
                    cistern-integrity-serial-a|CRYPT-INTEGRITY-x|Suspended\nNo devices found\n";
        assert_eq!(suspended(info), ["p--1-vol--a"]);
        assert_eq!(group("p--1-vol--a").as_deref(), Some("p-1"));
        assert_eq!(group("tank-data_tdata").as_deref(), Some("tank"));
        assert_eq!(group("alone"), None);
        assert_eq!(resume("p--1-vol--a").args, ["resume", "p--1-vol--a"]);
        assert_eq!(refresh("p-1").args[2..], ["--refresh", "p-1"]);
    }
}
