//! What is free of the boot disk: a disk that is used alone and by name, whose partition is made first.

use cistern_engine::PoolCreation;
use cistern_host::BlockDevice;
use cistern_host::memory::{MemoryHost, disk, free_part, signature};
use cistern_model::{
    AddDisksRequest, Bytes, Disk, DiskId, DiskState, DrainRequest, Encryption, ErrorKind, JobState, Layers, Layout,
    PoolRequest, PoolState, ReplaceRequest, Topology, TopologyCluster, TopologyDevice, TopologyHostnames, TopologyName,
    TopologyNode, TopologyRequest,
};

use crate::crashes::{everywhere, wipe_bare_label};
use crate::support::{Rig, by, path, pool_request, refused, serial};

/// The boot disk with so much room behind its partitions; and two blank disks, `a` and `b`.
fn with_room(size: Bytes, change: impl FnOnce(&mut BlockDevice)) -> Rig {
    let mut boot = disk("boot", Bytes::gib(6));
    boot.boot = true;
    boot.signatures.push(signature("gpt"));
    let mut room = free_part(&boot, size);
    change(&mut room);
    let others = ["a", "b"].map(|serial| disk(serial, Bytes::gib(10)));
    Rig::on(MemoryHost::new([vec![boot, room], others.to_vec()].concat()))
}

fn rig() -> Rig {
    with_room(Bytes::gib(4), |_| {})
}

fn free() -> DiskId {
    DiskId::free_part_of(&serial("boot"))
}

fn request() -> PoolRequest {
    PoolRequest {
        disks: vec![free()],
        ..pool_request("tank", Layout::Single, &[])
    }
}

fn listed(rig: &Rig) -> Disk {
    let disks = rig.engine.disks().unwrap();
    disks.into_iter().find(|disk| disk.id == free()).unwrap()
}

fn made(rig: &Rig) -> usize {
    let calls = rig.machine.calls();
    calls.iter().filter(|call| call.starts_with("disks.make_part")).count()
}

#[track_caller]
fn make(rig: &Rig) {
    let job = rig.try_pool(&request()).unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
}

#[track_caller]
fn delete(rig: &Rig) {
    let job = rig.wait(&rig.engine.delete_pool(&by(), "tank").unwrap());
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
}

#[test]
fn it_is_listed_as_a_disk_of_its_own_beside_the_boot_disk() {
    let rig = rig();
    let part = listed(&rig);
    assert_eq!(part.id.as_str(), "free-serial-boot");
    assert_eq!((part.state, part.size), (DiskState::Available, Bytes::gib(4)));
    assert_eq!(part.model.as_deref(), Some("free part of the boot disk"));
    let disks = rig.engine.disks().unwrap();
    let boot = disks.iter().find(|disk| disk.id == serial("boot")).unwrap();
    assert_eq!(boot.state, DiskState::Boot);
    // Most boot disks have some room that is of no use.
    let small = with_room(Bytes::mib(1023), |_| {});
    assert!(small.engine.disks().unwrap().iter().all(|disk| disk.id != free()));
    refused(small.try_pool(&request()), ErrorKind::NotFound);
}

#[test]
fn the_plan_shows_how_its_partition_is_made_and_what_it_means() {
    let rig = rig();
    let plan = rig.engine.plan_pool(&request()).unwrap();
    let first = plan.commands[0].join(" ");
    assert!(
        first.starts_with("sfdisk --append") && first.contains("/dev/vda <<<'4 : start=1536MiB, size=4096MiB"),
        "{first}"
    );
    assert!(first.contains("--wipe=never --wipe-partitions=never"), "{first}");
    assert!(
        plan.commands[1].join(" ").ends_with("/dev/vda4"),
        "{:?}",
        plan.commands[1]
    );
    let warned = plan
        .warnings
        .iter()
        .any(|w| w.contains("loses the system and the pool"));
    assert!(warned, "{:?}", plan.warnings);
    assert_eq!(made(&rig), 0, "planning made it");
    // Once it is there it is not made again.
    make(&rig);
    delete(&rig);
    let plan = rig.engine.plan_pool(&request()).unwrap();
    assert_eq!(plan.commands[0][0], "vgcreate");
}

#[test]
fn a_pool_on_it_is_like_any_other_and_leaves_the_partition_behind() {
    let mut rig = rig();
    make(&rig);
    let pool = rig.engine.pool(&by(), "tank").unwrap();
    assert_eq!((pool.state, pool.disks.clone()), (PoolState::Ready, vec![free()]));
    assert_eq!(listed(&rig).state, DiskState::InPool { pool: pool.id });
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    rig.check_boot();
    rig.restart();
    rig.check_boot();
    assert_eq!(rig.files(volume.id), ["file"]);
    // The same request is the same pool.
    let again = rig.engine.create_pool(&by(), &request()).unwrap();
    assert!(matches!(again, PoolCreation::Exists(there) if there.id == pool.id));
    refused(rig.engine.wipe_disk(&by(), &free(), None), ErrorKind::DiskInUse);
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    delete(&rig);
    assert_eq!(listed(&rig).state, DiskState::Available);
    make(&rig);
    assert_eq!(made(&rig), 1);
    rig.check_boot();
}

