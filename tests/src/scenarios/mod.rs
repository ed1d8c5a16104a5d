//! The scenarios: what an operator would do, a page each.
//!
//! Invariant: the list here and tests/scenarios.txt are the same; a scenario that is not run is a failure.

mod access;
mod boot;
mod claim_kinds;
mod claims;
mod console;
mod contract;
mod controller_pod;
mod damaged;
mod encrypted;
mod failure;
mod faults;
mod foreign;
mod gone;
mod growth;
mod input;
mod interrupted;
mod lacking;
mod loose;
mod many;
mod moving;
mod nodes;
mod one_disk;
mod own_token;
mod promised;
mod rack;
mod replicas;
mod restart;
mod sealed;
mod serving;
mod several;
mod snapshots;
mod space;
mod told;
mod volumes;
mod zones;

use anyhow::Result;
use cistern_qemu::{Bus, NicModel};

use crate::kubernetes;
use crate::lab::{Lab, Machine, Site, Stage};

/// A named sequence of steps on the built image.
pub struct Scenario {
    /// Its name, unique.
    pub name: &'static str,
    start: Start,
    steps: fn(&Lab) -> Result<()>,
}

/// What a scenario starts from.
enum Start {
    /// A saved state.
    From(Stage),
    /// A machine of its own, started from nothing.
    Boot(fn() -> Machine),
    /// The same, with a client beside it.
    Pair(fn() -> Machine),
    /// What it sets up for itself; its steps are in it.
    Itself(fn(&Site) -> Result<()>),
}

impl Scenario {
    /// Whether it starts from a saved state.
    pub fn is_resumed(&self) -> bool {
        matches!(self.start, Start::From(_))
    }

    /// Runs it. An error carries the logs and the last requests.
    pub fn run(&self, site: &Site) -> Result<()> {
        let lab = match self.start {
            Start::From(stage) => site.resume(stage)?,
            Start::Boot(machine) => site.boot(machine())?,
            Start::Pair(machine) => site.boot_pair(machine())?,
            Start::Itself(run) => return run(site),
        };
        lab.check(self.steps)
    }
}

const fn from(name: &'static str, stage: Stage, steps: fn(&Lab) -> Result<()>) -> Scenario {
    Scenario {
        name,
        start: Start::From(stage),
        steps,
    }
}

const fn boot(name: &'static str, machine: fn() -> Machine, steps: fn(&Lab) -> Result<()>) -> Scenario {
    Scenario {
        name,
        start: Start::Boot(machine),
        steps,
    }
}

const fn pair(name: &'static str, machine: fn() -> Machine, steps: fn(&Lab) -> Result<()>) -> Scenario {
    Scenario {
        name,
        start: Start::Pair(machine),
        steps,
    }
}

const fn itself(name: &'static str, run: fn(&Site) -> Result<()>) -> Scenario {
    Scenario {
        name,
        start: Start::Itself(run),
        steps: |_| Ok(()),
    }
}

/// A machine with all its disks on one bus, started by firmware from one of them.
fn all_on(bus: Bus, nic: NicModel) -> Machine {
    Machine::default().firmware("cistern.qcow2", bus).disks_on(bus).nic(nic)
}

/// A machine with all its disks on a bus that Debian's OVMF has no driver for, so that the kernel is given directly.
fn no_firmware(bus: Bus, nic: NicModel) -> Machine {
    Machine::default().state_on(bus).disks_on(bus).nic(nic)
}

