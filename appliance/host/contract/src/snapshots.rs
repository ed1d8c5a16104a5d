//! Snapshots of thin volumes, other names, more size, and what each takes of its pool.

use std::collections::BTreeMap;

use cistern_host::{Activation, HostErrorKind, RaidLevel, ThinMode};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    a_snapshot_is_made_of_a_thin_volume_and_of_nothing_else:
        Lvm::create_thin_snapshot;
    a_snapshot_holds_what_its_origin_held_and_is_activated_only_by_name:
        Lvm::create_thin_snapshot, Lvm::activate_vg, Lvm::activate_lv;
    an_active_snapshot_goes_its_own_way_and_outlives_its_origin:
        Lvm::create_thin_snapshot, Lvm::remove_lv;
    a_volume_gets_a_name_that_is_free_and_stays_mounted:
        Lvm::rename_lv;
    a_thin_volume_grows_in_whole_extents_and_never_shrinks:
        Lvm::extend_thin;
    a_volume_is_deactivated_once_nothing_has_it_open:
        Lvm::deactivate_lv;
    what_volumes_map_is_told_while_they_are_active:
        ThinPools::mapped;
    what_a_volume_shares_with_its_snapshot_is_exclusive_to_neither:
        Lvm::thin_sizes;
    a_full_pool_takes_no_more_volumes_and_is_writable_again_once_it_has_room:
        Lvm::create_thin, Lvm::create_thin_snapshot, Lvm::extend_lv, ThinPools::status;
}

const SIZE: Bytes = Bytes::mib(300);

fn a_snapshot_is_made_of_a_thin_volume_and_of_nothing_else(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    let of = |origin: &str, name: &str, tags: &[String]| lvm.create_thin_snapshot(VG, origin, name, tags, false);
    of("v", "s", &[]).refused("one in no group", HostErrorKind::Failed)?;
    bench.pool(&[0], 50)?;
    lvm.create_lv(VG, "plain", RaidLevel::Linear, 2, &bench.nodes[..1], &[])
        .done("making a plain volume")?;
    for origin in ["v", "plain", POOL] {
        of(origin, "s", &[]).refused(&format!("one of {origin}"), HostErrorKind::Failed)?;
    }
    bench.thin("v", SIZE)?;
    of("v", "v", &[]).refused("one under its origin's name", HostErrorKind::Failed)?;
    of("v", "s", &["a,b".to_owned()]).refused("one with a bad tag", HostErrorKind::Failed)?;
    holds("there is none", bench.lv("s")?.is_none())?;
    of("v", "s", &["a=1".to_owned()]).done("making one")?;
    of("v", "s", &[]).refused("another of that name", HostErrorKind::Failed)?;
    let (v, s) = (bench.known("v")?, bench.known("s")?);
    same("its tags", s.tags, vec!["a=1".to_owned()])?;
    same("its size", s.size, v.size)?;
    same("its pool", s.thin_pool, Some(POOL.to_owned()))?;
    holds(
        "it is an inactive thin volume",
        s.attributes.thin_volume && !s.attributes.active,
    )?;
    // Of a snapshot, too.
    of("s", "s2", &[]).done("making one of it")
}

fn a_snapshot_holds_what_its_origin_held_and_is_activated_only_by_name(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "before", Bytes::mib(8))?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false)
        .done("making one of what is mounted")?;
    bench.machine.write(&target, "after", Bytes::mib(8))?;
    let node = lvm.node(VG, "s");
    filesystems
        .probe(&node)
        .refused("looking at what is not active", HostErrorKind::Failed)?;
    for _ in 0..2 {
        lvm.activate_vg(VG, Activation::Complete).done("activating the group")?;
        holds("it stays inactive", !bench.known("s")?.attributes.active)?;
    }
    lvm.activate_lv(VG, "s", Activation::Complete)
        .done("activating it by name")?;
    holds("it is active", bench.known("s")?.attributes.active)?;
    let beside = bench.target("s");
    filesystems
        .mount_read_only(&node, &beside)
        .done("mounting it beside its origin")?;
    same(
        "what is in it",
        bench.machine.files(&beside)?,
        vec!["before".to_owned()],
    )
}

fn an_active_snapshot_goes_its_own_way_and_outlives_its_origin(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "both", Bytes::mib(8))?;
    filesystems.unmount(&target).done("unmounting")?;
    lvm.deactivate_vg(VG).done("deactivating the group")?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], true)
        .done("making an active one of what is not")?;
    let (v, s) = (bench.known("v")?.attributes, bench.known("s")?.attributes);
    holds("it is active and its origin is not", s.active && !v.active)?;
    holds("its pool is active", bench.known(POOL)?.attributes.active)?;
    lvm.remove_lv(VG, "v").done("removing its origin")?;
    let beside = bench.target("s");
    filesystems.mount(&lvm.node(VG, "s"), &beside).done("mounting it")?;
    bench.machine.write(&beside, "own", Bytes::mib(1))?;
    same(
        "what is in it",
        bench.machine.files(&beside)?,
        vec!["both".to_owned(), "own".to_owned()],
    )?;
    filesystems.unmount(&beside).done("unmounting")?;
    lvm.deactivate_vg(VG).done("deactivating the group")?;
    lvm.activate_vg(VG, Activation::Complete).done("activating the group")?;
    holds("it comes with its group", bench.known("s")?.attributes.active)
}

