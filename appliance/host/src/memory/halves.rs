//! What a power cut in the midst of each call leaves. Invariant: every call that changes something is named here, with what
//! Linux does for it in mind; one that is not is told as a violation, so that whoever adds a call has to decide.

use super::MemoryHost;

/// What is left of a call during which the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// It is several acts, and a state of its own lies between them: the call makes it where it finds `State::midway`.
    Own,
    /// Nothing: it is one commit of LVM's, one transaction of XFS', or one write.
    Nothing,
    /// All of it: with LVM's first commit it is there to stay, and what LVM has not told the kernel by then it tells it when it is
    /// activated next, before anybody can have written anything (`linux/lvm/messages.rs`).
    All,
    /// Nothing, because all that it does is gone with the power.
    Volatile,
}

/// Every call that changes something.
const HALVES: &[(&str, Half)] = &[
    ("disks.make_part", Half::Nothing),
    // What is in a partition, then what is on the disk; of several signatures one after the other.
    ("disks.wipe", Half::Own),
    ("exports.expire", Half::Volatile),
    ("exports.release", Half::Volatile),
    ("exports.remove", Half::Volatile),
    ("exports.replace", Half::Volatile),
    ("exports.set", Half::Volatile),
    ("filesystems.freeze", Half::Volatile),
    ("filesystems.grow_xfs", Half::Nothing),
    ("filesystems.make_xfs", Half::Own),
    ("filesystems.mount", Half::Volatile),
    ("filesystems.mount_read_only", Half::Volatile),
    // One stretch after another, each with what it holds.
    ("filesystems.own_log", Half::Nothing),
    // The owner, then the mode.
    ("filesystems.set_root", Half::Own),
    ("filesystems.thaw", Half::Volatile),
    // One stretch after another.
    ("filesystems.trim", Half::Own),
    ("filesystems.unmount", Half::Volatile),
    ("layers.close", Half::Volatile),
    ("layers.forget_checksums", Half::Volatile),
    // The partition and the tables, then what is new is noted as never written.
    ("layers.grow", Half::Own),
    // The partition, then what is in it.
    ("layers.make", Half::Own),
    ("layers.open", Half::Volatile),
    ("lvm.activate_lv", Half::Volatile),
    ("lvm.activate_vg", Half::Volatile),
    ("lvm.convert_to_thin_pool", Half::Nothing),
    // Of one on several disks: it is there, and the images' own metadata is to be cleared.
    ("lvm.create_lv", Half::Own),
    ("lvm.create_thin", Half::All),
    ("lvm.create_thin_snapshot", Half::All),
    // A label on one disk after another, then the group.
    ("lvm.create_vg", Half::Own),
    ("lvm.deactivate_lv", Half::Volatile),
    ("lvm.deactivate_vg", Half::Volatile),
    ("lvm.extend_lv", Half::Nothing),
    ("lvm.extend_thin", Half::Nothing),
    ("lvm.remove_lv", Half::All),
    ("lvm.remove_pv", Half::Nothing),
    // The group is there, whole, as long as one of its disks tells of it.
    ("lvm.remove_vg", Half::Nothing),
    ("lvm.rename_lv", Half::Nothing),
    ("lvm.tag_lv", Half::Nothing),
    ("lvm.tag_vg", Half::Nothing),
    // The label, then the group.
    ("raids.extend_vg", Half::Own),
    ("raids.forget_missing", Half::Nothing),
    // One stretch after another; LVM goes on with it when it is asked again.
    ("raids.move_off", Half::Own),
    // The kernel's own notes on the image, which say that it failed as those of the others do; then LVM's commit, by which it is
    // filled anew when it is activated next, too (`LV_REBUILD` in raid_manip.c).
    ("raids.rebuild_image", Half::All),
    // The group, then the label.
    ("raids.reduce_vg", Half::Own),
    ("raids.refresh_lv", Half::Volatile),
    // The new image takes the place of the old one, then the old one is removed.
    ("raids.repair_lv", Half::Own),
    ("raids.replace_image", Half::Own),
    ("raids.resize_pv", Half::Nothing),
    ("raids.restore_pv", Half::Nothing),
    ("raids.scrub", Half::Volatile),
    ("raids.stop_scrub", Half::Volatile),
    ("services.ensure_started", Half::Volatile),
    ("takeover.export_group", Half::Nothing),
    ("takeover.import_group", Half::Nothing),
    ("takeover.take_group", Half::Nothing),
    ("thin.extend_metadata", Half::Nothing),
];

/// What a power cut in the midst of this call leaves; none if nobody decided that.
pub(super) fn half(call: &str) -> Option<Half> {
    let found = HALVES.iter().find(|(name, _)| *name == call);
    found.map(|(_, half)| *half)
}

impl MemoryHost {
    /// The names of all calls that change something.
    pub fn changing_calls() -> Vec<&'static str> {
        HALVES.iter().map(|(name, _)| *name).collect()
    }
}
