//! Volumes on several disks: how they are, and how they are mended. What a pool lies on is named as LVM names it.

use std::path::PathBuf;
use std::time::Duration;

use cistern_host::{Activation, HostErrorKind, ImageHealth, RaidLevel, RaidStatus, RaidVolume, SyncAction};
use cistern_model::{Bytes, Percent};

use crate::bench::{Bench, POOL, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    only_an_active_volume_on_several_disks_has_images:
        Raids::raid_status, Raids::wait;
    an_image_is_put_on_another_disk_where_there_is_one_to_take_it:
        Raids::replace_image, Raids::reduce_vg;
    what_a_mirror_lost_is_put_on_another_disk_and_the_lost_one_forgotten:
        Raids::repair_lv, Raids::forget_missing, Raids::raid_status;
    an_image_that_came_back_is_not_used_by_itself:
        Raids::refresh_lv, Raids::raid_status;
    an_image_is_filled_anew_where_it_lies:
        Raids::rebuild_image;
    images_are_compared_and_found_to_agree:
        Raids::scrub, Raids::stop_scrub;
}

pub(crate) const DATA: &str = "data_tdata";
pub(crate) const METADATA: &str = "data_tmeta";
const KIND: HostErrorKind = HostErrorKind::Failed;

/// How a volume is once nothing is under way.
pub(crate) fn settled(bench: &Bench<'_>, lv: &str) -> Result<RaidStatus, Broken> {
    let limit = Duration::from_secs(120);
    let status = bench.host.raids.wait(VG, lv, limit).done("waiting")?;
    let status = status.ok_or_else(|| format!("{lv} has no status"))?;
    same("what is under way", status.action, SyncAction::Idle)?;
    Ok(status)
}

/// A thin pool on the first two disks with a mounted volume, the third in the group beside them.
fn mirrored(bench: &Bench<'_>) -> Result<PathBuf, Broken> {
    bench.pool(&[0, 1], 25)?;
    bench
        .host
        .raids
        .extend_vg(VG, &bench.nodes[2])
        .done("joining a third disk")?;
    let target = bench.mounted("v", Bytes::mib(300))?;
    for lv in [DATA, METADATA] {
        same("its images", settled(bench, lv)?.images, vec![ImageHealth::Good; 2])?;
    }
    Ok(target)
}

pub(crate) fn raid(bench: &Bench<'_>, lv: &str) -> Result<RaidVolume, Broken> {
    let state = bench.host.lvm.state().done("reading LVM's state")?;
    let raid = state.raids.into_iter().find(|raid| raid.vg == VG && raid.name == lv);
    raid.ok_or_else(|| format!("{lv} is not listed"))
}

/// It lies whole on these disks, one image each, in this order.
fn lies_on(bench: &Bench<'_>, lv: &str, disks: &[usize]) -> Result<(), Broken> {
    let raid = raid(bench, lv)?;
    holds(&format!("{raid:?} is whole"), raid.whole())?;
    let nodes: Vec<Vec<PathBuf>> = raid.images.into_iter().map(|image| image.nodes).collect();
    let expected = disks.iter().map(|n| vec![bench.nodes[*n].clone()]).collect();
    same("the disks that it lies on", nodes, expected)
}

fn only_an_active_volume_on_several_disks_has_images(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, raids) = (&bench.host.lvm, &bench.host.raids);
    let status = |lv: &str| raids.raid_status(VG, lv).done("asking how it is");
    same("in no group", status("none")?, None)?;
    bench.group(&[0, 1])?;
    let mirror = RaidLevel::Mirror { copies: 2 };
    for (lv, level, disks) in [("linear", RaidLevel::Linear, 1), ("mirror", mirror, 2)] {
        lvm.create_lv(VG, lv, level, 5, &bench.nodes[..disks], &[])
            .done("making a volume")?;
        same("before it is active", status(lv)?, None)?;
        lvm.activate_lv(VG, lv, Activation::Complete).done("activating it")?;
    }
    same("of no volume", status("none")?, None)?;
    same("of a linear one", status("linear")?, None)?;
    let waited = raids.wait(VG, "linear", Duration::from_secs(60)).done("waiting")?;
    same("of a linear one", waited, None)?;
    let good = RaidStatus {
        images: vec![ImageHealth::Good; 2],
        done: Percent::FULL,
        action: SyncAction::Idle,
        mismatches: 0,
    };
    same("of a mirror", settled(bench, "mirror")?, good)?;
    lvm.deactivate_vg(VG).done("deactivating the group")?;
    same("when it is not active any more", status("mirror")?, None)
}

