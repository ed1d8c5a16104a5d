//! Layers below a pool: what lies in them is there after a restart, disks that leave are blank, and garbage is healed.

use cistern_engine::PoolCreation;
use cistern_host::memory::{AllRead, MemoryHost};
use cistern_model::{
    AddDisksRequest, AlertKind, Bytes, DiskState, Encryption, ErrorKind, EventKind, JobState, Layers, Layout,
    PoolRequest, PoolState, ReplaceRequest, Severity,
};

use crate::crashes::{everywhere, everywhere_until, wait_for_jobs};
use crate::keys::with_a_tpm;
use crate::support::{Rig, by, machine, path, pool_request, refused, serial};

pub(crate) const CHECKSUMS: Layers = Layers {
    checksums: true,
    encryption: Encryption::None,
};
pub(crate) const ENCRYPTED: Layers = Layers {
    checksums: false,
    encryption: Encryption::Key,
};
pub(crate) const BOTH: Layers = Layers {
    checksums: true,
    encryption: Encryption::Key,
};

pub(crate) const SEALED: Layers = Layers {
    checksums: false,
    encryption: Encryption::Tpm2,
};

pub(crate) fn request(layers: Layers, layout: Layout, disks: &[&str]) -> PoolRequest {
    PoolRequest {
        layers,
        ..pool_request("tank", layout, disks)
    }
}

/// A pool with these layers and a volume with a file.
pub(crate) fn with(layers: Layers, layout: Layout, disks: &[&str]) -> Rig {
    let rig = Rig::new();
    let job = rig.try_pool(&request(layers, layout, disks)).unwrap();
    assert_eq!(job.state, JobState::Succeeded);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine.write_file(&path(volume.id), "file", Bytes::mib(5)).unwrap();
    rig
}

pub(crate) fn file_is_there(rig: &Rig) {
    let volume = &rig.volumes()[0];
    let files = rig.machine.files(&path(volume.id));
    assert_eq!(files, Some(vec![("file".to_owned(), Bytes::mib(5))]));
}

pub(crate) fn is_blank(rig: &Rig, disk: &str) -> bool {
    let disks = rig.engine.disks().unwrap();
    disks
        .iter()
        .any(|d| d.id == serial(disk) && d.state == DiskState::Available)
}

fn vg(rig: &Rig) -> String {
    rig.engine.pool(&by(), "tank").unwrap().id.to_string()
}

fn alerts(rig: &Rig) -> Vec<(String, Severity)> {
    let alerts = rig.engine.alerts(false).into_iter();
    let ours = alerts.filter(|alert| alert.kind == AlertKind::ChecksumErrors);
    ours.map(|alert| (alert.object.unwrap_or_default(), alert.severity))
        .collect()
}

#[test]
fn what_lies_in_layers_is_served_after_a_restart_and_the_disks_keep_their_names() {
    for layers in [CHECKSUMS, ENCRYPTED, BOTH] {
        let mut rig = with(layers, Layout::Mirror, &["a", "b"]);
        for _ in 0..2 {
            rig.check();
            file_is_there(&rig);
            let pool = rig.engine.pool(&by(), "tank").unwrap();
            assert_eq!((pool.layers, pool.state), (layers, PoolState::Ready));
            assert_eq!(pool.disks, [serial("a"), serial("b")]);
            rig.restart();
        }
    }
}

#[test]
fn a_pool_s_disks_are_blank_once_it_is_deleted_and_can_be_used_again_without_layers() {
    for layers in [CHECKSUMS, BOTH] {
        let rig = with(layers, Layout::StripeMirror, &["a", "b", "c", "d"]);
        let volume = rig.volumes()[0].id;
        rig.engine.delete_volume(&by(), volume).unwrap();
        let job = rig.engine.delete_pool(&by(), "tank").unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        assert!(["a", "b", "c", "d"].into_iter().all(|disk| is_blank(&rig, disk)));
        assert_eq!(rig.machine.record("layers.json").as_deref(), Some("{}"));
        rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
        rig.check();
    }
}

#[test]
fn the_plan_says_what_is_done_and_promises_no_more_than_there_is() {
    for layers in [CHECKSUMS, ENCRYPTED, BOTH] {
        let rig = Rig::new();
        let asked = request(layers, Layout::Mirror, &["a", "b"]);
        let before = rig.snapshot();
        let plan = rig.engine.plan_pool(&asked).unwrap();
        assert_eq!(rig.snapshot(), before);
        let words: Vec<String> = plan.commands.iter().map(|line| line.join(" ")).collect();
        assert!(words[0].starts_with("systemd-repart"), "{words:?}");
        let join = words.iter().find(|line| line.starts_with("vgcreate")).unwrap();
        assert!(
            join.contains("/dev/mapper/cistern-") && !join.contains("/dev/vda"),
            "{join}"
        );
        assert!(!plan.warnings.is_empty());
        rig.try_pool(&asked).unwrap();
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().size, plan.usable, "{layers}");
    }
}

