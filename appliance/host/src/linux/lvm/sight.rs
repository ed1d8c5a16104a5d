//! Which devices LVM's commands see.
//!
//! LVM looks at everything below `/dev` before it does anything, and where a thousand volumes are active that is several
//! thousand nodes: it takes longer than all the rest of a command. Here it is given a directory of its own instead, with
//! links to what can carry a physical volume: all but the volumes of pools, which are never looked into, and devices that
//! it is to be kept from.
//!
//! Invariant: nobody else sees the directory's names. What a command is given and what it prints are paths below `/dev`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::args::{self, LvmCommand};
use crate::HostError;
use crate::linux::file;
use crate::linux::run::{Output, Run};

use super::limits;

/// Has LVM's writes on the disks before the next ones begin: what it commits is never half there (appliance/writethrough).
const WRITE_THROUGH: &str = "/usr/lib/cistern/libcistern_writethrough.so";
/// Laid out as `/dev` is.
const OWN: &str = "/run/cistern/seen-by-lvm/";
const DEV: &str = "/dev/";
const BLOCK: &str = "/sys/class/block";
const MAPPER: &str = "/dev/mapper";
/// How device mapper writes the beginning of a pool's volumes' names: `pool-` and its hexadecimal number, `-` doubled.
const POOLS: &str = "pool--";

/// What LVM sees.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// What no command is to see. Held while the links are made as they should be: one at a time.
    hidden: Mutex<BTreeSet<PathBuf>>,
}

impl Sight {
    /// Keeps all commands from these, and from no others, from now on.
    pub(super) fn hide(&self, nodes: BTreeSet<PathBuf>) {
        *self.hidden() = nodes;
    }

    /// What no command is to see.
    pub(super) fn hidden(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one of LVM's commands to its end, whatever that is.
    pub(super) fn finished(&self, run: &Run<'_>) -> Result<Output, HostError> {
        self.look(run.operation)?;
        let args = told(run.args);
        let output = Run { args: &args, ..*run }.finished()?;
        Ok(Output {
            status: output.status,
            stdout: shown(output.stdout),
            stderr: shown(output.stderr),
        })
    }

    /// Makes the links what they should be now.
    fn look(&self, operation: &str) -> Result<(), HostError> {
        let hidden = self.hidden();
        let wanted = seen(&names(operation, BLOCK)?, &names(operation, MAPPER)?, &hidden);
        let there = links(operation, Path::new(OWN))?;
        for gone in there.difference(&wanted) {
            let link = Path::new(OWN).join(gone);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file::io(operation, &link, error)),
                Ok(()) | Err(_) => {}
            }
        }
        for new in wanted.difference(&there) {
            let link = Path::new(OWN).join(new);
            let io = |source| file::io(operation, &link, source);
            link.parent().map_or(Ok(()), fs::create_dir_all).map_err(io)?;
            std::os::unix::fs::symlink(Path::new(DEV).join(new), &link).map_err(io)?;
        }
        Ok(())
    }
}

/// A command with its limit.
pub(super) fn prepared<'a>(operation: &'a str, command: &'a LvmCommand) -> Run<'a> {
    Run {
        operation,
        program: command.program,
        args: &command.args,
        limit: limits::of(command),
        preload: (args::are_lvms(&command.args)).then_some(WRITE_THROUGH),
    }
}

