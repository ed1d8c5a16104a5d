//! What is done with a filesystem while it is mounted.

use std::time::{Duration, Instant};

use cistern_host::{Ground, HostErrorKind};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised, VG, holds, same, spec};
use crate::{Broken, contracts};

contracts! {
    nothing_is_done_with_a_filesystem_that_is_not_mounted:
        Filesystems::freeze, Filesystems::thaw, Filesystems::trim, Filesystems::is_up, Filesystems::grow_xfs,
        Filesystems::sync, Filesystems::own_log;
    what_is_mounted_read_only_is_not_written_to:
        Filesystems::mount_read_only, Filesystems::grow_xfs;
    writes_are_held_back_from_a_freeze_to_a_thaw:
        Filesystems::freeze, Filesystems::thaw;
    what_was_deleted_is_given_back_by_a_trim_and_not_before:
        Filesystems::trim, ThinPools::settled;
    a_log_gets_space_of_its_own_and_holds_what_it_held:
        Filesystems::own_log;
    a_filesystem_grows_to_exactly_what_was_asked_and_never_shrinks:
        Filesystems::grow_xfs;
    a_filesystem_whose_disk_is_gone_is_shut_down_until_it_is_mounted_anew:
        Filesystems::is_up, Filesystems::trim, Filesystems::grow_xfs, Filesystems::unmount, Filesystems::sync,
        Lvm::lies_on_gone;
}

const SIZE: Bytes = Bytes::mib(300);

fn nothing_is_done_with_a_filesystem_that_is_not_mounted(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    // Neither where there is nothing, nor where there is a directory of another filesystem.
    for path in [bench.target("never"), bench.machine.directory()] {
        let kind = HostErrorKind::Failed;
        filesystems.freeze(&path).refused("freezing", kind)?;
        filesystems.trim(&path).refused("trimming", kind)?;
        filesystems.grow_xfs(&path, SIZE).refused("growing", kind)?;
        filesystems.own_log(&path).refused("giving its log space", kind)?;
    }
    let never = bench.target("never");
    filesystems
        .is_up(&never)
        .refused("looking whether it is up", HostErrorKind::Failed)?;
    filesystems
        .sync(&never)
        .refused("writing it out", HostErrorKind::Failed)?;
    filesystems.thaw(&never).refused("thawing", HostErrorKind::Failed)
}

fn what_is_mounted_read_only_is_not_written_to(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    bench.pool(&[0], 100)?;
    let target = bench.target("v");
    filesystems
        .mount_read_only(&lvm.node(VG, "v"), &target)
        .refused("mounting no device", HostErrorKind::Failed)?;
    let node = bench.thin("v", SIZE)?;
    filesystems
        .mount_read_only(&node, &target)
        .refused("mounting nothing", HostErrorKind::Failed)?;
    filesystems
        .make_xfs(&node, &spec(SIZE), Ground::Zeroes)
        .done("making a filesystem")?;
    filesystems.mount(&node, &target).done("mounting it")?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    filesystems
        .mount_read_only(&node, &target)
        .refused("over a mount", HostErrorKind::Busy)?;
    filesystems.unmount(&target).done("unmounting")?;
    lvm.extend_thin(VG, "v", Bytes::mib(400)).done("making it larger")?;
    filesystems.mount_read_only(&node, &target).done("mounting it so")?;
    same("what is in it", bench.machine.files(&target)?, vec!["file".to_owned()])?;
    holds(
        "nothing can be written",
        bench.machine.write(&target, "more", Bytes::mib(1)).is_err(),
    )?;
    filesystems
        .grow_xfs(&target, Bytes::mib(400))
        .refused("growing it", HostErrorKind::Failed)?;
    holds("it is up", filesystems.is_up(&target).done("looking")?)?;
    filesystems.usage(&target).done("counting")?;
    lvm.deactivate_lv(VG, "v")
        .refused("deactivating it", HostErrorKind::Busy)?;
    filesystems.unmount(&target).done("unmounting")?;
    filesystems.mount(&node, &target).done("mounting it to be written")?;
    bench.machine.write(&target, "more", Bytes::mib(1))
}