fn a_volume_gets_a_name_that_is_free_and_stays_mounted(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    lvm.rename_lv(VG, "v", "w")
        .refused("renaming in no group", HostErrorKind::Failed)?;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    bench.thin("taken", SIZE)?;
    let before = lvm.node(VG, "v");
    for (from, to) in [("none", "w"), ("v", "taken"), ("v", "v"), ("v", POOL)] {
        lvm.rename_lv(VG, from, to)
            .refused(&format!("renaming {from} to {to}"), HostErrorKind::Failed)?;
    }
    lvm.rename_lv(VG, "v", "w").done("renaming it")?;
    lvm.rename_lv(VG, "v", "w")
        .refused("renaming it again", HostErrorKind::Failed)?;
    holds("its old name is gone", bench.lv("v")?.is_none())?;
    holds("it is active", bench.known("w")?.attributes.active)?;
    bench.machine.write(&target, "file", Bytes::mib(1))?;
    let mounts = filesystems.mounts_below(&bench.machine.directory()).done("listing")?;
    let sources: Vec<_> = mounts.into_iter().map(|mount| mount.source).collect();
    same("its source, as it was given", sources, vec![before.clone()])?;
    lvm.deactivate_lv(VG, "w")
        .refused("deactivating it under its new name", HostErrorKind::Busy)?;
    filesystems.unmount(&target).done("unmounting")?;
    filesystems
        .mount(&before, &target)
        .refused("mounting its old node", HostErrorKind::Failed)?;
    filesystems
        .mount(&lvm.node(VG, "w"), &target)
        .done("mounting its new node")?;
    same("what is in it", bench.machine.files(&target)?, vec!["file".to_owned()])
}

fn a_thin_volume_grows_in_whole_extents_and_never_shrinks(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    lvm.extend_thin(VG, "v", SIZE)
        .refused("one in no group", HostErrorKind::Failed)?;
    bench.pool(&[0], 100)?;
    bench.mounted("v", SIZE)?;
    for (name, size) in [("none", 600), ("v", 300), ("v", 200)] {
        lvm.extend_thin(VG, name, Bytes::mib(size))
            .refused(&format!("making {name} {size} MiB large"), HostErrorKind::Failed)?;
    }
    let more = Bytes::new(Bytes::mib(500).get() + 1);
    lvm.extend_thin(VG, "v", more)
        .done("beyond what its pool has, while it is mounted")?;
    same("its size", bench.known("v")?.size, Bytes::mib(504))?;
    lvm.extend_thin(VG, "v", more)
        .refused("once more to that", HostErrorKind::Failed)?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false)
        .done("making a snapshot")?;
    lvm.extend_thin(VG, "s", Bytes::mib(600))
        .done("one that is not active")?;
    same(
        "both sizes",
        (bench.known("s")?.size, bench.known("v")?.size),
        (Bytes::mib(600), Bytes::mib(504)),
    )
}

fn a_volume_is_deactivated_once_nothing_has_it_open(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    lvm.deactivate_lv(VG, "v")
        .refused("one in no group", HostErrorKind::Failed)?;
    bench.pool(&[0], 100)?;
    lvm.deactivate_lv(VG, "none")
        .refused("no volume", HostErrorKind::Failed)?;
    let target = bench.mounted("v", SIZE)?;
    bench.thin("w", SIZE)?;
    lvm.deactivate_lv(VG, "v")
        .refused("one that is mounted", HostErrorKind::Busy)?;
    holds("it is active still", bench.known("v")?.attributes.active)?;
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    for _ in 0..2 {
        lvm.deactivate_lv(VG, "v").done("deactivating it")?;
    }
    let (v, w) = (bench.known("v")?.attributes, bench.known("w")?.attributes);
    holds("it is not active and its neighbour is", !v.active && w.active)?;
    holds("their pool is", bench.known(POOL)?.attributes.active)?;
    bench
        .host
        .filesystems
        .probe(&lvm.node(VG, "v"))
        .refused("looking at it", HostErrorKind::Failed)
}

