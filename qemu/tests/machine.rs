//! Machines that run a boot sector of ours: what the crate promises of any guest, in seconds and without an image.

// The lint's exception for tests does not reach what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cistern_model::Bytes;
use cistern_qemu::{Builder, Bus, Disk, Error, ErrorKind, Nic, SavedState, Switch, Vm};

const SOON: Duration = Duration::from_secs(20);

/// A boot sector that prints `boot` and then, for ever, `.` and whatever is typed, in upper case if it is a letter. It
/// counts what was typed in memory and says the count, a digit, after each.
fn sector() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
        0xc6, 0x06, 0x00, 0x06, b'0', // mov byte [0x600], '0'
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
    ];
    for &byte in b"boot\n" {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    let again = code.len();
    code.extend([
        0xba, 0xfd, 0x03, // mov dx, 0x3fd: the line's status
        0xec, 0xa8, 0x01, // in al, dx; test al, 1
        0x74, 0xf8, // jz to the mov
        0xba, 0xf8, 0x03, 0xec, // mov dx, 0x3f8; in al, dx
        0x24, 0xdf, 0xee, // and al, 0xdf; out dx, al
        0xfe, 0x06, 0x00, 0x06, // inc byte [0x600]
        0xa0, 0x00, 0x06, 0xee, // mov al, [0x600]; out dx, al
        0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
    ]);
    let back = i8::try_from(again as isize - (code.len() + 2) as isize).unwrap();
    code.extend([0xeb, back as u8]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1 << 20, 0);
    code
}

fn machine(dir: &Path) -> Builder {
    let path = dir.join("sector.raw");
    if !path.exists() {
        std::fs::write(&path, sector()).unwrap();
    }
    Vm::builder("tiny")
        .memory_mib(32)
        .cpus(1)
        .bios()
        .disk(Disk::overlay(path).bus(Bus::Ahci).id("boot").boot())
}

fn type_and_expect(vm: &Vm, letter: &str, expected: &str) {
    vm.console().send(letter.as_bytes()).unwrap();
    vm.console().expect(expected, SOON).unwrap();
}

#[test]
fn a_machine_boots_talks_pauses_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let vm = machine(dir.path()).start(dir.path().join("vm")).unwrap();
    vm.console().expect("^boot$", SOON).unwrap();
    type_and_expect(&vm, "a", "^A1$");
    vm.pause().unwrap();
    vm.console().send(b"b").unwrap();
    let error = vm.console().expect("B2", Duration::from_millis(200)).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Timeout && error.to_string().contains("A1"),
        "{error}"
    );
    vm.resume().unwrap();
    vm.console().expect("^B2$", SOON).unwrap();
    vm.reset().unwrap();
    vm.console().expect("^boot$", SOON).unwrap();
    type_and_expect(&vm, "c", "^C1$");
    assert!(std::fs::read_to_string(vm.console().log()).unwrap().contains("B2"));
}

#[test]
fn after_a_power_cut_the_same_machine_starts_on_the_same_disks_and_port() {
    let dir = tempfile::tempdir().unwrap();
    let vm = machine(dir.path())
        .disk(Disk::blank(Bytes::mib(64)).serial("D1"))
        .nic(Nic::user().forward(443))
        .start(dir.path().join("vm"))
        .unwrap();
    vm.console().expect("^boot$", SOON).unwrap();
    let (pid, port) = (vm.pid().unwrap(), vm.forwarded(443).unwrap());
    vm.power_cut().unwrap();
    assert!(!vm.is_running());
    assert!(matches!(vm.pause(), Err(Error::NotRunning { .. })));
    assert!(matches!(
        vm.console().expect("boot", SOON),
        Err(Error::NotRunning { .. })
    ));
    vm.start().unwrap();
    vm.console().expect("^boot$", SOON).unwrap();
    assert_ne!(vm.pid(), Some(pid));
    assert_eq!(vm.forwarded(443).unwrap(), port);
    assert!(vm.report().to_string().contains("running"), "{}", vm.report());
}

#[test]
fn one_saved_state_is_resumed_twice_at_once_from_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let lan = Switch::new("lan");
    let vm = machine(dir.path())
        .disk(Disk::blank(Bytes::mib(64)).serial("D1"))
        .disk(Disk::blank(Bytes::mib(64)).bus(Bus::Megasas))
        .disk(Disk::blank(Bytes::mib(64)).bus(Bus::Pvscsi).serial("D3"))
        .nic(Nic::user().forward(443))
        .nic(Nic::link(&lan))
        .guest_agent()
        .start(dir.path().join("first"))
        .unwrap();
    vm.console().expect("^boot$", SOON).unwrap();
    type_and_expect(&vm, "a", "^A1$");
    vm.save(dir.path().join("state")).unwrap();
    assert_eq!(lan.ports(), 0, "the frozen machine is unplugged");

    let state = SavedState::open(dir.path().join("state")).unwrap();
    let unplugged = state.builder().start(dir.path().join("second")).map(drop).unwrap_err();
    assert!(unplugged.to_string().contains("lan"), "{unplugged}");
    let began = Instant::now();
    let second = state.builder().switch(&lan).start(dir.path().join("second")).unwrap();
    println!("resumed in {:?}", began.elapsed());
    let third = state
        .builder()
        .switch(&Switch::new("lan"))
        .start(dir.path().join("third"))
        .unwrap();
    assert_ne!(second.forwarded(443).unwrap(), third.forwarded(443).unwrap());
    type_and_expect(&second, "b", "^B2$");
    type_and_expect(&third, "c", "^C2$");
    // It is a machine like any other.
    second.power_cut().unwrap();
    second.start().unwrap();
    second.console().expect("^boot$", SOON).unwrap();

    std::fs::write(dir.path().join("sector.raw"), [0; 1 << 20]).unwrap();
    let stale = SavedState::open(dir.path().join("state")).unwrap_err();
    assert!(
        matches!(&stale, Error::Stale { problem, .. } if problem.contains("sector.raw")),
        "{stale}"
    );
}

