//! The objects themselves, as text that `kubectl apply` takes.

use std::num::NonZeroU32;

use cistern_model::PoolName;

use crate::dashboard::dashboard;
use crate::fit::Unfit;
use crate::rules::rules;

/// What cistern-csi's image is called if nothing else is said; what `image/csi` makes is called so too.
pub const IMAGE: &str = concat!("cistern-csi:", env!("CARGO_PKG_VERSION"));

/// The sidecars that the controller needs, at the versions that it is tested with, and what each is told besides the usual.
pub const SIDECARS: &[(&str, &str, &[&str])] = &[
    (
        "csi-provisioner",
        "v6.3.0",
        &[
            "--extra-create-metadata",
            "--enable-capacity",
            "--capacity-ownerref-level=2",
        ],
    ),
    // Each minute it asks for all volumes: page by page, since no message holds the list of many thousands.
    ("csi-attacher", "v4.13.0", &["--max-entries=1000"]),
    ("csi-resizer", "v2.3.0", &["--handle-volume-inuse-error=false"]),
    ("csi-snapshotter", "v8.7.0", &["--extra-create-metadata"]),
];
/// What csi-snapshotter is told where groups are wanted.
const GROUPS: &str = "--feature-gates=CSIVolumeGroupSnapshot=true";
/// What csi-provisioner is told where appliances have zones: a volume is made in the zone of its pod's node, or the pod goes elsewhere.
const STRICT: &str = "--strict-topology";
/// What the plugin is told there.
const ZONES: &str = "            - --zones\n";
/// What a node's part is told where it is to give appliances up.
pub(crate) const GIVE_UP_AFTER: &str = "            - --give-up-after=${minutes}\n";

pub(crate) const NAMESPACE: &str = include_str!("../templates/namespace.yaml");
pub(crate) const CSIDRIVER: &str = include_str!("../templates/csidriver.yaml");
pub(crate) const ACCESS: &str = include_str!("../templates/access.yaml");
pub(crate) const ACCESS_ZONES: &str = include_str!("../templates/access-zones.yaml");
pub(crate) const CONTROLLER: &str = include_str!("../templates/controller.yaml");
pub(crate) const SIDECAR: &str = include_str!("../templates/sidecar.yaml");
pub(crate) const NODE: &str = include_str!("../templates/node.yaml");
pub(crate) const SECRET: &str = include_str!("../templates/secret.yaml");
pub(crate) const ENTRY: &str = include_str!("../templates/entry.yaml");
pub(crate) const ENTRY_NFS: &str = include_str!("../templates/entry-nfs.yaml");
pub(crate) const ENTRY_ZONE: &str = include_str!("../templates/entry-zone.yaml");
pub(crate) const CLASS: &str = include_str!("../templates/class.yaml");
pub(crate) const BINDING_ANYWHERE: &str = include_str!("../templates/binding-anywhere.yaml");
pub(crate) const BINDING_ZONE: &str = include_str!("../templates/binding-zone.yaml");
pub(crate) const SNAPSHOT_CLASS: &str = include_str!("../templates/snapshotclass.yaml");
pub(crate) const DASHBOARD: &str = include_str!("../templates/dashboard.yaml");
pub(crate) const RULES: &str = include_str!("../templates/rules.yaml");
pub(crate) const GROUP_SNAPSHOT_CLASS: &str = include_str!("../templates/groupsnapshotclass.yaml");

/// Where the plugin is installed and what it is to know.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The namespace of its own.
    pub namespace: String,
    /// The image of cistern-csi, as a node's container runtime knows it.
    pub image: String,
    /// From where the sidecars' images come, without their names.
    pub sidecars: String,
    /// The kubelet's folder on each node.
    pub kubelet: String,
    /// The appliances, at least one.
    pub appliances: Vec<Appliance>,
    /// Whether snapshots of several volumes at one moment are wanted; their CRDs are to be in the cluster then.
    pub group_snapshots: bool,
    /// Whether appliances are near to the nodes of their zone only.
    pub zones: bool,
    /// After how many minutes without an answer a node gives an appliance up, when it is to take its volumes away. None: never.
    pub give_up_after: Option<NonZeroU32>,
    /// Whether a dashboard for Grafana and rules for Prometheus are wanted, and to which release of kube-prometheus-stack they
    /// belong. Its CRDs are to be in the cluster then.
    pub monitoring: Option<String>,
}

