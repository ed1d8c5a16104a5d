//! A real guest over the block server: what it had synced is there after any cut.
//!
//! These start the peer of target/image, which `image/build` makes, and are therefore run by name:
//! `cargo test -p cistern-qemu --test power_cut -- --ignored --nocapture`.

// The lint's exception for tests does not reach what they share.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cistern_model::Bytes;
use cistern_qemu::{Action, BlockServer, Builder, Bus, Cut, Disk, Fault, Medium, Position, Survivors, Vm};

const START: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn peer(name: &str) -> Builder {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/peer");
    let cmdline = std::fs::read_to_string(images.join("cmdline")).unwrap();
    Vm::builder(name)
        .memory_mib(768)
        .direct_kernel(images.join("vmlinuz"), images.join("initrd"), cmdline.trim())
        .guest_agent()
}

/// Where machines and bytes are kept: not in memory, where a temporary directory may be.
fn directory() -> tempfile::TempDir {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).unwrap()
}

fn sh(vm: &Vm, command: &str) -> String {
    let output = vm.guest_exec(&["/bin/bash", "-c", command], SOON).unwrap();
    assert!(output.success(), "{command}: {output:?}");
    output.stdout.trim().to_owned()
}

/// The device of the disk with this serial number, when the guest has seen it.
fn device(vm: &Vm, serial: &str) -> String {
    let find = format!(
        "for n in $(seq 200); do for f in /sys/block/*/serial /sys/block/*/device/vpd_pg80; do \
         if [ -e \"$f\" ] && grep -qa {serial} \"$f\"; then f=${{f#/sys/block/}}; echo /dev/${{f%%/*}}; exit; fi; done; \
         sleep 0.05; done; dmesg | tail -n 30 >&2; exit 1"
    );
    sh(vm, &find)
}

#[test]
#[ignore = "needs target/image/peer"]
fn what_a_guest_had_synced_is_in_every_cut_after_it_and_another_machine_reads_it() {
    let dir = directory();
    let server = BlockServer::start(dir.path().join("blocks")).unwrap();
    let disks = server
        .record([
            Medium::blank("D1", Bytes::mib(256)),
            Medium::blank("D2", Bytes::mib(256)),
        ])
        .unwrap();
    let mut writer = peer("writer").disk(disks.disk("D1").unwrap());
    writer = writer.disk(disks.disk("D2").unwrap().bus(Bus::VirtioScsi));
    let writer = writer.start(dir.path().join("writer")).unwrap();
    let checker = peer("checker").controller(Bus::VirtioScsi);
    let checker = checker.start(dir.path().join("checker")).unwrap();
    writer.wait_for_agent(START).unwrap();
    checker.wait_for_agent(START).unwrap();

    let (one, two) = (device(&writer, "D1"), device(&writer, "D2"));
    for device in [&one, &two] {
        let name = device.trim_start_matches("/dev/");
        assert_eq!(
            sh(&writer, &format!("cat /sys/block/{name}/queue/write_cache")),
            "write back"
        );
    }
    let mut done = Vec::new();
    for n in 0..8 {
        let to = if n % 2 == 0 { &one } else { &two };
        disks.mark(&format!("write {n}"));
        let how = format!("bs=1M count=1 seek={n} iflag=fullblock conv=notrunc,fsync status=none");
        sh(&writer, &format!("yes {n} | dd of={to} {how}"));
        done.push(disks.mark(&format!("synced {n}")));
    }
    // Reaches the server, and is not flushed.
    sh(
        &writer,
        &format!("yes lost | dd of={one} bs=1M count=4 seek=100 iflag=fullblock oflag=direct conv=notrunc status=none"),
    );
    let unsynced = disks.end();
    writer.power_cut().unwrap();

    let text = |n: usize| format!("{n}\n").repeat(MIB / 2).into_bytes();
    let mut times = Vec::new();
    for (n, at) in done.iter().enumerate() {
        for survivors in [Survivors::Nothing, Survivors::Random(n as u64)] {
            let began = Instant::now();
            let view = disks.cut(&Cut::at(*at).survivors(survivors)).unwrap();
            let opened = began.elapsed();
            checker.attach(&view, Bus::VirtioScsi).unwrap();
            let devices = [device(&checker, "D1"), device(&checker, "D2")];
            let attached = began.elapsed();
            for m in 0..=n {
                let name = ["D1", "D2"][m % 2];
                assert!(
                    view.read(name, (m * MIB) as u64, MIB).unwrap() == text(m),
                    "write {m} in the cut after {n}"
                );
            }
            // The guest, which is slow, looks at the last of each disk.
            for m in n.saturating_sub(1)..=n {
                let device = &devices[m % 2];
                let part = format!("dd if={device} bs=1M count=1 skip={m} status=none iflag=direct");
                sh(&checker, &format!("cmp <({part}) <(yes {m} | head -c 1M)"));
            }
            let began = Instant::now();
            checker.detach(&view).unwrap();
            times.push((opened, attached, began.elapsed()));
        }
    }
    println!("opened, seen by the guest, detached: {times:?}");

    // The machine itself, after the cut and without one of its disks.
    let view = disks.cut(&Cut::at(done[7]).without("D1")).unwrap();
    writer.exchange(&view).unwrap();
    writer.start().unwrap();
    writer.wait_for_agent(START).unwrap();
    let two = device(&writer, "D2");
    sh(
        &writer,
        &format!("cmp <(dd if={two} bs=1M count=1 skip=7 status=none) <(yes 7 | head -c 1M)"),
    );
    assert_eq!(sh(&writer, "ls /sys/block | grep -c '^[vs]d'"), "1");

    let after = |survivors| {
        disks
            .cut(&Cut::at(unsynced).survivors(survivors))
            .unwrap()
            .read("D1", 100 << 20, MIB)
            .unwrap()
    };
    assert!(after(Survivors::Nothing).iter().all(|b| *b == 0));
    assert!(after(Survivors::Everything).starts_with(b"lost\nlost\n"));
    let events = disks.events(Position(0), disks.end());
    assert!(
        events.iter().any(|e| matches!(e.action, Action::Flush { .. })),
        "the guest's flushes arrive"
    );
}

