//! Disks that leave their group, that LVM is not to see, and groups that lack one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cistern_host::{Activation, HostErrorKind, RaidLevel, TagChange};
use cistern_model::Bytes;

use crate::bench::{Bench, OTHER, POOL, Promised, VG, holds, same};
use crate::lvm::{sorted, tags};
use crate::{Broken, contracts};

contracts! {
    a_group_that_lacks_a_disk_is_told_and_gets_no_volumes:
        Lvm::state, Lvm::create_lv, Lvm::remove_vg, Lvm::tag_vg, Raids::restore_pv;
    a_disk_on_which_nothing_lies_comes_back_by_itself:
        Lvm::state, Lvm::tag_vg;
    volumes_on_a_disk_that_is_gone_are_not_activated_and_come_back_with_it:
        Lvm::activate_vg, Lvm::activate_lv;
    what_lies_on_a_disk_is_moved_to_others_that_have_room_while_it_is_used:
        Raids::move_off, Raids::reduce_vg;
    missing_disks_are_forgotten_only_if_nothing_lies_on_any:
        Raids::forget_missing;
    a_group_that_lacks_a_disk_is_not_changed:
        Lvm::create_thin, Lvm::create_thin_snapshot, Lvm::rename_lv, Lvm::extend_thin, Lvm::extend_lv, ThinPools::extend_metadata, Raids::move_off, Raids::reduce_vg, Raids::resize_pv;
    a_disk_that_is_hidden_is_as_if_it_were_not_there_until_it_is_not_hidden:
        Lvm::hide;
}

const KIND: HostErrorKind = HostErrorKind::Failed;

fn taken(bench: &Bench<'_>, disk: usize) -> Result<Option<Bytes>, Broken> {
    let state = bench.host.lvm.state().done("reading LVM's state")?;
    let node = Some(&bench.nodes[disk]);
    let pv = state.pvs.iter().find(|pv| pv.node.as_ref() == node);
    Ok(pv.map(|pv| pv.size.saturating_sub(pv.free)))
}

fn what_lies_on_a_disk_is_moved_to_others_that_have_room_while_it_is_used(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, raids, disk) = (&bench.host.lvm, &bench.host.raids, &bench.nodes);
    bench.pool(&[0], 20)?;
    let target = bench.mounted("v", Bytes::mib(300))?;
    bench.machine.write(&target, "before", Bytes::mib(8))?;
    for node in &disk[1..3] {
        raids.extend_vg(VG, node).done("joining another disk")?;
    }
    // Room for less than what lies on the first.
    let free = taken(bench, 1)?.and(bench.vg(VG)?).map(|vg| vg.free.get() >> 22);
    let each = (free.ok_or("the group is not there")? + 22) / 3;
    lvm.create_lv(VG, "filler", RaidLevel::Linear, each - 10, &disk[1..2], &[])
        .done("filling the second disk")?;
    for (what, from, to) in [
        ("to a disk without room", 0, 1),
        ("off a disk on which nothing lies", 2, 0),
        ("to itself", 0, 0),
        ("to a disk of no group", 0, 3),
        ("off a disk of no group", 3, 2),
    ] {
        raids
            .move_off(VG, &disk[from], &disk[to..=to])
            .refused(&format!("moving {what}"), KIND)?;
    }
    let all = Some(Bytes::mib(88));
    same("what lies on the first disk", taken(bench, 0)?, all)?;
    raids
        .move_off(VG, &disk[0], &disk[2..3])
        .done("moving it to the third")?;
    same(
        "what lies on the first and the third",
        (taken(bench, 0)?, taken(bench, 2)?),
        (Some(Bytes::ZERO), all),
    )?;
    raids
        .move_off(VG, &disk[0], &disk[2..3])
        .refused("moving it again", KIND)?;
    bench.machine.write(&target, "after", Bytes::mib(8))?;
    raids.reduce_vg(VG, &disk[0]).done("taking the first disk out")?;
    same("it is of no group", taken(bench, 0)?, None)?;
    same(
        "what is in the volume",
        bench.machine.files(&target)?,
        vec!["after".to_owned(), "before".to_owned()],
    )
}

