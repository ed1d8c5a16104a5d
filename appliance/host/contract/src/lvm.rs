//! Groups and plain volumes.

use std::path::PathBuf;
use std::time::Duration;

use cistern_host::{Activation, HostErrorKind, RaidLevel, TagChange};
use cistern_model::Bytes;

use crate::bench::{Bench, OTHER, POOL, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    a_group_is_made_of_blank_disks_with_its_tags_and_this_machine_s_id:
        Lvm::create_vg, Lvm::state, Lvm::system_id;
    a_group_is_not_made_of_a_disk_that_carries_anything:
        Lvm::create_vg;
    a_group_is_not_made_twice_nor_of_a_device_that_is_not_there:
        Lvm::create_vg;
    a_removed_group_leaves_labels_that_are_taken_off_one_by_one:
        Lvm::remove_vg, Lvm::remove_pv;
    the_label_of_a_disk_in_a_group_stays:
        Lvm::remove_pv;
    a_group_with_volumes_is_not_removed:
        Lvm::remove_vg;
    tags_are_added_and_taken_away_in_one_commit_and_one_that_is_not_there_is_no_error:
        Lvm::tag_lv, Lvm::tag_vg;
    a_tag_that_lvm_does_not_know_how_to_write_is_refused_and_changes_nothing:
        Lvm::tag_vg;
    a_plain_volume_lies_inactive_on_the_disks_that_were_named:
        Lvm::create_lv;
    a_plain_volume_that_does_not_fit_is_not_made:
        Lvm::create_lv;
    a_mirror_takes_as_much_of_each_disk:
        Lvm::create_lv;
    a_plain_volume_grows_by_what_was_asked:
        Lvm::extend_lv;
    a_mirror_whose_making_was_cut_short_is_told_is_not_activated_and_can_be_removed:
        Lvm::state, Lvm::activate_lv, Lvm::activate_vg, Lvm::remove_lv, Lvm::create_lv;
    nothing_is_suspended_where_no_command_was_cut_short:
        Lvm::resume;
    what_a_command_left_suspended_is_named_and_can_be_written_to_again:
        Lvm::resume;
    what_is_not_there_cannot_be_changed:
        Lvm::tag_vg, Lvm::remove_vg, Lvm::activate_vg, Lvm::deactivate_vg, Lvm::tag_lv, Lvm::remove_lv, Lvm::activate_lv, Lvm::extend_lv, Lvm::create_thin;
}