/// An appliance as the plugin is to know it.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The name that classes and volumes know it by.
    pub id: String,
    /// Where its API is.
    pub url: String,
    /// The secret of a token of role provisioner.
    pub token: String,
    /// The fingerprint of its certificate.
    pub fingerprint: String,
    /// Where nodes mount from, if that is another address than the API's.
    pub nfs: Option<String>,
    /// The zone in which it is, as nodes have it in `topology.kubernetes.io/zone`; none: near to all. Counts where there are zones.
    pub zone: Option<String>,
    /// The pools for each of which there is to be a class.
    pub pools: Vec<PoolName>,
}

impl Installation {
    /// All objects of a cluster in the order in which they are to be made, each document with its name.
    ///
    /// # Errors
    /// [`Unfit`] for a namespace or an appliance's id that Kubernetes would not take, and for text with quotes or line ends.
    pub fn documents(&self) -> Result<Vec<(&'static str, String)>, Unfit> {
        self.check()?;
        let fill = |template: &str| self.fill(template);
        let entries: String = self.appliances.iter().map(|one| self.entry(one)).collect();
        let access = match self.zones {
            true => fill(ACCESS) + &fill(ACCESS_ZONES),
            false => fill(ACCESS),
        };
        let classes: Vec<String> = self
            .appliances
            .iter()
            .flat_map(|appliance| self.classes(appliance))
            .collect();
        let mut documents = vec![
            ("namespace.yaml", fill(NAMESPACE)),
            ("csidriver.yaml", fill(CSIDRIVER)),
            ("access.yaml", access),
            ("secret.yaml", fill(SECRET).replace("${entries}", &entries)),
            ("controller.yaml", fill(CONTROLLER)),
            ("node.yaml", fill(NODE)),
            ("classes.yaml", classes.join("---\n")),
            ("snapshotclass.yaml", SNAPSHOT_CLASS.to_owned()),
        ];
        if self.group_snapshots {
            documents.push(("groupsnapshotclass.yaml", GROUP_SNAPSHOT_CLASS.to_owned()));
        }
        if let Some(release) = &self.monitoring {
            let dashboard = format!("{:#}\n", dashboard());
            let rules = rules();
            documents.push((
                "dashboard.yaml",
                fill(DASHBOARD).replace("${dashboard}\n", &indented(4, &dashboard)),
            ));
            let object = fill(RULES).replace("${release}", release);
            documents.push(("rules.yaml", object.replace("${rules}\n", &indented(2, &rules))));
        }
        Ok(documents)
    }

    /// All of them as one text.
    ///
    /// # Errors
    /// As [`Installation::documents`].
    pub fn text(&self) -> Result<String, Unfit> {
        let texts: Vec<String> = self.documents()?.into_iter().map(|(_, text)| text).collect();
        Ok(texts.join("---\n"))
    }

    pub(crate) fn fill(&self, template: &str) -> String {
        let containers = self.sidecar_containers();
        let give_up = self.give_up_after;
        let give_up = give_up.map(|minutes| GIVE_UP_AFTER.replace("${minutes}", &minutes.to_string()));
        [
            ("${sidecar-containers}", containers.as_str()),
            ("${give-up-after}", &give_up.unwrap_or_default()),
            ("${zones}", if self.zones { ZONES } else { "" }),
            ("${node-token}", if self.zones { "true" } else { "false" }),
            ("${namespace}", &self.namespace),
            ("${image}", &self.image),
            ("${sidecars}", &self.sidecars),
            ("${kubelet}", &self.kubelet),
        ]
        .iter()
        .fold(template.to_owned(), |text, (place, word)| text.replace(place, word))
    }

    /// With what the names of an appliance's classes begin: where there are several, its own name is in it.
    pub(crate) fn class_prefix(&self, appliance: &Appliance) -> String {
        match self.appliances.len() {
            1 => "cistern".to_owned(),
            _ => format!("cistern-{}", appliance.id),
        }
    }

