//! Argument lists of LVM's commands. Pure.
//!
//! Invariant: no command asks a question that it could get an answer to, none forces (`--force` is in none), and all
//! carry the same configuration, so that they do the same on any machine whatever its lvm.conf says.

use cistern_model::Bytes;
use std::path::{Path, PathBuf};

use super::raid;
use crate::{Activation, LvmStep, RaidLevel, TagChange};

/// Where this machine's system ID is, as it was on the state partition at the start: pools do not depend on that any further.
pub(crate) const SYSTEM_ID_FILE: &str = "/run/cistern/lvm-system-id";

/// Text metadata takes about 300 bytes a thin volume, and the area's size is fixed when the physical volume is made: the
/// default of 1 MiB is full at some 1,500 volumes.
pub(super) const METADATA_AREA: &str = "64m";
const EXTENT: &str = "4m";

/// What every command is told.
///
/// - Disks are known by what is on them: no devices file, no hints, nothing from udev, which may not have seen what we
///   just did. Never inside volumes that clients write (`scan_lvs`).
/// - Nothing waits for udev's links: LVM makes its own nodes (half the time of a command with many volumes).
/// - No copies of metadata on the host; no dmeventd; no polling daemon.
/// - `reserved_memory` is touched on every suspension; `io_memory_size` must hold the metadata of thousands of volumes.
const CONFIG: &str = concat!(
    "config{checks=0} ",
    "devices{use_devicesfile=0 hints=\"none\" scan_lvs=0 obtain_device_list_from_udev=0 ",
    "external_device_info_source=\"none\" issue_discards=0 ",
    "global_filter=[\"r|^/dev/loop|\",\"r|^/dev/ram|\",\"r|^/dev/zram|\",\"r|^/dev/sr|\",\"r|^/dev/fd|\",\"r|^/dev/nbd|\"]} ",
    "backup{backup=0 archive=0} ",
    "activation{udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 reserved_memory=16384} ",
    "global{system_id_source=\"file\" system_id_file=\"/run/cistern/lvm-system-id\" event_activation=0 ",
    "use_lvmpolld=0 notify_dbus=0 io_memory_size=32768}"
);

/// A command's name, which is also the program's, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LvmCommand {
    pub(crate) program: &'static str,
    pub(crate) args: Vec<String>,
}

impl LvmCommand {
    /// The program and its arguments.
    pub(crate) fn line(self) -> Vec<String> {
        [self.program.to_owned()].into_iter().chain(self.args).collect()
    }

    pub(crate) fn new<'a>(program: &'static str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = vec!["--config".to_owned(), CONFIG.to_owned()];
        all.extend(args.into_iter().map(str::to_owned));
        LvmCommand { program, args: all }
    }

    /// One of device mapper's, which needs no configuration.
    pub(crate) fn dmsetup<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        LvmCommand {
            program: "dmsetup",
            args: args.into_iter().map(str::to_owned).collect(),
        }
    }

    pub(crate) fn with(mut self, args: impl IntoIterator<Item = String>) -> Self {
        self.args.extend(args);
        self
    }
}

/// Whether these arguments are of one of LVM's own commands, and not of a tool beside it.
pub(super) fn are_lvms(args: &[String]) -> bool {
    args.iter().any(|arg| arg == CONFIG)
}

fn tags<'a>(flag: &'static str, tags: &'a [String]) -> impl Iterator<Item = String> + 'a {
    tags.iter().flat_map(move |tag| [flag.to_owned(), tag.clone()])
}

pub(crate) fn nodes(nodes: &[PathBuf]) -> impl Iterator<Item = String> + '_ {
    nodes.iter().map(|node| node.to_string_lossy().into_owned())
}

pub(crate) fn full(vg: &str, lv: &str) -> [String; 1] {
    [format!("{vg}/{lv}")]
}

