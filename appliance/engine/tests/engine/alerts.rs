//! What is alerted: from when it is noticed until its cause has ended.

use cistern_engine::{Config, Engine};
use cistern_host::memory::MemoryHost;
use cistern_model::{Alert, AlertKind, Bytes, EventKind, Layout, Severity};

use crate::support::{Rig, by, serial};

fn active(rig: &Rig) -> Vec<(AlertKind, Option<String>)> {
    let alerts = rig.engine.alerts(false).into_iter();
    let mut alerts: Vec<_> = alerts
        .map(|alert: Alert| (alert.kind, alert.name.or(alert.object)))
        .collect();
    alerts.sort();
    alerts
}

#[test]
fn a_pool_that_lacks_a_disk_and_the_disk_are_alerted_until_it_is_back() {
    let rig = Rig::with_pool();
    rig.machine.detach(&serial("b"));
    for _ in 0..3 {
        rig.engine.reconcile().unwrap();
    }
    let expected = [
        (AlertKind::DiskMissing, Some(serial("b").to_string())),
        (AlertKind::PoolDegraded, Some("tank".to_owned())),
    ];
    assert_eq!(active(&rig), expected);
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    assert_eq!(active(&rig), []);
    let over = rig.engine.alerts(true);
    assert!(over.len() == 2 && over.iter().all(|a| a.cleared.is_some()));
}

#[test]
fn a_pool_that_is_not_served_is_one_alert_whatever_volumes_it_has() {
    let rig = Rig::new();
    rig.make_pool("tank", Layout::Single, &["a", "b"]);
    for name in ["u", "v", "w"] {
        rig.make_volume(name, Bytes::gib(1));
    }
    rig.machine.detach(&serial("a"));
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let kinds: Vec<AlertKind> = active(&rig).into_iter().map(|(kind, _)| kind).collect();
    use AlertKind::{DiskMissing, PoolIncomplete};
    assert_eq!(kinds, [DiskMissing, DiskMissing, PoolIncomplete]);
    assert_eq!(rig.engine.system(&by()).unwrap().alerts, 3);
    assert_eq!(rig.engine.metrics().unwrap().alerts.len(), 3);
}

#[test]
fn a_pool_none_of_whose_disks_is_here_at_a_start_is_alerted_until_it_is_back_or_given_up() {
    for given_up in [false, true] {
        let mut rig = Rig::with_pool();
        rig.make_volume("v", Bytes::gib(1));
        let pool = rig.engine.pool(&by(), "tank").unwrap();
        rig.machine.detach(&serial("a"));
        rig.engine.reconcile().unwrap();
        rig.machine.detach(&serial("b"));
        rig.restart();
        // That it lacked one before is not over, and nobody knows whose the other is.
        let expected = [
            (AlertKind::DiskMissing, Some(serial("a").to_string())),
            (AlertKind::PoolIncomplete, Some("tank".to_owned())),
        ];
        assert_eq!(active(&rig), expected);
        let health = rig.engine.health();
        let told = |why: &String| why.contains("pool tank") && why.contains("none of its disks");
        assert!(!health.healthy && health.reasons.iter().any(told), "{health:?}");
        if given_up {
            let job = rig.engine.delete_pool(&by(), &pool.id.to_string()).unwrap();
            rig.wait(&job);
            rig.engine.tick();
        } else {
            ["a", "b"].iter().for_each(|disk| rig.machine.attach(&serial(disk)));
            rig.engine.reconcile().unwrap();
            rig.engine.look_at_raids().unwrap();
            rig.check();
        }
        assert_eq!(active(&rig), [], "given up: {given_up}");
        assert!(rig.engine.health().healthy);
    }
}

#[test]
fn nothing_is_told_to_be_over_before_it_was_looked_for() {
    let mut rig = Rig::with_pool();
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let before = active(&rig);
    rig.power_cycle();
    rig.machine.fail_next("lvm.state", MemoryHost::failure("lvm.state"));
    assert!(rig.engine.start().is_err());
    let after = active(&rig);
    assert!(
        before.iter().all(|alert| after.contains(alert)),
        "{before:?}, then {after:?}"
    );
}

#[test]
fn a_volume_that_fails_is_alerted_by_its_name_until_it_is_served() {
    let mut rig = Rig::with_pool();
    rig.make_volume("sick", Bytes::gib(1));
    rig.power_cycle();
    rig.machine.fail_next("filesystems.mount", MemoryHost::failure("mount"));
    rig.engine.start().unwrap();
    assert_eq!(active(&rig), [(AlertKind::VolumeFailed, Some("sick".to_owned()))]);
    rig.engine.reconcile().unwrap();
    assert_eq!(active(&rig), []);
}

#[test]
fn an_nfs_server_that_does_not_start_is_alerted_until_it_does() {
    let mut rig = Rig::with_pool();
    rig.power_cycle();
    rig.machine
        .fail_next("services.ensure_started", MemoryHost::failure("start"));
    assert!(rig.engine.start().is_err());
    assert_eq!(active(&rig), [(AlertKind::NfsDown, None)]);
    rig.engine.start().unwrap();
    assert_eq!(active(&rig), []);
}