/// What can carry a physical volume, below `/dev`: of the kernel's block devices, which it names with `!` for `/`, and of
/// what device mapper shows.
fn seen(blocks: &BTreeSet<String>, mapped: &BTreeSet<String>, hidden: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let never = ["dm-", "loop", "ram", "zram", "sr", "fd", "nbd"];
    let blocks = blocks.iter().filter(|name| {
        let number = |prefix: &&str| {
            let rest = name.strip_prefix(*prefix);
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        !never.iter().any(number)
    });
    let mapped = mapped
        .iter()
        .filter(|name| *name != "control" && !name.starts_with(POOLS));
    let all = blocks
        .map(|name| PathBuf::from(name.replace('!', "/")))
        .chain(mapped.map(|name| Path::new("mapper").join(name)));
    all.filter(|name| !hidden.contains(&Path::new(DEV).join(name)))
        .collect()
}

/// Arguments as LVM is to be told them: it looks in its own directory, and knows devices by these names.
fn told(args: &[String]) -> Vec<String> {
    let one = |arg: &String| match arg.strip_prefix(DEV) {
        Some(name) => format!("{OWN}{name}"),
        None if arg.contains("devices{") => arg.replacen(
            "devices{",
            &format!("devices{{scan=[\"{}\"] ", OWN.trim_end_matches('/')),
            1,
        ),
        None => arg.clone(),
    };
    args.iter().map(one).collect()
}

/// What it printed, with the names that everybody else knows.
fn shown(text: String) -> String {
    match text.contains(OWN) {
        true => text.replace(OWN, DEV),
        false => text,
    }
}

/// The names in a directory; none if it is not there.
fn names(operation: &str, directory: &str) -> Result<BTreeSet<String>, HostError> {
    let io = |source| file::io(operation, directory, source);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(io)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(io)
}

/// The links below a directory, as paths from there.
fn links(operation: &str, root: &Path) -> Result<BTreeSet<PathBuf>, HostError> {
    let mut found = BTreeSet::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let directory = root.join(&below);
        for name in names(operation, &directory.to_string_lossy())? {
            let path = below.join(name);
            let kind = fs::symlink_metadata(root.join(&path));
            match kind.is_ok_and(|kind| kind.is_dir()) {
                true => todo.push(path),
                false => drop(found.insert(path)),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T: for<'a> From<&'a str> + Ord>(all: &[&str]) -> BTreeSet<T> {
        all.iter().map(|text| T::from(text)).collect()
    }

    #[test]
    fn what_can_carry_a_physical_volume_is_seen_and_no_volume() {
        let blocks = set::<String>(&[
            "sda",
            "sda1",
            "nvme0n1",
            "vdb",
            "sdb",
            "sdb1",
            "srv",
            "dm-0",
            "dm-1000",
            "loop0",
            "ram1",
            "zram0",
            "sr0",
            "fd0",
            "nbd3",
            "cciss!c0d0",
            "md127",
        ]);
        let mapped = set::<String>(&[
            "control",
            "pool--3be85bd0-vol--1",
            "pool--3be85bd0-data_tdata",
            "cistern-luks2-serial-D0",
            "mpatha",
            "debian-root",
        ]);
        // One that errs, and another path to a disk with its partition.
        let hidden = set::<PathBuf>(&["/dev/vdb", "/dev/mapper/mpatha", "/dev/sdb", "/dev/sdb1"]);
        let expected = set::<PathBuf>(&[
            "cciss/c0d0",
            "mapper/cistern-luks2-serial-D0",
            "mapper/debian-root",
            "md127",
            "nvme0n1",
            "sda",
            "sda1",
            "srv",
        ]);
        assert_eq!(seen(&blocks, &mapped, &hidden), expected);
    }

    #[test]
    fn lvm_is_told_its_own_names_and_shows_everybody_s() {
        let command = super::super::raid::extend_vg("p", Path::new("/dev/mapper/x"));
        let told = told(&command.args);
        assert!(
            told.contains(&"/run/cistern/seen-by-lvm/mapper/x".to_owned()),
            "{told:?}"
        );
        assert!(
            told[1].contains("devices{scan=[\"/run/cistern/seen-by-lvm\"] use_devicesfile=0"),
            "{told:?}"
        );
        assert_eq!(told.len(), command.args.len());
        let printed = "\"/run/cistern/seen-by-lvm/vda(64),/run/cistern/seen-by-lvm/mapper/x(0)\" /dev/vdb";
        assert_eq!(shown(printed.to_owned()), "\"/dev/vda(64),/dev/mapper/x(0)\" /dev/vdb");
        assert_eq!(shown("nothing".to_owned()), "nothing");
    }
}
