//! How the plugin is installed, and how the appliances are.

use cistern_model::{Bytes, PoolState, VolumeState};
use serde_json::json;

use super::hold;
use super::world::{BEFORE, World};
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
        (
            "a token that is refused",
            |w| {
                w.appliance.token = Token::Refused {
                    why: "the token is not known".to_owned(),
                };
            },
            &[Code::TokenRefused],
        ),
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
