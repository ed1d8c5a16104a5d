//! How volumes, snapshots and what lies in the trash look to people.

use cistern_model::{
    FenceMethod, FenceReport, HeldState, LiveClient, PublishedNode, Snapshot, Squash, TrashedVolume, Volume,
    VolumeOptions,
};

use super::{NONE, join, or_none, time};
use crate::output::{Rows, fields};

pub(crate) fn snapshots(snapshots: &[Snapshot]) -> Rows {
    Rows::new(
        [
            "VOLUME",
            "SNAPSHOT",
            "POOL",
            "SIZE",
            "EXCLUSIVE",
            "CREATED",
            "MADE",
            "STATE",
            "ID",
        ],
        snapshots.iter().map(|s| {
            [
                s.volume_name.to_string(),
                s.name.to_string(),
                s.pool_name.to_string(),
                s.size.to_string(),
                or_none(s.exclusive),
                time(s.created),
                made(s),
                s.state.to_string(),
                s.id.to_string(),
            ]
        }),
    )
}

fn made(s: &Snapshot) -> String {
    if s.scheduled.is_empty() {
        "by hand".to_owned()
    } else {
        join(&s.scheduled, ", ")
    }
}

pub(crate) fn snapshot(s: &Snapshot) -> String {
    let gone = if s.volume_exists { "" } else { ", which is gone" };
    let mut pairs = vec![
        ("snapshot", s.name.to_string()),
        ("id", s.id.to_string()),
        ("of", format!("{} ({}){gone}", s.volume_name, s.volume)),
        ("pool", s.pool_name.to_string()),
        ("size", format!("{} ({} bytes)", s.size, s.size.get())),
        ("refers to", or_none(s.referenced)),
        ("exclusive", or_none(s.exclusive)),
        ("state", s.state.to_string()),
    ];
    pairs.extend(s.reason.as_ref().map(|reason| ("reason", reason.clone())));
    pairs.extend([
        ("made", made(s)),
        ("created", time(s.created)),
        ("owner", s.owner.to_string()),
        ("clients", join(&s.clients, "\n")),
    ]);
    pairs.extend(s.group.map(|group| ("group", group.to_string())));
    let mut text = fields(&pairs);
    if let Some(export) = &s.export {
        text.push_str(&format!(
            "\n\nmount it on a client, read-only, with:\n  mount -t nfs -o vers=4.2,ro ADDRESS:{} /mnt",
            export.path
        ));
    }
    text
}

pub(crate) fn trash(volumes: &[TrashedVolume]) -> Rows {
    Rows::new(
        ["VOLUME", "POOL", "SIZE", "DELETED", "GONE FOR GOOD", "ID"],
        volumes.iter().map(|v| {
            [
                v.name.to_string(),
                v.pool_name.to_string(),
                v.size.to_string(),
                time(v.deleted),
                time(v.purged),
                v.id.to_string(),
            ]
        }),
    )
}

pub(crate) fn volumes(volumes: &[Volume]) -> Rows {
    Rows::new(
        ["VOLUME", "POOL", "SIZE", "USED", "STATE", "CLIENTS", "ID"],
        volumes.iter().map(|v| {
            [
                v.name.to_string(),
                v.pool_name.to_string(),
                v.size.to_string(),
                or_none(v.used),
                v.state.to_string(),
                join(&v.clients, ", "),
                v.id.to_string(),
            ]
        }),
    )
}

