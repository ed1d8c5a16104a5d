//! How a volume is served.

use cistern_host::memory::{Cut, MemoryHost};
use cistern_model::{Bytes, ErrorKind, EventKind, Squash, Volume, VolumeOptionsChange};

use crate::support::{Rig, by, client, provisioner, refused, volume_request};

fn change(json: &str) -> VolumeOptionsChange {
    serde_json::from_str(json).unwrap()
}

fn root_mode(rig: &Rig, volume: &Volume) -> u32 {
    let (vg, lv) = (volume.pool.to_string(), volume.id.to_string());
    rig.machine.root(&vg, &lv).unwrap().mode.bits()
}

#[test]
fn options_are_put_on_a_new_volume_and_outlive_a_restart() {
    let mut rig = Rig::with_pool();
    let mut request = volume_request("v", Bytes::gib(1));
    request.options =
        change(r#"{"squash":"all","anonymous_uid":1000,"anonymous_gid":100,"root_uid":1000,"root_mode":"0750"}"#);
    let volume = rig.engine.create_volume(&by(), &request).unwrap().object;
    assert_eq!(
        (volume.options.squash, volume.options.anonymous_uid),
        (Squash::All, 1000)
    );
    assert_eq!(root_mode(&rig, &volume), 0o750);
    rig.check();
    rig.restart();
    assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().options, volume.options);
    rig.check();
    // The same request again is the same volume, whatever has been changed since.
    rig.engine
        .set_options(&by(), volume.id, &change(r#"{"squash":"none"}"#))
        .unwrap();
    assert!(!rig.engine.create_volume(&by(), &request).unwrap().created);
}

#[test]
fn options_are_changed_while_a_volume_is_served() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let other = rig.make_volume("w", Bytes::gib(1));
    let changed = rig
        .engine
        .set_options(&by(), volume.id, &change(r#"{"squash":"root","read_only":true}"#))
        .unwrap();
    assert!(changed.options.read_only && changed.clients == [client("10.0.0.1")]);
    rig.check();
    let export = |id: cistern_model::VolumeId| rig.machine.exports().into_iter().find(|e| e.fsid == id.uuid()).unwrap();
    assert_eq!(export(volume.id).clients, [client("10.0.0.1:ro")]);
    assert_eq!(export(other.id).clients, [client("10.0.0.1")]);
    let calls = rig.machine.calls();
    assert!(
        !calls
            .iter()
            .any(|call| call.starts_with("filesystems.set_root") && calls.last() == Some(call))
    );
    rig.engine
        .set_options(&by(), volume.id, &change(r#"{"read_only":false}"#))
        .unwrap();
    assert_eq!(export(volume.id).clients, [client("10.0.0.1")]);
    let told = rig.engine.events(0, 1000);
    assert!(
        told.iter()
            .any(|e| e.kind == EventKind::VolumeChanged && e.message.contains("squash is root")),
        "{told:?}"
    );
    rig.check();
}

#[test]
fn the_root_directory_is_given_away_once_for_each_time_that_is_asked() {
    let mut rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let given = |rig: &Rig| {
        let calls = rig.machine.calls();
        calls
            .iter()
            .filter(|call| call.starts_with("filesystems.set_root"))
            .count()
    };
    assert_eq!(given(&rig), 1);
    rig.engine
        .set_options(&by(), volume.id, &change(r#"{"root_mode":"2770"}"#))
        .unwrap();
    assert_eq!((given(&rig), root_mode(&rig, &volume)), (2, 0o2770));
    rig.engine
        .set_options(&by(), volume.id, &change(r#"{"squash":"root"}"#))
        .unwrap();
    rig.restart();
    assert_eq!(given(&rig), 2, "its users may have changed it since");
    rig.engine
        .set_options(&by(), volume.id, &change(r#"{"root_mode":"2770"}"#))
        .unwrap();
    assert_eq!(given(&rig), 3, "asked again, it is done again");
    rig.check();
}

#[test]
fn a_root_directory_that_could_not_be_given_away_is_at_the_next_reconcile() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    rig.machine
        .fail_next("filesystems.set_root", MemoryHost::failure("set_root"));
    refused(
        rig.engine
            .set_options(&by(), volume.id, &change(r#"{"root_mode":"0700"}"#)),
        ErrorKind::Internal,
    );
    rig.engine.reconcile().unwrap();
    assert_eq!(root_mode(&rig, &volume), 0o700);
    rig.check();
}

#[test]
fn what_cannot_be_served_is_refused_and_changes_nothing() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let before = rig.snapshot();
    for (json, why) in [
        (r#"{"security":["krb5p"]}"#, "Kerberos"),
        (r#"{"security":["sys","krb5"]}"#, "Kerberos"),
        (r#"{"security":[]}"#, "at least one"),
        (r#"{"security":["sys","sys"]}"#, "more than once"),
        (r#"{"transport_security":"mtls"}"#, "TLS"),
        (r#"{"root_uid":4294967295}"#, "nobody"),
        (r#"{"squash":"all","anonymous_gid":4294967295}"#, "nobody"),
    ] {
        let said = refused(
            rig.engine.set_options(&by(), volume.id, &change(json)),
            ErrorKind::Invalid,
        );
        assert!(said.contains(why), "{json}: {said}");
        let mut request = volume_request("w", Bytes::gib(1));
        request.options = change(json);
        refused(rig.engine.create_volume(&by(), &request), ErrorKind::Invalid);
        assert_eq!(rig.snapshot(), before, "{json}");
    }
    let stranger = provisioner("stranger", &["tank"]);
    refused(
        rig.engine
            .set_options(&stranger, volume.id, &change(r#"{"squash":"all"}"#)),
        ErrorKind::Forbidden,
    );
    let mut request = volume_request("w", Bytes::gib(1));
    request.clients = vec![client("10.0.0.7"), client("10.0.0.7:ro")];
    refused(rig.engine.create_volume(&by(), &request), ErrorKind::Invalid);
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn a_client_may_write_or_only_read_and_is_one_client() {
    let rig = Rig::with_pool();
    let volume = rig.make_volume("v", Bytes::gib(1));
    let reads = rig.engine.add_client(&by(), volume.id, client("10.0.0.1:ro")).unwrap();
    assert!(!reads.created);
    assert_eq!(reads.object.clients, [client("10.0.0.1:ro")]);
    rig.check();
    let writes = rig.engine.add_client(&by(), volume.id, client("10.0.0.1")).unwrap();
    assert_eq!(writes.object.clients, [client("10.0.0.1")]);
    rig.engine.add_client(&by(), volume.id, client("10.0.0.1:ro")).unwrap();
    let left = rig.engine.remove_client(&by(), volume.id, client("10.0.0.1")).unwrap();
    assert_eq!(left.volume.clients, []);
    rig.check();
}

#[test]
fn a_power_cut_while_options_change_leaves_the_old_or_the_new_ones_whole() {
    let wanted = change(r#"{"squash":"all","root_uid":7,"root_mode":"0711","read_only":true}"#);
    for cut in [Cut::Before, Cut::Midway, Cut::After] {
        for at in 1.. {
            let mut rig = Rig::with_pool();
            let volume = rig.make_volume("v", Bytes::gib(1));
            rig.machine.cut_power_at(at, cut);
            let done = rig.engine.set_options(&by(), volume.id, &wanted).is_ok();
            let dark = rig.machine.is_dark();
            rig.restart();
            rig.check();
            rig.check_exports_before_nfs();
            let now = rig.engine.volume(&by(), volume.id).unwrap().options;
            let new = wanted.apply(&volume.options);
            assert!(now == new || (!done && now == volume.options), "{cut:?} {at}: {now:?}");
            rig.engine.set_options(&by(), volume.id, &wanted).unwrap();
            assert_eq!(rig.engine.volume(&by(), volume.id).unwrap().options, new);
            rig.check();
            if !dark {
                break;
            }
        }
    }
}
