//! Layers between disks and LVM.

use std::path::PathBuf;

use cistern_host::{BlockDevice, FoundLayers, HostErrorKind, LayerKey, LayerSpec, LayerStack, RaidLevel};
use cistern_model::Bytes;

use crate::bench::{Bench, POOL, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    a_disk_with_checksums_tells_what_it_carries_and_where_lvm_finds_it:
        Layers::make, Layers::node, Layers::open, Layers::close, Layers::mismatches, Layers::forget_checksums;
    an_encrypted_disk_opens_with_its_key_and_no_other:
        Layers::make, Layers::open;
    both_layers_lie_on_one_another_and_are_opened_and_closed_together:
        Layers::make, Layers::open, Layers::close, Layers::mismatches;
    layers_under_active_volumes_are_not_closed:
        Layers::close;
    layers_of_a_disk_that_has_not_grown_keep_what_lies_in_them:
        Layers::grow;
    a_disk_that_carries_something_is_given_no_layers:
        Layers::make;
    a_disk_is_blank_once_its_layers_are_closed_and_wiped:
        Layers::close, Disks::wipe;
}

const LABEL: &str = "pool-0f8fad5bd9cb469fa16570867728950e";

fn device(bench: &Bench<'_>, disk: usize) -> Result<BlockDevice, Broken> {
    let all = bench.host.disks.list().done("listing disks")?;
    let found = all.into_iter().find(|found| found.node == bench.nodes[disk]);
    found.ok_or_else(|| format!("{} is not listed", bench.nodes[disk].display()))
}

fn spec(bench: &Bench<'_>, disk: usize, stack: LayerStack) -> Result<LayerSpec, Broken> {
    let device = device(bench, disk)?;
    Ok(LayerSpec {
        disk: device.id,
        node: device.node,
        stack,
        label: LABEL.to_owned(),
        discards: device.discards,
    })
}

fn key(text: &str) -> LayerKey {
    LayerKey::new(text.to_owned())
}

/// The layers that are listed for a disk.
fn layers(bench: &Bench<'_>, disk: usize) -> Result<FoundLayers, Broken> {
    let found = device(bench, disk)?.layers;
    found.ok_or_else(|| "no layers are listed".to_owned())
}

/// Makes layers, and looks whether the disk shows them open.
fn made(bench: &Bench<'_>, disk: usize, stack: LayerStack, with: Option<&LayerKey>) -> Result<LayerSpec, Broken> {
    let spec = spec(bench, disk, stack)?;
    bench.host.layers.make(&spec, with).done("making layers")?;
    let (device, found) = (device(bench, disk)?, layers(bench, disk)?);
    same("which", found.stack, stack)?;
    same("whose", found.label, stack.encrypted().then(|| LABEL.to_owned()))?;
    let open = found.open.ok_or("they are not open")?;
    same(
        "where LVM finds it",
        &open.node,
        &bench.host.layers.node(&spec.disk, stack),
    )?;
    let promised = stack.rest_of(device.size);
    holds(
        &format!("{} are no less than the {promised} that were promised", open.size),
        open.size >= promised,
    )?;
    Ok(spec)
}

fn is_open(bench: &Bench<'_>, disk: usize) -> Result<bool, Broken> {
    Ok(layers(bench, disk)?.open.is_some())
}

fn a_disk_with_checksums_tells_what_it_carries_and_where_lvm_finds_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let layers = &bench.host.layers;
    let spec = made(bench, 0, LayerStack::Integrity, None)?;
    let node = layers.node(&spec.disk, spec.stack);
    let counted = layers.mismatches().done("counting what failed")?;
    same("what failed so far", counted.get(&node), Some(&0))?;
    layers.forget_checksums().done("letting go of checksums")?;
    layers.open(&spec, None).done("opening what is open")?;
    layers.close(&spec.node).done("closing")?;
    holds("it is closed", !is_open(bench, 0)?)?;
    layers.close(&spec.node).done("closing what is closed")?;
    let counted = layers.mismatches().done("counting what failed")?;
    same("what is counted of one that is closed", counted.get(&node), None)?;
    layers.open(&spec, None).done("opening")?;
    holds("it is open", is_open(bench, 0)?)
}

fn an_encrypted_disk_opens_with_its_key_and_no_other(bench: &Bench<'_>) -> Result<(), Broken> {
    let layers = &bench.host.layers;
    let right = key("MZXW6YTBOI-of-this-disk");
    let spec = made(bench, 1, LayerStack::Luks2, Some(&right))?;
    layers.close(&spec.node).done("closing")?;
    let wrong = key("MZXW6YTBOI-of-another");
    layers
        .open(&spec, Some(&wrong))
        .refused("opening with another key", HostErrorKind::Failed)?;
    holds("it is closed", !is_open(bench, 1)?)?;
    layers.open(&spec, Some(&right)).done("opening with its key")?;
    holds("it is open", is_open(bench, 1)?)
}