fn missing_disks_are_forgotten_only_if_nothing_lies_on_any(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, raids, disk) = (&bench.host.lvm, &bench.host.raids, &bench.nodes);
    raids.forget_missing(VG).refused("in no group", KIND)?;
    bench.group(&[0, 1, 2])?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 2, &disk[1..2], &[])
        .done("making a volume on one that goes")?;
    for node in &disk[1..3] {
        bench.machine.attach(node, false)?;
    }
    let lacking = || -> Result<Option<u32>, Broken> { Ok(bench.vg(VG)?.map(|vg| vg.missing)) };
    same("what it lacks", lacking()?, Some(2))?;
    raids.forget_missing(VG).refused("with one that is used", KIND)?;
    bench.known("plain")?;
    bench.machine.attach(&disk[1], true)?;
    let state = lvm.state().done("reading LVM's state")?;
    for node in state.pvs.into_iter().filter_map(|pv| pv.returned) {
        raids.restore_pv(VG, &node).done("taking it back")?;
    }
    raids.forget_missing(VG).done("without it")?;
    same("what it lacks", lacking()?, Some(0))?;
    lvm.create_lv(VG, "more", RaidLevel::Linear, 2, &disk[..1], &[])
        .done("making a volume when it is whole")
}

fn a_group_that_lacks_a_disk_is_not_changed(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, raids, disk) = (&bench.host.lvm, &bench.host.raids, &bench.nodes);
    bench.pool(&[0], 50)?;
    for node in &disk[1..3] {
        raids.extend_vg(VG, node).done("joining another disk")?;
    }
    bench.thin("v", Bytes::mib(300))?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 2, &disk[1..2], &[])
        .done("making a volume on the disk that goes")?;
    let before = lvm.state().done("reading LVM's state")?.lvs;
    bench.machine.attach(&disk[1], false)?;
    let (first, none) = (&disk[..1], Vec::new());
    let attempts = [
        ("a volume", lvm.create_thin(VG, POOL, "w", Bytes::mib(300), &none)),
        ("a snapshot", lvm.create_thin_snapshot(VG, "v", "s", &none, false)),
        ("another name", lvm.rename_lv(VG, "v", "w")),
        ("more size", lvm.extend_thin(VG, "v", Bytes::mib(400))),
        ("more room", lvm.extend_lv(VG, POOL, 5, first)),
        ("more metadata", bench.host.thin.extend_metadata(VG, POOL, 2, first)),
        ("moving", raids.move_off(VG, &disk[0], &disk[2..3])),
        ("taking a disk out", raids.reduce_vg(VG, &disk[2])),
        ("a larger disk", raids.resize_pv(VG, &disk[0])),
    ];
    for (what, outcome) in attempts {
        outcome.refused(what, KIND)?;
    }
    // What was active is served, and goes and comes.
    lvm.deactivate_lv(VG, "v").done("deactivating a volume")?;
    lvm.activate_lv(VG, "v", Activation::Complete)
        .done("activating one that lacks nothing")?;
    bench.machine.attach(&disk[1], true)?;
    let after = lvm.state().done("reading LVM's state")?.lvs;
    let shapes = |lvs: Vec<cistern_host::LogicalVolume>| -> BTreeSet<(String, Bytes)> {
        lvs.into_iter().map(|lv| (lv.name, lv.size)).collect()
    };
    same("its volumes", shapes(after), shapes(before))?;
    lvm.rename_lv(VG, "v", "w").done("another name when it is whole")
}

fn a_disk_that_is_hidden_is_as_if_it_were_not_there_until_it_is_not_hidden(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, disk) = (&bench.host.lvm, &bench.nodes);
    bench.group(&[0, 1])?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 2, &disk[1..2], &[])
        .done("making a volume on the one that is hidden")?;
    let hide = |nodes: &[PathBuf]| lvm.hide(nodes.iter().cloned().collect());
    let lacking = || -> Result<Option<u32>, Broken> { Ok(bench.vg(VG)?.map(|vg| vg.missing)) };
    hide(&disk[1..2]);
    same("what the group lacks", lacking()?, Some(1))?;
    same("its disk", taken(bench, 1)?, None)?;
    let make = || lvm.create_lv(VG, "more", RaidLevel::Linear, 2, &disk[..1], &[]);
    make().refused("making a volume", KIND)?;
    lvm.activate_lv(VG, "plain", Activation::Complete)
        .refused("activating what lies on it", KIND)?;
    // In place of what was hidden before.
    hide(&disk[2..3]);
    same("what the group lacks", lacking()?, Some(0))?;
    lvm.create_vg(OTHER, &disk[2..3], &[])
        .refused("making a group of what is hidden", KIND)?;
    make().done("making a volume")?;
    let found = bench.host.disks.signatures(&disk[2]).done("reading signatures")?;
    same("what is on the hidden one", found, Vec::new())?;
    hide(&[]);
    lvm.create_vg(OTHER, &disk[2..3], &[])
        .done("making a group of it when it is not hidden")?;
    holds("it is there", bench.vg(OTHER)?.is_some())
}