fn an_image_is_put_on_another_disk_where_there_is_one_to_take_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, raids, disk) = (&bench.host.lvm, &bench.host.raids, &bench.nodes);
    mirrored(bench)?;
    for (what, lv, old, new) in [
        ("of no volume", "none", 1, 2),
        ("of a disk that holds none", DATA, 2, 1),
        ("to a disk that holds one", DATA, 1, 0),
        ("to where it is", DATA, 1, 1),
        ("to a disk of no group", DATA, 1, 3),
    ] {
        raids
            .replace_image(VG, lv, &disk[old], &disk[new])
            .refused(&format!("an image {what}"), KIND)?;
    }
    raids
        .reduce_vg(VG, &disk[1])
        .refused("taking out a disk on which something lies", KIND)?;
    raids.reduce_vg(VG, &disk[3]).refused("one of no group", KIND)?;
    lies_on(bench, DATA, &[0, 1])?;
    for lv in [DATA, METADATA] {
        raids.replace_image(VG, lv, &disk[1], &disk[2]).done("replacing it")?;
        settled(bench, lv)?;
        lies_on(bench, lv, &[0, 2])?;
        raids
            .replace_image(VG, lv, &disk[1], &disk[2])
            .refused("replacing it again", KIND)?;
    }
    raids.reduce_vg(VG, &disk[1]).done("taking the disk out")?;
    let found = bench.host.disks.signatures(&disk[1]).done("reading signatures")?;
    same("what is on it", found, Vec::new())?;
    raids.reduce_vg(VG, &disk[1]).refused("taking it out again", KIND)?;
    lvm.create_vg(crate::bench::OTHER, &disk[1..2], &[])
        .done("making another group of it")?;
    raids
        .reduce_vg(crate::bench::OTHER, &disk[1])
        .refused("taking out the last disk of a group", KIND)
}

fn what_a_mirror_lost_is_put_on_another_disk_and_the_lost_one_forgotten(bench: &Bench<'_>) -> Result<(), Broken> {
    let (raids, disk) = (&bench.host.raids, &bench.nodes);
    let target = mirrored(bench)?;
    raids.repair_lv(VG, DATA, &disk[2]).done("repairing what is whole")?;
    raids.forget_missing(VG).done("forgetting nothing")?;
    lies_on(bench, DATA, &[0, 1])?;
    raids
        .repair_lv(VG, "none", &disk[2])
        .refused("repairing no volume", KIND)?;
    bench.machine.attach(&disk[1], false)?;
    bench.machine.write(&target, "while it is gone", Bytes::mib(8))?;
    let lost = raids.raid_status(VG, DATA).done("asking how it is")?;
    same(
        "its images",
        lost.map(|status| status.images),
        Some(vec![ImageHealth::Good, ImageHealth::Failed]),
    )?;
    holds("it is listed as missing", raid(bench, DATA)?.images[1].missing)?;
    raids
        .forget_missing(VG)
        .refused("forgetting a disk on which something lies", KIND)?;
    for (what, new) in [("holds an image", 0), ("is of no group", 3)] {
        raids
            .repair_lv(VG, DATA, &disk[new])
            .refused(&format!("repairing it on a disk that {what}"), KIND)?;
    }
    for lv in [DATA, METADATA] {
        raids.repair_lv(VG, lv, &disk[2]).done("repairing it on the third")?;
        same("its images", settled(bench, lv)?.images, vec![ImageHealth::Good; 2])?;
        lies_on(bench, lv, &[0, 2])?;
    }
    same("what the group lacks", bench.vg(VG)?.map(|vg| vg.missing), Some(1))?;
    for _ in 0..2 {
        raids.forget_missing(VG).done("forgetting the lost disk")?;
    }
    same("what the group lacks", bench.vg(VG)?.map(|vg| vg.missing), Some(0))?;
    bench.machine.write(&target, "afterwards", Bytes::mib(1))
}