#[test]
#[ignore = "needs target/image/peer"]
fn a_guest_sees_a_broken_disk_and_a_mended_one_and_disks_on_pci_come_and_go() {
    let dir = directory();
    let server = BlockServer::start(dir.path().join("blocks")).unwrap();
    let disks = server
        .record([Medium::blank("D1", Bytes::mib(64)), Medium::blank("D2", Bytes::mib(64))])
        .unwrap();
    let vm = peer("peer").start(dir.path().join("peer")).unwrap();
    vm.wait_for_agent(START).unwrap();
    let began = Instant::now();
    vm.attach(&disks, Bus::Virtio).unwrap();
    let one = device(&vm, "D1");
    println!("seen after {:?}", began.elapsed());
    let read = format!("dd if={one} of=/dev/null bs=4k count=1 skip=100 iflag=direct 2>&1; true");
    disks.fail("D1", Fault::Read(800..808)).unwrap();
    assert!(sh(&vm, &read).contains("Input/output error"));
    disks.heal("D1").unwrap();
    assert!(sh(&vm, &read).contains("1+0 records in"));
    let began = Instant::now();
    vm.detach(&disks).unwrap();
    println!("two virtio disks left after {:?}", began.elapsed());
    assert!(vm.disks().is_empty());
}

#[test]
#[ignore = "a measurement"]
fn sequential_writes_through_the_server_beside_a_raw_file() {
    let dir = directory();
    let server = BlockServer::start(dir.path().join("blocks")).unwrap();
    let disks = server.record([Medium::blank("D1", Bytes::gib(4))]).unwrap();
    let raw = dir.path().join("disk.raw");
    std::fs::File::create(&raw).unwrap().set_len(4 << 30).unwrap();
    let vm = peer("peer")
        .disk(disks.disk("D1").unwrap())
        .disk(Disk::file(&raw).serial("RAW"));
    let vm = vm.start(dir.path().join("peer")).unwrap();
    vm.wait_for_agent(START).unwrap();
    for _ in 0..3 {
        for serial in ["D1", "RAW"] {
            let device = device(&vm, serial);
            for (name, options) in [
                (
                    "sequential 1M",
                    "--bs=1M --size=1G --rw=write --iodepth=8 --ioengine=libaio --end_fsync=1",
                ),
                (
                    "random 4k",
                    "--bs=4k --size=64M --rw=randwrite --iodepth=16 --ioengine=libaio --end_fsync=1",
                ),
                ("synced 4k", "--bs=4k --size=2M --rw=write --fsync=1"),
            ] {
                let fio = format!(
                    "fio --name=x --filename={device} --direct=1 {options} --output-format=terse --terse-version=3"
                );
                // In the terse form the 48th field is the bandwidth of writing in KiB/s.
                let rate = sh(&vm, &format!("{fio} | cut -d';' -f48"));
                println!("{serial} {name}: {:.2} MiB/s", rate.parse::<f64>().unwrap() / 1024.0);
            }
        }
    }
    println!("{} MiB written, resident: {}", disks.written() >> 20, resident());
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned()
}