pub(crate) fn tags(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn sorted(mut tags: Vec<String>) -> Vec<String> {
    tags.sort();
    tags
}

fn a_group_is_made_of_blank_disks_with_its_tags_and_this_machine_s_id(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    lvm.create_vg(VG, &bench.nodes[..2], &tags(&["a=1", "b=x#2c/y"]))
        .done("making a group")?;
    let vg = bench.vg(VG)?.ok_or("the group is not there")?;
    same("its tags", sorted(vg.tags), tags(&["a=1", "b=x#2c/y"]))?;
    same(
        "whose it is",
        vg.system_id,
        lvm.system_id().done("asking for the system id")?,
    )?;
    holds("it is ours and lacks nothing", vg.ours && vg.missing == 0)?;
    same("its extents", vg.extent, Bytes::mib(4))?;
    let state = lvm.state().done("reading LVM's state")?;
    let mut members: Vec<Option<PathBuf>> = state
        .pvs
        .iter()
        .filter(|pv| pv.vg.as_deref() == Some(VG))
        .map(|pv| pv.node.clone())
        .collect();
    members.sort();
    let mut promised: Vec<Option<PathBuf>> = bench.nodes[..2].iter().cloned().map(Some).collect();
    promised.sort();
    same("its disks", members, promised)
}

fn a_group_is_not_made_of_a_disk_that_carries_anything(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    let both = [bench.nodes[1].clone(), bench.nodes[0].clone()];
    lvm.create_vg(OTHER, &both, &[])
        .refused("a group of a disk that is in one", HostErrorKind::Failed)?;
    let found = bench
        .host
        .disks
        .signatures(&bench.nodes[1])
        .done("reading signatures")?;
    same("what is on the disk beside it", found, Vec::new())?;
    holds("the other group is not there", bench.vg(OTHER)?.is_none())
}

fn a_group_is_not_made_twice_nor_of_a_device_that_is_not_there(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    lvm.create_vg(VG, &bench.nodes[1..2], &[])
        .refused("a group under a name that is there", HostErrorKind::Failed)?;
    lvm.create_vg(OTHER, &["/dev/no-such-disk".into()], &[])
        .refused("a group of nothing", HostErrorKind::Failed)?;
    let found = bench
        .host
        .disks
        .signatures(&bench.nodes[1])
        .done("reading signatures")?;
    same("what is on the disk that was named", found, Vec::new())
}

fn a_removed_group_leaves_labels_that_are_taken_off_one_by_one(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    lvm.remove_vg(VG).done("removing a group")?;
    holds("it is gone", bench.vg(VG)?.is_none())?;
    lvm.remove_pv(&bench.nodes[0]).done("taking a label off")?;
    let state = lvm.state().done("reading LVM's state")?;
    let left: Vec<_> = state.pvs.iter().filter_map(|pv| pv.node.clone()).collect();
    holds(
        "one label is off, the other is not",
        !left.contains(&bench.nodes[0]) && left.contains(&bench.nodes[1]),
    )?;
    let found = bench
        .host
        .disks
        .signatures(&bench.nodes[0])
        .done("reading signatures")?;
    same("what is on it", found, Vec::new())?;
    lvm.remove_pv(&bench.nodes[0])
        .refused("taking off what is not there", HostErrorKind::Failed)
}

fn the_label_of_a_disk_in_a_group_stays(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.group(&[0])?;
    bench
        .host
        .lvm
        .remove_pv(&bench.nodes[0])
        .refused("taking off the label of a disk in a group", HostErrorKind::Failed)?;
    same("what it lacks", bench.vg(VG)?.map(|vg| vg.missing), Some(0))
}

fn a_group_with_volumes_is_not_removed(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 5, &bench.nodes[..1], &[])
        .done("making a volume")?;
    lvm.remove_vg(VG)
        .refused("removing a group with a volume", HostErrorKind::Failed)?;
    bench.known("plain").map(drop)
}

fn tags_are_added_and_taken_away_in_one_commit_and_one_that_is_not_there_is_no_error(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    lvm.create_lv(
        VG,
        "plain",
        RaidLevel::Linear,
        5,
        &bench.nodes[..1],
        &tags(&["old=1", "kept=1"]),
    )
    .done("making a volume")?;
    let change = TagChange {
        add: tags(&["new=1"]),
        remove: tags(&["old=1", "contract=1", "never=1"]),
    };
    for again in [false, true] {
        lvm.tag_lv(VG, "plain", &change).done("changing a volume's tags")?;
        lvm.tag_vg(VG, &change).done("changing a group's tags")?;
        same(
            "a volume's tags",
            sorted(bench.known("plain")?.tags),
            tags(&["kept=1", "new=1"]),
        )?;
        let vg = bench.vg(VG)?.ok_or("the group is gone")?;
        same(
            if again {
                "a group's tags, again"
            } else {
                "a group's tags"
            },
            vg.tags,
            tags(&["new=1"]),
        )?;
    }
    Ok(())
}

fn a_tag_that_lvm_does_not_know_how_to_write_is_refused_and_changes_nothing(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    for bad in ["a,b", "50%", "a b", "a\"b", "\u{fc}", ""] {
        let change = TagChange {
            add: tags(&[bad]),
            remove: tags(&["contract=1"]),
        };
        lvm.tag_vg(VG, &change)
            .refused(&format!("the tag {bad:?}"), HostErrorKind::Failed)?;
        let vg = bench.vg(VG)?.ok_or("the group is gone")?;
        same("its tags", vg.tags, tags(&["contract=1"]))?;
    }
    let change = TagChange {
        add: vec!["x".repeat(1024)],
        remove: Vec::new(),
    };
    lvm.tag_vg(VG, &change).done("a tag of 1024 characters")
}