#[test]
fn what_lay_there_is_found_once_the_partition_is_made_and_stays_until_it_is_wiped_by_name() {
    let rig = with_room(Bytes::gib(4), |room| room.signatures.push(signature("xfs")));
    assert_eq!(listed(&rig).state, DiskState::Available);
    let job = rig.try_pool(&request()).unwrap();
    let JobState::Failed { problem } = &job.state else {
        panic!("{job:?}")
    };
    assert_eq!(problem.kind, ErrorKind::DiskInUse);
    for word in ["xfs", "cistern disks wipe free-serial-boot"] {
        assert!(problem.detail.contains(word), "{}", problem.detail);
    }
    assert_eq!(listed(&rig).state, DiskState::HasData);
    assert_eq!(rig.machine.objects(), Vec::<String>::new());
    assert_eq!(rig.machine.writes(&free()), ["partition"]);
    // From now on it is refused at once.
    refused(rig.try_pool(&request()), ErrorKind::DiskInUse);
    refused(rig.engine.plan_pool(&request()), ErrorKind::DiskInUse);
    let wiped = rig.engine.wipe_disk(&by(), &free(), None).unwrap();
    assert_eq!(wiped.state, DiskState::Available);
    rig.check_boot();
    make(&rig);
    rig.check_boot();
}

#[test]
fn there_is_nothing_to_wipe_before_its_partition_is_there() {
    let rig = with_room(Bytes::gib(4), |room| room.signatures.push(signature("xfs")));
    let said = refused(rig.engine.wipe_disk(&by(), &free(), None), ErrorKind::Conflict);
    assert!(said.contains("nothing to wipe"), "{said}");
    assert_eq!(rig.machine.writes(&free()), Vec::<String>::new());
    refused(rig.engine.wipe_disk(&by(), &serial("boot"), None), ErrorKind::DiskInUse);
    rig.check_boot();
}

#[test]
fn if_its_partition_cannot_be_made_nothing_has_changed() {
    let rig = rig();
    rig.machine
        .fail_next("disks.make_part", MemoryHost::failure("make_part"));
    let job = rig.try_pool(&request()).unwrap();
    assert!(matches!(job.state, JobState::Failed { .. }), "{job:?}");
    assert_eq!(listed(&rig).state, DiskState::Available);
    assert_eq!(rig.machine.writes(&free()), Vec::<String>::new());
    make(&rig);
    rig.check_boot();
}

#[test]
fn it_is_refused_wherever_it_is_not_the_one_disk_of_a_pool() {
    let rig = rig();
    rig.make_pool("other", Layout::Mirror, &["a", "b"]);
    let with = |change: &dyn Fn(&mut PoolRequest)| {
        let mut asked = request();
        change(&mut asked);
        asked
    };
    let layers = |checksums, encryption| Layers { checksums, encryption };
    let asked = [
        ("layout single", with(&|r| r.layout = Layout::Mirror)),
        ("the only disk", with(&|r| r.disks.push(serial("a")))),
        ("the only disk", with(&|r| r.spares.push(serial("a")))),
        (
            "no spare",
            with(&|r| (r.disks, r.spares) = (vec![serial("a")], vec![free()])),
        ),
        ("no checksums", with(&|r| r.layers = layers(true, Encryption::None))),
        ("no checksums", with(&|r| r.layers = layers(false, Encryption::Key))),
    ];
    let before = (rig.machine.objects(), rig.machine.writes(&serial("a")));
    for (why, asked) in asked {
        let said = refused(rig.engine.plan_pool(&asked), ErrorKind::Invalid);
        assert!(said.contains(why), "{why}: {said}");
        refused(rig.try_pool(&asked), ErrorKind::Invalid);
    }
    let pair = |old: DiskId, new: DiskId| ReplaceRequest { old, new };
    let add = |disk: DiskId| AddDisksRequest { disks: vec![disk] };
    let engine = &rig.engine;
    for said in [
        refused(engine.add_spare(&by(), "other", &free()), ErrorKind::Invalid),
        refused(
            engine.replace_disk(&by(), "other", &pair(serial("a"), free())),
            ErrorKind::Invalid,
        ),
        refused(engine.add_disks(&by(), "other", &add(free())), ErrorKind::Invalid),
        refused(engine.plan_disks(&by(), "other", &add(free())), ErrorKind::Invalid),
    ] {
        assert!(said.contains("free part of the boot disk"), "{said}");
    }
    assert_eq!((rig.machine.objects(), rig.machine.writes(&serial("a"))), before);
    assert_eq!(made(&rig), 0);
    rig.check_boot();
}