/// From a blank machine to a volume that a client uses; in the order in which they are run.
const BASE: &[Scenario] = &[
    boot(
        "first-boot-and-enrolment",
        Machine::default,
        boot::first_boot_and_enrolment,
    ),
    boot(
        "disk-image-by-ovmf",
        || Machine::default().firmware("cistern.raw", Bus::Virtio),
        boot::installed,
    ),
    boot(
        "qcow2-by-ovmf",
        || Machine::default().firmware("cistern.qcow2", Bus::Virtio),
        boot::installed,
    ),
    boot("iso-by-ovmf", || Machine::default().iso("cistern.iso"), boot::live),
    boot(
        "boot-nvme-e1000e",
        || all_on(Bus::Nvme, NicModel::E1000e),
        boot::installed,
    ),
    boot(
        "boot-ahci-vmxnet3",
        || all_on(Bus::Ahci, NicModel::Vmxnet3),
        boot::installed,
    ),
    boot(
        "boot-megasas-e1000e",
        || no_firmware(Bus::Megasas, NicModel::E1000e),
        boot::installed,
    ),
    boot(
        "boot-pvscsi-vmxnet3",
        || no_firmware(Bus::Pvscsi, NicModel::Vmxnet3),
        boot::installed,
    ),
    boot(
        "console-on-the-screen",
        || Machine::default().firmware("cistern.raw", Bus::Virtio).screen(),
        console::session_on_the_screen,
    ),
    from("console-session", Stage::Pooled, console::session_over_the_serial_line),
    from("pool-and-volume", Stage::Enrolled, volumes::pool_and_volume),
    from("size-enforced", Stage::Pooled, volumes::size_enforced),
    from("clients-come-and-go", Stage::Pooled, volumes::clients_come_and_go),
    from("volume-options", Stage::Pooled, serving::volume_options),
    from("a-volume-changes", Stage::Pooled, snapshots::a_volume_changes),
    from("refused-disk", Stage::Enrolled, input::refused_disk),
    from("refused-requests", Stage::Pooled, input::refused_requests),
    from("restart-under-a-writer", Stage::Pooled, restart::restart_under_a_writer),
    from("power-cut", Stage::Pooled, restart::power_cut),
    boot(
        "power-cut-after-first-start",
        Machine::default,
        restart::power_cut_after_the_first_start,
    ),
];

/// What the storage engine does with disks, volumes and snapshots.
const STORAGE: &[Scenario] = &[
    from("fencing", Stage::Pooled, serving::fencing),
    from("snapshots-and-copies", Stage::Pooled, snapshots::snapshots_and_copies),
];

/// What takes too long for every run: `make torture` runs it.
const LONG: &[Scenario] = &[
    from("half-made-snapshot", Stage::Pooled, failure::half_made_snapshot),
    boot("contract", || Machine::default().contract().tpm(), contract::contract),
    from("group-snapshots", Stage::Pooled, snapshots::group_snapshots),
    from("rollback-and-trash", Stage::Pooled, snapshots::rollback_and_trash),
    pair("disk-lost-and-back", failure::pullable, failure::disk_lost_and_back),
    pair(
        "a-pool-lacks-data-beside-another",
        failure::pullable,
        lacking::a_pool_lacks_data_beside_another,
    ),
    pair(
        "a-pool-of-one-disk-comes-late",
        failure::pullable,
        lacking::a_pool_of_one_disk_comes_late,
    ),
    pair(
        "more-lost-than-can-be",
        failure::pullable,
        lacking::more_lost_than_can_be,
    ),
    pair("two-disks-lost", || failure::with_disks(9), promised::two_disks_lost),
    pair(
        "a-cable-comes-loose-while-a-disk-is-filled",
        failure::many_pullable,
        loose::a_cable_comes_loose_while_a_disk_is_filled,
    ),
    pair(
        "one-of-two-comes-back",
        failure::many_pullable,
        loose::one_of_two_comes_back,
    ),
    pair("a-spare-takes-over", failure::pullable, lacking::a_spare_takes_over),
    pair(
        "striped-mirrors-replaced-over-a-power-cut",
        || failure::with_disks(5),
        interrupted::striped_mirrors_replaced_over_a_power_cut,
    ),
    pair(
        "layers-replaced-over-a-power-cut",
        failure::pullable,
        interrupted::layers_replaced_over_a_power_cut,
    ),
    pair(
        "moves-over-power-cuts",
        failure::pullable,
        interrupted::moves_over_power_cuts,
    ),
    pair("snapshots-fill-a-pool", failure::pullable, space::snapshots_fill_a_pool),
    from(
        "orphans-and-a-topology",
        Stage::Enrolled,
        foreign::orphans_and_a_topology,
    ),
    pair("a-ghost-is-given-up", failure::pullable, failure::a_ghost_is_given_up),
    pair(
        "disks-replaced-under-fio",
        failure::many_pullable,
        failure::disks_replaced_under_fio,
    ),
    itself("disk-errors-under-fio", faults::disk_errors_under_fio),
    from("copies-that-differ", Stage::Pooled, faults::copies_that_differ),
    itself("garbage-under-a-leg", faults::garbage_under_a_leg),
    itself("checksums-without-discards", faults::checksums_without_discards),
    pair(
        "full-pool-takes-more-disks",
        failure::pullable,
        growth::full_pool_takes_more_disks,
    ),
    pair(
        "grown-and-drained-under-fio",
        failure::pullable,
        growth::grown_and_drained_under_fio,
    ),
    pair(
        "stripe-mirror-takes-more-disks",
        || failure::with_disks(8),
        growth::stripe_mirror_takes_more_disks,
    ),
    pair(
        "parity-takes-more-disks",
        failure::many_pullable,
        growth::parity_takes_more_disks,
    ),
    pair(
        "double-parity-takes-more-disks",
        || failure::with_disks(10),
        growth::double_parity_takes_more_disks,
    ),
    pair(
        "layers-grow-with-their-disks",
        failure::pullable,
        growth::layers_grow_with_their_disks,
    ),
    pair(
        "pool-on-the-boot-disk",
        one_disk::machine,
        one_disk::pool_on_the_boot_disk,
    ),
    itself("pool-moves-to-another-appliance", moving::pool_moves),
    itself("encrypted-pool-moves", encrypted::encrypted_pool),
    pair("key-sealed-by-the-tpm", sealed::machine, sealed::key_sealed_by_the_tpm),
    pair(
        "a-hundred-volumes-under-writers",
        many::roomy,
        many::a_hundred_volumes_under_writers,
    ),
    pair("a-thousand-volumes", many::roomy, many::a_thousand_volumes),
    pair("a-hundred-claims", many::roomy, claims::a_hundred_claims),
    pair(
        "a-hundred-claims-while-parts-fail",
        many::roomy,
        claims::a_hundred_claims_while_parts_fail,
    ),
    pair(
        "the-appliance-of-fifty-volumes-is-gone",
        many::roomy,
        gone::the_appliance_of_fifty_volumes_is_gone,
    ),
    from(
        "one-is-given-up-beside-another",
        Stage::Pooled,
        gone::one_is_given_up_beside_another,
    ),
    from(
        "a-damaged-state-partition",
        Stage::Pooled,
        damaged::a_damaged_state_partition,
    ),
];