/// Everything at one moment, in one reading of all metadata. Hidden volumes are in it for the health of what lies on
/// them; segments cannot be left out of a full report, only made short.
pub(crate) fn report() -> LvmCommand {
    let vg = "vg_name,vg_tags,vg_systemid,vg_extent_size,vg_free,vg_missing_pv_count,vg_exported";
    let pv = "pv_uuid,pv_name,pv_missing,pv_size,pv_free";
    let lv = "lv_name,lv_tags,lv_size,lv_attr,pool_lv,data_lv,metadata_lv,data_percent,metadata_percent,sync_percent";
    let mut args = vec![
        "fullreport",
        "--all",
        "--foreign",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
    ];
    for (report, fields) in [
        ("vg", vg),
        ("pv", pv),
        ("lv", lv),
        ("seg", "lv_name,segtype,devices"),
        ("pvseg", "pv_uuid"),
    ] {
        args.extend(["--configreport", report, "-o", fields]);
    }
    // Here the command's name must come first, before the configuration.
    let mut command = LvmCommand::new("lvm", args);
    command.args.remove(2);
    command.args.insert(0, "fullreport".to_owned());
    command
}

/// Where the extents of a device begin, and how much they are.
pub(crate) fn used(node: &Path) -> LvmCommand {
    let args = ["--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start,pv_size"];
    LvmCommand::new("pvs", args).with([node.to_string_lossy().into_owned()])
}

/// The command of a step.
pub(crate) fn step(step: &LvmStep, system_id: &str) -> LvmCommand {
    match step {
        LvmStep::CreateVg { vg, nodes, tags } => create_vg(vg, system_id, nodes, tags),
        LvmStep::CreateLv {
            vg,
            lv,
            level,
            extents,
            nodes,
        } => create_lv(vg, lv, *level, *extents, nodes, &[]),
        LvmStep::ExtendLv { vg, lv, extents, nodes } => extend_lv(vg, lv, *extents, nodes),
        LvmStep::ConvertToThinPool {
            vg,
            data,
            metadata,
            chunk,
        } => convert_to_thin_pool(vg, data, metadata, *chunk),
        LvmStep::Activate { vg, lv } => activate_lv(vg, lv, Activation::Complete),
        LvmStep::TagVg { vg, change } => tag_vg(vg, change),
        LvmStep::ExtendVg { vg, node } => raid::extend_vg(vg, node),
        LvmStep::ResizePv { node, .. } => raid::resize_pv(node),
    }
}

/// Names of a group's volumes, and which of them are open.
pub(crate) fn open_lvs(vg: &str) -> LvmCommand {
    let fields = "lv_name,lv_device_open";
    LvmCommand::new("lvs", ["--reportformat", "json", "-o", fields, vg])
}

pub(crate) fn remove_pv(node: &Path) -> LvmCommand {
    LvmCommand::new("pvremove", []).with(nodes(&[node.to_owned()]))
}

pub(crate) fn create_vg(vg: &str, system_id: &str, pvs: &[PathBuf], with: &[String]) -> LvmCommand {
    let fixed = [
        "--systemid",
        system_id,
        "--setautoactivation",
        "n",
        "--physicalextentsize",
        EXTENT,
        "--metadatasize",
        METADATA_AREA,
        "--zero",
        "y",
    ];
    LvmCommand::new("vgcreate", fixed)
        .with(tags("--addtag", with))
        .with([vg.to_owned()])
        .with(nodes(pvs))
}

pub(crate) fn remove_vg(vg: &str) -> LvmCommand {
    LvmCommand::new("vgremove", [vg])
}

pub(crate) fn tag_vg(vg: &str, change: &TagChange) -> LvmCommand {
    LvmCommand::new("vgchange", [])
        .with(tags("--addtag", &change.add))
        .with(tags("--deltag", &change.remove))
        .with([vg.to_owned()])
}

