//! The machine of a cluster's node: the peer once more, this time from a disk of its own, since a kubelet does not start on a root
//! that is in memory.
//!
//! Invariant: it reaches the private link and this machine's loopback, and has no route to anywhere else.

use anyhow::{Context, Result};
use cistern_qemu::{Builder, Cache, Disk, Nic, Switch, Vm};

use super::appliance::{link_arguments, read};
use super::images::Images;

/// Where a node finds what listens on this machine's loopback: on the network that QEMU plays for it.
pub const HOST_ADDRESS: &str = "10.0.2.2";
/// A node's own address on that network, which is its alone.
const OUTSIDE_ADDRESS: &str = "10.0.2.15";

/// The description for QEMU of the node with this number, from 1.
pub(super) fn builder(images: &Images, switch: &Switch, number: u8, name: &str, memory_mib: u32) -> Result<Builder> {
    let disk = images.peer("node.qcow2");
    std::fs::metadata(&disk).with_context(|| format!("{} is missing; `make image` makes it", disk.display()))?;
    let (link, outside) = (
        format!("52:54:00:77:01:{number:02x}"),
        format!("52:54:00:77:02:{number:02x}"),
    );
    let cmdline = format!(
        "{} systemd.hostname={name} {} ifname=lab1:{outside} ip={OUTSIDE_ADDRESS}:::255.255.255.0::lab1:none",
        read(&images.peer("cmdline"))?.trim(),
        link_arguments(&link, &address(number)),
    );
    Ok(Vm::builder(name)
        .memory_mib(memory_mib)
        .direct_kernel(images.peer("vmlinuz"), images.peer("node-initrd"), cmdline)
        .disk(Disk::overlay(disk).id("root").cache(Cache::Unsafe))
        .nic(Nic::link(switch).mac(&link))
        // Without a gateway in its address: the loopback of this machine is all that it finds here.
        .nic(Nic::user().mac(&outside))
        .guest_agent())
}

/// The address on the private link of the node with this number.
pub(super) fn address(number: u8) -> String {
    format!("10.77.0.{}", 10 + u32::from(number))
}
