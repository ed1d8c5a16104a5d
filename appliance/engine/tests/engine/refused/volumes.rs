//! What is refused of volumes, their clients, options, snapshots and the trash.

use cistern_model::{
    Bytes, ErrorKind, UndeleteRequest, VolumeChange, VolumeId, VolumeOptionsChange, VolumeRequest, VolumeSource,
};
use uuid::Uuid;

use super::{Call, Full, UNSEEN, call, group, many, named, nobody, nothing, outsider, stranger};
use crate::changes::{labels, to_name, to_size};
use crate::clones::of;
use crate::rollback::to;
use crate::support::{by, client, volume_request};
use crate::trash::as_it_was;

fn options(json: &str) -> VolumeOptionsChange {
    serde_json::from_str(json).unwrap()
}

pub(super) fn volumes() -> Vec<Call> {
    use ErrorKind::{Forbidden, Invalid, NameTaken, NoSpace, NotFound};
    let create = |what, kind, request: VolumeRequest| {
        call(what, kind, move |f: &Full| f.rig.engine.create_volume(&by(), &request))
    };
    let plain = |name: &str| volume_request(name, Bytes::gib(1));
    vec![
        create(
            "a pool that is none",
            NotFound,
            VolumeRequest {
                pool: "none".parse().unwrap(),
                ..plain("x")
            },
        ),
        create("a taken name", NameTaken, volume_request("v", Bytes::gib(2))),
        create("more than there is", NoSpace, volume_request("x", Bytes::gib(100))),
        create(
            "more than can be said",
            Invalid,
            volume_request("x", Bytes::new(u64::MAX)),
        ),
        create(
            "above its limit",
            Invalid,
            VolumeRequest {
                limit: Some(Bytes::mib(10)),
                ..plain("x")
            },
        ),
        create(
            "too many clients",
            Invalid,
            VolumeRequest {
                clients: many(),
                ..plain("x")
            },
        ),
        create(
            "a client twice",
            Invalid,
            VolumeRequest {
                clients: vec![client("10.0.0.1"), client("10.0.0.1:ro")],
                ..plain("x")
            },
        ),
        create("a name that is not seen whole", Invalid, plain(UNSEEN)),
        create(
            "a label that is not seen whole",
            Invalid,
            VolumeRequest {
                labels: labels(&[("team", UNSEEN)]),
                ..plain("x")
            },
        ),
        create(
            "no flavour",
            Invalid,
            VolumeRequest {
                options: options(r#"{"security":[]}"#),
                ..plain("x")
            },
        ),
        create(
            "Kerberos",
            Invalid,
            VolumeRequest {
                options: options(r#"{"security":["krb5p"]}"#),
                ..plain("x")
            },
        ),
        create(
            "nobody's number",
            Invalid,
            VolumeRequest {
                options: options(r#"{"root_uid":4294967295}"#),
                ..plain("x")
            },
        ),
        create(
            "made of nothing",
            NotFound,
            of(VolumeSource::Volume(nobody()), "x", Bytes::gib(1)),
        ),
        create(
            "made of no snapshot",
            NotFound,
            of(VolumeSource::Snapshot(nothing()), "x", Bytes::gib(1)),
        ),
        call("a smaller clone", Invalid, |f| {
            f.rig
                .engine
                .create_volume(&by(), &of(VolumeSource::Volume(f.v.id), "x", Bytes::mib(500)))
        }),
        call("a clone from another pool", Invalid, |f| {
            f.rig
                .engine
                .create_volume(&by(), &of(VolumeSource::Volume(f.far.id), "x", Bytes::gib(1)))
        }),
        call("a clone of a stranger's", Forbidden, |f| {
            f.rig
                .engine
                .create_volume(&stranger(), &of(VolumeSource::Volume(f.v.id), "x", Bytes::gib(1)))
        }),
        call("a stranger's name", NameTaken, |f| {
            f.rig
                .engine
                .create_volume(&stranger(), &volume_request("v", Bytes::gib(1)))
        }),
        call("an outsider", NotFound, |f| {
            f.rig
                .engine
                .create_volume(&outsider(), &volume_request("x", Bytes::gib(1)))
        }),
        call("no such volume", NotFound, |f| {
            f.rig.engine.delete_volume(&by(), nobody())
        }),
        call("a stranger deletes", Forbidden, |f| {
            f.rig.engine.delete_volume(&stranger(), f.v.id)
        }),
        call("an outsider deletes", Forbidden, |f| {
            f.rig.engine.delete_volume(&outsider(), f.v.id)
        }),
        call("a stranger lets in", Forbidden, |f| {
            f.rig.engine.add_client(&stranger(), f.v.id, client("10.0.0.5"))
        }),
        call("a stranger keeps out", Forbidden, |f| {
            f.rig.engine.remove_client(&stranger(), f.v.id, client("10.0.0.1"))
        }),
        call("letting into nothing", NotFound, |f| {
            f.rig.engine.add_client(&by(), nobody(), client("10.0.0.5"))
        }),
        call("smaller", Invalid, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_size(Bytes::mib(500)))
        }),
        call("larger than there is", NoSpace, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_size(Bytes::gib(100)))
        }),
        call("larger than can be said", Invalid, |f| {
            f.rig
                .engine
                .change_volume(&by(), f.v.id, &to_size(Bytes::new(u64::MAX)))
        }),
        call("another's name", NameTaken, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_name("w"))
        }),
        call("another name that is not seen whole", Invalid, |f| {
            f.rig.engine.change_volume(&by(), f.v.id, &to_name(UNSEEN))
        }),
        call("another label that is not seen whole", Invalid, |f| {
            let labelled = VolumeChange {
                labels: Some(labels(&[("team", UNSEEN)])),
                ..VolumeChange::default()
            };
            f.rig.engine.change_volume(&by(), f.v.id, &labelled)
        }),
        call("another's name, and larger", NameTaken, |f| {
            let both = VolumeChange {
                size: Some(Bytes::gib(2)),
                ..to_name("w")
            };
            f.rig.engine.change_volume(&by(), f.v.id, &both)
        }),
        call("another name, and too large", NoSpace, |f| {
            let both = VolumeChange {
                size: Some(Bytes::gib(100)),
                ..to_name("x")
            };
            f.rig.engine.change_volume(&by(), f.v.id, &both)
        }),
        call("a stranger changes", Forbidden, |f| {
            f.rig.engine.change_volume(&stranger(), f.v.id, &to_name("x"))
        }),
        call("TLS", Invalid, |f| {
            f.rig
                .engine
                .set_options(&by(), f.v.id, &options(r#"{"transport_security":"tls"}"#))
        }),
        call("options of a stranger's", Forbidden, |f| {
            f.rig
                .engine
                .set_options(&stranger(), f.v.id, &options(r#"{"read_only":true}"#))
        }),
        call("what is not in the trash", NotFound, |f| {
            f.rig.engine.undelete(&by(), nobody(), &as_it_was())
        }),
        call("a name that was taken since", NameTaken, |f| {
            f.rig.engine.undelete(&by(), f.trashed.id, &as_it_was())
        }),
        call("under a taken name", NameTaken, |f| {
            let request = UndeleteRequest {
                name: Some("w".parse().unwrap()),
            };
            f.rig.engine.undelete(&by(), f.trashed.id, &request)
        }),
        call("under a name that is not seen whole", Invalid, |f| {
            let request = UndeleteRequest {
                name: Some(UNSEEN.parse().unwrap()),
            };
            f.rig.engine.undelete(&by(), f.trashed.id, &request)
        }),
        call("a stranger's trash", Forbidden, |f| {
            f.rig.engine.undelete(&stranger(), f.trashed.id, &as_it_was())
        }),
        call("purging a stranger's", Forbidden, |f| {
            f.rig.engine.purge(&stranger(), f.trashed.id)
        }),
        call("purging what is served", NotFound, |f| {
            f.rig.engine.purge(&by(), f.v.id)
        }),
    ]
}

pub(super) fn snapshots() -> Vec<Call> {
    use ErrorKind::{Forbidden, Invalid, NameTaken, NotFound};
    vec![
        call("of nothing", NotFound, |f| {
            f.rig.engine.create_snapshot(&by(), nobody(), &named("x"))
        }),
        call("of a stranger's", Forbidden, |f| {
            f.rig.engine.create_snapshot(&stranger(), f.v.id, &named("x"))
        }),
        call("of what is deleted", NotFound, |f| {
            f.rig.engine.create_snapshot(&by(), f.trashed.id, &named("x"))
        }),
        call("by a name that is not seen whole", Invalid, |f| {
            f.rig.engine.create_snapshot(&by(), f.v.id, &named(UNSEEN))
        }),
        call("a group by a name that is not seen whole", Invalid, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group(UNSEEN, vec![f.v.id, f.w.id]))
        }),
        call("a group of none", Invalid, |f| {
            f.rig.engine.create_group_snapshot(&by(), &group("x", vec![]))
        }),
        call("a group with one twice", Invalid, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("x", vec![f.v.id, f.v.id]))
        }),
        call("a group with nothing in it", NotFound, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("x", vec![f.v.id, nobody()]))
        }),
        call("a group of too many", Invalid, |f| {
            let volumes = (0..33).map(|n| VolumeId::from_uuid(Uuid::from_u128(n))).collect();
            f.rig.engine.create_group_snapshot(&by(), &group("x", volumes))
        }),
        call("a group by a taken name", NameTaken, |f| {
            f.rig
                .engine
                .create_group_snapshot(&by(), &group("s", vec![f.v.id, f.w.id]))
        }),
        call("deleting nothing", NotFound, |f| {
            f.rig.engine.delete_snapshot(&by(), nothing())
        }),
        call("deleting a stranger's", Forbidden, |f| {
            f.rig.engine.delete_snapshot(&stranger(), f.of_v.id)
        }),
        call("serving nothing", NotFound, |f| {
            f.rig.engine.serve_snapshot(&by(), nothing(), &[])
        }),
        call("serving a stranger's", Forbidden, |f| {
            f.rig.engine.serve_snapshot(&stranger(), f.of_v.id, &[])
        }),
        call("serving too many", Invalid, |f| {
            f.rig.engine.serve_snapshot(&by(), f.of_v.id, &many())
        }),
        call("serving to a client twice", Invalid, |f| {
            let clients = [client("10.0.0.1"), client("10.0.0.1:ro")];
            f.rig.engine.serve_snapshot(&by(), f.of_v.id, &clients)
        }),
        call("back to another's", Invalid, |f| {
            f.rig.engine.roll_back(&by(), f.v.id, &to(f.of_w.id, true))
        }),
        call("back to nothing", NotFound, |f| {
            f.rig.engine.roll_back(&by(), f.v.id, &to(nothing(), true))
        }),
        call("nothing back", NotFound, |f| {
            f.rig.engine.roll_back(&by(), nobody(), &to(f.of_v.id, true))
        }),
        call("a stranger's back", Forbidden, |f| {
            f.rig.engine.roll_back(&stranger(), f.v.id, &to(f.of_v.id, true))
        }),
        call("what is deleted back", NotFound, |f| {
            f.rig.engine.roll_back(&by(), f.trashed.id, &to(f.of_v.id, true))
        }),
    ]
}