fn a_plain_volume_lies_inactive_on_the_disks_that_were_named(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 10, &bench.nodes[1..2], &tags(&["a=1"]))
        .done("making a volume")?;
    let lv = bench.known("plain")?;
    same("its size", lv.size, Bytes::mib(40))?;
    same("its tags", lv.tags, tags(&["a=1"]))?;
    let attributes = lv.attributes;
    holds(
        "it is inactive, whole and no thin one",
        !attributes.active && !attributes.partial && !attributes.thin_pool && !attributes.thin_volume,
    )?;
    let state = lvm.state().done("reading LVM's state")?;
    let taken = |node: &PathBuf| {
        let pv = state.pvs.iter().find(|pv| pv.node.as_ref() == Some(node));
        pv.map(|pv| pv.size.saturating_sub(pv.free))
    };
    same(
        "what is taken of the disk that was not named",
        taken(&bench.nodes[0]),
        Some(Bytes::ZERO),
    )?;
    same(
        "what is taken of the one that was",
        taken(&bench.nodes[1]),
        Some(Bytes::mib(40)),
    )?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 1, &bench.nodes[..1], &[])
        .refused("another of that name", HostErrorKind::Failed)
}

fn a_plain_volume_that_does_not_fit_is_not_made(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    let free = bench.vg(VG)?.ok_or("the group is not there")?.free.get() / Bytes::mib(4).get();
    // The group has room for it; the disk that is named has not.
    lvm.create_lv(VG, "plain", RaidLevel::Linear, free / 2 + 1, &bench.nodes[..1], &[])
        .refused("more than its disk has", HostErrorKind::Failed)?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 5, &bench.nodes[2..3], &[])
        .refused("one on a disk that is not in the group", HostErrorKind::Failed)?;
    lvm.create_lv(
        VG,
        "plain",
        RaidLevel::Mirror { copies: 2 },
        free / 2 + 1,
        &bench.nodes[..2],
        &[],
    )
    .refused("a mirror larger than a disk", HostErrorKind::Failed)?;
    holds("there is none", bench.lv("plain")?.is_none())
}

fn a_mirror_takes_as_much_of_each_disk(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    lvm.create_lv(
        VG,
        "mirror",
        RaidLevel::Mirror { copies: 2 },
        10,
        &bench.nodes[..2],
        &[],
    )
    .done("making a mirror")?;
    same("its size", bench.known("mirror")?.size, Bytes::mib(40))?;
    let state = lvm.state().done("reading LVM's state")?;
    for node in &bench.nodes[..2] {
        let pv = state.pvs.iter().find(|pv| pv.node.as_ref() == Some(node));
        let taken = pv.map(|pv| pv.size.saturating_sub(pv.free));
        // One extent more, for what says which copy is the newer.
        same("what is taken of a disk", taken, Some(Bytes::mib(44)))?;
    }
    lvm.create_lv(VG, "lame", RaidLevel::Mirror { copies: 2 }, 10, &bench.nodes[..1], &[])
        .refused("a mirror on one disk", HostErrorKind::Failed)
}

fn a_plain_volume_grows_by_what_was_asked(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1, 2, 3])?;
    lvm.create_lv(
        VG,
        "mirror",
        RaidLevel::Mirror { copies: 2 },
        10,
        &bench.nodes[..2],
        &[],
    )
    .done("making a mirror")?;
    lvm.extend_lv(VG, "mirror", 5, &bench.nodes[2..4])
        .done("growing it on two others")?;
    same("its size", bench.known("mirror")?.size, Bytes::mib(60))?;
    lvm.extend_lv(VG, "mirror", 100_000, &bench.nodes[2..4])
        .refused("growing it beyond its disks", HostErrorKind::Failed)?;
    same("its size still", bench.known("mirror")?.size, Bytes::mib(60))
}

