//! Pools: planned, made, deleted, refused.

use cistern_engine::{PoolCreation, VolumeFilter};
use cistern_host::memory::{MemoryHost, signature};
use cistern_model::{Bytes, DiskState, ErrorKind, EventKind, JobState, Layout, PoolState, Waste};
use std::time::Duration;

use crate::support::{Rig, by, pool_request, provisioner, refused, serial, volume_request};

#[test]
fn a_mirror_is_made_of_pairs_and_no_disk_holds_both_copies() {
    let rig = Rig::new();
    let pool = rig.make_pool("tank", Layout::Mirror, &["a", "b", "c", "d"]);
    assert_eq!((pool.state, pool.disks.len(), pool.volumes), (PoolState::Ready, 4, 0));
    assert!(
        pool.size > Bytes::gib(19) && pool.size < Bytes::gib(20),
        "{}",
        pool.size
    );
    assert_eq!(pool.available.saturating_add(pool.reserve), pool.size);
    let copies = rig.machine.copies(&pool.id.to_string(), "data");
    // Data on two pairs, metadata on the first.
    assert_eq!(copies.len(), 3);
    assert!(
        copies.iter().all(|pair| pair.len() == 2 && pair[0] != pair[1]),
        "{copies:?}"
    );
    rig.check();
}

#[test]
fn a_single_pool_joins_its_disks_and_mirrors_its_metadata() {
    let rig = Rig::new();
    let pool = rig.make_pool("tank", Layout::Single, &["a", "b", "small"]);
    assert!(
        pool.size > Bytes::gib(23) && pool.size < Bytes::gib(24),
        "{}",
        pool.size
    );
    let copies = rig.machine.copies(&pool.id.to_string(), "data");
    assert_eq!(copies.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 2]);
    rig.check();
}

#[test]
fn the_plan_says_what_is_wasted_and_is_kept() {
    let rig = Rig::new();
    let before = rig.snapshot();
    let request = pool_request("tank", Layout::Mirror, &["a", "b", "c", "small", "d"]);
    let plan = rig.engine.plan_pool(&request).unwrap();
    assert_eq!(plan.survives, 1);
    assert_eq!(plan.groups.len(), 2);
    let wasted: Vec<(&str, bool)> = plan
        .wasted
        .iter()
        .map(|Waste { disk, why, .. }| (disk.as_str(), why.contains("left out")))
        .collect();
    assert_eq!(wasted, [("serial-small", true)]);
    assert_eq!(rig.snapshot(), before, "planning changed something");

    let pool = rig.make_pool("tank", Layout::Mirror, &["a", "b", "c", "small", "d"]);
    assert!(
        pool.size >= plan.usable,
        "promised {} and made {}",
        plan.usable,
        pool.size
    );
    assert_eq!(rig.machine.writes(&serial("small")), Vec::<String>::new());
    let left = rig
        .engine
        .disks()
        .unwrap()
        .into_iter()
        .find(|d| d.id == serial("small"))
        .unwrap();
    assert_eq!(left.state, DiskState::Available);
}

#[test]
fn an_unequal_pair_wastes_what_the_larger_disk_has_more() {
    let rig = Rig::new();
    let plan = rig
        .engine
        .plan_pool(&pool_request("tank", Layout::Mirror, &["small", "a"]))
        .unwrap();
    assert_eq!(plan.wasted.len(), 1);
    assert_eq!(
        (plan.wasted[0].disk.as_str(), plan.wasted[0].size),
        ("serial-a", Bytes::gib(6))
    );
}

