//! Several paths to one disk, as those of a shelf with two controllers: each is a device, and they are one disk. Pure.
//!
//! Invariant: a disk is used by one of its nodes, and stays so while LVM or a layer of ours lies on it there; what is true of it by any
//! path is true of it; all nodes of the others are told, those of their partitions too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cistern_model::DiskId;

use crate::BlockDevice;

/// A disk as it is seen by one path.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) device: BlockDevice,
    /// Whether LVM, or a layer of ours, lies on it or on one of its partitions.
    pub(super) carries: bool,
    /// Its partitions' nodes.
    pub(super) partitions: Vec<PathBuf>,
    /// What is free of it.
    pub(super) free: Option<BlockDevice>,
}

/// The disks and what is free of them, each once, by their nodes.
pub(super) fn joined(paths: Vec<Seen>) -> Vec<BlockDevice> {
    let mut disks: BTreeMap<DiskId, Vec<Seen>> = BTreeMap::new();
    for path in paths {
        disks.entry(path.device.id.clone()).or_default().push(path);
    }
    let mut listed: Vec<BlockDevice> = disks.into_values().flat_map(of_one).collect();
    listed.sort_by(|a, b| a.node.cmp(&b.node));
    listed
}

/// A disk by all of its paths, and what is free of it.
fn of_one(mut paths: Vec<Seen>) -> Vec<BlockDevice> {
    // What is used already first; then one that can be written to, and always the same.
    paths.sort_by_key(|path| {
        let device = &path.device;
        (!path.carries, !device.busy, device.read_only, device.node.clone())
    });
    let mut paths = paths.into_iter();
    let Some(Seen {
        mut device, mut free, ..
    }) = paths.next()
    else {
        return Vec::new();
    };
    for other in paths {
        device.busy |= other.device.busy;
        device.boot |= other.device.boot;
        device.other_nodes.push(other.device.node);
        device.other_nodes.extend(other.partitions);
        if let (Some(free), Some(other)) = (&mut free, other.free.filter(|other| !other.is_unmade())) {
            free.busy |= other.busy;
            free.other_nodes.push(other.node);
        }
    }
    [device].into_iter().chain(free).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{disk, free_part};
    use crate::{FoundLayers, FreePart, LayerStack, OpenLayers};
    use cistern_model::Bytes;

    fn path(serial: &str, node: &str) -> Seen {
        Seen {
            device: BlockDevice {
                node: PathBuf::from(node),
                ..disk(serial, Bytes::gib(10))
            },
            carries: false,
            partitions: Vec::new(),
            free: None,
        }
    }

    fn nodes(device: &BlockDevice) -> Vec<&str> {
        let all = std::iter::once(&device.node).chain(&device.other_nodes);
        all.filter_map(|node| node.to_str()).collect()
    }

    #[test]
    fn a_disk_with_two_paths_is_one_and_is_used_by_the_first_of_them_if_by_none() {
        let mut read_only = path("c", "/dev/sdc");
        read_only.device.read_only = true;
        let listed = joined(vec![
            path("a", "/dev/sdd"),
            path("b", "/dev/sdb"),
            path("a", "/dev/sda"),
            read_only,
            path("c", "/dev/sde"),
        ]);
        let seen: Vec<Vec<&str>> = listed.iter().map(nodes).collect();
        assert_eq!(
            seen,
            [&["/dev/sda", "/dev/sdd"][..], &["/dev/sdb"], &["/dev/sde", "/dev/sdc"]]
        );
        assert!(listed[0].is_at("/dev/sdd".as_ref()) && !listed[0].is_at("/dev/sdb".as_ref()));
    }

    #[test]
    fn the_path_on_which_something_lies_stays_the_one_and_its_partitions_are_not_hidden() {
        let layers = |open| FoundLayers {
            stack: LayerStack::Integrity,
            label: None,
            open,
        };
        let (mut idle, mut used) = (path("a", "/dev/sda"), path("a", "/dev/sdb"));
        (idle.partitions, used.partitions) = (vec!["/dev/sda1".into()], vec!["/dev/sdb1".into()]);
        idle.device.layers = Some(layers(None));
        let open = OpenLayers {
            node: "/dev/mapper/cistern-integrity-serial-a".into(),
            size: Bytes::gib(9),
        };
        used.device.layers = Some(layers(Some(open.clone())));
        used.carries = true;
        for paths in [vec![idle.clone(), used.clone()], vec![used, idle]] {
            let listed = joined(paths);
            assert_eq!(nodes(&listed[0]), ["/dev/sdb", "/dev/sda", "/dev/sda1"]);
            assert_eq!(listed[0].lvm_node(), open.node);
        }
    }

    #[test]
    fn what_holds_it_by_one_path_holds_it() {
        let (idle, mut mounted) = (path("a", "/dev/sda"), path("a", "/dev/sdb"));
        (mounted.device.busy, mounted.device.boot) = (true, true);
        let listed = joined(vec![idle, mounted]);
        assert_eq!(nodes(&listed[0]), ["/dev/sdb", "/dev/sda"]);
        assert!(listed[0].busy && listed[0].boot);
    }

    #[test]
    fn what_is_free_of_the_boot_disk_is_one_too() {
        let part = |path: &Seen, node: &str, busy: bool| BlockDevice {
            node: PathBuf::from(node),
            free: Some(FreePart::Made),
            busy,
            ..free_part(&path.device, Bytes::gib(5))
        };
        let (mut first, mut second) = (path("a", "/dev/sda"), path("a", "/dev/sdb"));
        (first.device.boot, second.device.boot) = (true, true);
        first.free = Some(part(&first, "/dev/sda4", false));
        second.free = Some(part(&second, "/dev/sdb4", true));
        (first.partitions, second.partitions) = (vec!["/dev/sda4".into()], vec!["/dev/sdb4".into()]);
        second.carries = true;
        let listed = joined(vec![first, second]);
        let seen: Vec<Vec<&str>> = listed.iter().map(nodes).collect();
        assert_eq!(
            seen,
            [&["/dev/sdb", "/dev/sda", "/dev/sda4"][..], &["/dev/sdb4", "/dev/sda4"]]
        );
        assert!(listed[1].busy);
    }
}