/// `host` is the appliance's address where it is known.
pub(crate) fn volume(v: &Volume, host: Option<&str>) -> String {
    let mut pairs = vec![
        ("volume", v.name.to_string()),
        ("id", v.id.to_string()),
        ("pool", v.pool_name.to_string()),
        ("size", format!("{} ({} bytes)", v.size, v.size.get())),
        ("used", or_none(v.used)),
        (
            "files",
            v.inodes
                .map_or_else(|| NONE.to_owned(), |i| format!("{} of {}", i.used, i.total)),
        ),
        ("state", v.state.to_string()),
    ];
    pairs.extend(v.reason.as_ref().map(|reason| ("reason", reason.clone())));
    pairs.extend([
        ("owner", v.owner.to_string()),
        ("created", time(v.created)),
        ("snapshots", v.schedule.to_string()),
        ("labels", join(&v.labels.iter().collect::<Vec<_>>(), "\n")),
        ("clients", join(&v.clients, "\n")),
    ]);
    if !v.nodes.is_empty() {
        let nodes: Vec<String> = v.nodes.iter().map(node).collect();
        pairs.push(("nodes", nodes.join("\n")));
    }
    let options = options(&v.options);
    if !options.is_empty() {
        pairs.push(("served", options.join("\n")));
    }
    let mount = mount_command(v, host.unwrap_or("ADDRESS"));
    let mut text = format!("{}\n\nmount it on a client with:\n  {mount}", fields(&pairs));
    if v.clients.is_empty() && v.nodes.is_empty() {
        text.push_str(&format!(
            "\nnobody may yet; allow a client with:\n  cistern clients add {} ADDRESS",
            v.id
        ));
    }
    text
}

fn node(node: &PublishedNode) -> String {
    let mut may = vec![join(&node.addresses, ", ")];
    may.extend(node.read_only.then(|| "reads only".to_owned()));
    may.extend(node.alone.then(|| "alone".to_owned()));
    format!("{} ({})", node.name, may.join("; "))
}

/// The nodes that a volume is published to.
pub(crate) fn nodes(nodes: &[PublishedNode]) -> Rows {
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    Rows::new(
        ["NODE", "ADDRESSES", "WRITES", "ALONE"],
        nodes.iter().map(|node| {
            let addresses = join(&node.addresses, ", ");
            [node.name.to_string(), addresses, yes(!node.read_only), yes(node.alone)]
        }),
    )
}

/// Who is connected: a line for each volume that something is held on.
pub(crate) fn live_clients(clients: &[LiveClient]) -> Rows {
    let rows = clients.iter().flat_map(|live| {
        let address = live.address.to_string();
        let held = live
            .holds
            .iter()
            .map(|there| [address.clone(), there.volume.to_string(), held(&there.held)]);
        let none = live
            .holds
            .is_empty()
            .then(|| [address.clone(), NONE.to_owned(), NONE.to_owned()]);
        held.chain(none).collect::<Vec<_>>()
    });
    Rows::new(["CLIENT", "VOLUME", "HOLDS"], rows)
}

fn held(held: &HeldState) -> String {
    format!(
        "{} open file(s), {} lock(s), {} delegation(s)",
        held.opens, held.locks, held.delegations
    )
}

/// A note of what it took to cut a session off.
pub(crate) fn fence(report: &FenceReport) -> String {
    let how = match report.method {
        FenceMethod::None if report.held.delegations > 0 => "others may wait once for a file that was delegated to it",
        FenceMethod::None => "nothing had to be revoked",
        FenceMethod::ExpireClient => "its NFS session was ended",
    };
    let mut text = format!("note: {} was cut off ({}): {how}", report.client, held(&report.held));
    for touched in &report.also_touched {
        text.push_str(&format!(
            "\nnote: that also touched {} on {}: {}",
            touched.client,
            touched.volume,
            held(&touched.held)
        ));
    }
    text
}

/// How a volume is served where that is not as usual.
fn options(o: &VolumeOptions) -> Vec<String> {
    let usual = VolumeOptions::default();
    let mut said = Vec::new();
    if o.read_only {
        said.push("to read only".to_owned());
    }
    match o.squash {
        Squash::None => {}
        Squash::Root => said.push(format!("root as {}:{}", o.anonymous_uid, o.anonymous_gid)),
        Squash::All => said.push(format!("all users as {}:{}", o.anonymous_uid, o.anonymous_gid)),
    }
    if (o.root_uid, o.root_gid, o.root_mode) != (usual.root_uid, usual.root_gid, usual.root_mode) {
        said.push(format!(
            "root directory {}:{}, mode {}",
            o.root_uid, o.root_gid, o.root_mode
        ));
    }
    said
}

/// What to paste on a client.
fn mount_command(v: &Volume, host: &str) -> String {
    format!("mount -t nfs -o vers=4.2 {host}:{} /mnt", v.export.path)
}