#[test]
fn the_same_request_again_gives_the_same_pool() {
    let rig = Rig::new();
    let pool = rig.make_pool("tank", Layout::Mirror, &["a", "b", "small"]);
    let before = rig.snapshot();
    let again = rig
        .engine
        .create_pool(&by(), &pool_request("tank", Layout::Mirror, &["small", "b", "a"]))
        .unwrap();
    assert!(matches!(again, PoolCreation::Exists(there) if there == pool));
    for (layout, disks) in [
        (Layout::Single, &["a", "b", "small"][..]),
        (Layout::Mirror, &["a", "b"]),
        (Layout::Mirror, &["c", "d"]),
    ] {
        refused(
            rig.engine.create_pool(&by(), &pool_request("tank", layout, disks)),
            ErrorKind::NameTaken,
        );
    }
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn the_same_request_while_it_is_being_made_gives_the_same_job_and_no_disk_is_given_twice() {
    let rig = Rig::new();
    rig.machine.block("lvm.create_vg");
    let request = pool_request("tank", Layout::Mirror, &["a", "b"]);
    let PoolCreation::Started(job) = rig.engine.create_pool(&by(), &request).unwrap() else {
        panic!()
    };
    assert!(rig.machine.wait_until_blocked("lvm.create_vg", Duration::from_secs(10)));
    let PoolCreation::Started(again) = rig.engine.create_pool(&by(), &request).unwrap() else {
        panic!()
    };
    assert_eq!(job.id, again.id);
    refused(
        rig.engine
            .create_pool(&by(), &pool_request("tank", Layout::Mirror, &["c", "d"])),
        ErrorKind::NameTaken,
    );
    refused(
        rig.engine
            .create_pool(&by(), &pool_request("other", Layout::Single, &["a"])),
        ErrorKind::DiskInUse,
    );
    rig.machine.unblock("lvm.create_vg");
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    rig.check();
}

#[test]
fn what_cannot_be_a_pool_is_refused_and_changes_nothing() {
    let rig = Rig::new();
    rig.machine.change_device(&serial("d"), |device| device.busy = true);
    let before = rig.snapshot();
    for (layout, disks, kind, says) in [
        (Layout::Mirror, &["a"][..], ErrorKind::Invalid, "at least 2"),
        (Layout::Mirror, &[], ErrorKind::Invalid, "at least 2"),
        (Layout::Single, &[], ErrorKind::Invalid, "at least 1"),
        (Layout::StripeMirror, &["a", "b", "c"], ErrorKind::Invalid, "at least 4"),
        (Layout::Parity, &["a", "b"], ErrorKind::Invalid, "at least 3"),
        (
            Layout::DoubleParity,
            &["a", "b", "c", "small"],
            ErrorKind::Invalid,
            "at least 5",
        ),
        (Layout::Mirror, &["a", "a"], ErrorKind::Invalid, "twice"),
        (Layout::Mirror, &["a", "nowhere"], ErrorKind::NotFound, "serial-nowhere"),
        (Layout::Mirror, &["a", "full"], ErrorKind::DiskInUse, "xfs"),
        (Layout::Mirror, &["a", "boot"], ErrorKind::DiskInUse, "started from"),
        (Layout::Mirror, &["a", "d"], ErrorKind::DiskInUse, "holds it open"),
    ] {
        let request = pool_request("tank", layout, disks);
        for said in [
            refused(rig.engine.plan_pool(&request), kind),
            refused(rig.engine.create_pool(&by(), &request), kind),
        ] {
            assert!(said.contains(says), "{said}");
        }
    }
    assert_eq!(rig.snapshot(), before);
    assert_eq!(rig.engine.jobs(&by()), []);
    rig.machine.change_device(&serial("d"), |device| device.busy = false);
    rig.check();
}

#[test]
fn a_filesystem_that_appears_while_a_pool_is_asked_for_is_seen_on_the_disk_itself() {
    // After the disks were listed: the judging looks at the disk. After that: the joining looks once more.
    for (after, at_once) in [("disks.list", true), ("disks.signatures", false)] {
        let rig = Rig::new();
        rig.machine.put_on_disk_after(after, &serial("a"), signature("ext4"));
        let asked = rig.try_pool(&pool_request("tank", Layout::Single, &["a"]));
        if at_once {
            assert!(refused(asked, ErrorKind::DiskInUse).contains("ext4"));
        } else {
            let state = asked.unwrap().state;
            assert!(
                matches!(&state, JobState::Failed { problem } if problem.kind == ErrorKind::DiskInUse),
                "{state:?}"
            );
        }
        assert_eq!(rig.machine.writes(&serial("a")), Vec::<String>::new());
        rig.check();
    }
}

#[test]
fn a_disk_of_another_pool_is_refused() {
    let rig = Rig::with_pool();
    let said = refused(
        rig.engine
            .create_pool(&by(), &pool_request("other", Layout::Single, &["a"])),
        ErrorKind::DiskInUse,
    );
    assert!(said.contains("belongs to pool-"), "{said}");
}

#[test]
fn a_pool_whose_making_failed_is_continued_by_the_same_request() {
    for call in [
        "lvm.create_lv",
        "lvm.extend_lv",
        "lvm.convert_to_thin_pool",
        "lvm.activate_lv",
        "lvm.tag_vg",
    ] {
        let rig = Rig::new();
        let request = pool_request("tank", Layout::Mirror, &["a", "b", "c", "d"]);
        rig.machine.fail_next(call, MemoryHost::failure(call));
        let job = rig.try_pool(&request).unwrap();
        assert!(matches!(job.state, JobState::Failed { .. }), "{call}: {job:?}");
        assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Creating);
        refused(
            rig.engine.create_volume(&by(), &volume_request("v", Bytes::gib(1))),
            ErrorKind::Conflict,
        );
        let job = rig.try_pool(&request).unwrap();
        assert_eq!(job.state, JobState::Succeeded, "{call}");
        rig.check();
    }
}