fn an_image_that_came_back_is_not_used_by_itself(bench: &Bench<'_>) -> Result<(), Broken> {
    let raids = &bench.host.raids;
    raids.refresh_lv(VG, POOL).refused("refreshing in no group", KIND)?;
    let target = mirrored(bench)?;
    raids.refresh_lv(VG, "none").refused("refreshing no volume", KIND)?;
    raids.refresh_lv(VG, POOL).done("refreshing what is whole")?;
    bench.machine.attach(&bench.nodes[1], false)?;
    bench.machine.write(&target, "while it is gone", Bytes::mib(8))?;
    bench.machine.attach(&bench.nodes[1], true)?;
    let images = || -> Result<Option<Vec<ImageHealth>>, Broken> {
        let status = raids.raid_status(VG, DATA).done("asking how it is")?;
        Ok(status.map(|status| status.images))
    };
    let lost = Some(vec![ImageHealth::Good, ImageHealth::Failed]);
    same("it is not used by itself", images()?, lost)?;
    holds("it is listed as failed", raid(bench, DATA)?.images[1].failed)?;
    raids.refresh_lv(VG, POOL).done("refreshing")?;
    bench.machine.write(&target, "afterwards", Bytes::mib(1))
}

fn an_image_is_filled_anew_where_it_lies(bench: &Bench<'_>) -> Result<(), Broken> {
    let raids = &bench.host.raids;
    let target = mirrored(bench)?;
    bench.machine.write(&target, "file", Bytes::mib(8))?;
    for (what, lv, disk) in [("of no volume", "none", 1), ("on a disk that holds none", DATA, 2)] {
        raids
            .rebuild_image(VG, lv, &bench.nodes[disk])
            .refused(&format!("an image {what}"), KIND)?;
    }
    for disk in [1, 0] {
        raids.rebuild_image(VG, DATA, &bench.nodes[disk]).done("filling it")?;
        same("its images", settled(bench, DATA)?.images, vec![ImageHealth::Good; 2])?;
        lies_on(bench, DATA, &[0, 1])?;
    }
    same("what is in it", bench.machine.files(&target)?, vec!["file".to_owned()])?;
    bench.machine.write(&target, "afterwards", Bytes::mib(1))
}

fn images_are_compared_and_found_to_agree(bench: &Bench<'_>) -> Result<(), Broken> {
    let (raids, lvm) = (&bench.host.raids, &bench.host.lvm);
    for _ in 0..2 {
        raids.stop_scrub(VG, "none").done("breaking off nothing")?;
    }
    mirrored(bench)?;
    lvm.create_lv(VG, "linear", RaidLevel::Linear, 2, &bench.nodes[..1], &[])
        .done("making a linear volume")?;
    lvm.activate_lv(VG, "linear", Activation::Complete)
        .done("activating it")?;
    for (what, lv) in [("no volume", "none"), ("a linear one", "linear")] {
        raids.scrub(VG, lv, false).refused(&format!("comparing {what}"), KIND)?;
    }
    for repair in [false, true] {
        raids.scrub(VG, DATA, repair).done("comparing")?;
        let status = settled(bench, DATA)?;
        same("sectors that differ", status.mismatches, 0)?;
        same("its images", status.images, vec![ImageHealth::Good; 2])?;
    }
    raids.stop_scrub(VG, DATA).done("breaking off what has ended")?;
    raids.scrub(VG, DATA, false).done("comparing")?;
    raids.stop_scrub(VG, DATA).done("breaking it off")?;
    settled(bench, DATA).map(drop)
}
