//! Thin pools that get more room: on further disks, and where they lie already.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cistern_host::{Activation, HostErrorKind, RaidLevel, RaidVolume, SyncAction};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised as _, VG, holds, same};
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
    a_disk_that_has_not_grown_stays_as_it_is:
        Raids::resize_pv;
}

/// An active pool with a mounted volume.
fn served(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.thin("v", Bytes::mib(300)).map(drop)
}

fn settled(bench: &Bench<'_>) -> Result<(), Broken> {
    let limit = std::time::Duration::from_secs(120);
    let status = bench.host.raids.wait(VG, &format!("{POOL}_tdata"), limit);
    let status = status.done("waiting until the copies agree")?;
    holds(
        "the copies agree",
        status.is_none_or(|status| status.action == SyncAction::Idle),
    )
}

fn data(bench: &Bench<'_>) -> Result<RaidVolume, Broken> {
    let state = bench.host.lvm.state().done("reading LVM's state")?;
    let data = state
        .raids
        .into_iter()
        .find(|raid| raid.name == format!("{POOL}_tdata"));
    data.ok_or_else(|| "what the pool's data lies on is not told".to_owned())
}

/// No disk holds two images, and each of these holds one.
fn apart(bench: &Bench<'_>, on: &[usize]) -> Result<(), Broken> {
    let raid = data(bench)?;
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
    same("how it lies", data(bench)?.level, Some(RaidLevel::Linear))?;
    apart(bench, &[0, 1])
}

fn a_thin_pool_on_a_mirror_goes_on_on_a_further_pair_with_its_copies_apart(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.pool(&[0, 1], 100)?;
    served(bench)?;
    settled(bench)?;
    for node in &bench.nodes[2..4] {
        bench.host.raids.extend_vg(VG, node).done("joining another disk")?;
    }
    bench
        .host
        .lvm
        .extend_lv(VG, POOL, 50, &bench.nodes[2..4])
        .done("growing on a further pair")?;
    same("its size", bench.known(POOL)?.size, Bytes::mib(600))?;
    same("how it lies", data(bench)?.level, Some(RaidLevel::Mirror { copies: 2 }))?;
    apart(bench, &[0, 1, 2, 3])?;
    settled(bench)
}

fn a_thin_pool_on_a_mirror_of_two_pairs_grows_on_either_with_its_copies_apart(bench: &Bench<'_>) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    bench.pool(&[0, 1], 100)?;
    served(bench)?;
    for node in &bench.nodes[2..4] {
        bench.host.raids.extend_vg(VG, node).done("joining another disk")?;
    }
    for (pair, size) in [(2, 600), (0, 800), (2, 1000), (0, 1200)] {
        settled(bench)?;
        // In the order of the images that they hold.
        lvm.extend_lv(VG, POOL, 50, &bench.nodes[pair..pair + 2])
            .done("growing on a pair")?;
        same("its size", bench.known(POOL)?.size, Bytes::mib(size))?;
        apart(bench, &[0, 1, 2, 3])?;
    }
    settled(bench)
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
