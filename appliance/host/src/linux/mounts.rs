//! Reads /proc/self/mountinfo, proc_pid_mountinfo(5). Pure but for the reading.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::file;
use crate::{HostError, MountEntry};

/// Another name of /dev, by which volumes are mounted. At each change of any mount systemd looks at the device of every mount
/// whose source is below /dev, which with hundreds of volumes takes longer than all else that making one more needs; what has
/// its source elsewhere it leaves alone.
const DEVICES: &str = "/run/cistern/dev";

/// A node by the name by which it is mounted.
pub(super) fn source(node: &Path) -> io::Result<PathBuf> {
    let Ok(below) = node.strip_prefix("/dev") else {
        return Ok(node.to_owned());
    };
    let devices = Path::new(DEVICES);
    if !devices.is_symlink() {
        devices.parent().map_or(Ok(()), fs::create_dir_all)?;
        match symlink("/dev", devices) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(devices.join(below))
}

/// A node by its own name, whatever it was mounted by.
fn node(source: PathBuf) -> PathBuf {
    match source.strip_prefix(DEVICES) {
        Ok(below) => Path::new("/dev").join(below),
        Err(_) => source,
    }
}

/// A mount with the device number that it lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `MAJOR:MINOR`, the name in /sys/dev/block.
    pub(super) device: String,
    /// The rest.
    pub(super) entry: MountEntry,
}

/// All mounts, in the order in which they were made.
pub(super) fn all() -> Result<Vec<Mount>, HostError> {
    let operation = "list mounts";
    let text = file::read(operation, "/proc/self/mountinfo")?;
    parse(&text).map_err(|detail| HostError::Unexpected {
        operation: operation.to_owned(),
        detail,
    })
}

fn parse(text: &str) -> Result<Vec<Mount>, String> {
    text.lines()
        .map(|line| mount(line).ok_or_else(|| format!("mountinfo: {line:?}")))
        .collect()
}

/// `ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [FIELDS...] - KIND SOURCE OPTIONS`
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let (device, _root, target) = (before.next()?, before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, source) = (after.next()?, after.next()?);
    Some(Mount {
        device: device.to_owned(),
        entry: MountEntry {
            source: node(unescape(source)),
            target: unescape(target),
            kind: kind.to_owned(),
        },
    })
}

/// Undoes the kernel's escapes: a backslash and three octal digits. exportfs writes its paths the same way.
pub(super) fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(digits) => {
                let value = digits
                    .iter()
                    .fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push((value & 0xff) as u8);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_spaces() {
        let mounts = parse(crate::linux::fixture(include_str!("fixtures/mountinfo.txt"))).unwrap();
        let found: Vec<(&str, &str, &str, &str)> = mounts
            .iter()
            .map(|m| {
                let (source, target) = (m.entry.source.to_str().unwrap(), m.entry.target.to_str().unwrap());
                (m.device.as_str(), source, target, m.entry.kind.as_str())
            })
            .filter(|(_, _, target, _)| target.starts_with("/volumes") || *target == "/")
            .collect();
        assert_eq!(
            found,
            [
                ("0:2", "rootfs", "/", "rootfs"),
                ("254:12", "/dev/tankvg/vol-1", "/volumes/vol-1", "xfs"),
                ("253:64", "/dev/vde", "/volumes/with space\tand\\", "xfs"),
            ]
        );
    }

    #[test]
    fn what_was_mounted_by_another_name_is_told_by_its_own() {
        let mounts = parse("9 1 254:12 / /volumes/v rw - xfs /run/cistern/dev/tankvg/v rw\n").unwrap();
        assert_eq!(mounts[0].entry.source, Path::new("/dev/tankvg/v"));
    }

    #[test]
    fn a_line_that_is_no_mount_is_an_error() {
        assert!(parse("22 28 0:20 / /sys rw\n").is_err());
    }
}
