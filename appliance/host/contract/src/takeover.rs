//! Groups of other machines, and groups that were given up.

use std::path::Path;

use cistern_host::{Activation, Ground, HostErrorKind, RaidLevel, TagChange, VolumeGroup, XfsFound};
use cistern_model::Bytes;

use crate::bench::{Bench, Promised, VG, holds, same, spec};
use crate::{Broken, contracts};

contracts! {
    a_group_of_another_machine_is_listed_and_not_touched_before_it_is_taken_over:
        Takeover::take_group, Lvm::state;
    a_group_is_given_up_once_nothing_of_it_is_active_and_is_nobody_s_until_it_is_imported:
        Takeover::export_group, Takeover::import_group;
    a_group_that_lacks_a_disk_is_neither_taken_over_nor_given_up_nor_imported:
        Takeover::take_group, Takeover::export_group, Takeover::import_group;
    an_xfs_is_known_by_its_superblock_and_nothing_else_is_one:
        Takeover::xfs_on;
}

const THEIRS: &str = "another-machine";

fn group(bench: &Bench<'_>) -> Result<VolumeGroup, Broken> {
    bench.vg(VG)?.ok_or_else(|| "the group is not listed".to_owned())
}

/// A group with a plain volume.
fn with_a_volume(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.group(&[0])?;
    bench
        .host
        .lvm
        .create_lv(VG, "plain", RaidLevel::Linear, 2, &bench.nodes[..1], &[])
        .done("making a volume")
}

/// Nothing of it can be touched.
fn untouched(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, kind) = (&bench.host.lvm, HostErrorKind::Failed);
    let vg = group(bench)?;
    holds("it is not ours", !vg.ours)?;
    same("its tags", vg.tags, vec!["contract=1".to_owned()])?;
    holds("its volumes are not listed", bench.lv("plain")?.is_none())?;
    let change = TagChange {
        add: vec!["new=1".to_owned()],
        remove: Vec::new(),
    };
    lvm.tag_vg(VG, &change).refused("tagging it", kind)?;
    lvm.tag_lv(VG, "plain", &change).refused("tagging its volume", kind)?;
    lvm.activate_lv(VG, "plain", Activation::Complete)
        .refused("activating its volume", kind)?;
    lvm.remove_lv(VG, "plain").refused("removing its volume", kind)?;
    lvm.remove_vg(VG).refused("removing it", kind)
}

fn a_group_of_another_machine_is_listed_and_not_touched_before_it_is_taken_over(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let (lvm, takeover, kind) = (&bench.host.lvm, &bench.host.takeover, HostErrorKind::Failed);
    takeover.take_group(VG, THEIRS).refused("taking over no group", kind)?;
    with_a_volume(bench)?;
    let own = lvm.system_id().done("asking for the system id")?;
    bench.machine.give_group(VG, THEIRS)?;
    same("whose it is", group(bench)?.system_id, THEIRS.to_owned())?;
    untouched(bench)?;
    takeover
        .take_group(VG, "a-third-machine")
        .refused("taking it from who does not have it", kind)?;
    takeover.export_group(VG).refused("giving it up", kind)?;
    takeover.import_group(VG).refused("importing it", kind)?;
    takeover.take_group(VG, THEIRS).done("taking it over")?;
    let vg = group(bench)?;
    holds("it is ours", vg.ours && !vg.exported)?;
    same("whose it is", vg.system_id, own)?;
    takeover
        .take_group(VG, THEIRS)
        .refused("taking over what is ours", kind)?;
    holds("its volume is there", !bench.known("plain")?.attributes.active)?;
    lvm.activate_lv(VG, "plain", Activation::Complete)
        .done("activating its volume")
}

