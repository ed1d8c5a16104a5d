//! The clients of the kernel's NFS server and what they hold: /proc/fs/nfsd/clients. Pure but for the reading.
//!
//! Invariant: what a client could name as it likes, its files and itself, is text in no particular encoding, and keeps nothing from being
//! read; of a client of which something could not be read it is not told that it holds nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use cistern_model::HeldState;

use super::super::{file, mounts};
use crate::{HeldThere, HostError, NfsSession};

const CLIENTS: &str = "/proc/fs/nfsd/clients";

/// All of them. One that goes while it is read is left out.
pub(super) fn all() -> Result<Vec<NfsSession>, HostError> {
    let operation = "list the NFS server's clients";
    let directory = match fs::read_dir(CLIENTS) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(file::io(operation, CLIENTS, source)),
    };
    let mounts: BTreeMap<String, PathBuf> = mounts::all()?
        .into_iter()
        .map(|mount| (mount.device, mount.entry.target))
        .collect();
    let mut sessions = Vec::new();
    for entry in directory {
        let entry = entry.map_err(|source| file::io(operation, CLIENTS, source))?;
        // Without its address it might be anybody's.
        let Some(info) = read(operation, &entry.path().join("info"))? else {
            continue;
        };
        let address = address(&info).ok_or_else(|| HostError::Unexpected {
            operation: operation.to_owned(),
            detail: format!("no address in {info:?}"),
        })?;
        let held = match read(operation, &entry.path().join("states")) {
            Ok(Some(states)) => Some(held(&states, &mounts)),
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, %address, "what an NFS client holds cannot be read");
                None
            }
        };
        sessions.push(NfsSession {
            id: entry.file_name().to_string_lossy().into_owned(),
            address,
            held,
        });
    }
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(sessions)
}

/// Ends one. Returns when what it was just asking for is answered.
pub(super) fn expire(session: &str) -> Result<(), HostError> {
    let operation = format!("end the NFS session {session}");
    let ctl = Path::new(CLIENTS).join(session).join("ctl");
    match file::tell(&operation, &ctl, "expire\n") {
        Err(HostError::Io { source, .. }) if is_gone(&source) => Ok(()),
        outcome => outcome,
    }
}

/// The text of a client's file, whatever bytes the client had put into it; none if the client is gone.
fn read(operation: &str, path: &Path) -> Result<Option<String>, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(file::io(operation, path, source)),
    }
}

/// A client that ends takes its directory along; a file of it that is open then says ENXIO.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENXIO)
}

/// From `address: "10.77.0.2:812"` or `address: "[fd00::2]:812"`.
fn address(info: &str) -> Option<IpAddr> {
    let line = info.lines().find_map(|line| line.strip_prefix("address: "))?;
    let address: SocketAddr = line.trim().trim_matches('"').parse().ok()?;
    Some(address.ip().to_canonical())
}

/// Sums up lines as `- 0x...: { type: lock, superblock: "fe:10:131", filename: "a", owner: "..." }` by filesystem. Those on
/// no filesystem that is mounted, and those that are revoked already, are left out.
fn held(states: &str, mounts: &BTreeMap<String, PathBuf>) -> Vec<HeldThere> {
    let mut held: BTreeMap<&Path, HeldState> = BTreeMap::new();
    for line in states.lines() {
        let Some((kind, device)) = state(line) else { continue };
        let Some(path) = mounts.get(&device) else { continue };
        let sum = held.entry(path).or_default();
        match kind {
            "open" => sum.opens += 1,
            "lock" => sum.locks += 1,
            _ => sum.delegations += 1,
        }
    }
    let there = held.into_iter().map(|(path, held)| HeldThere {
        path: path.to_owned(),
        held,
    });
    there.collect()
}

/// Its type, and its device as mountinfo writes it: there in decimal, here in hexadecimal.
fn state(line: &str) -> Option<(&str, String)> {
    let (_, fields) = line.strip_prefix("- ")?.split_once(": { type: ")?;
    let (kind, rest) = fields.split_once(',')?;
    // What follows the name is the client's own text; the superblock stands before it.
    let before_name = rest.split_once(", filename:").map_or(rest, |(before, _)| before);
    if before_name.contains("revoked") {
        return None;
    }
    let superblock = before_name.split_once("superblock: \"")?.1.split('"').next()?;
    let mut parts = superblock.split(':');
    let (major, minor) = (parts.next()?, parts.next()?);
    let number = |hex: &str| u32::from_str_radix(hex, 16).ok();
    Some((kind, format!("{}:{}", number(major)?, number(minor)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fixture;

    #[test]
    fn what_a_session_holds_is_summed_up_by_filesystem() {
        let mounts = [("253:16", "/volumes/a"), ("253:32", "/volumes/b"), ("0:2", "/")];
        let mounts: BTreeMap<String, PathBuf> = mounts.map(|(device, path)| (device.to_owned(), path.into())).into();
        let held = held(fixture(include_str!("../fixtures/nfsd-states.txt")), &mounts);
        let there = |path: &str, opens, locks, delegations| HeldThere {
            path: path.into(),
            held: HeldState {
                opens,
                locks,
                delegations,
            },
        };
        assert_eq!(held, [there("/volumes/a", 1, 1, 0), there("/volumes/b", 2, 0, 1)]);
    }

    #[test]
    fn a_name_that_looks_like_a_state_is_not_taken_for_one() {
        let line = r#"- 0x01: { type: open, access: rw, deny: --, superblock: "fe:0c:7", filename: "/x, superblock: \"fd:10:1\" revoked", owner: "" }"#;
        assert_eq!(state(line), Some(("open", "254:12".to_owned())));
        let line = r#"- 0x01: { type: lock, admin-revoked, superblock: "fe:0c:7", filename: "/x", owner: "" }"#;
        assert_eq!(state(line), None);
    }

    #[test]
    fn a_name_in_another_encoding_keeps_nothing_from_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("states");
        let states = b"- 0x01: { type: open, access: r-, deny: --, superblock: \"fd:10:133\", filename: \"/caf\xe9\", owner: \"\" }\n\
            - 0x02: { type: lock, superblock: \"fd:10:133\", filename: \"/b\", owner: \"\" }\n";
        fs::write(&path, states).unwrap();
        let mounts = BTreeMap::from([("253:16".to_owned(), PathBuf::from("/volumes/a"))]);
        let states = read("test", &path).unwrap().unwrap();
        let expected = HeldState {
            opens: 1,
            locks: 1,
            delegations: 0,
        };
        assert_eq!(held(&states, &mounts)[0].held, expected);
        assert_eq!(read("test", &folder.path().join("gone")).unwrap(), None);
    }

    #[test]
    fn a_session_s_address_is_read_in_both_families() {
        let found = address(fixture(include_str!("../fixtures/nfsd-info.txt")));
        assert_eq!(found, "10.77.0.2".parse().ok());
        assert_eq!(address("address: \"[fd00::2]:812\"\n"), "fd00::2".parse().ok());
        assert_eq!(address("address: \"[::ffff:10.0.0.1]:812\"\n"), "10.0.0.1".parse().ok());
        assert_eq!(address("clientid: 0x1\n"), None);
    }
}