#[test]
fn alerts_and_events_are_as_they_were_after_a_power_cut_and_what_ended_meanwhile_is_cleared() {
    let mut rig = Rig::with_pool();
    rig.make_pool("other", Layout::Mirror, &["c", "d"]);
    rig.machine.detach(&serial("b"));
    rig.machine.detach(&serial("d"));
    rig.engine.reconcile().unwrap();
    for alert in rig.engine.alerts(false) {
        rig.engine.acknowledge_alert(&by(), &alert.id).unwrap();
    }
    let before = rig.engine.alerts(false);
    rig.engine.tick();
    let events = rig.engine.events(0, 1000);
    rig.machine.attach(&serial("d"));
    rig.restart();
    // Whether the pool is degraded or incomplete without its disk, the disk is what was seen before.
    let of_b = |alerts: Vec<Alert>| -> Vec<_> {
        let told = |a: Alert| (a.id, a.since, a.acknowledged);
        let b = |a: &Alert| a.kind == AlertKind::DiskMissing && a.object.as_deref() == Some("serial-b");
        alerts.into_iter().filter(b).map(told).collect()
    };
    assert_eq!(active(&rig).len(), 2, "{:?}", active(&rig));
    assert_eq!(of_b(before), of_b(rig.engine.alerts(false)));
    let now = rig.engine.events(0, 1000);
    assert_eq!(now[..events.len()], events);
    assert!(now[events.len()].seq > events.last().unwrap().seq);
    let over = now.iter().filter(|e| e.kind == EventKind::AlertCleared).count();
    assert!(over >= 2, "{over}");
}

#[test]
fn a_state_partition_that_is_full_is_alerted_and_keeps_nothing_else_from_going_on() {
    let mut rig = Rig::with_pool();
    rig.machine.break_records(true);
    let volume = rig.make_volume("v", Bytes::gib(1));
    assert_eq!(active(&rig), [(AlertKind::StateLost, None)]);
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.engine.tick();
    assert_eq!(active(&rig).len(), 3);
    rig.machine.attach(&serial("b"));
    rig.engine.reconcile().unwrap();
    rig.machine.break_records(false);
    rig.engine.tick();
    assert_eq!(active(&rig), []);
    let events = rig.engine.events(0, 1000);
    rig.restart();
    let kept = rig.engine.events(0, 1000);
    assert_eq!(kept[..events.len()], events, "what happened meanwhile was made up for");
    assert!(kept.iter().any(|e| e.object == Some(volume.id.to_string())));
    // Nor does one that cannot be written when the appliance starts.
    rig.machine.break_records(true);
    rig.restart();
    rig.engine.delete_volume(&by(), volume.id).unwrap();
    rig.engine.tick();
    assert_eq!(active(&rig), [(AlertKind::StateLost, None)]);
}

#[test]
fn what_could_not_be_read_at_a_start_is_not_written_over_and_is_known_once_it_can_be_read() {
    let mut rig = Rig::with_pool();
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    for alert in rig.engine.alerts(false) {
        rig.engine.acknowledge_alert(&by(), &alert.id).unwrap();
    }
    rig.engine.tick();
    let events = rig.engine.events(0, 1000);
    let missing = |rig: &Rig| {
        let mut alerts = rig.engine.alerts(false).into_iter();
        let missing = alerts.find(|alert| alert.kind == AlertKind::DiskMissing);
        missing.map(|alert| (alert.id, alert.since, alert.acknowledged))
    };
    let seen = missing(&rig);
    let kept = |rig: &Rig| ["events.jsonl", "alerts.json"].map(|name| rig.machine.record(name));
    rig.power_cycle();
    let before = kept(&rig);
    for _ in 0..2 {
        rig.machine
            .fail_next("records.read", MemoryHost::failure("records.read"));
    }
    rig.engine.start().unwrap();
    assert!(active(&rig).contains(&(AlertKind::StateLost, None)));
    assert!(missing(&rig).is_some_and(|(_, _, acknowledged)| acknowledged.is_none()));
    assert_eq!(kept(&rig), before);
    rig.engine.tick();
    assert!(!active(&rig).contains(&(AlertKind::StateLost, None)));
    // What was made up for then is there after the next start too.
    for _ in 0..2 {
        assert_eq!(missing(&rig), seen);
        let now = rig.engine.events(0, 1000);
        assert_eq!(now[..events.len()], events);
        assert!(now.windows(2).all(|two| two[0].seq < two[1].seq), "{now:?}");
        assert!(
            now.iter().any(|e| e.message.contains("state-partition-lost")),
            "{now:?}"
        );
        rig.restart();
    }
}

#[test]
fn a_state_partition_that_is_damaged_is_alerted_until_a_start_finds_it_well() {
    let mut rig = Rig::with_pool();
    for _ in 0..2 {
        rig.machine.restart();
        let config = Config {
            state_damage: Some("fsck.ext4 -f -p /dev/vda3 ended with status 4".to_owned()),
            ..Config::default()
        };
        rig.engine = Engine::new(rig.machine.host(), config);
        rig.engine.start().unwrap();
        rig.engine.tick();
        let [alert] = &rig.engine.alerts(false)[..] else {
            panic!("not one alert")
        };
        assert_eq!((alert.kind, alert.severity), (AlertKind::StateDamaged, Severity::Error));
        assert!(alert.message.contains("/dev/vda3"), "{alert:?}");
        // All is served and kept, and so is who has seen it.
        rig.make_volume(&format!("v{}", rig.volumes().len()), Bytes::gib(1));
        rig.engine.acknowledge_alert(&by(), &alert.id).unwrap();
    }
    let raised = |e: &cistern_model::Event| e.kind == EventKind::AlertRaised;
    assert_eq!(rig.engine.events(0, 1000).into_iter().filter(raised).count(), 1);
    rig.restart();
    assert_eq!(active(&rig), []);
}

#[test]
fn alerts_of_a_later_version_are_passed_over() {
    let mut rig = Rig::with_pool();
    rig.machine.detach(&serial("b"));
    rig.engine.reconcile().unwrap();
    let text = rig.machine.record("alerts.json").unwrap();
    let newer = text.replacen("disk-missing", "disk-on-fire", 2);
    rig.machine.host().records.replace("alerts.json", &newer).unwrap();
    rig.restart();
    assert_eq!(active(&rig).len(), 2);
}