fn a_group_that_lacks_a_disk_is_told_and_gets_no_volumes(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    lvm.create_lv(VG, "there", RaidLevel::Linear, 5, &bench.nodes[1..2], &[])
        .done("making a volume on the disk that goes")?;
    bench.machine.attach(&bench.nodes[1], false)?;
    let state = lvm.state().done("reading LVM's state")?;
    let lacking = state.vgs.iter().find(|vg| vg.name == VG).map(|vg| vg.missing);
    same("what it lacks", lacking, Some(1))?;
    let without: Vec<_> = state
        .pvs
        .iter()
        .filter(|pv| pv.vg.as_deref() == Some(VG) && pv.node.is_none())
        .collect();
    same("disks with no node", without.len(), 1)?;
    let make = || lvm.create_lv(VG, "plain", RaidLevel::Linear, 5, &bench.nodes[..1], &[]);
    make().refused("making a volume in it", HostErrorKind::Failed)?;
    lvm.remove_vg(VG).refused("removing it", HostErrorKind::Failed)?;
    // Tags can be changed. From then on its metadata and the absent disk's differ, and the disk counts as missing even
    // when it is there again, until it is taken back by name.
    lvm.tag_vg(VG, &new_tag()).done("tagging it")?;
    bench.machine.attach(&bench.nodes[1], true)?;
    same(
        "disks that came back and count as missing",
        returned(bench)?,
        vec![bench.nodes[1].clone()],
    )?;
    make().refused("making a volume before the disk is taken back", HostErrorKind::Failed)?;
    bench
        .host
        .raids
        .restore_pv(VG, &bench.nodes[1])
        .done("taking the disk back")?;
    make().done("making a volume when it is whole")?;
    let vg = bench.vg(VG)?.ok_or("the group is gone")?;
    same(
        "its tags, and what it lacks",
        (sorted(vg.tags), vg.missing),
        (tags(&["contract=1", "new=1"]), 0),
    )
}

fn a_disk_on_which_nothing_lies_comes_back_by_itself(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    bench.machine.attach(&bench.nodes[1], false)?;
    lvm.tag_vg(VG, &new_tag()).done("tagging the group without it")?;
    bench.machine.attach(&bench.nodes[1], true)?;
    same(
        "disks that came back and count as missing",
        returned(bench)?,
        Vec::new(),
    )?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 5, &bench.nodes[1..2], &[])
        .done("making a volume on it")
}

fn new_tag() -> TagChange {
    TagChange {
        add: tags(&["new=1"]),
        remove: Vec::new(),
    }
}

/// The disks that are there and count as missing.
fn returned(bench: &Bench<'_>) -> Result<Vec<PathBuf>, Broken> {
    let state = bench.host.lvm.state().done("reading LVM's state")?;
    Ok(state.pvs.into_iter().filter_map(|pv| pv.returned).collect())
}

fn volumes_on_a_disk_that_is_gone_are_not_activated_and_come_back_with_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0, 1])?;
    for (name, node) in [("here", 0), ("gone", 1)] {
        lvm.create_lv(VG, name, RaidLevel::Linear, 5, &bench.nodes[node..=node], &[])
            .done("making a volume")?;
    }
    bench.machine.attach(&bench.nodes[1], false)?;
    lvm.activate_vg(VG, Activation::Complete)
        .refused("activating all", HostErrorKind::Failed)?;
    let (here, gone) = (bench.known("here")?.attributes, bench.known("gone")?.attributes);
    holds("the other one is active", here.active && !here.partial)?;
    holds("the one without its disk is not", !gone.active && gone.partial)?;
    lvm.activate_lv(VG, "gone", Activation::Complete)
        .refused("activating it alone", HostErrorKind::Failed)?;
    bench.machine.attach(&bench.nodes[1], true)?;
    lvm.activate_vg(VG, Activation::Complete)
        .done("activating all when the disk is back")?;
    let gone = bench.known("gone")?.attributes;
    holds("it is active and whole", gone.active && !gone.partial)
}