fn both_layers_lie_on_one_another_and_are_opened_and_closed_together(bench: &Bench<'_>) -> Result<(), Broken> {
    let layers = &bench.host.layers;
    let right = key("MZXW6YTBOI-of-both");
    let spec = made(bench, 2, LayerStack::Luks2Integrity, Some(&right))?;
    layers.close(&spec.node).done("closing")?;
    holds("it is closed", !is_open(bench, 2)?)?;
    layers.open(&spec, Some(&right)).done("opening")?;
    holds("it is open", is_open(bench, 2)?)?;
    let node = layers.node(&spec.disk, spec.stack);
    let counted = layers.mismatches().done("counting what failed")?;
    same("what failed so far", counted.get(&node), Some(&0))
}

/// A thin pool on this device, active.
fn pool_on(bench: &Bench<'_>, node: PathBuf) -> Result<(), Broken> {
    let lvm = &bench.host.lvm;
    lvm.create_vg(VG, std::slice::from_ref(&node), &["contract=1".to_owned()])
        .done("making a group on it")?;
    let (level, nodes) = (RaidLevel::Linear, [node]);
    lvm.create_lv(VG, POOL, level, 100, &nodes, &[])
        .done("making the data")?;
    lvm.create_lv(VG, "meta", level, 2, &nodes, &[])
        .done("making the metadata")?;
    lvm.convert_to_thin_pool(VG, POOL, "meta", Bytes::new(64 << 10))
        .done("making the thin pool")
}

fn layers_under_active_volumes_are_not_closed(bench: &Bench<'_>) -> Result<(), Broken> {
    let layers = &bench.host.layers;
    let spec = made(bench, 0, LayerStack::Integrity, None)?;
    pool_on(bench, layers.node(&spec.disk, spec.stack))?;
    bench.thin("v", Bytes::mib(300))?;
    layers
        .close(&spec.node)
        .refused("closing under an active volume", HostErrorKind::Busy)?;
    holds("it is open", is_open(bench, 0)?)
}

fn layers_of_a_disk_that_has_not_grown_keep_what_lies_in_them(bench: &Bench<'_>) -> Result<(), Broken> {
    let layers = &bench.host.layers;
    let right = key("MZXW6YTBOI-of-what-grows");
    let spec = made(bench, 0, LayerStack::Luks2Integrity, Some(&right))?;
    let node = layers.node(&spec.disk, spec.stack);
    layers
        .grow(&spec, Some(&right))
        .refused("growing what LVM does not use", HostErrorKind::Failed)?;
    pool_on(bench, node.clone())?;
    let mounted = bench.mounted("v", Bytes::mib(300))?;
    let before = device(bench, 0)?;
    layers.grow(&spec, Some(&right)).done("growing what has not grown")?;
    same("the disk", device(bench, 0)?, before)?;
    let counted = layers.mismatches().done("counting what failed")?;
    same("what failed", counted.get(&node), Some(&0))?;
    let (lvm, filesystems) = (&bench.host.lvm, &bench.host.filesystems);
    filesystems.unmount(&mounted).done("unmounting")?;
    filesystems
        .mount(&lvm.node(VG, "v"), &mounted)
        .done("mounting what lay in them")?;
    filesystems.unmount(&mounted).done("unmounting")?;
    lvm.deactivate_vg(VG).done("deactivating the group")?;
    layers.close(&spec.node).done("closing")?;
    layers
        .grow(&spec, Some(&right))
        .refused("growing what is closed", HostErrorKind::Failed)
}

fn a_disk_that_carries_something_is_given_no_layers(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.group(&[3])?;
    let spec = spec(bench, 3, LayerStack::Integrity)?;
    bench
        .host
        .layers
        .make(&spec, None)
        .refused("making layers over a group's disk", HostErrorKind::Failed)?;
    holds("it has no layers", device(bench, 3)?.layers.is_none())?;
    holds("its group is there", bench.vg(VG)?.is_some())
}

fn a_disk_is_blank_once_its_layers_are_closed_and_wiped(bench: &Bench<'_>) -> Result<(), Broken> {
    let spec = made(bench, 0, LayerStack::Integrity, None)?;
    let disks = &bench.host.disks;
    disks
        .wipe(&spec.node)
        .refused("wiping under open layers", HostErrorKind::Busy)?;
    bench.host.layers.close(&spec.node).done("closing")?;
    disks.wipe(&spec.node).done("wiping")?;
    let device = device(bench, 0)?;
    same("what is on it", device.signatures.len(), 0)?;
    same("its layers", device.layers, None)?;
    let read = disks.signatures(&spec.node).done("reading signatures")?;
    same("what is read from it", read.len(), 0)
}