fn what_volumes_map_is_told_while_they_are_active(bench: &Bench<'_>) -> Result<(), Broken> {
    let thin = &bench.host.thin;
    let none = BTreeMap::new();
    same("in no group", thin.mapped(VG).done("asking")?, none.clone())?;
    bench.pool(&[0], 100)?;
    same("in an empty pool", thin.mapped(VG).done("asking")?, none.clone())?;
    let target = bench.mounted("v", SIZE)?;
    bench.thin("w", SIZE)?;
    let before = thin.mapped(VG).done("asking")?;
    same("nothing was written", before.get("w"), Some(&Bytes::ZERO))?;
    let empty = before.get("v").copied().unwrap_or_default();
    holds(
        &format!("an empty filesystem takes little: {empty:#}"),
        empty > Bytes::ZERO && empty <= Bytes::mib(4),
    )?;
    bench.machine.write(&target, "file", Bytes::mib(60))?;
    let after = thin.mapped(VG).done("asking")?;
    let more = after.get("v").copied().unwrap_or_default().saturating_sub(empty);
    holds(
        &format!("what was written is mapped: {more:#}"),
        more >= Bytes::mib(60) && more < Bytes::mib(66),
    )?;
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    bench.host.lvm.deactivate_lv(VG, "w").done("deactivating one")?;
    let left: Vec<String> = thin.mapped(VG).done("asking")?.into_keys().collect();
    same("those that are active", left, vec!["v".to_owned()])
}

fn what_a_volume_shares_with_its_snapshot_is_exclusive_to_neither(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    lvm.thin_sizes(VG, POOL)
        .refused("counting in no group", HostErrorKind::Failed)?;
    bench.pool(&[0], 100)?;
    let count = || lvm.thin_sizes(VG, POOL).done("counting");
    same("in an empty pool", count()?, BTreeMap::new())?;
    let target = bench.mounted("v", SIZE)?;
    bench.thin("w", SIZE)?;
    bench.machine.write(&target, "old", Bytes::mib(40))?;
    let alone = count()?;
    let of = |all: &BTreeMap<_, cistern_host::ThinSize>, name: &str| all.get(name).copied().unwrap_or_default();
    same(
        "of what nothing was written to",
        alone.get("w").copied(),
        Some(of(&alone, "w")),
    )?;
    same("it maps nothing", of(&alone, "w").mapped, Bytes::ZERO)?;
    let v = of(&alone, "v");
    holds(
        &format!("{v:?} is all its own"),
        v.mapped == v.exclusive && v.mapped >= Bytes::mib(40) && v.mapped < Bytes::mib(50),
    )?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false)
        .done("making a snapshot")?;
    bench.machine.write(&target, "new", Bytes::mib(20))?;
    let both = count()?;
    let (v, s) = (of(&both, "v"), of(&both, "s"));
    holds(
        &format!("{v:?} has its own, beside what it shares with {s:?}"),
        v.exclusive >= Bytes::mib(20) && v.exclusive < Bytes::mib(30) && v.mapped >= Bytes::mib(60),
    )?;
    holds(
        &format!("{s:?} has hardly anything of its own"),
        s.mapped >= Bytes::mib(40) && s.exclusive < Bytes::mib(4),
    )?;
    same(
        "of a pool that is not there",
        lvm.thin_sizes(VG, "none").done("counting")?,
        BTreeMap::new(),
    )?;
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    lvm.deactivate_vg(VG).done("deactivating")?;
    lvm.thin_sizes(VG, POOL)
        .refused("counting in one that is not active", HostErrorKind::Failed)
}

fn a_full_pool_takes_no_more_volumes_and_is_writable_again_once_it_has_room(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, thin) = (&bench.host.lvm, &bench.host.thin);
    bench.pool(&[0], 20)?;
    let target = bench.mounted("v", SIZE)?;
    holds(
        "more than the pool has does not go in",
        bench.machine.write(&target, "much", Bytes::mib(160)).is_err(),
    )?;
    let full = thin.status(VG, POOL).done("asking how full it is")?;
    same("it takes no writes", full.mode, ThinMode::OutOfData)?;
    same("chunks left", full.chunks - full.chunks_used, 0)?;
    lvm.create_thin(VG, POOL, "w", SIZE, &[])
        .refused("making a volume", HostErrorKind::Failed)?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false)
        .refused("making a snapshot", HostErrorKind::Failed)?;
    holds("there is neither", bench.lv("w")?.is_none() && bench.lv("s")?.is_none())?;
    holds(
        "the filesystem is served",
        bench.host.filesystems.is_up(&target).done("looking")?,
    )?;
    lvm.extend_lv(VG, POOL, 50, &bench.nodes[..1]).done("giving it room")?;
    let room = thin.status(VG, POOL).done("asking how full it is")?;
    same("it takes writes", room.mode, ThinMode::Writable)?;
    bench.machine.write(&target, "more", Bytes::mib(20))?;
    lvm.create_thin_snapshot(VG, "v", "s", &[], false)
        .done("making a snapshot")
}