#[test]
fn checksums_lie_on_disks_that_take_no_discards_too_and_grow_there() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.machine
            .change_device(&serial(name), |device| device.discards = false);
    }
    let asked = request(CHECKSUMS, Layout::Mirror, &["a", "b"]);
    let plan = rig.engine.plan_pool(&asked).unwrap();
    let words: Vec<String> = plan.commands.iter().map(|line| line.join(" ")).collect();
    assert!(
        words.iter().any(|line| line.contains("--integrity-recalculate"))
            && !words.iter().any(|line| line.contains("blkdiscard")),
        "{words:?}"
    );
    assert!(
        plan.warnings.iter().any(|told| told.contains("takes no discards")),
        "{plan:?}"
    );
    assert_eq!(rig.try_pool(&asked).unwrap().state, JobState::Succeeded);
    rig.engine.add_spare(&by(), "tank", &serial("c")).unwrap();
    for name in ["a", "b"] {
        rig.machine
            .change_device(&serial(name), |device| device.size = Bytes::gib(15));
    }
    rig.engine.reconcile().unwrap();
    let job = rig.engine.grow_pool(&by(), "tank").unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    rig.check();
}

#[test]
fn a_request_that_differs_in_its_layers_is_another_one() {
    let rig = with(CHECKSUMS, Layout::Mirror, &["a", "b"]);
    let same = rig
        .engine
        .create_pool(&by(), &request(CHECKSUMS, Layout::Mirror, &["a", "b"]));
    assert!(matches!(same, Ok(PoolCreation::Exists(_))));
    let other = rig
        .engine
        .create_pool(&by(), &request(Layers::NONE, Layout::Mirror, &["a", "b"]));
    refused(other, ErrorKind::NameTaken);
}

#[test]
fn garbage_under_a_copy_is_told_healed_and_counted_once() {
    let rig = with(CHECKSUMS, Layout::Mirror, &["a", "b"]);
    rig.engine.tick();
    rig.machine.garble(&serial("a"), 3);
    assert_eq!(rig.machine.read_all(&vg(&rig)), AllRead::default());
    rig.engine.tick();
    rig.engine.tick();
    assert_eq!(rig.machine.garbage_on(&serial("a")), 0);
    assert_eq!(alerts(&rig), [(serial("a").to_string(), Severity::Warning)]);
    let events = rig.engine.events(0, 1000);
    let told: Vec<_> = events.iter().filter(|e| e.kind == EventKind::ChecksumErrors).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].message.contains("3 time(s)"), "{}", told[0].message);
    // A day later it is over.
    rig.machine.pass(jiff::SignedDuration::from_hours(25));
    rig.engine.tick();
    assert_eq!(alerts(&rig), []);
}

/// So much garbage under a copy that the kernel gives it up as soon as it is read.
fn garbled() -> Rig {
    let rig = with(CHECKSUMS, Layout::Mirror, &["a", "b"]);
    rig.engine.tick();
    rig.machine.garble(&serial("b"), 16_384);
    rig
}

/// Somebody reads all that there is, and what that brings to light is mended; whether nothing of it is left.
fn healed(rig: &Rig) -> bool {
    assert_eq!(rig.machine.read_all(&vg(rig)), AllRead::default());
    for _ in 0..3 {
        rig.engine.tick();
        wait_for_jobs(rig);
    }
    let pool = rig.engine.pool(&by(), "tank");
    pool.is_ok_and(|pool| pool.state == PoolState::Ready) && rig.machine.garbage_on(&serial("b")) == 0
}

#[test]
fn a_copy_that_the_kernel_gives_up_for_too_much_garbage_is_taken_back_and_all_of_it_is_healed() {
    let rig = garbled();
    assert!(healed(&rig));
    rig.check();
    file_is_there(&rig);
}

#[test]
fn a_power_cut_while_a_garbled_copy_is_filled_anew_is_made_up_for() {
    everywhere(garbled, healed, |rig, _| file_is_there(rig));
}

