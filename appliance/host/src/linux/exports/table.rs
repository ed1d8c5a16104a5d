//! Lines of exports(5), written, and of the table that exportfs keeps, read. Pure.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cistern_model::Client;
use uuid::Uuid;

use super::super::mounts::unescape;
use crate::ExportEntry;

/// `mp`: while the filesystem is not mounted the client waits, and never sees what is under it.
const OPTIONS: &str = "rw,sync,no_subtree_check,no_root_squash,mp";

/// A file for exports.d. An entry without clients is left out: exports(5) has no way to export to nobody, and what is
/// not exported is open to nobody.
pub(super) fn render(entries: &[ExportEntry]) -> String {
    let mut text = String::new();
    for entry in served(entries) {
        text.push_str(&escape(&entry.path));
        for client in &entry.clients {
            text.push_str(&format!(" {client}({OPTIONS},fsid={})", entry.fsid));
        }
        text.push('\n');
    }
    text
}

/// The entries in the form in which the table reads back.
pub(super) fn served(entries: &[ExportEntry]) -> Vec<ExportEntry> {
    let mut served: Vec<ExportEntry> = entries
        .iter()
        .filter(|entry| !entry.clients.is_empty())
        .cloned()
        .collect();
    for entry in &mut served {
        entry.clients.sort();
        entry.clients.dedup();
    }
    served.sort();
    served
}

/// Reads the table: `PATH TAB CLIENT(OPTIONS)` a line, one line a client. Lines that are not ours, with no UUID or a
/// client that is no address, are left out.
pub(super) fn parse(etab: &str) -> Vec<ExportEntry> {
    let mut entries: BTreeMap<(PathBuf, Uuid), Vec<Client>> = BTreeMap::new();
    for line in etab.lines() {
        match entry(line) {
            Some((path, fsid, client)) => entries.entry((path, fsid)).or_default().push(client),
            None => tracing::debug!(line, "an export that is not ours"),
        }
    }
    let entries: Vec<ExportEntry> = entries
        .into_iter()
        .map(|((path, fsid), clients)| ExportEntry { path, fsid, clients })
        .collect();
    served(&entries)
}

fn entry(line: &str) -> Option<(PathBuf, Uuid, Client)> {
    let (path, rest) = line.split_once('\t')?;
    let (client, options) = rest.trim_end().strip_suffix(')')?.split_once('(')?;
    let fsid = options.split(',').find_map(|option| option.strip_prefix("fsid="))?;
    Some((unescape(path), fsid.parse().ok()?, client.parse().ok()?))
}

fn escape(path: &Path) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"');
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if plain(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("\\{byte:03o}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, fsid: u128, clients: &[&str]) -> ExportEntry {
        ExportEntry {
            path: path.into(),
            fsid: Uuid::from_u128(fsid),
            clients: clients.iter().map(|c| c.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn an_export_without_clients_is_to_nobody_and_so_left_out() {
        let entries = [
            entry("/volumes/vol-2", 2, &["10.0.0.7", "fd00::/64"]),
            entry("/volumes/vol-1", 1, &[]),
        ];
        let options = "rw,sync,no_subtree_check,no_root_squash,mp,fsid=00000000-0000-0000-0000-000000000002";
        assert_eq!(
            render(&entries),
            format!("/volumes/vol-2 10.0.0.7({options}) fd00::/64({options})\n")
        );
    }

    #[test]
    fn the_table_reads_back_with_the_clients_of_a_path_together() {
        let found = parse(crate::linux::fixture(include_str!("../fixtures/etab.txt")));
        let (plain, odd) = (
            0x0f8fad5b_d9cb_469f_a165_70867728950e,
            0x1f8fad5b_d9cb_469f_a165_70867728950e,
        );
        assert_eq!(
            found,
            served(&[
                entry("/volumes/no such", odd, &["10.0.0.9"]),
                entry(
                    "/volumes/plain",
                    plain,
                    &["10.0.0.7", "10.0.1.0/24", "fd00::7", "fd00::/64"]
                ),
            ])
        );
    }

    #[test]
    fn odd_characters_of_a_path_are_escaped_as_exportfs_reads_them() {
        assert_eq!(
            escape(Path::new("/a b\\#\t\"é")),
            "/a\\040b\\134\\043\\011\\042\\303\\251"
        );
        assert_eq!(unescape(&escape(Path::new("/a b\\#\té"))), Path::new("/a b\\#\té"));
    }
}
