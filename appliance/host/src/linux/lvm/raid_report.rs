//! Reads what LVM and the kernel say of volumes on several disks. Pure.
//!
//! Invariant: an image of which anything is missing is missing; a kind that is not known has no level, so that nobody
//! takes it for one that can do without something.

use std::collections::BTreeMap;

use cistern_model::{Bytes, Percent};

use super::args::dm_name;
use super::report::{LvRow, SegRow};
use crate::{ImageHealth, RaidImage, RaidLevel, RaidStatus, RaidVolume, SyncAction};

/// What the thin pools of a group lie on, from the rows of its volumes, hidden ones too, and of their parts.
pub(super) fn volumes(vg: &str, lvs: &[LvRow], segs: &[SegRow]) -> Vec<RaidVolume> {
    let attr: BTreeMap<&str, &str> = lvs
        .iter()
        .map(|lv| (lv.lv_name.as_str(), lv.lv_attr.as_str()))
        .collect();
    let parsed = |lv: &LvRow| lv.lv_size.parse().map_or(Bytes::ZERO, Bytes::new);
    let size: BTreeMap<&str, Bytes> = lvs.iter().map(|lv| (lv.lv_name.as_str(), parsed(lv))).collect();
    let below = lvs.iter().flat_map(|lv| [&lv.data_lv, &lv.metadata_lv]);
    let hidden = below.filter(|name| name.starts_with('['));
    hidden
        .map(|name| {
            let parts: Vec<&SegRow> = segs.iter().filter(|seg| seg.lv_name == *name).collect();
            let kind = parts.first().map_or("", |seg| seg.segtype.as_str());
            let images: Vec<RaidImage> = match kind {
                "linear" => vec![image(name, &attr, segs)],
                _ => parts
                    .iter()
                    .flat_map(|seg| devices(&seg.devices))
                    .map(|below| image(&format!("[{below}]"), &attr, segs))
                    .collect(),
            };
            RaidVolume {
                vg: vg.to_owned(),
                name: name.trim_matches(['[', ']']).to_owned(),
                size: size.get(name.as_str()).copied().unwrap_or_default(),
                level: level(kind, images.len()),
                images,
            }
        })
        .collect()
}

/// `NAME(EXTENT)` each, with commas between.
fn devices(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter_map(|device| Some(device.rsplit_once('(')?.0))
}

fn image(name: &str, attr: &BTreeMap<&str, &str>, segs: &[SegRow]) -> RaidImage {
    let of = |name: String| {
        segs.iter()
            .filter(move |seg| seg.lv_name == name)
            .flat_map(|seg| devices(&seg.devices))
    };
    let (mut nodes, mut missing): (Vec<_>, bool) = (Vec::new(), false);
    // What is just being moved to another disk lies on a volume of LVM's own, with both disks under it.
    let below = of(name.to_owned()).flat_map(|device| match device.starts_with("pvmove") {
        true => of(format!("[{device}]")).collect(),
        false => vec![device],
    });
    for device in below {
        match device.starts_with('/') {
            true => nodes.push(device.into()),
            false => missing = true,
        }
    }
    nodes.sort();
    nodes.dedup();
    let health = attr.get(name).and_then(|attr| attr.as_bytes().get(8)).copied();
    RaidImage {
        // One that is there again and still counts as missing has a name.
        missing: missing || nodes.is_empty() || health == Some(b'p'),
        failed: health == Some(b'r'),
        nodes,
        // LVM does not tell these apart: the kernel is asked.
        behind: false,
        stalled: false,
    }
}

/// Notes on volumes what the kernel says of them: lines of all there are, each `NAME: ` and what [`status`] reads.
pub(super) fn note_health(volumes: &mut [RaidVolume], text: &str) {
    let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    for volume in volumes {
        let line = lines.get(dm_name(&volume.vg, &volume.name).as_str());
        if let Some(status) = line.and_then(|line| status(line)) {
            volume.note_health(&status);
        }
    }
}

fn level(kind: &str, images: usize) -> Option<RaidLevel> {
    let images = u32::try_from(images).ok()?;
    match kind {
        "linear" => Some(RaidLevel::Linear),
        "raid1" => Some(RaidLevel::Mirror { copies: images }),
        "raid10" | "raid10_near" => Some(RaidLevel::StripeMirror { images }),
        _ if kind.starts_with("raid5") => Some(RaidLevel::Parity { images }),
        _ if kind.starts_with("raid6") => Some(RaidLevel::DoubleParity { images }),
        _ => None,
    }
}