#[test]
fn a_pool_on_it_takes_no_further_disk_and_moves_to_one_of_its_own() {
    let rig = rig();
    make(&rig);
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.write(volume.id, "file");
    let add = AddDisksRequest {
        disks: vec![serial("a")],
    };
    let said = refused(rig.engine.add_disks(&by(), "tank", &add), ErrorKind::Invalid);
    assert!(
        said.contains("cistern pools replace tank --old free-serial-boot"),
        "{said}"
    );
    refused(rig.engine.add_spare(&by(), "tank", &serial("a")), ErrorKind::Invalid);
    let drain = DrainRequest { disk: free() };
    rig.engine.drain_disk(&by(), "tank", &drain).unwrap_err();
    rig.check_boot();
    let request = ReplaceRequest {
        old: free(),
        new: serial("a"),
    };
    let job = rig.engine.replace_disk(&by(), "tank", &request).unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    assert_eq!(rig.engine.pool(&by(), "tank").unwrap().disks, [serial("a")]);
    assert_eq!(rig.files(volume.id), ["file"]);
    assert_eq!(listed(&rig).state, DiskState::Available);
    let add = AddDisksRequest {
        disks: vec![serial("b")],
    };
    let job = rig.engine.add_disks(&by(), "tank", &add).unwrap();
    assert_eq!(rig.wait(&job).state, JobState::Succeeded);
    rig.check_boot();
}

#[test]
fn a_topology_does_not_take_it() {
    let rig = rig();
    let names = |name: &str| vec![name.to_owned()];
    let node = |devices: &[&str]| TopologyNode {
        node: TopologyName {
            hostnames: TopologyHostnames {
                manage: names("memory"),
                storage: Vec::new(),
            },
        },
        devices: devices
            .iter()
            .map(|path| TopologyDevice::Path((*path).to_owned()))
            .collect(),
    };
    let request = |devices: &[&str]| TopologyRequest {
        name: "tank".parse().unwrap(),
        layout: Layout::Single,
        topology: Topology {
            clusters: vec![TopologyCluster {
                nodes: vec![node(devices)],
            }],
        },
    };
    for path in ["/dev/vda4", "free-serial-boot"] {
        let plan = rig.engine.plan_topology(&request(&[path, "serial-a"])).unwrap();
        assert_eq!(plan.plan.request.disks, [serial("a")]);
        assert!(plan.skipped[0].why.contains("by its name only"), "{:?}", plan.skipped);
    }
}

#[test]
fn making_and_deleting_a_pool_on_it_can_be_interrupted_anywhere() {
    let act = |rig: &Rig| match rig.engine.create_pool(&by(), &request()) {
        Ok(PoolCreation::Exists(_)) => true,
        Ok(PoolCreation::Started(job)) => rig.wait(&job).state == JobState::Succeeded,
        Err(_) => false,
    };
    everywhere(rig, act, |rig, done| {
        rig.check_boot();
        match rig.engine.pool(&by(), "tank") {
            Ok(pool) => assert_eq!(pool.state, PoolState::Ready),
            Err(_) => {
                assert!(!done);
                wipe_bare_label(rig, &free(), || rig.engine.create_pool(&by(), &request()).map(drop));
            }
        }
    });
    let prepare = || {
        let rig = rig();
        make(&rig);
        rig
    };
    let act = |rig: &Rig| match rig.engine.delete_pool(&by(), "tank") {
        Ok(job) => rig.wait(&job).state == JobState::Succeeded,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    everywhere(prepare, act, |rig, done| {
        rig.check_boot();
        let there = rig.engine.pool(&by(), "tank").is_ok();
        assert!(!(there && done));
        // Parted, and LVM's label still on it: to be wiped by name, like any disk.
        assert!(there || !done || listed(rig).state == DiskState::Available);
    });
}

#[test]
fn volumes_on_it_are_served_after_a_power_cut_anywhere() {
    let prepare = || {
        let rig = rig();
        make(&rig);
        let volume = rig.make_volume("kept", Bytes::gib(1));
        rig.write(volume.id, "file");
        rig
    };
    let act = |rig: &Rig| {
        let request = crate::support::volume_request("new", Bytes::gib(1));
        rig.engine.create_volume(&by(), &request).is_ok()
    };
    everywhere(prepare, act, |rig, done| {
        rig.check_boot();
        let volumes = rig.volumes();
        let kept = volumes.iter().find(|volume| volume.name.as_str() == "kept").unwrap();
        assert!(rig.machine.files(&path(kept.id)).is_some_and(|files| files.len() == 1));
        assert!(!done || volumes.len() == 2);
    });
}

impl Rig {
    /// All is as it should be, and nobody wrote to the boot disk but its table.
    #[track_caller]
    fn check_boot(&self) {
        self.check();
        assert!(
            self.machine
                .writes(&free())
                .iter()
                .filter(|w| *w == "partition")
                .count()
                <= 1
        );
    }
}