pub(crate) fn create_lv(
    vg: &str,
    lv: &str,
    level: RaidLevel,
    extents: u64,
    pvs: &[PathBuf],
    with: &[String],
) -> LvmCommand {
    let level = raid::level(level);
    // Nothing is zeroed and no old signature is looked for: either needs an active volume, and nothing reads it before
    // the conversion to a thin pool, which wipes what becomes its metadata.
    let fixed = ["--activate", "n", "--zero", "n", "--wipesignatures", "n"];
    LvmCommand::new("lvcreate", [])
        .with(level)
        .with(fixed.map(str::to_owned))
        .with([
            "--extents".to_owned(),
            extents.to_string(),
            "--name".to_owned(),
            lv.to_owned(),
        ])
        .with(tags("--addtag", with))
        .with([vg.to_owned()])
        .with(nodes(pvs))
}

pub(crate) fn extend_lv(vg: &str, lv: &str, extents: u64, pvs: &[PathBuf]) -> LvmCommand {
    LvmCommand::new("lvextend", [])
        .with(["--extents".to_owned(), format!("+{extents}")])
        .with(full(vg, lv))
        .with(nodes(pvs))
}

pub(crate) fn convert_to_thin_pool(vg: &str, data: &str, metadata: &str, chunk: Bytes) -> LvmCommand {
    // `--yes`: that what is on both is lost. No spare: LVM would put it on one disk; a repair makes its own in free
    // extents, which the engine keeps back. A full pool fails writes at once, in place of keeping them for a minute.
    let fixed = [
        "--yes",
        "--type",
        "thin-pool",
        "--zero",
        "y",
        "--poolmetadataspare",
        "n",
        "--errorwhenfull",
        "y",
        "--chunksize",
    ];
    LvmCommand::new("lvconvert", fixed)
        .with([format!("{}b", chunk.get()), "--poolmetadata".to_owned()])
        .with(full(vg, metadata))
        .with(full(vg, data))
}

pub(crate) fn create_thin(vg: &str, pool: &str, lv: &str, size: Bytes, with: &[String]) -> LvmCommand {
    // A new thin volume reads as zeroes: there is nothing to zero and nothing to find. LVM refuses parts of a sector.
    let size = size.round_up(Bytes::new(512));
    let fixed = [
        "--type",
        "thin",
        "--activate",
        "y",
        "--setactivationskip",
        "n",
        "--wipesignatures",
        "n",
    ];
    LvmCommand::new("lvcreate", fixed)
        .with([
            "--virtualsize".to_owned(),
            format!("{}b", size.get()),
            "--name".to_owned(),
            lv.to_owned(),
        ])
        .with(tags("--addtag", with))
        .with(["--thinpool".to_owned()])
        .with(full(vg, pool))
}

pub(crate) fn create_thin_snapshot(vg: &str, origin: &str, lv: &str, with: &[String], active: bool) -> LvmCommand {
    // What is skipped is activated only when it is named: thousands of snapshots cost nothing at a start.
    let (activate, skip) = if active { ("y", "n") } else { ("n", "y") };
    let fixed = [
        "--snapshot",
        "--activate",
        activate,
        "--setactivationskip",
        skip,
        "--name",
        lv,
    ];
    LvmCommand::new("lvcreate", fixed)
        .with(tags("--addtag", with))
        .with(full(vg, origin))
}

pub(crate) fn rename_lv(vg: &str, from: &str, to: &str) -> LvmCommand {
    LvmCommand::new("lvrename", [vg, from, to])
}

pub(crate) fn deactivate_lv(vg: &str, lv: &str) -> LvmCommand {
    LvmCommand::new("lvchange", ["--activate", "n"]).with(full(vg, lv))
}

/// Names of a group's volumes, and the numbers by which a thin pool's metadata knows them.
pub(crate) fn thin_ids(vg: &str) -> LvmCommand {
    LvmCommand::new("lvs", ["--reportformat", "json", "-o", "lv_name,pool_lv,thin_id", vg])
}