fn what_is_not_there_cannot_be_changed(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, nothing) = (&bench.host.lvm, TagChange::default());
    let change = TagChange {
        add: tags(&["a=1"]),
        ..nothing
    };
    lvm.tag_vg(VG, &change)
        .refused("tagging no group", HostErrorKind::Failed)?;
    lvm.remove_vg(VG).refused("removing no group", HostErrorKind::Failed)?;
    lvm.activate_vg(VG, Activation::Complete)
        .refused("activating no group", HostErrorKind::Failed)?;
    lvm.deactivate_vg(VG)
        .refused("deactivating no group", HostErrorKind::Failed)?;
    bench.group(&[0])?;
    lvm.tag_lv(VG, "none", &change)
        .refused("tagging no volume", HostErrorKind::Failed)?;
    lvm.remove_lv(VG, "none")
        .refused("removing no volume", HostErrorKind::Failed)?;
    lvm.activate_lv(VG, "none", Activation::Complete)
        .refused("activating no volume", HostErrorKind::Failed)?;
    lvm.extend_lv(VG, "none", 1, &bench.nodes[..1])
        .refused("growing no volume", HostErrorKind::Failed)?;
    lvm.create_thin(VG, POOL, "v", Bytes::gib(1), &[])
        .refused("a thin volume in no pool", HostErrorKind::Failed)
}

fn a_mirror_whose_making_was_cut_short_is_told_is_not_activated_and_can_be_removed(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    let make = || lvm.create_lv(VG, "m", RaidLevel::Mirror { copies: 2 }, 10, &bench.nodes[..2], &[]);
    make().done("making a mirror")?;
    let told = || -> Result<Vec<(String, bool)>, Broken> {
        let state = lvm.state().done("reading LVM's state")?;
        let here = state.lvs.into_iter().filter(|lv| lv.vg == VG);
        Ok(here.map(|lv| (lv.name, lv.attributes.unfinished)).collect())
    };
    same("what is told of it", told()?, vec![("m".to_owned(), false)])?;

    bench.machine.leave_unfinished(VG, "m")?;
    same("what is told of it", told()?, vec![("m".to_owned(), true)])?;
    lvm.activate_lv(VG, "m", Activation::Complete)
        .refused("activating it", HostErrorKind::Failed)?;
    // Of what LVM shows, it activates the images' metadata.
    lvm.activate_vg(VG, Activation::Complete).done("activating the group")?;
    same("what is told of it", told()?, vec![("m".to_owned(), true)])?;
    lvm.remove_lv(VG, "m").done("removing it")?;
    same("what is left", told()?, Vec::new())?;

    make().done("making it anew")?;
    same("what is told of it", told()?, vec![("m".to_owned(), false)])?;
    lvm.activate_lv(VG, "m", Activation::Complete).done("activating it")
}

fn nothing_is_suspended_where_no_command_was_cut_short(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", Bytes::mib(300))?;
    for _ in 0..2 {
        let resumed = lvm.resume(Duration::from_secs(10)).done("resuming what is suspended")?;
        same("what was suspended", resumed, Vec::new())?;
    }
    bench.host.filesystems.unmount(&target).done("unmounting")
}

fn what_a_command_left_suspended_is_named_and_can_be_written_to_again(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, machine) = (&bench.host.lvm, bench.machine);
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", Bytes::mib(300))?;
    machine.write(&target, "before", Bytes::mib(1))?;
    let resume = || lvm.resume(Duration::from_secs(10)).done("resuming what is suspended");
    machine.suspend(VG, "v", true)?;
    let waited = machine.held_back(&target, "late");
    let resumed = resume();
    let waits = machine.held_back(&target, "later");
    // Whatever came of it: nothing could be unmounted of what stays suspended.
    machine.suspend(VG, "v", false)?;
    holds("a write waited while it was suspended", waited?)?;
    same("what was suspended", resumed?, vec![format!("{VG}-v")])?;
    holds("a write does not wait", !waits?)?;
    same("what is suspended now", resume()?, Vec::new())?;
    machine.write(&target, "after", Bytes::mib(1))?;
    let files = machine.files(&target)?;
    holds(
        &format!("what was written is there: {files:?}"),
        ["after", "before"]
            .iter()
            .all(|name| files.iter().any(|file| file == name)),
    )
}