#[test]
fn a_pool_whose_making_failed_can_be_deleted_instead() {
    for call in [
        "lvm.create_lv",
        "lvm.extend_lv",
        "lvm.convert_to_thin_pool",
        "lvm.tag_vg",
    ] {
        let rig = Rig::new();
        rig.machine.fail_next(call, MemoryHost::failure(call));
        rig.try_pool(&pool_request("tank", Layout::Mirror, &["a", "b", "c", "d"]))
            .unwrap();
        let job = rig.wait(&rig.engine.delete_pool(&by(), "tank").unwrap());
        assert_eq!(job.state, JobState::Succeeded, "{call}");
        assert_eq!(rig.machine.objects(), Vec::<String>::new());
        rig.check();
    }
}

#[test]
fn a_pool_that_could_not_be_begun_leaves_its_disks_blank() {
    let rig = Rig::new();
    rig.machine.fail_next("lvm.create_vg", MemoryHost::failure("create_vg"));
    let job = rig
        .try_pool(&pool_request("tank", Layout::Mirror, &["a", "b"]))
        .unwrap();
    assert!(matches!(job.state, JobState::Failed { .. }));
    refused(rig.engine.pool(&by(), "tank"), ErrorKind::NotFound);
    rig.check();
    rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
}

#[test]
fn a_deleted_pool_leaves_its_disks_blank() {
    let rig = Rig::with_pool();
    let job = rig.engine.delete_pool(&by(), "tank").unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    refused(rig.engine.pool(&by(), "tank"), ErrorKind::NotFound);
    let disks = rig.engine.disks().unwrap();
    for name in ["a", "b"] {
        let disk = disks.iter().find(|d| d.id == serial(name)).unwrap();
        assert_eq!(disk.state, DiskState::Available);
    }
    assert_eq!(rig.machine.objects(), Vec::<String>::new());
    let kinds: Vec<EventKind> = rig.engine.events(0, 100).into_iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [EventKind::Started, EventKind::PoolCreated, EventKind::PoolDeleted]
    );
    rig.make_pool("tank", Layout::Mirror, &["a", "b"]);
}