#[test]
fn a_machine_with_nvme_is_not_saved_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let nvme = Disk::blank(Bytes::mib(64)).bus(Bus::Nvme);
    let vm = machine(dir.path()).disk(nvme).start(dir.path().join("vm")).unwrap();
    let error = vm.save(dir.path().join("state")).unwrap_err();
    assert!(error.to_string().contains("NVMe"), "{error}");
}

#[test]
fn disks_on_scsi_come_and_go_and_stay_gone_over_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let pvscsi = |serial| Disk::blank(Bytes::mib(64)).bus(Bus::Pvscsi).serial(serial);
    let vm = machine(dir.path())
        .disk(pvscsi("D1"))
        .disk(pvscsi("D2"))
        .start(dir.path().join("vm"))
        .unwrap();
    let ids = |vm: &Vm| vm.disks().iter().map(|d| d.name().to_string()).collect::<Vec<_>>();
    let pulled = vm.unplug("D1").unwrap();
    vm.plug(pvscsi("D3")).unwrap();
    // The spare ports take virtio and NVMe too.
    vm.plug(Disk::blank(Bytes::mib(64)).serial("D4")).unwrap();
    vm.plug(Disk::blank(Bytes::mib(64)).bus(Bus::Nvme).serial("D5"))
        .unwrap();
    assert_eq!(ids(&vm), ["boot", "D2", "D3", "D4", "D5"]);
    for (refused, why) in [
        (vm.unplug("D1").map(drop), "no disk D1"),
        (vm.unplug("boot").map(drop), "AHCI"),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    vm.power_cut().unwrap();
    vm.start().unwrap();
    vm.plug(pulled).unwrap();
    assert_eq!(ids(&vm), ["boot", "D2", "D3", "D4", "D5", "D1"]);
}

#[test]
fn disks_of_a_machine_that_does_not_run_are_lent_to_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let vm = machine(dir.path()).start(dir.path().join("vm")).unwrap();
    let error = vm.lend().map(drop).unwrap_err().to_string();
    assert!(error.contains("while it runs"), "{error}");
    vm.power_cut().unwrap();
    let lent = vm.lend().unwrap().into_iter().map(Disk::boot);
    let other = lent.fold(Vm::builder("other").memory_mib(32).cpus(1).bios(), Builder::disk);
    let other = other.start(dir.path().join("other")).unwrap();
    other.console().expect("boot", SOON).unwrap();
    assert!(!dir.path().join("other/disk-boot.qcow2").exists(), "it has a copy");
    drop(other);
    vm.start().unwrap();
    vm.console().expect("boot", SOON).unwrap();
}

#[test]
fn a_machine_that_qemu_refuses_says_what_qemu_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = machine(dir.path())
        .argument("-no-such-option")
        .start(dir.path().join("vm"))
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ended);
    assert!(error.to_string().contains("no-such-option"), "{error}");
}

#[test]
fn a_machine_that_turns_itself_off_is_seen_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sector.raw");
    let mut off = vec![0xb0, 0x00, 0xe6, 0xf4]; // mov al, 0; out 0xf4, al
    off.resize(510, 0xf4);
    off.extend([0x55, 0xaa]);
    off.resize(1 << 20, 0);
    std::fs::write(&path, off).unwrap();
    let vm = machine(dir.path())
        .argument("-device")
        .argument("isa-debug-exit,iobase=0xf4,iosize=4");
    let vm = vm.start(dir.path().join("vm")).unwrap();
    assert_eq!(vm.wait_off(SOON).unwrap().code(), Some(1));
    assert_eq!(vm.wait_off(SOON).unwrap().code(), Some(1), "and it is remembered");
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn parent_that_is_killed() {
    let Some(dir) = std::env::var_os("CISTERN_QEMU_PARENT").map(PathBuf::from) else {
        return;
    };
    let start = move || {
        let vm = machine(&dir).start(dir.join("vm")).unwrap();
        eprintln!("\npid {}", vm.pid().unwrap());
        vm
    };
    // Started by a thread that ends at once: the machine is the process's, not the thread's.
    let vm = std::thread::spawn(start).join().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(vm.is_running());
    eprintln!("\nstill running");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_machine_dies_with_a_process_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_that_is_killed", "--nocapture"])
        .env("CISTERN_QEMU_PARENT", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(parent.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .take_while(|line| line != "still running")
        .collect();
    let pid = lines
        .iter()
        .find_map(|line| line.strip_prefix("pid "))
        .unwrap_or_else(|| panic!("{lines:?}"));
    let status = format!("/proc/{pid}/status");
    // Adopted by a process that may not collect it, it may remain as a zombie; that is dead enough.
    let alive = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("\nState:\tZ"));
    assert!(alive(), "the machine outlives the thread that started it");
    parent.kill().unwrap();
    assert_eq!(parent.wait().unwrap().signal(), Some(9));
    let began = Instant::now();
    while alive() {
        assert!(began.elapsed() < SOON, "QEMU {pid} outlived its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}