/// What a cluster makes of an appliance.
const KUBERNETES: &[Scenario] = &[
    from("csi-sanity", Stage::Pooled, kubernetes::csi_sanity),
    from("a-claim-s-life", Stage::Pooled, claims::a_claim_s_life),
    from("claims-of-all-kinds", Stage::Pooled, claim_kinds::claims_of_all_kinds),
    from(
        "claims-while-parts-fail",
        Stage::Pooled,
        claims::claims_while_parts_fail,
    ),
    from("the-appliance-is-gone", Stage::Pooled, gone::the_appliance_is_gone),
    from("what-goes-wrong-is-told", Stage::Pooled, told::what_goes_wrong_is_told),
    from("a-pod-writes", Stage::Pooled, nodes::a_pod_writes),
];

/// What pods make of claims beyond that, and what else takes too long of a cluster: `make test-nodes` runs it.
const NODES: &[Scenario] = &[
    from("claims-by-zone", Stage::Pooled, zones::claims_by_zone),
    from("a-node-s-zone", Stage::Pooled, zones::a_node_s_zone),
    from("two-replicas", Stage::Pooled, replicas::two_replicas),
    from("a-node-moves", Stage::Pooled, serving::a_node_moves),
    from("two-appliances", Stage::Pooled, several::two_appliances),
    from(
        "the-controller-s-pod",
        Stage::Pooled,
        controller_pod::the_controller_s_pod,
    ),
    from("both-nodes-write", Stage::Pooled, nodes::both_nodes_write),
    from(
        "a-second-node-is-refused",
        Stage::Pooled,
        nodes::a_second_node_is_refused,
    ),
    from("a-pod-outlives-restarts", Stage::Pooled, nodes::a_pod_outlives_restarts),
    from("a-pod-that-is-not-root", Stage::Pooled, nodes::a_pod_that_is_not_root),
    from("a-stateful-set", Stage::Pooled, nodes::a_stateful_set),
    from("who-may-use-what", Stage::Pooled, access::who_may_use_what),
    from(
        "volumes-by-hand-in-pods",
        Stage::Pooled,
        access::volumes_by_hand_in_pods,
    ),
    from(
        "pods-go-without-the-appliance",
        Stage::Pooled,
        nodes::pods_go_without_the_appliance,
    ),
];

/// The parts, each with a budget of its own in tests/run-parts, or in the Makefile.
pub const PARTS: &[(&str, &[Scenario])] = &[
    ("base", BASE),
    ("storage", STORAGE),
    ("long", LONG),
    ("kubernetes", KUBERNETES),
    ("nodes", NODES),
];
