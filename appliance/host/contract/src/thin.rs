//! Thin pools and thin volumes.

use cistern_host::{Activation, HostErrorKind, RaidLevel};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    two_plain_volumes_become_a_thin_pool_under_the_name_of_the_first:
        Lvm::convert_to_thin_pool;
    a_thin_pool_is_not_made_of_what_is_not_there_nor_with_an_odd_chunk:
        Lvm::convert_to_thin_pool;
    lvm_thin_volume_is_made_active_with_its_tags_in_whole_extents:
        Lvm::create_thin, Lvm::node;
    thin_volumes_may_promise_more_than_the_pool_has:
        Lvm::create_thin;
    how_full_a_pool_is_is_told_while_it_is_active:
        ThinPools::status;
    activating_is_repeated_without_error:
        Lvm::activate_lv, Lvm::activate_vg, Lvm::deactivate_vg;
    nothing_of_a_group_is_deactivated_while_a_volume_is_open:
        Lvm::deactivate_vg;
    a_volume_that_is_open_is_not_removed:
        Lvm::remove_lv;
    a_removed_volume_gives_its_space_back:
        Lvm::remove_lv;
    a_thin_pool_goes_with_all_that_lies_in_it:
        Lvm::remove_lv;
}

const SIZE: Bytes = Bytes::mib(300);

fn two_plain_volumes_become_a_thin_pool_under_the_name_of_the_first(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0, 1], 100)?;
    let pool = bench.known(POOL)?;
    holds(
        "it is a thin pool",
        pool.attributes.thin_pool && !pool.attributes.thin_volume,
    )?;
    same("its size", pool.size, Bytes::mib(400))?;
    holds("the other name is gone", bench.lv("meta")?.is_none())
}

fn a_thin_pool_is_not_made_of_what_is_not_there_nor_with_an_odd_chunk(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.group(&[0])?;
    let chunk = Bytes::new(64 << 10);
    lvm.convert_to_thin_pool(VG, POOL, "meta", chunk)
        .refused("a pool of nothing", HostErrorKind::Failed)?;
    for (name, extents) in [(POOL, 100), ("meta", 2)] {
        lvm.create_lv(VG, name, RaidLevel::Linear, extents, &bench.nodes[..1], &[])
            .done("making a volume")?;
    }
    lvm.convert_to_thin_pool(VG, POOL, "meta", Bytes::new(1000))
        .refused("a chunk of 1000 bytes", HostErrorKind::Failed)?;
    holds("it is still plain", !bench.known(POOL)?.attributes.thin_pool)?;
    lvm.convert_to_thin_pool(VG, POOL, "meta", chunk)
        .done("with a good chunk")
}

fn lvm_thin_volume_is_made_active_with_its_tags_in_whole_extents(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    let tags = ["state=creating".to_owned(), "name=a#20b".to_owned()];
    lvm.create_thin(VG, POOL, "v", Bytes::new(SIZE.get() + 1), &tags)
        .done("making it")?;
    let mut lv = bench.known("v")?;
    lv.tags.sort();
    same(
        "its tags",
        lv.tags,
        vec!["name=a#20b".to_owned(), "state=creating".to_owned()],
    )?;
    same("its size", lv.size, Bytes::mib(304))?;
    same("its pool", lv.thin_pool, Some(POOL.to_owned()))?;
    holds(
        "it is an active thin volume",
        lv.attributes.thin_volume && lv.attributes.active,
    )?;
    let found = bench.host.filesystems.probe(&lvm.node(VG, "v")).done("looking at it")?;
    same("what is on it", found, Vec::new())?;
    lvm.create_thin(VG, POOL, "v", SIZE, &[])
        .refused("another of that name", HostErrorKind::Failed)?;
    lvm.create_thin(VG, POOL, "w", SIZE, &["a,b".to_owned()])
        .refused("one with a bad tag", HostErrorKind::Failed)?;
    holds("there is none of it", bench.lv("w")?.is_none())
}