#[test]
fn a_garbled_copy_that_could_not_be_filled_anew_is_after_the_next_start() {
    for done in [false, true] {
        let mut rig = garbled();
        let failure = MemoryHost::failure("rebuild");
        match done {
            true => rig.machine.fail_after_next("raids.rebuild_image", failure),
            false => rig.machine.fail_next("raids.rebuild_image", failure),
        }
        healed(&rig);
        file_is_there(&rig);
        rig.restart();
        for _ in 0..2 {
            rig.engine.reconcile().unwrap();
            wait_for_jobs(&rig);
        }
        assert!(healed(&rig), "{done}: {:?}", rig.engine.pool(&by(), "tank"));
        rig.check();
        file_is_there(&rig);
    }
}

#[test]
fn with_one_copy_a_checksum_error_is_an_error_and_without_checksums_nobody_knows() {
    let rig = with(CHECKSUMS, Layout::Single, &["a"]);
    rig.machine.garble(&serial("a"), 2);
    assert_eq!(rig.machine.read_all(&vg(&rig)), AllRead { wrong: 0, errors: 2 });
    rig.engine.tick();
    assert_eq!(alerts(&rig), [(serial("a").to_string(), Severity::Error)]);
    let rig = with(ENCRYPTED, Layout::Mirror, &["a", "b"]);
    rig.machine.garble(&serial("a"), 2);
    assert_eq!(rig.machine.read_all(&vg(&rig)), AllRead { wrong: 2, errors: 0 });
    rig.engine.tick();
    assert_eq!(alerts(&rig), []);
}

#[test]
fn a_disk_that_joins_later_gets_the_layers_and_one_that_leaves_is_blank() {
    for layers in [CHECKSUMS, BOTH] {
        let mut rig = with(layers, Layout::Mirror, &["a", "b"]);
        let pair = ReplaceRequest {
            old: serial("b"),
            new: serial("c"),
        };
        let job = rig.engine.replace_disk(&by(), "tank", &pair).unwrap();
        assert_eq!(rig.wait(&job).state, JobState::Succeeded);
        assert!(is_blank(&rig, "b"));
        rig.engine.add_spare(&by(), "tank", &serial("b")).unwrap();
        assert!(
            rig.machine
                .writes(&serial("b"))
                .iter()
                .filter(|w| w.starts_with("layers"))
                .count()
                == 2
        );
        rig.engine.remove_spare(&by(), "tank", &serial("b")).unwrap();
        assert!(is_blank(&rig, "b"));
        rig.restart();
        rig.check();
        file_is_there(&rig);
    }
}

#[test]
fn disks_are_added_in_layers() {
    let mut rig = with(CHECKSUMS, Layout::Single, &["a"]);
    let add = AddDisksRequest {
        disks: vec![serial("b")],
    };
    let plan = rig.engine.plan_disks(&by(), "tank", &add).unwrap();
    let words: Vec<String> = plan.commands.iter().map(|line| line.join(" ")).collect();
    assert!(words.iter().any(|line| line.contains("systemd-repart")), "{words:?}");
    let job = rig.engine.add_disks(&by(), "tank", &add).unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().size, plan.size_after);
    rig.restart();
    rig.check();
    file_is_there(&rig);
}

#[test]
fn a_disk_that_went_and_comes_back_is_opened_and_filled() {
    let rig = with(BOTH, Layout::Mirror, &["a", "b"]);
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Degraded);
    rig.machine.mark_missing(&vg(&rig));
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.engine.reconcile().unwrap();
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
    rig.check();
}

#[test]
fn a_disk_of_others_with_our_layers_is_not_touched_by_itself() {
    let rig = with(CHECKSUMS, Layout::Mirror, &["a", "b"]);
    let writes = |rig: &Rig| [rig.machine.writes(&serial("a")), rig.machine.writes(&serial("b"))];
    let before = writes(&rig);
    // This appliance's state is lost, and with it what it knows of them.
    rig.machine.restart();
    let rig = Rig::on(rig.machine.copy());
    file_is_there(&rig);
    assert_eq!(writes(&rig), before);
}

#[test]
fn what_cannot_be_noted_is_not_begun() {
    let rig = Rig::new();
    rig.machine.break_records(true);
    let job = rig.try_pool(&request(CHECKSUMS, Layout::Mirror, &["a", "b"])).unwrap();
    assert!(matches!(job.state, JobState::Failed { .. }), "{job:?}");
    assert!(rig.machine.writes(&serial("a")).is_empty());
    rig.machine.break_records(false);
    assert!(is_blank(&rig, "a"));
}