#[test]
fn a_pool_that_holds_something_is_not_deleted() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let said = refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Conflict);
    assert!(said.contains("1 volume"), "{said}");
    rig.engine.delete_volume(&by(), volume.id).unwrap();

    // What is no volume of ours would go with the thin pool.
    let vg = rig.engine.pool(&by(), "tank").unwrap().id.to_string();
    rig.machine.add_strange_volume(&vg, "backup", &[]);
    let job = rig.wait(&rig.engine.delete_pool(&by(), "tank").unwrap());
    assert!(
        matches!(&job.state, JobState::Failed { problem } if problem.kind == ErrorKind::Conflict),
        "{job:?}"
    );
    assert!(rig.machine.objects().contains(&format!("{vg}/backup")));
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().state, PoolState::Ready);
}

#[test]
fn a_provisioner_sees_only_the_pools_it_is_bound_to() {
    let rig = Rig::with_pool();
    rig.make_pool("other", Layout::Single, &["c"]);
    let bound = provisioner("cluster", &["other"]);
    let names: Vec<String> = rig
        .engine
        .pools(&bound)
        .unwrap()
        .iter()
        .map(|p| p.name.to_string())
        .collect();
    assert_eq!(names, ["other"]);
    refused(rig.engine.pool(&bound, "tank"), ErrorKind::NotFound);
    assert_eq!(rig.engine.jobs(&bound), []);
    assert_eq!(rig.engine.jobs(&by()).len(), 2);
}

#[test]
fn each_layout_is_made_and_lies_on_its_disks_as_planned() {
    for (layout, disks, survives, images, metadata) in [
        (Layout::StripeMirror, &["a", "b", "c", "d"][..], 1, 4, 2),
        (Layout::Parity, &["a", "b", "c"], 1, 3, 2),
        (Layout::DoubleParity, &["a", "b", "c", "d", "small"], 2, 5, 3),
    ] {
        let rig = Rig::new();
        let request = pool_request("tank", layout, disks);
        let plan = rig.engine.plan_pool(&request).unwrap();
        assert_eq!(plan.survives, survives, "{layout}");
        let pool = rig.make_pool("tank", layout, disks);
        assert_eq!((pool.size, pool.state), (plan.usable, PoolState::Ready), "{layout}");
        let lies: Vec<usize> = rig
            .machine
            .copies(&pool.id.to_string(), "data")
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lies, [images, metadata], "{layout}");
        rig.check();
    }
}

#[test]
fn the_plan_says_what_is_survived_and_warns_of_the_write_hole() {
    let rig = Rig::new();
    let plan = |layout, disks: &[&str]| rig.engine.plan_pool(&pool_request("tank", layout, disks)).unwrap();
    let mirror = plan(Layout::Mirror, &["a", "b", "c", "d"]);
    assert!(mirror.failures.contains("serial-a, serial-c"), "{}", mirror.failures);
    assert!(mirror.warnings[0].contains("stripe-mirror"), "{:?}", mirror.warnings);
    assert_eq!(plan(Layout::Mirror, &["a", "b"]).warnings, Vec::<String>::new());
    let pairs = plan(Layout::StripeMirror, &["a", "b", "c", "d"]);
    assert_eq!((pairs.groups.len(), pairs.groups[0].len()), (2, 2));
    assert!(pairs.failures.contains("serial-a and serial-b"), "{}", pairs.failures);
    let parity = plan(Layout::Parity, &["a", "b", "c", "small"]);
    assert!(
        ["write hole", "the power goes, or another disk", "mirror"]
            .iter()
            .all(|what| parity.warnings[0].contains(what)),
        "{:?}",
        parity.warnings
    );
    let held_back = parity
        .warnings
        .iter()
        .any(|w| w.contains("serial-small holds the others back"));
    assert!(held_back, "{:?}", parity.warnings);
    // Three large disks have a rest that the small one does not match.
    assert_eq!(parity.wasted.len(), 3);
}

