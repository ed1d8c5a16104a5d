//! Appliances that are near to one zone's nodes.

use cistern_csi::appliances::ZONE;
use cistern_csi::csi;
use cistern_csi::csi::controller_server::Controller as _;
use cistern_csi::csi::volume_content_source::{Type, VolumeSource};
use tonic::{Code, Request};

use crate::bad_input::{Case, judge, long, pair};
use crate::support::{Appliance, NOBODY, Plugin, wanted};

/// What the plugin's Secret says of an appliance in a zone, that nobody has to ask.
fn entry(zone: &str) -> String {
    let print = "0f".repeat(32);
    format!("url = \"https://127.0.0.1:1\"\ntoken = \"secret\"\nfingerprint = \"{print}\"\nzone = \"{zone}\"\n")
}

fn topology(zone: Option<&str>) -> csi::Topology {
    let segments = zone.map(|zone| (ZONE.to_owned(), zone.to_owned()));
    csi::Topology {
        segments: segments.into_iter().collect(),
    }
}

/// Whether there is room for nodes of this topology.
async fn room(plugin: &Plugin, topology: Option<csi::Topology>) -> bool {
    let request = csi::GetCapacityRequest {
        accessible_topology: topology,
        ..csi::GetCapacityRequest::default()
    };
    let told = plugin.controller.get_capacity(Request::new(request)).await.unwrap();
    told.into_inner().available_capacity > 0
}

/// The provisioner has the pod put elsewhere for no other code.
#[tokio::test]
async fn a_copy_of_what_lies_in_another_zone_is_told_so_that_the_pod_goes_there() {
    let plugin = Plugin::with_zones(&[("rack-1", entry("a")), ("rack-2", entry("b"))]);
    let copy = |endpoint: Option<&str>, source: &str| {
        let mut request = wanted("copy");
        request.parameters = endpoint
            .map(|id| ("endpoint".to_owned(), id.to_owned()))
            .into_iter()
            .collect();
        request.volume_content_source = Some(csi::VolumeContentSource {
            r#type: Some(Type::Volume(VolumeSource {
                volume_id: NOBODY.replace("rack-1", source),
            })),
        });
        request.accessibility_requirements = Some(csi::TopologyRequirement {
            requisite: vec![topology(Some("b"))],
            preferred: vec![topology(Some("b"))],
        });
        plugin.controller.create_volume(Request::new(request))
    };
    for (endpoint, source, code, says) in [
        (None, "rack-1", Code::ResourceExhausted, "zone a"),
        (Some("rack-1"), "rack-1", Code::ResourceExhausted, "zone"),
        (None, "rack-3", Code::InvalidArgument, "rack-3"),
        (
            Some("rack-2"),
            "rack-1",
            Code::InvalidArgument,
            "use a class of that appliance",
        ),
    ] {
        let told = copy(endpoint, source).await.unwrap_err();
        assert_eq!(told.code(), code, "{endpoint:?} {source}: {told}");
        assert!(told.message().contains(says), "{endpoint:?} {source}: {told}");
    }
}

#[tokio::test]
async fn room_is_told_for_the_nodes_that_are_near_to_it() {
    let appliance = Appliance::start().await;
    let plain = ("rack-1", appliance.entry());
    let zoned = ("rack-1", format!("{}zone = \"a\"\n", appliance.entry()));
    for (what, plugin, near) in [
        (
            "in a zone",
            Plugin::with_zones(std::slice::from_ref(&zoned)),
            [true, true, false, false],
        ),
        ("in none", Plugin::with_zones(&[plain]), [true, true, true, true]),
        ("without zones", Plugin::new(&[zoned]), [true, true, true, true]),
    ] {
        for (segments, near) in [None, Some(Some("a")), Some(Some("b")), Some(None)]
            .into_iter()
            .zip(near)
        {
            let told = room(&plugin, segments.map(topology)).await;
            assert_eq!(told, near, "{what}, for {segments:?}");
        }
    }
}

#[tokio::test]
async fn a_claim_whose_nodes_are_in_no_zone_that_there_is_finds_no_appliance_in_one() {
    let appliance = Appliance::start().await;
    let plugin = Plugin::with_zones(&[("rack-1", format!("{}zone = \"a\"\n", appliance.entry()))]);
    let before = appliance.all();
    let odd = |key: &str, value: &str| csi::Topology {
        segments: pair(key, value),
    };
    let claim = |requisite: Vec<csi::Topology>, preferred: Vec<csi::Topology>| {
        let mut request = wanted("v");
        request.accessibility_requirements = Some(csi::TopologyRequirement { requisite, preferred });
        plugin.controller.create_volume(Request::new(request))
    };
    let mut cases: Vec<Case> = Vec::new();
    for (what, segments) in [
        ("nowhere", topology(None)),
        ("by another key", odd("colour", "a")),
        ("in a zone without a name", odd(ZONE, "")),
        ("in a long zone", odd(ZONE, &long())),
        ("by a long key", odd(&long(), "a")),
    ] {
        let answer = claim(vec![segments.clone()], vec![segments]).await;
        cases.push((what, answer.map(drop), Code::ResourceExhausted, "zone"));
    }
    judge(cases);
    assert_eq!(appliance.all(), before);
    // What is only preferred keeps nothing from being made.
    let made = claim(vec![topology(Some("a"))], vec![odd("colour", "blue")]).await;
    let there = made.unwrap().into_inner().volume.unwrap().accessible_topology;
    assert_eq!(there, [topology(Some("a"))]);
}
