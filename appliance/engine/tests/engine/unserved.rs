//! What cannot be served beside what can: when the NFS server starts, and what clients are told.

use std::time::{Duration, Instant};

use cistern_engine::{Config, Engine};
use cistern_host::Service;
use cistern_host::memory::MemoryHost;
use cistern_model::{AlertKind, Bytes, Layout, ServiceState, VolumeId, VolumeState};

use crate::support::{Rig, by, path, serial, volume_request};

const NEVER: Duration = Duration::from_secs(3600);

/// `tank`, and `lone` of two disks, each with a volume. That of `lone`.
fn two_pools() -> (Rig, VolumeId) {
    let rig = Rig::with_pool();
    rig.make_pool("lone", Layout::Single, &["c", "d"]);
    rig.make_volume("near", Bytes::gib(1));
    let mut request = volume_request("far", Bytes::gib(1));
    request.pool = "lone".parse().unwrap();
    let far = rig.engine.create_volume(&by(), &request).unwrap().object.id;
    // What pools export is noted.
    rig.engine.tick();
    (rig, far)
}

/// A power cut without these disks, and a start that waits for them.
fn restart_without(rig: &mut Rig, disks: &[&str], wait: Duration) {
    disks.iter().for_each(|disk| rig.machine.detach(&serial(disk)));
    rig.machine.restart();
    let config = Config {
        degraded_wait: wait,
        ..Config::default()
    };
    rig.engine = Engine::new(rig.machine.host(), config);
    rig.engine.start().unwrap();
}

fn nfs(rig: &Rig) -> ServiceState {
    rig.machine.host().services.state(Service::NfsServer).unwrap()
}

/// What those who wait were told of.
fn told(rig: &Rig) -> Vec<String> {
    let called = rig.machine.calls().len();
    rig.engine.tell_of_unserved();
    let calls = rig.machine.calls().split_off(called);
    let told = calls
        .into_iter()
        .filter(|call| call.starts_with("exports.answer_waiting"));
    told.collect()
}

#[test]
fn the_nfs_server_starts_when_the_disks_that_lack_have_been_waited_for() {
    for disks in [&["a"][..], &["c"], &["c", "d"]] {
        let (mut rig, _) = two_pools();
        restart_without(&mut rig, disks, Duration::from_millis(1500));
        assert_eq!(nfs(&rig), ServiceState::Inactive, "without {disks:?}");
        let deadline = Instant::now() + Duration::from_secs(20);
        while nfs(&rig) != ServiceState::Active {
            assert!(Instant::now() < deadline, "without {disks:?} it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        rig.check_exports_before_nfs();
    }
}

#[test]
fn the_nfs_server_starts_as_soon_as_the_disks_are_there() {
    let (mut rig, far) = two_pools();
    restart_without(&mut rig, &["c", "d"], NEVER);
    rig.engine.tick();
    assert_eq!(nfs(&rig), ServiceState::Inactive);
    let reasons = rig.engine.health().reasons;
    assert!(
        reasons.iter().any(|why| why.contains("waits for the disks")),
        "{reasons:?}"
    );
    // Whoever waits on purpose raises no alarm.
    let alerts = rig.engine.alerts(true);
    assert!(
        !alerts.iter().any(|alert| alert.kind == AlertKind::NfsDown),
        "{alerts:?}"
    );
    ["c", "d"].iter().for_each(|disk| rig.machine.attach(&serial(disk)));
    rig.engine.reconcile().unwrap();
    assert_eq!(nfs(&rig), ServiceState::Active);
    rig.check_exports_before_nfs();
    assert_eq!(rig.engine.volume(&by(), far).unwrap().state, VolumeState::Ready);
}

/// What was to start it at its time does so once, and may fail.
#[test]
fn the_nfs_server_is_started_by_the_clock_if_it_could_not_be_at_its_time() {
    let (mut rig, _) = two_pools();
    restart_without(&mut rig, &["c"], Duration::from_millis(1500));
    assert_eq!(nfs(&rig), ServiceState::Inactive);
    rig.machine.fail_next("lvm.state", MemoryHost::failure("lvm.state"));
    std::thread::sleep(Duration::from_millis(3000));
    assert_eq!(nfs(&rig), ServiceState::Inactive, "it was to fail");
    rig.engine.tick();
    assert_eq!(nfs(&rig), ServiceState::Active);
    rig.check_exports_before_nfs();
}

#[test]
fn a_server_that_runs_is_left_running_while_disks_are_waited_for() {
    let (mut rig, far) = two_pools();
    rig.machine.detach(&serial("c"));
    rig.engine = Engine::new(
        rig.machine.host(),
        Config {
            degraded_wait: NEVER,
            ..Config::default()
        },
    );
    rig.engine.start().unwrap();
    assert_eq!(nfs(&rig), ServiceState::Active);
    assert_eq!(told(&rig), Vec::<String>::new(), "{far} may come yet");
}

#[test]
fn who_waits_for_what_cannot_be_served_is_told_of_it_and_of_nothing_else() {
    for disks in [&["c"][..], &["c", "d"]] {
        let (mut rig, far) = two_pools();
        assert_eq!(told(&rig), Vec::<String>::new());
        restart_without(&mut rig, disks, Duration::ZERO);
        let of_far = format!("exports.answer_waiting {}", path(far).display());
        assert_eq!(told(&rig), std::slice::from_ref(&of_far), "without {disks:?}");
        // For as long as that is so.
        assert_eq!(told(&rig), [of_far], "without {disks:?}");
        disks.iter().for_each(|disk| rig.machine.attach(&serial(disk)));
        rig.engine.reconcile().unwrap();
        assert_eq!(told(&rig), Vec::<String>::new(), "with {disks:?}");
    }
}

#[test]
fn a_volume_that_cannot_be_mounted_is_told_of_too() {
    let (mut rig, far) = two_pools();
    let pool = rig.engine.volume(&by(), far).unwrap().pool;
    rig.power_cycle();
    rig.machine.damage(&pool.to_string(), &far.to_string());
    rig.engine.start().unwrap();
    assert_eq!(rig.engine.volume(&by(), far).unwrap().state, VolumeState::Failed);
    let of_far = format!("exports.answer_waiting {}", path(far).display());
    assert!(told(&rig).contains(&of_far), "{:?}", rig.engine.volume(&by(), far));
}