#[test]
fn the_plan_shows_the_commands_that_are_then_run() {
    let rig = Rig::new();
    let before = rig.snapshot();
    let request = pool_request("tank", Layout::StripeMirror, &["a", "b", "c", "d"]);
    let plan = rig.engine.plan_pool(&request).unwrap();
    let programs: Vec<&str> = plan.commands.iter().map(|line| line[0].as_str()).collect();
    assert_eq!(
        programs,
        ["vgcreate", "lvcreate", "lvcreate", "lvconvert", "lvchange", "vgchange"]
    );
    let data = plan.commands[2].join(" ");
    assert!(
        data.contains("--type raid10 --mirrors 1 --stripes 2") && data.ends_with("/dev/vda /dev/vdb /dev/vdc /dev/vdd"),
        "{data}"
    );
    assert_eq!(rig.snapshot(), before, "planning changed something");
    // What is then done is as many steps.
    let calls = rig.machine.calls().len();
    rig.make_pool("tank", Layout::StripeMirror, &["a", "b", "c", "d"]);
    let done: Vec<String> = rig.machine.calls()[calls..]
        .iter()
        .filter_map(|call| call.strip_prefix("lvm.").and_then(|call| call.split(' ').next()))
        .filter(|call| !matches!(*call, "state" | "command_line"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        done,
        [
            "create_vg",
            "create_lv",
            "create_lv",
            "convert_to_thin_pool",
            "activate_lv",
            "tag_vg"
        ]
    );
}

#[test]
fn what_may_lie_in_a_pool_that_is_away_is_not_told_to_be_gone() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let gone = rig.make_volume("gone", Bytes::gib(1));
    rig.engine.delete_volume(&by(), gone.id).unwrap();
    refused(rig.engine.volume(&by(), gone.id), ErrorKind::NotFound);
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    for disk in &pool.disks {
        rig.machine.detach(disk);
    }
    rig.restart();
    let listed = |name: &str, pool: Option<&str>| {
        let filter = VolumeFilter {
            name: Some(name.parse().unwrap()),
            pool: pool.map(str::to_owned),
            ..VolumeFilter::default()
        };
        rig.engine
            .volumes(&by(), &filter, 10, None)
            .map(|page| page.items.len())
    };
    for asked in [
        rig.engine.volume(&by(), volume.id).map(drop),
        rig.engine.delete_volume(&by(), volume.id).map(drop),
        rig.engine.pool(&by(), "tank").map(drop),
        // Who makes volumes by name would make it again elsewhere.
        listed("v", None).map(drop),
        listed("v", Some("tank")).map(drop),
        rig.engine
            .create_volume(&by(), &volume_request("v", Bytes::gib(1)))
            .map(drop),
    ] {
        let told = asked.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Unavailable);
        assert!(
            told.to_string().contains("tank") && told.to_string().contains("pools delete"),
            "{told}"
        );
    }
    refused(rig.engine.pool(&by(), "another"), ErrorKind::NotFound);
    refused(listed("v", Some("another")), ErrorKind::NotFound);
    // What else there is is listed all the same.
    let all = rig.engine.volumes(&by(), &VolumeFilter::default(), 10, None).unwrap();
    assert_eq!(all.items.len(), 0);
    // Until somebody says that it does not come back.
    let job = rig.engine.delete_pool(&by(), &pool.id.to_string()).unwrap();
    rig.wait(&job);
    refused(rig.engine.volume(&by(), volume.id), ErrorKind::NotFound);
    assert_eq!(listed("v", None).unwrap(), 0);
    refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::NotFound);
}

#[test]
fn one_all_of_whose_disks_vanished_while_it_was_served_says_how_it_is_given_up() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    for disk in &pool.disks {
        rig.machine.detach(disk);
    }
    rig.engine.reconcile().unwrap();
    let why = refused(rig.engine.delete_pool(&by(), "tank"), ErrorKind::Unavailable);
    assert!(why.contains("restart the appliance"), "{why}");
    rig.restart();
    let job = rig.engine.delete_pool(&by(), &pool.id.to_string()).unwrap();
    rig.wait(&job);
    refused(rig.engine.volume(&by(), volume.id), ErrorKind::NotFound);
}