/// Keeps a thin pool's metadata readable as it is now, or no longer.
pub(crate) fn metadata_snapshot(pool: &str, keep: bool) -> LvmCommand {
    let message = if keep {
        "reserve_metadata_snap"
    } else {
        "release_metadata_snap"
    };
    LvmCommand::dmsetup(["message", pool, "0", message])
}

/// What each thin volume takes: its number, and bytes.
pub(crate) fn thin_ls(metadata: &Path) -> LvmCommand {
    let fields = "DEV,MAPPED_BYTES,EXCLUSIVE_BYTES";
    let mut args = ["--metadata-snap", "--no-headers", "--format", fields]
        .map(str::to_owned)
        .to_vec();
    args.push(metadata.to_string_lossy().into_owned());
    LvmCommand {
        program: "thin_ls",
        args,
    }
}

pub(crate) fn extend_thin(vg: &str, lv: &str, size: Bytes) -> LvmCommand {
    // `--fs ignore`: the filesystem is grown by itself, afterwards, to exactly its size.
    let size = size.round_up(Bytes::new(512));
    LvmCommand::new("lvextend", ["--fs", "ignore", "--size"])
        .with([format!("{}b", size.get())])
        .with(full(vg, lv))
}

pub(crate) fn tag_lv(vg: &str, lv: &str, change: &TagChange) -> LvmCommand {
    LvmCommand::new("lvchange", [])
        .with(tags("--addtag", &change.add))
        .with(tags("--deltag", &change.remove))
        .with(full(vg, lv))
}

pub(crate) fn activate_lv(vg: &str, lv: &str, mode: Activation) -> LvmCommand {
    LvmCommand::new("lvchange", ACTIVATE)
        .with(raid::activation_mode(mode))
        .with(full(vg, lv))
}

pub(crate) fn activate_vg(vg: &str, mode: Activation) -> LvmCommand {
    // Those that are to be skipped are activated only when they are named: snapshots.
    LvmCommand::new("vgchange", ["--activate", "y"])
        .with(raid::activation_mode(mode))
        .with([vg.to_owned()])
}

const ACTIVATE: [&str; 3] = ["--activate", "y", "--ignoreactivationskip"];

pub(crate) fn deactivate_vg(vg: &str) -> LvmCommand {
    LvmCommand::new("vgchange", ["--activate", "n", vg])
}

pub(crate) fn remove_lv(vg: &str, lv: &str) -> LvmCommand {
    // `--yes`: that it is active. One that is open is refused all the same.
    LvmCommand::new("lvremove", ["--yes"]).with(full(vg, lv))
}

/// The kernel's lines about all thin pools, in a fraction of the time of a report. `--noflush`: without it each question
/// is a commit of the pools' metadata.
pub(crate) fn thin_status() -> LvmCommand {
    LvmCommand::dmsetup(["status", "--noflush", "--target", "thin-pool"])
}