    /// A class for each pool.
    fn classes(&self, appliance: &Appliance) -> Vec<String> {
        let prefix = self.class_prefix(appliance);
        let class = |pool: &PoolName| {
            let name = format!("{prefix}-{pool}");
            let binding = match self.zone(appliance) {
                Some(zone) => BINDING_ZONE.replace("${zone}", zone),
                None => BINDING_ANYWHERE.to_owned(),
            };
            CLASS
                .replace("${name}", &name)
                .replace("${endpoint}", &appliance.id)
                .replace("${pool}", pool.as_str())
                .replace("${binding}", &binding)
        };
        appliance.pools.iter().map(class).collect()
    }

    /// The zone that an appliance is in, where there are zones.
    pub(crate) fn zone<'a>(&self, appliance: &'a Appliance) -> Option<&'a String> {
        appliance.zone.as_ref().filter(|_| self.zones)
    }

    fn entry(&self, appliance: &Appliance) -> String {
        let nfs = appliance.nfs.as_ref().map(|nfs| ENTRY_NFS.replace("${nfs}", nfs));
        let zone = self.zone(appliance).map(|zone| ENTRY_ZONE.replace("${zone}", zone));
        [
            ("${nfs}", &nfs.unwrap_or_default()),
            ("${in-zone}", &zone.unwrap_or_default()),
            ("${id}", &appliance.id),
            ("${url}", &appliance.url),
            ("${token}", &appliance.token),
            ("${fingerprint}", &appliance.fingerprint),
        ]
        .iter()
        .fold(ENTRY.to_owned(), |text, (place, word)| text.replace(place, word))
    }

    fn sidecar_containers(&self) -> String {
        let container = |(name, version, arguments): &(&str, &str, &[&str])| {
            let further = match *name {
                "csi-snapshotter" if self.group_snapshots => Some(&GROUPS),
                "csi-provisioner" if self.zones => Some(&STRICT),
                _ => None,
            };
            let arguments: String = arguments
                .iter()
                .chain(further)
                .map(|argument| format!("            - {argument}\n"))
                .collect();
            SIDECAR
                .replace("${sidecar}", name)
                .replace("${version}", version)
                .replace("${arguments}", &arguments)
        };
        SIDECARS.iter().map(container).collect()
    }
}

