//! What is particular to volumes on several disks: their arguments. Pure.
//!
//! Invariant: a command for a volume that lies on several disks names each of them; nothing is left to LVM's choice.

use std::path::{Path, PathBuf};

use super::args::{LvmCommand, METADATA_AREA, dm_name, full, nodes};
use crate::{Activation, RaidLevel};

/// How `lvcreate` is told a level. It lays the images on the devices in the order in which these are named (seen with
/// 2.03.31, for disks of different fill too).
pub(super) fn level(level: RaidLevel) -> Vec<String> {
    let stripes = || {
        [
            "--stripes".to_owned(),
            level.data_images().to_string(),
            "--stripesize".to_owned(),
            format!("{}k", RaidLevel::STRIPE_KIB),
        ]
    };
    let kind = |kind: &str| vec!["--type".to_owned(), kind.to_owned()];
    let mirrors = |copies: u32| ["--mirrors".to_owned(), copies.saturating_sub(1).to_string()];
    match level {
        RaidLevel::Linear => kind("linear"),
        RaidLevel::Mirror { copies } => [kind("raid1"), mirrors(copies).into()].concat(),
        RaidLevel::StripeMirror { .. } => [kind("raid10"), mirrors(2).into(), stripes().into()].concat(),
        RaidLevel::Parity { .. } => [kind("raid5"), stripes().into()].concat(),
        RaidLevel::DoubleParity { .. } => [kind("raid6"), stripes().into()].concat(),
    }
}

/// LVM's own modes are `complete`, `degraded` and `partial`. The default, `degraded`, refuses a thin pool that lacks a
/// disk as `complete` does.
pub(super) fn activation_mode(mode: Activation) -> Vec<String> {
    match mode {
        Activation::Complete => Vec::new(),
        Activation::Partial => vec!["--activationmode".to_owned(), "partial".to_owned()],
    }
}

fn text(node: &Path) -> String {
    node.to_string_lossy().into_owned()
}

pub(super) fn extend_vg(vg: &str, node: &Path) -> LvmCommand {
    let fixed = ["--metadatasize", METADATA_AREA, "--zero", "y", vg];
    LvmCommand::new("vgextend", fixed).with([text(node)])
}

pub(super) fn resize_pv(node: &Path) -> LvmCommand {
    LvmCommand::new("pvresize", [text(node).as_str()])
}

/// One that was interrupted is gone on with: LVM then takes no notice of where to.
pub(super) fn move_off(node: &Path, to: &[PathBuf]) -> LvmCommand {
    LvmCommand::new("pvmove", ["--interval", "5"])
        .with([text(node)])
        .with(nodes(to))
}

pub(super) fn reduce_vg(vg: &str, node: &Path) -> LvmCommand {
    LvmCommand::new("vgreduce", [vg]).with([text(node)])
}

/// Fails, having done nothing, while anything lies on one of them: it is not forced.
pub(super) fn forget_missing(vg: &str) -> LvmCommand {
    LvmCommand::new("vgreduce", ["--removemissing", vg])
}

pub(super) fn restore_pv(vg: &str, node: &Path) -> LvmCommand {
    LvmCommand::new("vgextend", ["--restoremissing", vg]).with([text(node)])
}

pub(super) fn refresh_lv(vg: &str, lv: &str) -> LvmCommand {
    // Without the mode it refuses what lacks another image (2.03.31).
    LvmCommand::new("lvchange", ["--refresh", "--activationmode", "partial"]).with(full(vg, lv))
}

/// `--yes`: that images are to be replaced at all.
pub(super) fn repair_lv(vg: &str, lv: &str, new: &Path) -> LvmCommand {
    LvmCommand::new("lvconvert", ["--yes", "--repair"])
        .with(full(vg, lv))
        .with([text(new)])
}

pub(super) fn replace_image(vg: &str, lv: &str, old: &Path, new: &Path) -> LvmCommand {
    LvmCommand::new("lvconvert", ["--yes", "--replace"])
        .with([text(old)])
        .with(full(vg, lv))
        .with([text(new)])
}

pub(super) fn rebuild_image(vg: &str, lv: &str, node: &Path) -> LvmCommand {
    LvmCommand::new("lvchange", ["--yes", "--rebuild"])
        .with([text(node)])
        .with(full(vg, lv))
}

pub(super) fn scrub(vg: &str, lv: &str, repair: bool) -> LvmCommand {
    let action = if repair { "repair" } else { "check" };
    LvmCommand::new("lvchange", ["--syncaction", action]).with(full(vg, lv))
}

/// LVM has no word for it, the kernel has.
pub(super) fn stop_scrub(vg: &str, lv: &str) -> LvmCommand {
    LvmCommand::dmsetup(["message", &dm_name(vg, lv), "0", "idle"])
}

/// What the kernel says of all volumes on several disks.
pub(super) fn raid_health() -> LvmCommand {
    LvmCommand::dmsetup(["status", "--noflush", "--target", "raid"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_written_out() {
        let (a, b) = (Path::new("/dev/vda"), Path::new("/dev/vdb"));
        for (command, line) in [
            (extend_vg("p", a), "vgextend --metadatasize 64m --zero y p /dev/vda"),
            (resize_pv(a), "pvresize /dev/vda"),
            (move_off(a, &[b.to_owned()]), "pvmove --interval 5 /dev/vda /dev/vdb"),
            (reduce_vg("p", a), "vgreduce p /dev/vda"),
            (forget_missing("p"), "vgreduce --removemissing p"),
            (restore_pv("p", a), "vgextend --restoremissing p /dev/vda"),
            (
                refresh_lv("p", "data"),
                "lvchange --refresh --activationmode partial p/data",
            ),
            (
                repair_lv("p", "data_tdata", a),
                "lvconvert --yes --repair p/data_tdata /dev/vda",
            ),
            (
                replace_image("p", "data_tdata", a, b),
                "lvconvert --yes --replace /dev/vda p/data_tdata /dev/vdb",
            ),
            (
                rebuild_image("p", "data_tdata", a),
                "lvchange --yes --rebuild /dev/vda p/data_tdata",
            ),
            (
                scrub("p", "data_tdata", false),
                "lvchange --syncaction check p/data_tdata",
            ),
            (
                scrub("p", "data_tmeta", true),
                "lvchange --syncaction repair p/data_tmeta",
            ),
        ] {
            let words = command.line();
            assert_eq!(words[1], "--config");
            assert_eq!([&words[..1], &words[3..]].concat().join(" "), line);
        }
    }

    #[test]
    fn each_level_is_written_out() {
        for (given, expected) in [
            (RaidLevel::Linear, "--type linear"),
            (RaidLevel::Mirror { copies: 3 }, "--type raid1 --mirrors 2"),
            (
                RaidLevel::StripeMirror { images: 6 },
                "--type raid10 --mirrors 1 --stripes 3 --stripesize 64k",
            ),
            (
                RaidLevel::Parity { images: 3 },
                "--type raid5 --stripes 2 --stripesize 64k",
            ),
            (
                RaidLevel::DoubleParity { images: 5 },
                "--type raid6 --stripes 3 --stripesize 64k",
            ),
        ] {
            assert_eq!(level(given).join(" "), expected);
        }
    }
}