/// A volume's name in device mapper: hyphens within a part are doubled.
pub(crate) fn dm_name(vg: &str, lv: &str) -> String {
    format!("{}-{}", vg.replace('-', "--"), lv.replace('-', "--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: LvmCommand) -> String {
        let args: Vec<String> = command
            .args
            .into_iter()
            .filter(|a| a != "--config" && a != CONFIG)
            .collect();
        format!("{} {}", command.program, args.join(" "))
    }

    #[test]
    fn each_command_is_written_out() {
        let pvs: Vec<PathBuf> = vec!["/dev/vda".into(), "/dev/vdb".into()];
        let tag = ["cistern.state=creating".to_owned()];
        let change = TagChange {
            add: vec!["new=1".into()],
            remove: vec!["old=1".into(), "older=1".into()],
        };
        for (command, line) in [
            (remove_pv(&pvs[0]), "pvremove /dev/vda"),
            (
                create_vg("p", "me", &pvs, &tag),
                "vgcreate --systemid me --setautoactivation n --physicalextentsize 4m --metadatasize 64m --zero y --addtag cistern.state=creating p /dev/vda /dev/vdb",
            ),
            (remove_vg("p"), "vgremove p"),
            (
                tag_vg("p", &change),
                "vgchange --addtag new=1 --deltag old=1 --deltag older=1 p",
            ),
            (
                create_lv("p", "data", RaidLevel::Mirror { copies: 2 }, 500, &pvs, &tag),
                "lvcreate --type raid1 --mirrors 1 --activate n --zero n --wipesignatures n --extents 500 --name data --addtag cistern.state=creating p /dev/vda /dev/vdb",
            ),
            (
                create_lv("p", "data", RaidLevel::Linear, 5, &pvs, &[]),
                "lvcreate --type linear --activate n --zero n --wipesignatures n --extents 5 --name data p /dev/vda /dev/vdb",
            ),
            (
                extend_lv("p", "data", 300, &pvs),
                "lvextend --extents +300 p/data /dev/vda /dev/vdb",
            ),
            (
                convert_to_thin_pool("p", "data", "meta", Bytes::new(65536)),
                "lvconvert --yes --type thin-pool --zero y --poolmetadataspare n --errorwhenfull y --chunksize 65536b --poolmetadata p/meta p/data",
            ),
            (
                create_thin("p", "data", "vol-1", Bytes::new(1_000_000_001), &tag),
                "lvcreate --type thin --activate y --setactivationskip n --wipesignatures n --virtualsize 1000000512b --name vol-1 --addtag cistern.state=creating --thinpool p/data",
            ),
            (
                create_thin_snapshot("p", "vol-1", "snap-1", &tag, false),
                "lvcreate --snapshot --activate n --setactivationskip y --name snap-1 --addtag cistern.state=creating p/vol-1",
            ),
            (
                create_thin_snapshot("p", "snap-1", "vol-2", &[], true),
                "lvcreate --snapshot --activate y --setactivationskip n --name vol-2 p/snap-1",
            ),
            (rename_lv("p", "next-1", "vol-1"), "lvrename p next-1 vol-1"),
            (deactivate_lv("p", "snap-1"), "lvchange --activate n p/snap-1"),
            (
                metadata_snapshot("p-data-tpool", true),
                "dmsetup message p-data-tpool 0 reserve_metadata_snap",
            ),
            (
                thin_ls(Path::new("/dev/mapper/p-data_tmeta")),
                "thin_ls --metadata-snap --no-headers --format DEV,MAPPED_BYTES,EXCLUSIVE_BYTES /dev/mapper/p-data_tmeta",
            ),
            (
                extend_thin("p", "vol-1", Bytes::new(1_000_000_001)),
                "lvextend --fs ignore --size 1000000512b p/vol-1",
            ),
            (
                tag_lv("p", "v", &change),
                "lvchange --addtag new=1 --deltag old=1 --deltag older=1 p/v",
            ),
            (
                activate_lv("p", "v", Activation::Complete),
                "lvchange --activate y --ignoreactivationskip p/v",
            ),
            (
                activate_vg("p", Activation::Partial),
                "vgchange --activate y --activationmode partial p",
            ),
            (deactivate_vg("p"), "vgchange --activate n p"),
            (remove_lv("p", "v"), "lvremove --yes p/v"),
            (thin_status(), "dmsetup status --noflush --target thin-pool"),
        ] {
            assert_eq!(shown(command), line);
        }
    }

    #[test]
    fn all_commands_carry_the_configuration_and_none_forces() {
        let change = TagChange::default();
        for command in [
            remove_pv(Path::new("/dev/vda")),
            report(),
            remove_vg("p"),
            tag_lv("p", "v", &change),
        ] {
            assert!(are_lvms(&command.args), "{command:?}");
            let forces = |a: &String| a == "-f" || a == "-ff" || a == "--force";
            assert!(!command.args.iter().any(forces), "{command:?}");
        }
        assert_eq!(report().args[0], "fullreport");
        assert!(!are_lvms(&thin_status().args));
    }
}
