//! XFS and mounts.

use std::path::Path;

use cistern_host::{Ground, HostErrorKind, RootSpec};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised, VG, holds, same, spec};
use crate::{Broken, contracts};

contracts! {
    a_filesystem_is_made_on_a_blank_device_and_found_there:
        Filesystems::make_xfs, Filesystems::probe;
    a_filesystem_is_not_made_over_another_unless_that_is_said:
        Filesystems::make_xfs;
    a_filesystem_has_at_least_300_mib_and_fits_its_device:
        Filesystems::make_xfs;
    nothing_is_made_or_mounted_on_a_device_that_is_not_there:
        Filesystems::probe, Filesystems::make_xfs, Filesystems::mount;
    a_filesystem_that_is_mounted_is_not_made_anew:
        Filesystems::make_xfs;
    a_mount_makes_its_directory_and_an_unmount_removes_it:
        Filesystems::mount, Filesystems::unmount;
    nothing_is_mounted_over_a_mount:
        Filesystems::mount;
    a_device_without_a_filesystem_is_not_mounted:
        Filesystems::mount;
    unmounting_is_repeated_without_error:
        Filesystems::unmount;
    a_filesystem_in_use_is_not_unmounted:
        Filesystems::unmount;
    mounts_below_a_directory_are_listed_and_no_others:
        Filesystems::mounts_below;
    a_filesystem_has_exactly_its_size_and_no_more_goes_in:
        Filesystems::usage;
    a_full_pool_refuses_what_is_written:
        ThinPools::status;
    the_root_directory_is_given_to_whom_was_said_and_stays_theirs:
        Filesystems::set_root;
}

const SIZE: Bytes = Bytes::mib(300);

fn a_filesystem_is_made_on_a_blank_device_and_found_there(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let node = bench.thin("v", SIZE)?;
    same("on a new volume", filesystems.probe(&node).done("looking")?, Vec::new())?;
    filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Zeroes)
        .done("making it")?;
    let found = filesystems.probe(&node).done("looking")?;
    same(
        "on it",
        found.into_iter().map(|s| s.kind).collect(),
        vec!["xfs".to_owned()],
    )
}

fn a_filesystem_is_not_made_over_another_unless_that_is_said(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let node = bench.thin("v", SIZE)?;
    filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Zeroes)
        .done("making it")?;
    for ground in [Ground::Zeroes, Ground::Unnamed] {
        filesystems
            .make_xfs(&node, &spec(SIZE), ground)
            .refused("making it again", HostErrorKind::Failed)?;
    }
    filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Unfinished)
        .done("making it over")
}

fn a_filesystem_has_at_least_300_mib_and_fits_its_device(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let node = bench.thin("v", Bytes::mib(400))?;
    for (what, size) in [
        ("too small", Bytes::new(SIZE.get() - 4096)),
        ("larger than its device", Bytes::mib(404)),
    ] {
        filesystems
            .make_xfs(&node, &spec(size), Ground::Zeroes)
            .refused(what, HostErrorKind::Failed)?;
        same("what is on it", filesystems.probe(&node).done("looking")?, Vec::new())?;
    }
    let odd = Bytes::new(SIZE.get() + 4096);
    filesystems
        .make_xfs(&node, &spec(odd), Ground::Zeroes)
        .done("a block more than the least")
}

fn nothing_is_made_or_mounted_on_a_device_that_is_not_there(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let missing = bench.host.lvm.node(VG, "none");
    filesystems.probe(&missing).refused("looking", HostErrorKind::Failed)?;
    filesystems
        .make_xfs(&missing, &spec(SIZE), Ground::Zeroes)
        .refused("making", HostErrorKind::Failed)?;
    filesystems
        .mount(&missing, &bench.target("v"))
        .refused("mounting", HostErrorKind::Failed)?;
    let node = bench.thin("v", SIZE)?;
    filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Zeroes)
        .done("making it")?;
    bench.host.lvm.deactivate_vg(VG).done("deactivating")?;
    filesystems
        .mount(&node, &bench.target("v"))
        .refused("mounting what is not active", HostErrorKind::Failed)
}

fn a_filesystem_that_is_mounted_is_not_made_anew(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    bench.mounted("v", SIZE)?;
    let node = bench.host.lvm.node(VG, "v");
    bench
        .host
        .filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Unfinished)
        .refused("making it over while it is mounted", HostErrorKind::Busy)
}

fn a_mount_makes_its_directory_and_an_unmount_removes_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    filesystems.unmount(&target).done("unmounting")?;
    same(
        "mounts",
        filesystems.mounts_below(&bench.machine.directory()).done("listing")?,
        Vec::new(),
    )?;
    holds(
        "nothing can be written there",
        bench.machine.write(&target, "file", Bytes::mib(1)).is_err(),
    )?;
    filesystems
        .mount(&bench.host.lvm.node(VG, "v"), &target)
        .done("mounting again")
}

