//! What is alerted: from when it is noticed until its cause has ended.

use cistern_host::memory::MemoryHost;
use cistern_model::{Alert, AlertKind, Bytes, Layout};

use crate::support::{Rig, serial};

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
    assert_eq!(rig.engine.system(&crate::support::by()).unwrap().alerts, 3);
    assert_eq!(rig.engine.metrics().unwrap().alerts.len(), 3);
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