fn a_group_is_given_up_once_nothing_of_it_is_active_and_is_nobody_s_until_it_is_imported(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let (lvm, takeover, kind) = (&bench.host.lvm, &bench.host.takeover, HostErrorKind::Failed);
    takeover.export_group(VG).refused("giving up no group", kind)?;
    takeover.import_group(VG).refused("importing no group", kind)?;
    with_a_volume(bench)?;
    takeover
        .import_group(VG)
        .refused("importing what was not given up", kind)?;
    lvm.activate_lv(VG, "plain", Activation::Complete)
        .done("activating its volume")?;
    holds(
        "it is not given up while it is active",
        takeover.export_group(VG).is_err(),
    )?;
    holds("it is ours", group(bench)?.ours)?;
    lvm.deactivate_vg(VG).done("deactivating it")?;
    takeover.export_group(VG).done("giving it up")?;
    let vg = group(bench)?;
    holds("it is exported", vg.exported)?;
    same("whose it is", vg.system_id.as_str(), "")?;
    untouched(bench)?;
    takeover.export_group(VG).refused("giving it up again", kind)?;
    takeover.import_group(VG).done("importing it")?;
    let vg = group(bench)?;
    holds("it is ours", vg.ours && !vg.exported)?;
    same("whose it is", vg.system_id, lvm.system_id().done("asking")?)?;
    takeover.import_group(VG).refused("importing it again", kind)?;
    lvm.activate_lv(VG, "plain", Activation::Complete)
        .done("activating its volume")
}

fn a_group_that_lacks_a_disk_is_neither_taken_over_nor_given_up_nor_imported(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, takeover, kind) = (&bench.host.lvm, &bench.host.takeover, HostErrorKind::Failed);
    bench.group(&[0, 1])?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 2, &bench.nodes[1..2], &[])
        .done("making a volume on the disk that goes")?;
    let lacking = |attached: bool| bench.machine.attach(&bench.nodes[1], attached);
    lacking(false)?;
    takeover.export_group(VG).refused("giving it up", kind)?;
    lacking(true)?;
    takeover.export_group(VG).done("giving it up when it is whole")?;
    lacking(false)?;
    takeover.import_group(VG).refused("importing it", kind)?;
    same("it is exported still", group(bench)?.exported, true)?;
    lacking(true)?;
    takeover.import_group(VG).done("importing it when it is whole")?;
    bench.machine.give_group(VG, THEIRS)?;
    lacking(false)?;
    takeover.take_group(VG, THEIRS).refused("taking it over", kind)?;
    same("whose it is", group(bench)?.system_id, THEIRS.to_owned())?;
    lacking(true)?;
    takeover
        .take_group(VG, THEIRS)
        .done("taking it over when it is whole")?;
    same("what it lacks", group(bench)?.missing, 0)
}

fn an_xfs_is_known_by_its_superblock_and_nothing_else_is_one(bench: &Bench<'_>) -> Result<(), Broken> {
    let takeover = &bench.host.takeover;
    takeover
        .xfs_on(Path::new("/dev/no-such-disk"))
        .refused("looking at no device", HostErrorKind::Failed)?;
    same(
        "on a blank disk",
        takeover.xfs_on(&bench.nodes[1]).done("looking")?,
        None,
    )?;
    bench.pool(&[0], 100)?;
    same(
        "on a disk of a group",
        takeover.xfs_on(&bench.nodes[0]).done("looking")?,
        None,
    )?;
    let node = bench.thin("v", Bytes::mib(400))?;
    same("on a new volume", takeover.xfs_on(&node).done("looking")?, None)?;
    let made = spec(Bytes::new(Bytes::mib(300).get() + 4096));
    bench
        .host
        .filesystems
        .make_xfs(&node, &made, Ground::Zeroes)
        .done("making a filesystem smaller than its device")?;
    let found = XfsFound {
        uuid: made.uuid,
        size: made.size,
    };
    same("on it", takeover.xfs_on(&node).done("looking")?, Some(found))?;
    bench.host.lvm.deactivate_vg(VG).done("deactivating")?;
    takeover
        .xfs_on(&node)
        .refused("looking at what is not active", HostErrorKind::Failed)
}
