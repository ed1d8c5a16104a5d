//! The table of exports: lines of exports(5), written, and of the table that exportfs keeps, written and read. Pure.
//!
//! Invariant: both texts say the same; the second reads back as what it was written from.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cistern_model::{Client, Squash};
use uuid::Uuid;

use super::super::mounts::unescape;
use crate::{ExportEntry, ExportUsers};

/// What is exported, by path, each with its lines: to write all of a table of thousands costs no more than to join them.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(BTreeMap<PathBuf, Lines>);

#[derive(Debug, Clone)]
struct Lines {
    entry: ExportEntry,
    exports: String,
    etab: String,
}

/// What changed between two tables, by path: what was exported there and what is.
pub(super) type Changes = BTreeMap<PathBuf, (Option<ExportEntry>, Option<ExportEntry>)>;

impl Table {
    /// The entries in their order. One without clients is left out: exports(5) has no way to export to nobody, and what
    /// is not exported is open to nobody.
    pub(super) fn new(entries: &[ExportEntry]) -> Table {
        let mut table = Table::default();
        entries.iter().for_each(|entry| table.set(entry));
        table
    }

    /// Makes one entry this.
    pub(super) fn set(&mut self, entry: &ExportEntry) {
        let mut entry = entry.clone();
        entry.clients.sort();
        entry.clients.dedup();
        if entry.clients.is_empty() {
            self.0.remove(&entry.path);
            return;
        }
        let lines = Lines {
            exports: exports_line(&entry),
            etab: etab_lines(&entry),
            entry,
        };
        self.0.insert(lines.entry.path.clone(), lines);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.0.remove(path);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &ExportEntry> {
        self.0.values().map(|lines| &lines.entry)
    }

    /// All addresses and networks that are anywhere in it.
    pub(super) fn peers(&self) -> BTreeSet<Client> {
        let clients = self.entries().flat_map(|entry| &entry.clients);
        clients.map(|client| client.with_read_only(false)).collect()
    }

    /// A file for exports.d.
    pub(super) fn exports(&self) -> String {
        self.0.values().map(|lines| lines.exports.as_str()).collect()
    }

    /// exportfs' table.
    pub(super) fn etab(&self) -> String {
        self.0.values().map(|lines| lines.etab.as_str()).collect()
    }

    pub(super) fn changes(&self, new: &Table) -> Changes {
        let paths: BTreeSet<&PathBuf> = self.0.keys().chain(new.0.keys()).collect();
        let of = |table: &Table, path| table.0.get(path).map(|lines| lines.entry.clone());
        let pairs = paths
            .into_iter()
            .map(|path| (path.clone(), (of(self, path), of(new, path))));
        pairs.filter(|(_, (old, new))| old != new).collect()
    }
}

/// `mp`: while the filesystem is not mounted the client waits, and never sees what is under it.
fn exports_line(entry: &ExportEntry) -> String {
    let users = &entry.users;
    let squash = match users.squash {
        Squash::None => "no_root_squash",
        Squash::Root => "root_squash",
        Squash::All => "root_squash,all_squash",
    };
    let mut text = escape(&entry.path);
    for client in &entry.clients {
        text.push_str(&format!(
            " {}({},sync,no_subtree_check,{squash},anonuid={},anongid={},mp,fsid={})",
            client.with_read_only(false),
            access(client),
            users.anonymous_uid,
            users.anonymous_gid,
            entry.fsid
        ));
    }
    text.push('\n');
    text
}

/// As exportfs of nfs-utils 2.8.3 writes them, one for each client.
fn etab_lines(entry: &ExportEntry) -> String {
    let users = &entry.users;
    let squash = match users.squash {
        Squash::None => "no_root_squash,no_all_squash",
        Squash::Root => "root_squash,no_all_squash",
        Squash::All => "root_squash,all_squash",
    };
    let path = escape(&entry.path);
    let line = |client: &Client| {
        let access = access(client);
        format!(
            "{path}\t{}({access},sync,wdelay,hide,nocrossmnt,secure,{squash},no_subtree_check,secure_locks,acl,no_pnfs,\
             fsid={},mountpoint,anonuid={},anongid={},sec=sys,{access},secure,{squash})\n",
            client.with_read_only(false),
            entry.fsid,
            users.anonymous_uid,
            users.anonymous_gid,
        )
    };
    entry.clients.iter().map(line).collect()
}

fn access(client: &Client) -> &'static str {
    if client.is_read_only() { "ro" } else { "rw" }
}