fn thin_volumes_may_promise_more_than_the_pool_has(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    for name in ["v", "w"] {
        bench.thin(name, SIZE)?;
    }
    Ok(())
}

fn how_full_a_pool_is_is_told_while_it_is_active(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, thin) = (&bench.host.lvm, &bench.host.thin);
    bench.pool(&[0], 200)?;
    thin.status(VG, "none").refused("of no pool", HostErrorKind::Failed)?;
    let target = bench.mounted("v", SIZE)?;
    let before = f64::from(thin.status(VG, POOL).done("asking how full it is")?.data);
    bench.machine.write(&target, "file", Bytes::mib(160))?;
    let after = f64::from(thin.status(VG, POOL).done("asking again")?.data);
    // 160 MiB of 800 are 20 %; XFS writes a little beside.
    holds(
        &format!("a fifth of it was written: {before} to {after}"),
        (18.0..28.0).contains(&(after - before)),
    )?;
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    lvm.deactivate_vg(VG).done("deactivating")?;
    thin.status(VG, POOL)
        .refused("of an inactive pool", HostErrorKind::Failed)
}

fn activating_is_repeated_without_error(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    bench.thin("v", SIZE)?;
    bench.thin("w", SIZE)?;
    for _ in 0..2 {
        lvm.deactivate_vg(VG).done("deactivating")?;
        holds("nothing is active", !bench.known("v")?.attributes.active)?;
    }
    for _ in 0..2 {
        lvm.activate_lv(VG, "v", Activation::Complete).done("activating one")?;
    }
    let (v, w) = (bench.known("v")?.attributes, bench.known("w")?.attributes);
    holds("one is active and the other is not", v.active && !w.active)?;
    holds("its pool is active", bench.known(POOL)?.attributes.active)?;
    for _ in 0..2 {
        lvm.activate_vg(VG, Activation::Complete).done("activating all")?;
        holds("all are active", bench.known("w")?.attributes.active)?;
    }
    Ok(())
}

fn nothing_of_a_group_is_deactivated_while_a_volume_is_open(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    bench.mounted("v", SIZE)?;
    lvm.deactivate_vg(VG)
        .refused("with a volume mounted", HostErrorKind::Busy)?;
    holds("it is active still", bench.known("v")?.attributes.active)
}

fn a_volume_that_is_open_is_not_removed(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    let target = bench.mounted("v", SIZE)?;
    lvm.remove_lv(VG, "v")
        .refused("while it is mounted", HostErrorKind::Busy)?;
    bench.known("v")?;
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    lvm.remove_lv(VG, "v").done("removing it")?;
    holds("it is gone", bench.lv("v")?.is_none())
}

fn a_removed_volume_gives_its_space_back(bench: &Bench<'_>) -> Result<(), Broken> {
    let (lvm, thin) = (&bench.host.lvm, &bench.host.thin);
    bench.pool(&[0], 200)?;
    let target = bench.mounted("v", SIZE)?;
    bench.machine.write(&target, "file", Bytes::mib(160))?;
    bench.thin("w", SIZE)?;
    let full = f64::from(thin.status(VG, POOL).done("asking how full it is")?.data);
    bench.host.filesystems.unmount(&target).done("unmounting")?;
    lvm.remove_lv(VG, "v").done("removing it")?;
    let left = f64::from(thin.status(VG, POOL).done("asking again")?.data);
    holds(
        &format!("it is empty again: {full} to {left}"),
        full > 20.0 && left < 2.0,
    )
}

fn a_thin_pool_goes_with_all_that_lies_in_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0], 100)?;
    bench.thin("v", SIZE)?;
    lvm.remove_lv(VG, POOL).done("removing the pool")?;
    holds("nothing is left", bench.lv(POOL)?.is_none() && bench.lv("v")?.is_none())
}