fn writes_are_held_back_from_a_freeze_to_a_thaw(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    filesystems.thaw(&target).done("thawing what was never frozen")?;
    filesystems.freeze(&target).done("freezing")?;
    filesystems
        .freeze(&target)
        .refused("freezing again", HostErrorKind::Failed)?;
    holds("a write waits", bench.machine.held_back(&target, "late")?)?;
    // What only looks does not wait.
    holds("it is up", filesystems.is_up(&target).done("looking")?)?;
    filesystems.usage(&target).done("counting")?;
    bench
        .host
        .lvm
        .create_thin_snapshot(VG, "v", "s", &[], false)
        .done("making a snapshot")?;
    for _ in 0..2 {
        filesystems.thaw(&target).done("thawing")?;
    }
    holds("a write does not wait", !bench.machine.held_back(&target, "later")?)?;
    filesystems.freeze(&target).done("freezing it anew")?;
    filesystems.thaw(&target).done("thawing")
}

/// What the kernel does behind our back is done within a minute.
fn soon(what: &str, done: impl Fn() -> Result<bool, Broken>) -> Result<(), Broken> {
    let begun = Instant::now();
    while !done()? {
        holds(what, begun.elapsed() < Duration::from_secs(60))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn what_was_deleted_is_given_back_by_a_trim_and_not_before(bench: &Bench<'_>) -> Result<(), Broken> {
    let (filesystems, thin) = (&bench.host.filesystems, &bench.host.thin);
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    let used = || -> Result<Bytes, Broken> {
        let status = thin.status(VG, POOL).done("asking how full it is")?;
        Ok(Bytes::new(status.chunks_used << 16))
    };
    bench.machine.write(&target, "file", Bytes::mib(80))?;
    let full = used()?;
    let free = || filesystems.usage(&target).done("counting").map(|usage| usage.free);
    let held = free()?;
    bench.machine.delete(&target, "file")?;
    // The filesystem takes a deleted file apart behind our back, later on a machine that is busy.
    soon("what was deleted is free in its filesystem", || {
        Ok(free()? >= held.saturating_add(Bytes::mib(70)))
    })?;
    let before = used()?;
    holds(
        &format!("nothing comes free by itself: {full:#} to {before:#}"),
        before >= full,
    )?;
    for _ in 0..2 {
        filesystems.trim(&target).done("trimming")?;
        let settled = thin.settled(VG, POOL).done("waiting for what is given back")?;
        let less = before.saturating_sub(Bytes::new(settled.chunks_used << 16));
        holds(&format!("the pool has most of it: {less:#}"), less >= Bytes::mib(40))?;
    }
    Ok(())
}

fn a_log_gets_space_of_its_own_and_holds_what_it_held(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    bench.pool(&[0], 150)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    filesystems.freeze(&target).done("freezing")?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false).done("a snapshot")?;
    filesystems
        .own_log(&target)
        .refused("of one that is frozen", HostErrorKind::Failed)?;
    filesystems.thaw(&target).done("thawing")?;
    for _ in 0..2 {
        filesystems.own_log(&target).done("giving its log space")?;
    }
    holds("it can be written to", !bench.machine.held_back(&target, "more")?)?;
    bench.machine.write(&target, "another", Bytes::mib(1))?;
    holds("it is up", filesystems.is_up(&target).done("looking")?)?;
    filesystems.unmount(&target).done("unmounting")?;
    filesystems
        .mount(&lvm.node(VG, "v"), &target)
        .done("mounting it anew")?;
    let files = bench.machine.files(&target)?;
    holds(
        &format!("what was written is there: {files:?}"),
        ["another", "file"]
            .iter()
            .all(|name| files.iter().any(|file| file == name)),
    )
}

fn a_filesystem_grows_to_exactly_what_was_asked_and_never_shrinks(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    let found = || -> Result<Option<Bytes>, Broken> {
        let xfs = bench.host.takeover.xfs_on(&bench.host.lvm.node(VG, "v"));
        Ok(xfs.done("looking at it")?.map(|xfs| xfs.size))
    };
    filesystems.grow_xfs(&target, SIZE).done("to what it has")?;
    for size in [Bytes::mib(299), Bytes::mib(301)] {
        filesystems
            .grow_xfs(&target, size)
            .refused(&format!("to {size:#}, on a device of 300 MiB"), HostErrorKind::Failed)?;
    }
    same("its size still", found()?, Some(SIZE))?;
    bench
        .host
        .lvm
        .extend_thin(VG, "v", Bytes::mib(500))
        .done("making the device larger")?;
    let before = filesystems.usage(&target).done("counting")?;
    // Allocation groups of 150 MiB, of which none can have less than 64 blocks.
    let size = Bytes::new(Bytes::mib(440).get() + 4096);
    for _ in 0..2 {
        filesystems.grow_xfs(&target, size).done("growing")?;
    }
    let after = filesystems.usage(&target).done("counting")?;
    same(
        "what it is told larger by",
        after.total.saturating_sub(before.total),
        size.saturating_sub(SIZE),
    )?;
    filesystems
        .grow_xfs(&target, SIZE)
        .refused("back to what it was", HostErrorKind::Failed)?;
    filesystems.unmount(&target).done("unmounting")?;
    same("its size", found()?, Some(size))
}

fn a_filesystem_whose_disk_is_gone_is_shut_down_until_it_is_mounted_anew(bench: &Bench<'_>) -> Result<(), Broken> {
    let filesystems = &bench.host.filesystems;
    bench.pool(&[3], 50)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    holds("it is up", filesystems.is_up(&target).done("looking")?)?;
    filesystems.sync(&target).done("writing it out")?;
    let gone = || bench.host.lvm.lies_on_gone(VG).done("looking what it lies on");
    holds("it lies on what is there", !gone()?)?;
    bench.machine.attach(&bench.nodes[3], false)?;
    holds("it lies on what is gone", gone()?)?;
    // Data that cannot be written is the writer's trouble; of a file without any, it is the log.
    for size in [Bytes::mib(1), Bytes::ZERO] {
        holds(
            "nothing can be written",
            bench.machine.write(&target, "more", size).is_err(),
        )?;
    }
    holds("it is shut down", !filesystems.is_up(&target).done("looking")?)?;
    filesystems
        .trim(&target)
        .refused("trimming it", HostErrorKind::Failed)?;
    filesystems
        .grow_xfs(&target, Bytes::mib(301))
        .refused("growing it", HostErrorKind::Failed)?;
    filesystems
        .sync(&target)
        .refused("writing it out", HostErrorKind::Failed)?;
    filesystems.unmount(&target).done("unmounting it")?;
    // LVM knows a group by its disks: without any of them there is nothing to deactivate by its name.
    bench.machine.attach(&bench.nodes[3], true)?;
    holds("it lies on what is gone, though its disk is back", gone()?)?;
    bench.host.lvm.deactivate_vg(VG).done("deactivating the group")?;
    bench.machine.seat()?;
    let activation = cistern_host::Activation::Complete;
    bench
        .host
        .lvm
        .activate_vg(VG, activation)
        .done("activating it when the disk is back")?;
    holds("it lies on what is there again", !gone()?)?;
    filesystems
        .mount(&bench.host.lvm.node(VG, "v"), &target)
        .done("mounting it anew")?;
    holds("it is up", filesystems.is_up(&target).done("looking")?)?;
    same("what is in it", bench.machine.files(&target)?, vec!["file".to_owned()])
}