/// Reads exportfs' table: `PATH TAB CLIENT(OPTIONS)` a line, one line a client. Lines that are not ours, with no UUID or a
/// client that is no address, are left out.
pub(super) fn parse(etab: &str) -> Table {
    let mut entries: BTreeMap<(PathBuf, Uuid, ExportUsers), Vec<Client>> = BTreeMap::new();
    for line in etab.lines() {
        match entry(line) {
            Some((key, client)) => entries.entry(key).or_default().push(client),
            None => tracing::debug!(line, "an export that is not ours"),
        }
    }
    let mut table = Table::default();
    for ((path, fsid, users), clients) in entries {
        table.set(&ExportEntry {
            path,
            fsid,
            clients,
            users,
        });
    }
    table
}

fn entry(line: &str) -> Option<((PathBuf, Uuid, ExportUsers), Client)> {
    let (path, rest) = line.split_once('\t')?;
    let (client, options) = rest.trim_end().strip_suffix(')')?.split_once('(')?;
    let options: Vec<&str> = options.split(',').collect();
    let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
    let says = |word: &str| options.contains(&word);
    let users = ExportUsers {
        squash: match (says("all_squash"), says("root_squash")) {
            (true, _) => Squash::All,
            (false, true) => Squash::Root,
            (false, false) => Squash::None,
        },
        anonymous_uid: value("anonuid=")?.parse().ok()?,
        anonymous_gid: value("anongid=")?.parse().ok()?,
    };
    let client: Client = client.parse().ok()?;
    let key = (unescape(path), value("fsid=")?.parse().ok()?, users);
    Some((key, client.with_read_only(says("ro"))))
}

/// A word with the kernel's escapes: a backslash and three octal digits.
pub(super) fn escape(path: &Path) -> String {
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
            users: ExportUsers::default(),
        }
    }

    fn squashed(squash: Squash) -> ExportEntry {
        let users = ExportUsers {
            squash,
            anonymous_uid: 1000,
            anonymous_gid: 100,
        };
        let entry = entry("/volumes/vol-1", 1, &["10.0.0.0/24:ro", "10.0.0.7"]);
        ExportEntry { users, ..entry }
    }

    #[test]
    fn an_export_without_clients_is_to_nobody_and_so_left_out() {
        let entries = [
            entry("/volumes/vol-2", 2, &["fd00::/64", "10.0.0.7:ro"]),
            entry("/volumes/vol-1", 1, &[]),
        ];
        let options = "sync,no_subtree_check,no_root_squash,anonuid=65534,anongid=65534,mp,\
                       fsid=00000000-0000-0000-0000-000000000002";
        assert_eq!(
            Table::new(&entries).exports(),
            format!("/volumes/vol-2 10.0.0.7(ro,{options}) fd00::/64(rw,{options})\n")
        );
    }

    #[test]
    fn the_table_reads_back_with_the_clients_of_a_path_together() {
        let fixture = crate::linux::fixture(include_str!("../fixtures/etab.txt"));
        let (plain, odd) = (
            0x0f8fad5b_d9cb_469f_a165_70867728950e,
            0x1f8fad5b_d9cb_469f_a165_70867728950e,
        );
        let expected = [
            entry("/volumes/no such", odd, &["10.0.0.9"]),
            entry(
                "/volumes/plain",
                plain,
                &["10.0.0.7", "10.0.1.0/24", "fd00::7", "fd00::/64"],
            ),
        ];
        let found = parse(fixture);
        assert_eq!(
            found.entries().collect::<Vec<_>>(),
            Table::new(&expected).entries().collect::<Vec<_>>()
        );
        // What we write is what exportfs writes, but for the order of lines.
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&found.etab()), sorted(fixture));
    }

    #[test]
    fn options_survive_the_table() {
        for squash in Squash::ALL {
            let table = Table::new(&[squashed(*squash)]);
            let back = parse(&table.etab());
            assert!(table.changes(&back).is_empty(), "{back:?}");
        }
        let text = Table::new(&[squashed(Squash::All)]).exports();
        assert!(
            text.contains("10.0.0.0/24(ro,") && text.contains("10.0.0.7(rw,"),
            "{text}"
        );
        assert!(
            text.contains(",root_squash,all_squash,anonuid=1000,anongid=100,"),
            "{text}"
        );
    }

    #[test]
    fn what_changed_is_told_by_path() {
        let (one, two) = (entry("/v/1", 1, &["10.0.0.1"]), entry("/v/2", 2, &["10.0.0.1"]));
        let old = Table::new(&[one.clone(), two.clone()]);
        let mut new = old.clone();
        assert!(old.changes(&new).is_empty());
        new.set(&entry("/v/2", 2, &["10.0.0.1", "10.0.0.2"]));
        assert_eq!(old.changes(&new).keys().collect::<Vec<_>>(), [Path::new("/v/2")]);
        new.set(&entry("/v/2", 2, &[]));
        assert_eq!(old.changes(&new), Changes::from([("/v/2".into(), (Some(two), None))]));
        new.remove(Path::new("/v/1"));
        assert_eq!((new.exports(), new.etab()), (String::new(), String::new()));
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