/// A text's lines, moved to the right.
fn indented(by: usize, text: &str) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    pub(crate) fn installation() -> Installation {
        let appliance = |id: &str, pools: &[&str]| Appliance {
            id: id.to_owned(),
            url: format!("https://{id}.example:8443"),
            token: "cistern_secret".to_owned(),
            fingerprint: "0f".repeat(32),
            nfs: (id == "rack-2").then(|| "10.0.0.5".to_owned()),
            zone: (id == "rack-2").then(|| "b".to_owned()),
            pools: pools.iter().map(|name| name.parse().unwrap()).collect(),
        };
        Installation {
            namespace: "storage".to_owned(),
            image: "cistern-csi:9".to_owned(),
            sidecars: "registry.example/sidecars".to_owned(),
            kubelet: "/var/lib/kubelet".to_owned(),
            appliances: vec![appliance("rack-1", &["tank", "fast"]), appliance("rack-2", &["tank"])],
            group_snapshots: true,
            zones: false,
            give_up_after: None,
            monitoring: None,
        }
    }

    pub(crate) fn objects(text: &str) -> Vec<Value> {
        let documents = text.split("\n---\n");
        documents.map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    }

    #[test]
    fn every_document_is_an_object_with_all_its_words_put_in() {
        let text = installation().text().unwrap();
        assert!(!text.contains("${"), "{text}");
        let objects = objects(&text);
        let names: Vec<String> = objects
            .iter()
            .map(|o| {
                format!(
                    "{} {}",
                    o["kind"].as_str().unwrap(),
                    o["metadata"]["name"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                "Namespace storage",
                "CSIDriver csi.cistern.storage",
                "ServiceAccount cistern-csi-controller",
                "ServiceAccount cistern-csi-node",
                "ClusterRole cistern-csi-controller",
                "ClusterRoleBinding cistern-csi-controller",
                "Role cistern-csi-controller",
                "RoleBinding cistern-csi-controller",
                "Secret cistern-appliances",
                "Deployment cistern-csi-controller",
                "DaemonSet cistern-csi-node",
                "StorageClass cistern-rack-1-tank",
                "StorageClass cistern-rack-1-fast",
                "StorageClass cistern-rack-2-tank",
                "VolumeSnapshotClass cistern",
                "VolumeGroupSnapshotClass cistern",
            ]
        );
        let deployment = &objects[9];
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let images: Vec<&str> = containers.iter().map(|c| c["image"].as_str().unwrap()).collect();
        assert_eq!(
            images[..2],
            ["cistern-csi:9", "registry.example/sidecars/csi-provisioner:v6.3.0"]
        );
        assert_eq!(images.len(), 1 + SIDECARS.len());
        assert!(containers[4]["args"].as_array().unwrap().contains(&Value::from(GROUPS)));
        let attacher = containers[2]["args"].as_array().unwrap();
        assert!(attacher.contains(&Value::from("--max-entries=1000")), "{attacher:?}");
        let entry = objects[8]["stringData"]["rack-2.toml"].as_str().unwrap();
        assert!(
            entry.contains("nfs = \"10.0.0.5\"") && entry.contains("token = \"cistern_secret\""),
            "{entry}"
        );
        assert!(
            !objects[8]["stringData"]["rack-1.toml"]
                .as_str()
                .unwrap()
                .contains("nfs")
        );
    }

    /// What the pods of this object are.
    fn pods<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        let found = objects.iter().find(|object| object["kind"] == kind);
        &found.unwrap()["spec"]["template"]["spec"]
    }

    #[test]
    fn the_plugin_s_pods_go_to_nodes_with_linux() {
        let objects = objects(&installation().text().unwrap());
        for kind in ["Deployment", "DaemonSet"] {
            let selected = &pods(&objects, kind)["nodeSelector"];
            assert_eq!(*selected, serde_json::json!({"kubernetes.io/os": "linux"}), "{kind}");
        }
    }

    #[test]
    fn a_node_gives_appliances_up_only_where_that_was_said() {
        assert!(!installation().text().unwrap().contains("give-up"));
        let patient = Installation {
            give_up_after: NonZeroU32::new(30),
            ..installation()
        };
        let text = patient.text().unwrap();
        assert_eq!(
            text.matches("give-up").count(),
            1,
            "only the nodes' part has it: {text}"
        );
        let objects = objects(&text);
        let arguments = pods(&objects, "DaemonSet")["containers"][0]["args"].as_array().unwrap();
        assert!(arguments.contains(&Value::from("--give-up-after=30")), "{arguments:?}");
    }

    #[test]
    fn one_appliance_gives_its_classes_no_name_of_its_own() {
        let mut one = installation();
        one.appliances.truncate(1);
        assert!(one.text().unwrap().contains("\n  name: \"cistern-tank\"\n"));
    }

    #[test]
    fn where_there_are_zones_a_class_waits_for_its_pod_s_node_and_each_node_says_where_it_is() {
        let without = installation().text().unwrap();
        assert!(
            !without.contains("zone") && !without.contains("--strict-topology"),
            "{without}"
        );
        let with = Installation {
            zones: true,
            ..installation()
        };
        let text = with.text().unwrap();
        assert!(!text.contains("${"), "{text}");
        let objects = objects(&text);
        let of = |kind: &str, name: &str| {
            let found = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
            objects.iter().find(found).unwrap()
        };
        let anywhere = of("StorageClass", "cistern-rack-1-tank");
        assert_eq!(anywhere["volumeBindingMode"], "Immediate");
        assert!(anywhere["allowedTopologies"].is_null());
        let zoned = of("StorageClass", "cistern-rack-2-tank");
        assert_eq!(zoned["volumeBindingMode"], "WaitForFirstConsumer");
        let wanted = &zoned["allowedTopologies"][0]["matchLabelExpressions"][0];
        assert_eq!(
            (&wanted["key"], &wanted["values"][0]),
            (&Value::from("topology.kubernetes.io/zone"), &Value::from("b"))
        );
        let secret = &of("Secret", "cistern-appliances")["stringData"];
        assert!(secret["rack-2.toml"].as_str().unwrap().contains("\nzone = \"b\"\n"));
        assert!(!secret["rack-1.toml"].as_str().unwrap().contains("zone"));
        for (kind, name) in [
            ("Deployment", "cistern-csi-controller"),
            ("DaemonSet", "cistern-csi-node"),
        ] {
            let pod = &of(kind, name)["spec"]["template"]["spec"];
            let arguments = pod["containers"][0]["args"].as_array().unwrap();
            assert!(arguments.contains(&Value::from("--zones")), "{kind}");
        }
        // A node's plugin asks for its Node, and may ask for nothing else.
        assert_eq!(
            of("ServiceAccount", "cistern-csi-node")["automountServiceAccountToken"],
            true
        );
        let node = &of("DaemonSet", "cistern-csi-node")["spec"]["template"]["spec"];
        assert_eq!(node["automountServiceAccountToken"], true);
        let rules = serde_json::json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
        assert_eq!(of("ClusterRole", "cistern-csi-node")["rules"], rules);
    }

    #[test]
    fn with_monitoring_grafana_and_prometheus_find_what_is_theirs() {
        let with = Installation {
            monitoring: Some("metrics".to_owned()),
            ..installation()
        };
        let text = with.text().unwrap();
        assert!(!text.contains("${"), "{text}");
        let objects = objects(&text);
        let [.., map, rule] = objects.as_slice() else {
            panic!("{text}")
        };
        assert_eq!(map["kind"], "ConfigMap");
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let shown: Value = serde_json::from_str(map["data"]["cistern.json"].as_str().unwrap()).unwrap();
        assert_eq!(shown, dashboard());
        assert_eq!(
            (&rule["kind"], &rule["metadata"]["labels"]["release"]),
            (&"PrometheusRule".into(), &"metrics".into())
        );
        let told: Value = serde_saphyr::from_str(&rules()).unwrap();
        assert_eq!(rule["spec"], told);
    }

    #[test]
    fn a_word_that_would_break_out_of_its_place_is_refused_by_name() {
        let refused = |change: fn(&mut Installation)| {
            let mut installation = installation();
            change(&mut installation);
            installation.text().unwrap_err().to_string()
        };
        assert!(refused(|i| i.namespace = "Storage".to_owned()).contains("namespace"));
        assert!(refused(|i| i.image = "a\nb: c".to_owned()).contains("image"));
        assert!(refused(|i| i.kubelet = String::new()).contains("kubelet"));
        assert!(refused(|i| i.appliances[0].id = "a/b".to_owned()).contains("id"));
        assert!(refused(|i| i.appliances[0].url = "https://a\" #".to_owned()).contains("URL"));
        assert!(refused(|i| i.appliances[1].zone = Some("b\n".to_owned())).contains("zone"));
        assert!(refused(|i| i.monitoring = Some("a b".to_owned())).contains("release"));
        let token = refused(|i| i.appliances[0].token = "secret\n".to_owned());
        assert!(token.contains("token") && !token.contains("secret\n"), "{token}");
    }

    #[test]
    fn the_sidecars_are_of_the_versions_that_tests_run_against() {
        let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/peers");
        let pinned = ["kubernetes", "sidecars"].map(|peer| {
            let path = format!("{peers}/{peer}/go.mod");
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
        let pinned = pinned.concat();
        for (sidecar, version, _) in SIDECARS {
            let module = sidecar.replacen("csi-", "github.com/kubernetes-csi/external-", 1);
            // As in `MODULE/v8 v8.7.0 // indirect`. What a module has below that is another one.
            let versions: Vec<&str> = pinned
                .lines()
                .filter_map(|line| {
                    let mut words = line.split_whitespace();
                    let major = words.next()?.strip_prefix(module.as_str())?.strip_prefix('/')?;
                    words.next().filter(|_| !major.contains('/'))
                })
                .collect();
            assert_eq!(versions, [*version], "{sidecar}");
        }
    }
}
