//! Disks: what can be done with each, and wiping.

use cistern_host::memory::{MemoryHost, disk, signature};
use cistern_model::{Bytes, DiskState, ErrorKind, EventKind, Layout};

use crate::support::{Rig, by, refused, serial};

#[test]
fn each_disk_says_what_can_be_done_with_it() {
    let mut busy = disk("busy", Bytes::gib(10));
    busy.busy = true;
    busy.signatures.push(signature("ext4"));
    let mut locked = disk("locked", Bytes::gib(10));
    locked.read_only = true;
    let mut boot = disk("boot", Bytes::gib(10));
    boot.boot = true;
    let mut full = disk("full", Bytes::gib(10));
    full.signatures.push(signature("zfs_member"));
    let tiny = disk("tiny", Bytes::mib(512));
    let theirs = disk("theirs", Bytes::gib(10));
    let machine = MemoryHost::new(vec![
        disk("a", Bytes::gib(10)),
        disk("b", Bytes::gib(10)),
        busy,
        locked,
        boot,
        full,
        tiny,
        theirs,
    ]);
    machine.add_foreign_group("vg0", "another-host", &[serial("theirs")], &[]);
    let rig = Rig::on(machine);
    let pool = rig.make_pool("tank", Layout::Single, &["b"]);
    let states: Vec<(String, DiskState)> = rig
        .engine
        .disks()
        .unwrap()
        .into_iter()
        .map(|d| (d.id.to_string(), d.state))
        .collect();
    let unusable = |why: &str| DiskState::Unusable { why: why.into() };
    let expected = [
        ("serial-a", DiskState::Available),
        ("serial-b", DiskState::InPool { pool: pool.id }),
        ("serial-boot", DiskState::Boot),
        ("serial-busy", DiskState::Busy),
        ("serial-full", DiskState::HasData),
        ("serial-locked", unusable("it is read-only")),
        ("serial-theirs", DiskState::HasData),
        ("serial-tiny", unusable("it is smaller than 1 GiB")),
    ];
    assert_eq!(states, expected.map(|(id, state)| (id.to_owned(), state)));
}

#[test]
fn a_wiped_disk_is_blank_and_can_be_used() {
    let rig = Rig::new();
    let wiped = rig.engine.wipe_disk(&by(), &serial("full"), None).unwrap();
    assert_eq!((wiped.state, wiped.signatures.len()), (DiskState::Available, 0));
    assert_eq!(rig.machine.writes(&serial("full")), ["wipe"]);
    assert!(
        rig.engine
            .events(0, 100)
            .iter()
            .any(|e| e.kind == EventKind::DiskWiped && e.message.contains("xfs"))
    );
    rig.make_pool("tank", Layout::Single, &["full"]);
}

#[test]
fn wiping_a_blank_disk_does_nothing() {
    let rig = Rig::new();
    rig.engine.wipe_disk(&by(), &serial("a"), None).unwrap();
    assert_eq!(rig.machine.writes(&serial("a")), Vec::<String>::new());
}

#[test]
fn a_disk_in_use_is_not_wiped() {
    let rig = Rig::with_pool();
    rig.machine.change_device(&serial("c"), |device| device.busy = true);
    let before = rig.snapshot();
    for name in ["a", "c", "boot"] {
        refused(rig.engine.wipe_disk(&by(), &serial(name), None), ErrorKind::DiskInUse);
    }
    refused(
        rig.engine.wipe_disk(&by(), &serial("nowhere"), None),
        ErrorKind::NotFound,
    );
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_disk_that_something_takes_up_just_before_the_wipe_is_in_use() {
    let rig = Rig::new();
    let busy = cistern_host::HostError::Busy {
        operation: "wipe".into(),
        object: "/dev/vdf".into(),
    };
    rig.machine.fail_next("disks.wipe", busy);
    refused(rig.engine.wipe_disk(&by(), &serial("full"), None), ErrorKind::DiskInUse);
    assert_eq!(rig.machine.writes(&serial("full")), Vec::<String>::new());
}

#[test]
fn lvm_sees_a_disk_by_one_of_its_paths_only() {
    let rig = Rig::new();
    let others: Vec<std::path::PathBuf> = vec!["/dev/sdx".into(), "/dev/sdx1".into()];
    rig.machine
        .change_device(&serial("a"), |device| device.other_nodes.clone_from(&others));
    rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
    assert_eq!(rig.machine.hidden(), others);
    // A start that is tried again begins with nothing hidden.
    rig.engine.start().unwrap();
    assert_eq!(rig.machine.hidden(), others);
    rig.machine
        .change_device(&serial("a"), |device| device.other_nodes.clear());
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.machine.hidden(), Vec::<std::path::PathBuf>::new());
    rig.check();
}
