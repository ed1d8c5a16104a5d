//! The machine, its services, its links, what its disks say of themselves; and what is shown of steps beforehand.

use std::collections::BTreeSet;

use cistern_host::{BlockDevice, LayerSpec, LayerStack, LvmStep, SelfReport, Service, TagChange};
use cistern_model::{Bytes, ServiceState};

use crate::bench::{Bench, Promised, VG, holds, same};
use crate::{Broken, contracts};

contracts! {
    a_service_is_started_once_and_what_it_needs_with_it:
        Services::state, Services::ensure_started;
    a_virtual_disk_says_nothing_of_itself_whether_it_is_there_or_not:
        Health::ask;
    of_disks_that_never_failed_no_errors_are_reported:
        Health::reported_errors;
    the_machine_tells_what_it_is:
        Machine::facts, Machine::hostname, Machine::load, Machine::memory, Machine::now, Machine::enrolment,
        Machine::clock_is_kept;
    links_are_listed_once_each_by_name_and_the_loopback_is_not:
        Network::interfaces;
    what_is_shown_beforehand_changes_nothing:
        Lvm::command_line, Layers::command_lines, Layers::growth_lines, Disks::part_line;
}

fn a_service_is_started_once_and_what_it_needs_with_it(bench: &Bench<'_>) -> Result<(), Broken> {
    let services = &bench.host.services;
    let nfs = [Service::NfsServer, Service::NfsMountd, Service::NfsdCld];
    let state = |service: Service| services.state(service).done("asking how it is");
    same("the server", state(Service::NfsServer)?, ServiceState::Inactive)?;
    for had_to in [true, false, false] {
        let outcome = services.ensure_started(Service::NfsServer).done("starting it")?;
        same("it had to", outcome, had_to)?;
        for service in nfs {
            same(service.name(), state(service)?, ServiceState::Active)?;
        }
    }
    same(
        "one that it needs had to",
        services.ensure_started(Service::NfsMountd).done("starting it")?,
        false,
    )?;
    bench.machine.stop_server()?;
    same("the server", state(Service::NfsServer)?, ServiceState::Inactive)?;
    holds(
        "it is started again",
        services.ensure_started(Service::NfsServer).done("starting it")?,
    )
}

fn device(bench: &Bench<'_>, disk: usize) -> Result<BlockDevice, Broken> {
    let all = bench.host.disks.list().done("listing disks")?;
    let found = all.into_iter().find(|found| found.node == bench.nodes[disk]);
    found.ok_or_else(|| "a disk is not listed".to_owned())
}

fn a_virtual_disk_says_nothing_of_itself_whether_it_is_there_or_not(bench: &Bench<'_>) -> Result<(), Broken> {
    let health = &bench.host.health;
    let disk = device(bench, 3)?;
    same(
        "while it is there",
        health.ask(&disk).done("asking")?,
        SelfReport::Silent,
    )?;
    bench.machine.attach(&bench.nodes[3], false)?;
    same("when it is gone", health.ask(&disk).done("asking")?, SelfReport::Silent)
}

fn of_disks_that_never_failed_no_errors_are_reported(bench: &Bench<'_>) -> Result<(), Broken> {
    bench.group(&[0])?;
    let reported = bench.host.health.reported_errors().done("asking")?;
    let of = reported.into_iter().filter(|errors| errors.node == bench.nodes[0]);
    same("errors of the first disk", of.count(), 0)
}

fn the_machine_tells_what_it_is(bench: &Bench<'_>) -> Result<(), Broken> {
    let machine = &bench.host.machine;
    let facts = machine.facts().done("asking for facts")?;
    same("facts, again", machine.facts().done("asking again")?, facts.clone())?;
    holds("it has a kernel", !facts.kernel.is_empty())?;
    holds("and an id", !facts.machine_id.is_empty())?;
    holds("and a name", !machine.hostname().done("asking for it")?.is_empty())?;
    let (before, after) = (machine.now(), machine.now());
    holds("time does not go back", before <= after && facts.booted <= before)?;
    holds(
        "it has processors",
        machine.load().done("asking for the load")?.cpus > 0,
    )?;
    let memory = machine.memory().done("asking for memory")?;
    holds(
        &format!("some memory is free: {memory:?}"),
        memory.available > Bytes::ZERO && memory.available <= memory.total,
    )?;
    // These differ from machine to machine.
    machine.enrolment().done("asking how to enrol")?;
    machine.clock_is_kept().done("asking for the clock").map(drop)
}

fn links_are_listed_once_each_by_name_and_the_loopback_is_not(bench: &Bench<'_>) -> Result<(), Broken> {
    let links = bench.host.network.interfaces().done("listing links")?;
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let sorted: BTreeSet<&str> = names.iter().copied().collect();
    same("each once, in order", names, sorted.iter().copied().collect())?;
    holds("there is one", !sorted.is_empty())?;
    holds("the loopback is none of them", !sorted.contains("lo"))
}

fn what_is_shown_beforehand_changes_nothing(bench: &Bench<'_>) -> Result<(), Broken> {
    let host = &bench.host;
    bench.group(&[0])?;
    let look = || -> Result<_, Broken> {
        let state = host.lvm.state().done("reading LVM's state")?;
        Ok((state, host.disks.list().done("listing disks")?))
    };
    let (before, disk) = (look()?, device(bench, 1)?);
    let change = TagChange {
        add: vec!["new=1".to_owned()],
        remove: Vec::new(),
    };
    let step = LvmStep::TagVg {
        vg: VG.to_owned(),
        change,
    };
    let spec = LayerSpec {
        disk: disk.id.clone(),
        node: disk.node.clone(),
        stack: LayerStack::Luks2Integrity,
        label: "pool".to_owned(),
        discards: disk.discards,
    };
    let mut lines = vec![host.lvm.command_line(&step).done("showing a step")?];
    lines.extend(host.layers.command_lines(&spec));
    lines.extend(host.layers.growth_lines(&spec, Bytes::gib(8)));
    let part = BlockDevice {
        id: cistern_model::DiskId::free_part_of(&disk.id),
        free: Some(cistern_host::FreePart::Room {
            disk: disk.node.clone(),
            number: 1,
            start: Bytes::mib(1),
        }),
        ..disk
    };
    lines.push(host.disks.part_line(&part));
    for line in &lines {
        let (program, arguments) = line.split_first().ok_or("a line without a program")?;
        holds(
            "a program by its name",
            !program.is_empty() && !program.contains([' ', '/']),
        )?;
        holds("with arguments", !arguments.is_empty())?;
    }
    same("what there is", look()?, before)
}