/// From the kernel's line about one volume: `START LENGTH raid LEVEL IMAGES HEALTH DONE/TOTAL ACTION MISMATCHES ...`, with a
/// letter of health for each image: `A` good, `a` being filled, `D` failed.
pub(super) fn status(text: &str) -> Option<RaidStatus> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some("raid"))?;
    let mut fields = line.split_whitespace().skip(5);
    let images = fields
        .next()?
        .chars()
        .map(|letter| match letter {
            'A' => ImageHealth::Good,
            'a' => ImageHealth::Filling,
            _ => ImageHealth::Failed,
        })
        .collect();
    let (done, total) = fields.next()?.split_once('/')?;
    let (done, total) = (done.parse().ok()?, total.parse().ok()?);
    let action = match fields.next()? {
        "idle" => SyncAction::Idle,
        "resync" => SyncAction::Resync,
        "recover" => SyncAction::Recover,
        "check" => SyncAction::Check,
        "repair" => SyncAction::Repair,
        _ => SyncAction::Other,
    };
    Some(RaidStatus {
        images,
        done: Percent::of(Bytes::new(done), Bytes::new(total)),
        action,
        mismatches: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fixture;
    use crate::linux::lvm::report::state;

    #[test]
    fn each_image_of_a_pool_is_told_with_its_device_and_whether_it_is_missing() {
        let state = state(fixture(include_str!("../fixtures/fullreport-raid.json")), "me").unwrap();
        let [data, metadata] = &state.raids[..] else {
            panic!("{:?}", state.raids)
        };
        assert_eq!(
            (data.name.as_str(), metadata.name.as_str()),
            ("data_tdata", "data_tmeta")
        );
        assert_eq!(data.level, Some(RaidLevel::Parity { images: 3 }));
        assert_eq!(metadata.level, Some(RaidLevel::Mirror { copies: 2 }));
        let shown: Vec<_> = data
            .images
            .iter()
            .map(|i| (i.nodes.len(), i.missing, i.failed))
            .collect();
        assert_eq!(shown, [(1, false, false), (1, false, false), (0, true, false)]);
        assert_eq!(data.images[1].nodes[0], std::path::Path::new("/dev/vdc"));
        assert!(data.has_all_data() && metadata.has_all_data() && !data.whole() && metadata.whole());
        assert!(!data.has_all_data_without(std::path::Path::new("/dev/vdb")));
        assert!(metadata.has_all_data_without(std::path::Path::new("/dev/vde")));
        assert!(metadata.has_all_data_without(std::path::Path::new("/dev/vdb")));
    }

    #[test]
    fn what_is_just_being_moved_lies_on_both_disks_and_lacks_nothing() {
        let seg = |lv: &str, kind: &str, devices: &str| SegRow {
            lv_name: lv.to_owned(),
            segtype: kind.to_owned(),
            devices: devices.to_owned(),
        };
        let segs = [
            seg("[data_tdata]", "linear", "/dev/vda(9)"),
            seg("[data_tdata]", "linear", "pvmove0(0)"),
            seg("[pvmove0]", "mirror", "/dev/vdb(0),/dev/vdc(7)"),
        ];
        let image = image("[data_tdata]", &BTreeMap::new(), &segs);
        assert!(!image.missing && !image.failed);
        let nodes: Vec<_> = image.nodes.iter().map(|node| node.to_string_lossy()).collect();
        assert_eq!(nodes, ["/dev/vda", "/dev/vdb", "/dev/vdc"]);
    }

    #[test]
    fn one_that_came_back_is_told_as_such() {
        let text = fixture(include_str!("../fixtures/fullreport-raid.json"));
        let back = text
            .replace("\"[unknown]\"", "\"/dev/vdi\"")
            .replace("[unknown](", "/dev/vdi(");
        let state = state(&back, "me").unwrap();
        let pv = state.pvs.iter().find(|pv| pv.returned.is_some()).unwrap();
        assert_eq!(
            (pv.node.as_ref(), pv.returned.as_deref()),
            (None, Some("/dev/vdi".as_ref()))
        );
        assert!(state.raids[0].images[2].missing, "LVM still does not use it");
    }

    #[test]
    fn an_image_that_the_kernel_does_not_fill_any_more_is_told_from_one_that_it_fills() {
        let mut raids = state(fixture(include_str!("../fixtures/fullreport-raid.json")), "me")
            .unwrap()
            .raids;
        let name = dm_name(&raids[1].vg, "data_tmeta");
        for (health, behind, stalled) in [
            ("aA 819200/819200 idle 0 0 -", true, true),
            ("Aa 3000/819200 recover 0 0 -", true, false),
            // All of them are made to agree, or are just about to be.
            ("aa 3000/819200 resync 0 0 -", false, false),
            ("aa 819200/819200 idle 0 0 -", false, false),
            ("AA 819200/819200 idle 0 0 -", false, false),
        ] {
            let text =
                format!("other-data: 0 8 raid raid1 2 aA 4/8 idle 0 0 -\n{name}: 0 819200 raid raid1 2 {health}\n");
            note_health(&mut raids, &text);
            let any = |what: fn(&RaidImage) -> bool| raids[1].images.iter().any(what);
            assert_eq!(
                (any(|i| i.behind), any(|i| i.stalled), raids[1].whole()),
                (behind, stalled, !stalled),
                "{health}"
            );
            assert!(raids[0].images.iter().all(|image| !image.behind));
        }
    }

    #[test]
    fn the_kernel_s_letters_are_read() {
        use ImageHealth::{Failed, Filling, Good};
        for (line, images, action, mismatches) in [
            (
                "0 819200 raid raid1 2 AD 819200/819200 idle 0 0 -",
                vec![Good, Failed],
                SyncAction::Idle,
                0,
            ),
            (
                "0 1228800 raid raid6_zr 5 aAAAA 102008/409600 recover 0 0 -",
                vec![Filling, Good, Good, Good, Good],
                SyncAction::Recover,
                0,
            ),
            (
                "0 1638400 raid raid5_ls 3 AAA 401944/819200 check 128 0 -",
                vec![Good, Good, Good],
                SyncAction::Check,
                128,
            ),
        ] {
            let status = status(line).unwrap();
            assert_eq!(
                (status.images, status.action, status.mismatches),
                (images, action, mismatches)
            );
        }
        assert_eq!(status("0 819200 linear 253:0 2048"), None);
        assert_eq!(status(""), None);
    }
}
