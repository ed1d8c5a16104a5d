//! Thin pools that get more room: on further disks, and where they lie already.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cistern_host::{Activation, HostErrorKind, RaidLevel};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised as _, VG, holds, same};
use crate::raids::{DATA, METADATA, raid, settled};
use crate::{Broken, contracts};

contracts! {
    the_data_of_an_active_thin_pool_goes_on_on_another_disk:
        Lvm::extend_lv, Raids::extend_vg;
    a_thin_pool_on_a_mirror_goes_on_on_a_further_pair_with_its_copies_apart:
        Lvm::extend_lv, Raids::extend_vg, Raids::wait;
    a_thin_pool_on_a_mirror_of_two_pairs_grows_on_either_with_its_copies_apart:
        Lvm::extend_lv;
    a_thin_pool_does_not_grow_beyond_its_disks:
        Lvm::extend_lv;
    a_thin_pool_on_a_mirror_gets_more_metadata_with_its_copies_apart:
        ThinPools::extend_metadata;
    a_disk_that_has_not_grown_stays_as_it_is:
        Raids::resize_pv;
}

/// An active pool with a mounted volume.
fn served(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.thin("v", Bytes::mib(300)).map(drop)
}

/// No disk holds two images, and each of these holds one.
fn apart(bench: &Bench<'_>, lv: &str, on: &[usize]) -> Result<(), Broken> {
    let raid = raid(bench, lv)?;
    let all: Vec<&PathBuf> = raid.images.iter().flat_map(|image| &image.nodes).collect();
    let different: BTreeSet<&PathBuf> = all.iter().copied().collect();
    same("disks that hold two images", all.len() - different.len(), 0)?;
    let expected: BTreeSet<&PathBuf> = on.iter().map(|n| &bench.nodes[*n]).collect();
    same("the disks that hold an image", different, expected)
}

fn the_data_of_an_active_thin_pool_goes_on_on_another_disk(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    served(bench)?;
    let raids = &bench.host.raids;
    raids.extend_vg(VG, &bench.nodes[1]).done("joining another disk")?;
    bench
        .host
        .lvm
        .extend_lv(VG, POOL, 50, &bench.nodes[1..2])
        .done("growing on it")?;
    let pool = bench.known(POOL)?;
    same("its size", pool.size, Bytes::mib(600))?;
    holds(
        "it is an active thin pool",
        pool.attributes.thin_pool && pool.attributes.active,
    )?;
    same("how it lies", raid(bench, DATA)?.level, Some(RaidLevel::Linear))?;
    apart(bench, DATA, &[0, 1])
}

fn a_thin_pool_on_a_mirror_goes_on_on_a_further_pair_with_its_copies_apart(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0, 1], 100)?;
    served(bench)?;
    settled(bench, DATA)?;
    for node in &bench.nodes[2..4] {
        bench.host.raids.extend_vg(VG, node).done("joining another disk")?;
    }
    bench
        .host
        .lvm
        .extend_lv(VG, POOL, 50, &bench.nodes[2..4])
        .done("growing on a further pair")?;
    same("its size", bench.known(POOL)?.size, Bytes::mib(600))?;
    same(
        "how it lies",
        raid(bench, DATA)?.level,
        Some(RaidLevel::Mirror { copies: 2 }),
    )?;
    apart(bench, DATA, &[0, 1, 2, 3])?;
    settled(bench, DATA).map(drop)
}

fn a_thin_pool_on_a_mirror_of_two_pairs_grows_on_either_with_its_copies_apart(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0, 1], 100)?;
    served(bench)?;
    for node in &bench.nodes[2..4] {
        bench.host.raids.extend_vg(VG, node).done("joining another disk")?;
    }
    for (pair, size) in [(2, 600), (0, 800), (2, 1000), (0, 1200)] {
        settled(bench, DATA)?;
        // In the order of the images that they hold.
        lvm.extend_lv(VG, POOL, 50, &bench.nodes[pair..pair + 2])
            .done("growing on a pair")?;
        same("its size", bench.known(POOL)?.size, Bytes::mib(size))?;
        apart(bench, DATA, &[0, 1, 2, 3])?;
    }
    settled(bench, DATA).map(drop)
}

fn a_thin_pool_does_not_grow_beyond_its_disks(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0, 1], 100)?;
    lvm.activate_lv(VG, POOL, Activation::Complete).done("activating it")?;
    lvm.extend_lv(VG, POOL, 100_000, &bench.nodes[..2])
        .refused("growing beyond its disks", HostErrorKind::Failed)?;
    lvm.extend_lv(VG, POOL, 10, &bench.nodes[..1])
        .refused("growing a mirror on one disk", HostErrorKind::Failed)?;
    lvm.extend_lv(VG, POOL, 10, &bench.nodes[2..4])
        .refused("growing on disks that are not in the group", HostErrorKind::Failed)?;
    same("its size still", bench.known(POOL)?.size, Bytes::mib(400))
}

fn a_thin_pool_on_a_mirror_gets_more_metadata_with_its_copies_apart(bench: &Bench<'_>) -> Result<(), Broken> {
    let thin = &bench.host.thin;
    bench.pool(&[0, 1], 100)?;
    let target = bench.mounted("v", Bytes::mib(300))?;
    bench.machine.write(&target, "before", Bytes::mib(8))?;
    for lv in [DATA, METADATA] {
        settled(bench, lv)?;
    }
    let size = || -> Result<Bytes, Broken> {
        let status = thin.status(VG, POOL).done("asking how large its metadata is")?;
        Ok(status.metadata_size)
    };
    let before = size()?;
    thin.extend_metadata(VG, POOL, 2, &bench.nodes[..1])
        .refused("more metadata on one disk of the two", HostErrorKind::Failed)?;
    same("its metadata still", size()?, before)?;
    thin.extend_metadata(VG, POOL, 2, &bench.nodes[..2])
        .done("more metadata")?;
    same(
        "what its metadata is larger by",
        size()?.saturating_sub(before),
        Bytes::mib(8),
    )?;
    settled(bench, METADATA)?;
    apart(bench, METADATA, &[0, 1])?;
    bench.machine.write(&target, "after", Bytes::mib(8))?;
    same(
        "what is in the volume",
        bench.machine.files(&target)?,
        vec!["after".to_owned(), "before".to_owned()],
    )
}

fn a_disk_that_has_not_grown_stays_as_it_is(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0], 100)?;
    let size = || -> Result<Vec<Bytes>, Broken> {
        let state = bench.host.lvm.state().done("reading LVM's state")?;
        let own = state.pvs.iter().filter(|pv| pv.vg.as_deref() == Some(VG));
        Ok(own.map(|pv| pv.size).collect())
    };
    let before = size()?;
    for _ in 0..2 {
        let raids = &bench.host.raids;
        raids.resize_pv(VG, &bench.nodes[0]).done("looking how large it is")?;
    }
    same("what it has", size()?, before)?;
    bench
        .host
        .raids
        .resize_pv(VG, &bench.nodes[1])
        .refused("one that is in no group", HostErrorKind::Failed)
}
