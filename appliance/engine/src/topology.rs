//! heketi's topology as a request for a pool of this machine's own disks. Invariant: a device is taken only if it is found
//! for certain and is blank; for every other it is said why not.

use cistern_model::{
    Disk, DiskId, DiskState, PoolRequest, Skipped, Topology, TopologyNode, TopologyPlan, TopologyRequest,
};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;

impl Engine {
    /// What a topology's node that is this appliance would come to as a pool. Touches nothing.
    pub fn plan_topology(&self, request: &TopologyRequest) -> Result<TopologyPlan, EngineError> {
        let _operation = self.0.operations.begin(std::time::Duration::from_secs(300));
        let hostname = self
            .0
            .host
            .machine
            .hostname()
            .doing(|| "ask for the machine's name".to_owned())?;
        let interfaces = self.0.host.network.interfaces();
        let interfaces = interfaces.doing(|| "ask for the machine's addresses".to_owned())?;
        let addresses = interfaces.iter().flat_map(|interface| interface.reachable_addresses());
        let mut own: Vec<String> = addresses.map(|address| address.to_string()).collect();
        own.push(hostname);
        let (node, mut skipped) = own_node(&request.topology, &own)?;
        let all = self.disks()?;
        let mut disks: Vec<DiskId> = Vec::new();
        for device in &node.devices {
            let path = device.path();
            match judge(&all, path) {
                Ok(disk) if disks.contains(&disk.id) => skipped.push(Skipped {
                    what: path.to_owned(),
                    why: format!("it is {}, which is named before", disk.id),
                }),
                Ok(disk) => disks.push(disk.id.clone()),
                Err(why) => skipped.push(Skipped {
                    what: path.to_owned(),
                    why,
                }),
            }
        }
        if disks.is_empty() {
            let why: Vec<String> = skipped.iter().map(|s| format!("{}: {}", s.what, s.why)).collect();
            return Err(EngineError::Invalid(format!(
                "the topology names no disk of this appliance that can be used ({})",
                why.join("; ")
            )));
        }
        let request = PoolRequest {
            name: request.name.clone(),
            layout: request.layout,
            disks,
            spares: Vec::new(),
            layers: cistern_model::Layers::NONE,
            trash_seconds: None,
        };
        Ok(TopologyPlan {
            node: names(node).join(", "),
            plan: self.plan_pool(&request)?,
            skipped,
        })
    }
}

fn names(node: &TopologyNode) -> Vec<&str> {
    let hostnames = &node.node.hostnames;
    hostnames
        .manage
        .iter()
        .chain(&hostnames.storage)
        .map(String::as_str)
        .collect()
}

/// The one node that goes by one of our names or addresses; the others are passed over.
fn own_node<'a>(topology: &'a Topology, own: &[String]) -> Result<(&'a TopologyNode, Vec<Skipped>), EngineError> {
    let all: Vec<&TopologyNode> = topology.clusters.iter().flat_map(|cluster| &cluster.nodes).collect();
    let (mine, others): (Vec<&TopologyNode>, Vec<&TopologyNode>) = all
        .into_iter()
        .partition(|node| names(node).iter().any(|name| own.iter().any(|own| same(name, own))));
    let called = |nodes: &[&TopologyNode]| -> Vec<String> { nodes.iter().map(|node| names(node).join("/")).collect() };
    match mine[..] {
        [node] => {
            let skipped = called(&others).into_iter().map(|what| Skipped {
                what,
                why: "it is another node; each appliance plans its own".to_owned(),
            });
            Ok((node, skipped.collect()))
        }
        [] => Err(EngineError::Invalid(format!(
            "the topology has no node that is this appliance ({}); it has {}",
            own.join(", "),
            called(&others).join(", ")
        ))),
        _ => Err(EngineError::Invalid(format!(
            "more than one node of the topology is this appliance: {}",
            called(&mine).join(", ")
        ))),
    }
}

/// Whether two names are the same machine's: whole, or one of them its name without a domain.
fn same(name: &str, own: &str) -> bool {
    let (name, own) = (
        name.trim_end_matches('.').to_lowercase(),
        own.trim_end_matches('.').to_lowercase(),
    );
    let address = |text: &str| text.parse::<std::net::IpAddr>().ok();
    if let (Some(name), Some(own)) = (address(&name), address(&own)) {
        return name == own;
    }
    let short = |text: &str| text.split('.').next().unwrap_or_default().to_owned();
    let whole = name.contains('.') && own.contains('.');
    name == own || (!whole && address(&name).is_none() && address(&own).is_none() && short(&name) == short(&own))
}