#[test]
fn layers_that_cannot_be_laid_leave_blank_disks() {
    for layers in [CHECKSUMS, BOTH] {
        let rig = Rig::new();
        let failure = cistern_host::memory::MemoryHost::failure("layers.make");
        rig.machine.fail_after_next("layers.make", failure);
        let job = rig.try_pool(&request(layers, Layout::Mirror, &["a", "b"])).unwrap();
        assert!(matches!(job.state, JobState::Failed { .. }), "{job:?}");
        assert!(is_blank(&rig, "a") && is_blank(&rig, "b"));
        let failure = cistern_host::memory::MemoryHost::failure("lvm.create_vg");
        rig.machine.fail_next("lvm.create_vg", failure);
        let job = rig.try_pool(&request(layers, Layout::Mirror, &["a", "b"])).unwrap();
        assert!(matches!(job.state, JobState::Failed { .. }), "{job:?}");
        assert!(is_blank(&rig, "a") && is_blank(&rig, "b"));
        assert!(rig.machine.objects().is_empty());
    }
}

fn created(rig: &Rig, layers: Layers) -> bool {
    match rig
        .engine
        .create_pool(&by(), &request(layers, Layout::Mirror, &["a", "b"]))
    {
        Ok(PoolCreation::Exists(_)) => true,
        Ok(PoolCreation::Started(job)) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    }
}

#[test]
fn a_power_cut_while_a_pool_is_made_leaves_it_whole_or_its_disks_blank() {
    for layers in [CHECKSUMS, BOTH, SEALED] {
        everywhere(
            with_a_tpm,
            |rig| created(rig, layers),
            |rig, done| match rig.engine.pool(&by(), "tank") {
                Ok(pool) => assert_eq!((pool.state, pool.layers), (PoolState::Ready, layers)),
                Err(_) => assert!(!done && is_blank(rig, "a") && is_blank(rig, "b")),
            },
        );
    }
}

#[test]
fn a_power_cut_while_a_pool_is_deleted_leaves_it_or_its_disks_blank() {
    let prepare = || {
        let rig = Rig::new();
        assert!(created(&rig, BOTH));
        rig
    };
    let act = |rig: &Rig| match rig.engine.delete_pool(&by(), "tank") {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    everywhere(prepare, act, |rig, done| {
        if rig.engine.pool(&by(), "tank").is_err() {
            assert!(is_blank(rig, "a") && is_blank(rig, "b"));
        } else {
            assert!(!done);
        }
    });
}

#[test]
fn a_power_cut_while_a_disk_is_replaced_is_made_up_for() {
    let act = |rig: &Rig| {
        let pair = ReplaceRequest {
            old: serial("b"),
            new: serial("c"),
        };
        if is_blank(rig, "b") && rig.engine.pool(&by(), "tank").unwrap().disks.contains(&serial("c")) {
            return true;
        }
        match rig.engine.replace_disk(&by(), "tank", &pair) {
            Ok(job) => rig.wait(&job).state == JobState::Succeeded,
            Err(_) => false,
        }
    };
    let whole = |_: &Rig| true;
    everywhere_until(
        || with(CHECKSUMS, Layout::Mirror, &["a", "b"]),
        act,
        whole,
        |rig, _| {
            let disks = rig.engine.pool(&by(), "tank").unwrap().disks;
            let other = if disks.contains(&serial("c")) { "b" } else { "c" };
            assert!(is_blank(rig, other), "{disks:?}");
            file_is_there(rig);
        },
    );
}

#[test]
fn nothing_of_this_is_done_for_pools_without_layers() {
    let rig = Rig::on(machine());
    rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
    rig.engine.tick();
    let calls = rig.machine.calls();
    assert!(!calls.iter().any(|call| call.starts_with("layers.")), "{calls:?}");
}

#[test]
fn a_disk_that_may_be_a_pool_s_and_cannot_be_opened_is_not_wiped() {
    for (layers, record) in [(CHECKSUMS, r#"["serial-a"]"#), (BOTH, r#"{"serial-a":"parting"}"#)] {
        let mut rig = with(layers, Layout::Single, &["a"]);
        // What was interrupted before it could forget the disk.
        rig.machine.host().records.replace("layers.json", record).unwrap();
        rig.power_cycle();
        rig.machine
            .fail_next("layers.open", MemoryHost::failure("integritysetup"));
        rig.engine.start().unwrap();
        assert!(rig.volumes().is_empty());
        rig.restart();
        file_is_there(&rig);
        assert_eq!(rig.machine.record("layers.json").as_deref(), Some("{}"));
        rig.check();
    }
}
