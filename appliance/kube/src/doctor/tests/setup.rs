//! How the plugin is installed, and how the appliances are.

use std::collections::BTreeSet;

use cistern_model::{Bytes, Owner, PoolState, VolumeState};
use serde_json::json;

use super::hold;
use super::world::{BEFORE, VOLUME, World};
use crate::doctor::{Code, Token};

/// Its class is for one zone, and its node's plugin has told of none.
fn zones(world: &mut World) {
    world.the("StorageClass")["allowedTopologies"] =
        json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["a"]}]}]);
    world.the("CSINode")["spec"]["drivers"][0]["topologyKeys"] = json!(null);
}

#[test]
fn an_installation_that_is_not_as_it_was_printed() {
    hold(&[
        ("no driver", |w| w.remove("CSIDriver"), &[Code::DriverMissing]),
        (
            "another driver",
            |w| w.the("CSIDriver")["spec"]["attachRequired"] = json!(false),
            &[Code::DriverDiffers],
        ),
        (
            "a leader that is silent",
            |w| {
                w.the("Lease")["spec"]["renewTime"] = json!(BEFORE);
            },
            &[Code::ControllerSilent],
        ),
        (
            "a leader that never was",
            |w| {
                let at = w.objects.iter().position(|object| object["kind"] == "Lease").unwrap();
                w.objects.remove(at);
            },
            &[Code::ControllerSilent],
        ),
        (
            "an image that is not there",
            |w| {
                w.add(json!({
                "kind": "Pod", "metadata": {"name": "cistern-csi-node-x", "namespace": "cistern-csi",
                    "labels": {"app.kubernetes.io/name": "cistern-csi"}},
                "spec": {"nodeName": "n1"},
                "status": {"phase": "Pending", "containerStatuses": [
                    {"name": "cistern-csi", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}
            }));
            },
            &[Code::PluginWaits],
        ),
        (
            "a node without the plugin",
            |w| {
                w.add(json!({"kind": "Node", "metadata": {"name": "n2"}}));
            },
            &[Code::NodeWithoutPlugin],
        ),
        (
            "a node whose kubelet knows no driver at all, as kubectl prints it",
            |w| {
                w.add(json!({"kind": "Node", "metadata": {"name": "n2"}}));
                w.add(json!({"kind": "CSINode", "metadata": {"name": "n2"}, "spec": {"drivers": null}}));
            },
            &[Code::NodeWithoutPlugin],
        ),
        (
            "what is empty, written as null",
            |w| {
                let labels = json!({"kubernetes.io/os": "windows"});
                for object in [
                    json!({"kind": "Node", "metadata": {"name": "w1", "labels": labels, "annotations": null}, "status": null}),
                    json!({"kind": "Pod", "metadata": {"name": "p", "finalizers": null}, "spec": {"volumes": null}}),
                    json!({"kind": "StorageClass", "allowedTopologies": [{"matchLabelExpressions": null}]}),
                ] {
                    w.add(object);
                }
            },
            &[],
        ),
        (
            "a node whose zone came late",
            |w| {
                zones(w);
                w.the("Node")["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "a"});
            },
            &[Code::NodeZoneUnknown],
        ),
        (
            "a node whose kubelet knows its zone",
            |w| {
                zones(w);
                w.the("Node")["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "a"});
                w.the("CSINode")["spec"]["drivers"][0]["topologyKeys"] = json!(["topology.kubernetes.io/zone"]);
            },
            &[],
        ),
        ("a node in no zone", zones, &[]),
        (
            "a node in a zone, where no class asks for that",
            |w| w.the("Node")["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "a"}),
            &[],
        ),
        (
            "an appliance that the Secret does not name",
            |w| {
                w.registered = Some(["rack-9".to_owned()].into());
            },
            &[Code::ApplianceUnregistered, Code::ClassWithoutAppliance],
        ),
        ("a token that is refused", refuse, &[Code::TokenRefused]),
        (
            "another certificate",
            |w| {
                w.appliance.fingerprint = Some("aa".repeat(32));
            },
            &[Code::CertificateDiffers],
        ),
        (
            "a class with a misspelt endpoint",
            |w| {
                w.the("StorageClass")["parameters"]["endpoint"] = json!("rak-1");
            },
            &[Code::ClassWithoutAppliance],
        ),
        (
            "a class with a misspelt pool",
            |w| {
                w.the("StorageClass")["parameters"]["pool"] = json!("tnak");
            },
            &[Code::ClassWithoutPool],
        ),
    ]);
}

fn refuse(world: &mut World) {
    world.appliance.token = Token::Refused {
        why: "the token is not known".to_owned(),
    };
}

/// The commands of the one finding, as they are printed.
fn commands(change: fn(&mut World)) -> Vec<String> {
    let mut world = World::healthy();
    world.appliance.command = "cistern --profile nas".to_owned();
    change(&mut world);
    let mut findings = world.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0).commands
}

#[test]
fn a_token_is_renewed_under_its_name_and_only_its_entry_is_written() {
    let put = |entry: &str| format!("kubectl -n storage patch secret cistern-appliances -p '{entry}'");
    let plain = format!(
        r#"{{"stringData":{{"rack-1.toml":"url = \"https://10.0.0.5:8443\"\ntoken = \"SECRET\"\nfingerprint = \"{}\"\n"}}}}"#,
        "0f".repeat(32)
    );
    let expected = [
        "cistern --profile nas tokens list".to_owned(),
        "cistern --profile nas tokens delete cluster".to_owned(),
        "cistern --profile nas tokens create cluster --role provisioner --pool tank".to_owned(),
        put(&plain),
    ];
    assert_eq!(commands(refuse), expected);
    // What else stands in the entry stays there.
    let with_more = commands(|w| {
        refuse(w);
        let entry = w.appliance.entry.as_mut().unwrap();
        (entry.nfs, entry.zone) = (Some("it's".to_owned()), Some("b".to_owned()));
    });
    let more = plain.replace(r#"\n"}}"#, r#"\nnfs = \"it'\''s\"\nzone = \"b\"\n"}}"#);
    assert_eq!(with_more[3], put(&more));
    // An appliance whose entry is gone is as it is known from here.
    let unregistered = commands(|w| {
        w.registered = Some(BTreeSet::new());
        w.appliance.entry = None;
        w.remove("StorageClass");
    });
    assert_eq!(unregistered, expected);
}

#[test]
fn a_token_that_cannot_be_told_from_others_is_not_named() {
    let own = commands(|w| {
        refuse(w);
        w.the("StorageClass")["parameters"]["csi.storage.k8s.io/provisioner-secret-name"] = json!("theirs");
    });
    assert_eq!(own[1], "cistern --profile nas tokens delete NAME");
    let other_id = commands(|w| {
        let mut second = w.appliance.clone();
        (second.id, second.entry, second.token) = ("rack-0".to_owned(), None, Token::NotTried);
        w.appliances.push(second);
        let handle = format!("rack-0:{VOLUME}");
        w.the("PersistentVolume")["spec"]["csi"]["volumeHandle"] = json!(handle);
    });
    assert_eq!(other_id[1], "cistern --profile nas tokens delete NAME");
    let by_console = commands(|w| {
        refuse(w);
        w.volume().owner = Owner::local();
    });
    assert_eq!(
        by_console[2],
        "cistern --profile nas tokens create NAME --role provisioner --pool tank"
    );
}

#[test]
fn a_driver_is_applied_alone() {
    let commands = commands(|w| w.remove("CSIDriver"));
    let [command] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let object = command.strip_prefix("echo '").unwrap();
    let object = object.strip_suffix("' | kubectl apply -f -").unwrap();
    assert_eq!(object, crate::doctor::setup::DRIVER_OBJECT);
}

#[test]
fn an_appliance_that_is_not_well() {
    hold(&[
        (
            "not reached",
            |w| w.appliance.holdings = Err("cannot be reached".to_owned()),
            &[Code::ApplianceNotSeen],
        ),
        (
            "a pool without too many disks",
            |w| w.pool().state = PoolState::Incomplete,
            &[Code::PoolNotServed],
        ),
        (
            "a pool without a disk",
            |w| w.pool().state = PoolState::Degraded,
            &[Code::PoolDegraded],
        ),
        (
            "a pool that is full",
            |w| w.pool().used = w.pool().size,
            &[Code::PoolFull],
        ),
        (
            "a pool without room",
            |w| w.pool().available = Bytes::mib(10),
            &[Code::PoolWithoutRoom],
        ),
        (
            "a volume that is not served",
            |w| w.volume().state = VolumeState::Failed,
            &[Code::VolumeNotServed],
        ),
    ]);
}
