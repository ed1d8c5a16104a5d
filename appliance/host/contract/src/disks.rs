//! Disks and what is on them.

use std::path::Path;

use cistern_host::{BlockDevice, HostErrorKind};
use cistern_model::DiskId;

use crate::bench::{Bench, Promised, holds, same};
use crate::{Broken, contracts};

contracts! {
    blank_disks_are_listed_once_each_and_carry_nothing:
        Disks::list, Disks::signatures;
    a_disk_that_is_pulled_is_no_longer_listed_and_is_again_when_it_is_back:
        Disks::list, Disks::signatures;
    what_is_put_on_a_disk_is_read_from_it_at_once:
        Disks::signatures;
    a_wipe_takes_everything_off_and_can_be_repeated:
        Disks::wipe;
    a_disk_that_carries_active_volumes_is_not_wiped:
        Disks::wipe;
    a_device_that_is_not_there_can_be_neither_read_nor_wiped:
        Disks::signatures, Disks::wipe;
    a_partition_is_made_only_where_there_is_room_behind_the_system:
        Disks::make_part;
    what_is_free_of_the_boot_disk_becomes_a_partition_once_and_the_disk_stays_as_it_is:
        Disks::list, Disks::make_part, Disks::wipe;
}

fn listed(bench: &Bench<'_>, node: &Path) -> Result<usize, Broken> {
    let disks = bench.host.disks.list().done("listing disks")?;
    Ok(disks.iter().filter(|disk| disk.node == node).count())
}

fn kinds(bench: &Bench<'_>, node: &Path) -> Result<Vec<String>, Broken> {
    let found = bench.host.disks.signatures(node).done("reading signatures")?;
    Ok(found.into_iter().map(|signature| signature.kind).collect())
}

fn blank_disks_are_listed_once_each_and_carry_nothing(bench: &Bench<'_>) -> Result<(), Broken> {
    let disks = bench.host.disks.list().done("listing disks")?;
    for node in &bench.nodes {
        let found: Vec<_> = disks.iter().filter(|disk| disk.node == *node).collect();
        same("entries of a disk", found.len(), 1)?;
        holds("it is free", !found[0].busy && !found[0].boot && !found[0].read_only)?;
        same("what is on it", found[0].signatures.len(), 0)?;
        same("what is read from it", kinds(bench, node)?, Vec::new())?;
        let others = disks.iter().filter(|disk| disk.id == found[0].id).count();
        same("disks with its id", others, 1)?;
    }
    Ok(())
}

fn a_disk_that_is_pulled_is_no_longer_listed_and_is_again_when_it_is_back(bench: &Bench<'_>) -> Result<(), Broken> {
    let node = &bench.nodes[3];
    bench.machine.attach(node, false)?;
    same("entries of a pulled disk", listed(bench, node)?, 0)?;
    bench
        .host
        .disks
        .signatures(node)
        .refused("reading a pulled disk", HostErrorKind::Failed)?;
    bench.machine.attach(node, true)?;
    same("entries of a disk that is back", listed(bench, node)?, 1)
}

fn what_is_put_on_a_disk_is_read_from_it_at_once(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.group(&[0])?;
    same(
        "on a disk of a group",
        kinds(bench, &bench.nodes[0])?,
        vec!["LVM2_member".to_owned()],
    )?;
    same("on its neighbour", kinds(bench, &bench.nodes[1])?, Vec::new())
}

fn a_wipe_takes_everything_off_and_can_be_repeated(bench: &Bench<'_>) -> Result<(), Broken> {
    let disks = &bench.host.disks;
    bench.group(&[0])?;
    bench.host.lvm.remove_vg(crate::bench::VG).done("removing the group")?;
    same(
        "what a removed group leaves",
        kinds(bench, &bench.nodes[0])?,
        vec!["LVM2_member".to_owned()],
    )?;
    disks.wipe(&bench.nodes[0]).done("wiping")?;
    same("after a wipe", kinds(bench, &bench.nodes[0])?, Vec::new())?;
    disks.wipe(&bench.nodes[0]).done("wiping again")
}

fn a_disk_that_carries_active_volumes_is_not_wiped(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    bench.thin("v", cistern_model::Bytes::mib(300))?;
    bench
        .host
        .disks
        .wipe(&bench.nodes[0])
        .refused("wiping under an active volume", HostErrorKind::Busy)?;
    same(
        "it is as it was",
        kinds(bench, &bench.nodes[0])?,
        vec!["LVM2_member".to_owned()],
    )
}

fn a_device_that_is_not_there_can_be_neither_read_nor_wiped(bench: &Bench<'_>) -> Result<(), Broken> {
    let (disks, missing) = (&bench.host.disks, Path::new("/dev/no-such-disk"));
    disks.signatures(missing).refused("reading it", HostErrorKind::Failed)?;
    disks.wipe(missing).refused("wiping it", HostErrorKind::Failed)
}

fn a_partition_is_made_only_where_there_is_room_behind_the_system(bench: &Bench<'_>) -> Result<(), Broken> {
    let all = bench.host.disks.list().done("listing disks")?;
    let blank = all.into_iter().find(|disk| disk.node == bench.nodes[0]);
    let blank = blank.ok_or("the first disk is not listed")?;
    let part = BlockDevice {
        id: DiskId::free_part_of(&blank.id),
        ..blank
    };
    bench
        .host
        .disks
        .make_part(&part)
        .refused("making a partition on another disk", HostErrorKind::Failed)?;
    same("what is on that disk", kinds(bench, &bench.nodes[0])?, Vec::new())
}

fn what_is_free_of_the_boot_disk_becomes_a_partition_once_and_the_disk_stays_as_it_is(
    bench: &Bench<'_>,
) -> Result<(), Broken> {
    let disks = &bench.host.disks;
    let find = |boot: bool| -> Result<Option<BlockDevice>, Broken> {
        let found = disks.list().done("listing disks")?;
        Ok(found
            .into_iter()
            .find(|disk| disk.boot == boot && (boot || disk.free.is_some())))
    };
    // A live system has none.
    let Some(part) = find(false)? else { return Ok(()) };
    let boot = find(true)?.ok_or("what is free of no boot disk")?;
    same("its id", part.id.clone(), DiskId::free_part_of(&boot.id))?;
    holds("it is smaller than its disk", part.size < boot.size)?;
    let before = kinds(bench, &boot.node)?;
    for _ in 0..2 {
        disks.make_part(&part).done("making the partition")?;
    }
    let made = find(false)?.ok_or("it is gone")?;
    holds("it is made", !made.is_unmade())?;
    same(
        "where and how large",
        (made.node.clone(), made.size),
        (part.node, part.size),
    )?;
    disks.wipe(&made.node).done("wiping it")?;
    same("after a wipe", kinds(bench, &made.node)?, Vec::new())?;
    let wiped = find(false)?.ok_or("it was wiped and is gone")?;
    holds(
        "it is free",
        !wiped.busy && wiped.signatures.is_empty() && !wiped.is_unmade(),
    )?;
    same("on the boot disk", kinds(bench, &boot.node)?, before)?;
    disks
        .wipe(&boot.node)
        .refused("wiping the boot disk", HostErrorKind::Busy)
}