fn nothing_is_mounted_over_a_mount(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    let other = bench.thin("w", SIZE)?;
    filesystems
        .make_xfs(&other, &spec(SIZE), Ground::Zeroes)
        .done("making it")?;
    for node in [bench.host.lvm.node(VG, "v"), other] {
        filesystems
            .mount(&node, &target)
            .refused("mounting where something is", HostErrorKind::Busy)?;
    }
    Ok(())
}

fn a_device_without_a_filesystem_is_not_mounted(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    let node = bench.thin("v", SIZE)?;
    bench
        .host
        .filesystems
        .mount(&node, &bench.target("v"))
        .refused("mounting nothing", HostErrorKind::Failed)
}

fn unmounting_is_repeated_without_error(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    filesystems
        .unmount(&bench.target("never"))
        .done("unmounting what never was")?;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    for _ in 0..2 {
        filesystems.unmount(&target).done("unmounting")?;
    }
    Ok(())
}

fn a_filesystem_in_use_is_not_unmounted(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.hold(&target, true)?;
    filesystems
        .unmount(&target)
        .refused("while it is held", HostErrorKind::Busy)?;
    same(
        "mounts",
        filesystems
            .mounts_below(&bench.machine.directory())
            .done("listing")?
            .len(),
        1,
    )?;
    bench.machine.hold(&target, false)?;
    filesystems.unmount(&target).done("when it was let go")
}

fn mounts_below_a_directory_are_listed_and_no_others(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 200)?;
    let target = bench.mounted("v", SIZE)?;
    let all = filesystems.mounts_below(&bench.machine.directory()).done("listing")?;
    same(
        "mounts",
        all.iter().map(|mount| mount.target.clone()).collect(),
        vec![target.clone()],
    )?;
    same("its kind", all[0].kind.as_str(), "xfs")?;
    same("its source", all[0].source.clone(), bench.host.lvm.node(VG, "v"))?;
    let none = filesystems
        .mounts_below(Path::new("/no/such/directory"))
        .done("listing")?;
    same("mounts elsewhere", none, Vec::new())?;
    same(
        "mounts below it",
        filesystems.mounts_below(&target).done("listing")?,
        Vec::new(),
    )
}

fn a_filesystem_has_exactly_its_size_and_no_more_goes_in(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 200)?;
    let target = bench.mounted("v", SIZE)?;
    let empty = filesystems.usage(&target).done("counting")?;
    holds("it is told no larger than it is", empty.total <= SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(100))?;
    let after = filesystems.usage(&target).done("counting")?;
    let taken = empty.free.saturating_sub(after.free);
    holds(
        &format!("what was written is taken: {taken}"),
        taken >= Bytes::mib(100) && taken < Bytes::mib(104),
    )?;
    same("its total", after.total, empty.total)?;
    same("inodes more", after.inodes - empty.inodes, 1)?;
    holds("no more goes in", bench.machine.write(&target, "more", SIZE).is_err())?;
    filesystems
        .usage(&bench.target("w"))
        .refused("counting what is not mounted", HostErrorKind::Failed)
}

fn a_full_pool_refuses_what_is_written(bench: &Bench<'_>) -> Result<(), Broken> {
    // A filesystem of 300 MiB in a pool of 200.
    bench.pool(&[0], 50)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(60))?;
    holds(
        "more than the pool has does not go in",
        bench.machine.write(&target, "more", Bytes::mib(180)).is_err(),
    )?;
    let usage = bench.host.thin.status(VG, POOL).done("asking how full it is")?;
    holds("it says so", f64::from(usage.data) > 50.0)
}

fn the_root_directory_is_given_to_whom_was_said_and_stays_theirs(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    for (uid, gid, mode) in [
        (0, 0, "1777"),
        (1000, 100, "2770"),
        (65534, 65534, "0000"),
        (7, 7, "6755"),
    ] {
        let root = RootSpec {
            uid,
            gid,
            mode: mode.parse().map_err(|_| "a mode")?,
        };
        filesystems.set_root(&target, &root).done("giving it away")?;
        same("whose it is", bench.machine.root(&target)?, root)?;
        filesystems.unmount(&target).done("unmounting")?;
        filesystems
            .mount(&bench.host.lvm.node(VG, "v"), &target)
            .done("mounting")?;
        same("whose it is after a mount", bench.machine.root(&target)?, root)?;
        filesystems
            .set_root(&bench.target("w"), &root)
            .refused("giving away what is not mounted", HostErrorKind::Failed)?;
    }
    Ok(())
}