/// The blank disk at a path, or why there is none.
fn judge<'a>(disks: &'a [Disk], path: &str) -> Result<&'a Disk, String> {
    let disk = at(disks, path).ok_or("this appliance has no such disk; name it as `disks list` does")?;
    if disk.id.is_free_part() {
        return Err(format!(
            "{} is the free part of the boot disk, which is used by its name only",
            disk.id
        ));
    }
    match &disk.state {
        DiskState::Available => Ok(disk),
        DiskState::HasData => Err(format!("{} carries something; wipe it by name first", disk.id)),
        DiskState::Boot => Err(format!("the system started from {}", disk.id)),
        DiskState::InPool { pool } => Err(format!("{} belongs to {pool}", disk.id)),
        DiskState::Busy => Err(format!("{} is in use", disk.id)),
        DiskState::Unusable { why } => Err(format!("{} cannot be used: {why}", disk.id)),
    }
}

/// By the kernel's name, by one of udev's lasting links, or by our own id. A partition is no disk.
fn at<'a>(disks: &'a [Disk], path: &str) -> Option<&'a Disk> {
    let by_id = |name: &str| {
        let serial = |disk: &Disk| {
            let serial = disk.serial.as_ref().filter(|serial| serial.len() >= 4);
            serial.is_some_and(|serial| name.ends_with(&format!("_{serial}")) || name.ends_with(&format!("-{serial}")))
        };
        let mut found = disks.iter().filter(|disk| disk.id.as_str() == name || serial(disk));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    };
    if let Some(name) = path.strip_prefix("/dev/disk/by-id/") {
        return by_id(name);
    }
    let name = path.strip_prefix("/dev/").unwrap_or(path);
    disks
        .iter()
        .find(|disk| disk.kernel_name == name || disk.id.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_model::{Bytes, DiskTransport, TopologyCluster, TopologyDevice, TopologyHostnames, TopologyName};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

        #[test]
        fn a_topology_reads_back_and_has_one_node_that_is_this_appliance_or_is_refused(
            names in prop::collection::vec(prop::collection::vec("[a-c]{1,2}(\\.[a-c])?\\.?|10\\.0\\.0\\.[1-3]|\\PC{0,4}", 0..3), 0..4),
            devices in prop::collection::vec("/dev/sd[a-c]|\\PC{0,6}", 0..3),
            destroydata: bool,
        ) {
            let nodes = names.iter().map(|names| {
                let (manage, storage) = names.split_at(names.len() / 2);
                let names: Vec<&str> = manage.iter().map(String::as_str).collect();
                let addresses: Vec<&str> = storage.iter().map(String::as_str).collect();
                let devices = devices.iter().cloned();
                TopologyNode {
                    devices: match destroydata {
                        true => devices.map(|name| TopologyDevice::Named { name, destroydata }).collect(),
                        false => devices.map(TopologyDevice::Path).collect(),
                    },
                    ..node(&names, &addresses)
                }
            });
            let topology = Topology { clusters: vec![TopologyCluster { nodes: nodes.collect() }] };
            // heketi's form has more in it, which is passed over.
            let mut json = serde_json::to_value(&topology).unwrap();
            json["clusters"][0]["block"] = serde_json::json!(true);
            prop_assert_eq!(serde_json::from_value::<Topology>(json).ok(), Some(topology.clone()));

            let own = ["a.b".to_owned(), "10.0.0.1".to_owned()];
            let is_own = |names: &&Vec<String>| names.iter().any(|name| own.iter().any(|own| same(name, own)));
            let count = names.iter().filter(is_own).count();
            match own_node(&topology, &own) {
                Ok((_, skipped)) => prop_assert!(count == 1 && skipped.len() + 1 == names.len()),
                Err(why) => prop_assert!(count != 1 && !why.to_string().is_empty()),
            }
        }

        #[test]
        fn whatever_a_device_is_called_a_disk_is_found_by_a_name_of_its_own_or_not_at_all(
            path in "(/dev/|/dev/disk/by-id/)?(ata-|serial-|QEMU_)?(sd[ab]|QM0000[12])?[0-9]{0,1}|\\PC{0,30}",
        ) {
            let disks = [disk("QM00001", "sda"), disk("QM00002", "sdb")];
            if let Some(found) = at(&disks, &path) {
                let serial = found.serial.clone().unwrap_or_default();
                prop_assert!(path.ends_with(&found.kernel_name) || path.ends_with(&serial), "{} is not {}", path, found.id);
            }
        }
    }

    fn node(manage: &[&str], storage: &[&str]) -> TopologyNode {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        TopologyNode {
            node: TopologyName {
                hostnames: TopologyHostnames {
                    manage: owned(manage),
                    storage: owned(storage),
                },
            },
            devices: Vec::new(),
        }
    }

    fn disk(serial: &str, kernel: &str) -> Disk {
        Disk {
            id: DiskId::from_serial(serial),
            kernel_name: kernel.to_owned(),
            size: Bytes::gib(1),
            model: None,
            serial: Some(serial.to_owned()),
            wwn: None,
            rotational: false,
            transport: DiskTransport::Ata,
            state: DiskState::Available,
            signatures: Vec::new(),
            grown_by: None,
        }
    }

    #[test]
    fn a_machine_is_known_by_its_name_with_or_without_a_domain_and_by_its_addresses() {
        for (name, own, expected) in [
            ("node1", "node1", true),
            ("Node1.example.com", "node1", true),
            ("node1.a.com", "node1.b.com", false),
            ("node10", "node1", false),
            ("192.168.10.1", "192.168.10.1", true),
            ("192.168.10.1", "192", false),
            ("192.168.10.1", "192.168.10.10", false),
            ("fd00:0::1", "fd00::1", true),
        ] {
            assert_eq!(same(name, own), expected, "{name} {own}");
        }
    }

    #[test]
    fn exactly_one_node_must_be_this_appliance() {
        let own = ["node1".to_owned(), "10.0.0.1".to_owned()];
        let topology = |nodes: Vec<TopologyNode>| Topology {
            clusters: vec![TopologyCluster { nodes }],
        };
        let good = topology(vec![
            node(&["node0"], &["10.0.0.9"]),
            node(&["storage-1"], &["10.0.0.1"]),
        ]);
        let (found, skipped) = own_node(&good, &own).unwrap();
        assert_eq!(
            (names(found), skipped[0].what.as_str()),
            (vec!["storage-1", "10.0.0.1"], "node0/10.0.0.9")
        );
        for bad in [topology(vec![]), topology(vec![node(&["node2"], &[])])] {
            assert!(own_node(&bad, &own).is_err());
        }
        let twice = topology(vec![node(&["node1"], &[]), node(&[], &["10.0.0.1"])]);
        assert!(
            own_node(&twice, &own)
                .unwrap_err()
                .to_string()
                .contains("more than one")
        );
    }

    #[test]
    fn a_device_is_found_by_its_names_and_a_partition_is_none() {
        let disks = [disk("QM00001", "sda"), disk("QM00002", "sdb")];
        let found = |path| at(&disks, path).map(|disk| disk.kernel_name.as_str());
        assert_eq!(found("/dev/sdb"), Some("sdb"));
        assert_eq!(found("/dev/disk/by-id/ata-QEMU_HARDDISK_QM00001"), Some("sda"));
        assert_eq!(found("serial-QM00002"), Some("sdb"));
        assert_eq!(found("/dev/disk/by-id/serial-QM00002"), Some("sdb"));
        for path in ["/dev/sda1", "/dev/sdc", "/dev/disk/by-id/ata-QM0000", "", "/dev/"] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn heketi_s_sample_is_read() {
        let text = r#"{"clusters":[{"nodes":[{"node":{"hostnames":{"manage":["192.168.10.100"],
            "storage":["192.168.10.100"]},"zone":1},"devices":["/dev/sdb",{"name":"/dev/sdc","destroydata":false}]}]}]}"#;
        let topology: Topology = serde_json::from_str(text).unwrap();
        let paths: Vec<&str> = topology.clusters[0].nodes[0].devices.iter().map(|d| d.path()).collect();
        assert_eq!(paths, ["/dev/sdb", "/dev/sdc"]);
    }
}
