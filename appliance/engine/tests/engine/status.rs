//! How the appliance says that it is.

use cistern_model::{Bytes, EventKind, PowerAction};

use crate::support::{Rig, by, provisioner};

#[test]
fn the_system_counts_its_volumes_and_tells_how_to_enrol_only_to_itself() {
    let rig = Rig::with_pool();
    rig.make_volume("v", Bytes::gib(1));
    let own = rig.engine.system(&by()).unwrap();
    assert_eq!((own.volumes, own.volumes_ready, own.enrolment.is_some()), (1, 1, true));
    assert!(own.services.iter().any(|s| s.name == "nfs-server"));
    let mut admin = provisioner("admin", &[]);
    admin.role = cistern_model::Role::Admin;
    assert_eq!(rig.engine.system(&admin).unwrap().enrolment, None);
}

#[test]
fn metrics_hold_every_pool_volume_and_disk() {
    let rig = Rig::with_pool();
    rig.make_volume("v", Bytes::gib(1));
    let metrics = rig.engine.metrics().unwrap();
    assert!(metrics.healthy);
    assert_eq!(
        (metrics.disks.len(), metrics.pools.len(), metrics.volumes.len()),
        (7, 1, 1)
    );
    let events = u64::try_from(rig.engine.events(0, 100).len()).unwrap();
    assert_eq!(metrics.events, events);
}

#[test]
fn a_restart_that_was_asked_for_is_an_event() {
    let rig = Rig::new();
    rig.engine.power(&by(), PowerAction::Reboot).unwrap();
    assert!(rig.machine.calls().contains(&"machine.power Reboot".to_owned()));
    let last = rig.engine.events(0, 100).pop().unwrap();
    assert_eq!((last.kind, last.actor.as_deref()), (EventKind::Shutdown, Some("local")));
}
