//! How the plugin is installed: the driver, the controller, the nodes and the classes. The Secret's entries are `registry`'s.

use cistern_model::{Pool, quoted};
use jiff::SignedDuration;

use super::cluster::{Class, Driver, Lease};
use super::finding::{Code, Finding};
use super::{Appliance, DRIVER, Looked, ZONE};

/// How old a lease may be: a leader renews it each few seconds, and clocks differ a little.
const SILENT: SignedDuration = SignedDuration::from_mins(2);
/// The sidecars, their leases, and what waits without them.
const LEADERS: &[(&str, &str, &str)] = &[
    ("csi-provisioner", "csi-cistern-storage", "no volume is made or deleted"),
    (
        "csi-attacher",
        "external-attacher-leader-csi-cistern-storage",
        "no volume is given to a node or taken from one",
    ),
    (
        "csi-resizer",
        "external-resizer-csi-cistern-storage",
        "no volume grows or is modified",
    ),
    (
        "csi-snapshotter",
        "external-snapshotter-leader-csi-cistern-storage",
        "no snapshot is made or deleted",
    ),
];
/// The CSIDriver as templates/csidriver.yaml has it, to be applied alone: with what is printed as a whole, options that an installation was
/// printed with would be lost.
pub(super) const DRIVER_OBJECT: &str = r#"{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"csi.cistern.storage"},"spec":{"attachRequired":true,"podInfoOnMount":false,"fsGroupPolicy":"File","storageCapacity":true,"seLinuxMount":true,"volumeLifecycleModes":["Persistent"]}}"#;
/// Why a container waits that will not come right by itself.
const WAITING: &[&str] = &[
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];

pub(super) fn look(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    driver(looked, findings);
    controller(looked, findings);
    pods(looked, findings);
    nodes(looked, findings);
    for class in looked.cluster().classes.iter().flatten() {
        if class.provisioner == DRIVER {
            findings.extend(class_finding(looked, class));
        }
    }
}

fn driver(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    let Some(drivers) = &looked.cluster().drivers else {
        return;
    };
    let object = format!("CSIDriver {DRIVER}");
    let apply = format!("echo '{DRIVER_OBJECT}' | kubectl apply -f -");
    let Some(driver) = drivers.iter().find(|driver| driver.metadata.name == DRIVER) else {
        let cure = "Apply it alone; the rest of the installation stays as it is.";
        findings.push(Finding::new(Code::DriverMissing, object, "it is not there".to_owned(), cure).run(apply));
        return;
    };
    let differs = differences(driver);
    if !differs.is_empty() {
        findings.push(
            Finding::new(
                Code::DriverDiffers,
                object,
                differs.join("; "),
                "Delete it and apply it as it is printed, alone: most of it cannot be changed. Volumes that are mounted stay mounted.",
            )
            .run(format!("kubectl delete csidriver {DRIVER}"))
            .run(apply),
        );
    }
}

/// What of a CSIDriver is not as it is printed (templates/csidriver.yaml).
pub(super) fn differences(driver: &Driver) -> Vec<String> {
    let spec = &driver.spec;
    let flag = |value: Option<bool>, usual: bool| value.unwrap_or(usual);
    let mut differs = Vec::new();
    let mut compare = |name: &str, is: String, printed: &str| {
        if is != printed {
            differs.push(format!("{name} is {is}, printed is {printed}"));
        }
    };
    compare("attachRequired", flag(spec.attach_required, true).to_string(), "true");
    compare(
        "podInfoOnMount",
        flag(spec.pod_info_on_mount, false).to_string(),
        "false",
    );
    compare(
        "fsGroupPolicy",
        spec.fs_group_policy
            .clone()
            .unwrap_or_else(|| "ReadWriteOnceWithFSType".to_owned()),
        "File",
    );
    compare(
        "storageCapacity",
        flag(spec.storage_capacity, false).to_string(),
        "true",
    );
    let modes = match spec.volume_lifecycle_modes.as_slice() {
        [] => "Persistent".to_owned(),
        modes => modes.join(","),
    };
    compare("volumeLifecycleModes", modes, "Persistent");
    differs
}

fn controller(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    let Some(leases) = &looked.cluster().leases else { return };
    for (sidecar, name, waits) in LEADERS {
        // Without its CRDs it has nothing to do.
        if *sidecar == "csi-snapshotter" && looked.cluster().contents.is_none() {
            continue;
        }
        let lease = leases.iter().find(|lease| lease.metadata.name == *name);
        let Some(message) = silence(looked, lease) else {
            continue;
        };
        let namespace = quoted(lease.map_or(&looked.seen.namespace, |lease| &lease.metadata.namespace));
        findings.push(
            Finding::new(
                Code::ControllerSilent,
                format!("sidecar {sidecar}"),
                format!("{message}: {waits}"),
                "Look at the controller's pods: whether they run, and what this container says.",
            )
            .run(format!(
                "kubectl get pods -n {namespace} -l app.kubernetes.io/component=controller"
            ))
            .run(format!(
                "kubectl logs -n {namespace} deployment/cistern-csi-controller -c {sidecar} --tail=50"
            )),
        );
    }
}

fn silence(looked: &Looked<'_>, lease: Option<&Lease>) -> Option<String> {
    let Some(lease) = lease else {
        return Some("it never led".to_owned());
    };
    let renewed = lease.spec.renew_time?;
    let age = looked.seen.now?.duration_since(renewed);
    let holder = lease
        .spec
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty());
    (age > SILENT).then(|| {
        format!(
            "{} was heard of last {} s ago",
            holder.unwrap_or("its leader"),
            age.as_secs()
        )
    })
}

fn pods(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    let ours = looked.cluster().pods.iter().flatten().filter(|pod| {
        let name = pod.metadata.labels.get("app.kubernetes.io/name");
        name.is_some_and(|name| name == "cistern-csi")
    });
    for pod in ours {
        let waiting = pod.status.container_statuses.iter().filter_map(|container| {
            let waiting = container.state.waiting.as_ref()?;
            WAITING
                .contains(&waiting.reason.as_str())
                .then(|| format!("{} waits: {} {}", container.name, waiting.reason, waiting.message))
        });
        let waiting: Vec<String> = waiting.map(|text| text.trim_end().to_owned()).collect();
        if waiting.is_empty() {
            continue;
        }
        let place = match pod.spec.node_name.as_str() {
            "" => String::new(),
            node => format!(" on node {node}"),
        };
        findings.push(
            Finding::new(
                Code::PluginWaits,
                format!("pod {}{place}", pod.metadata.path()),
                waiting.join("; "),
                "An image that cannot be pulled: put it where the node's runtime finds it, or print the manifests with --image and \
                 --sidecars, and with all else that they were printed with. Else see what it says.",
            )
            .run(format!("kubectl describe pod {}", pod.metadata.argument())),
        );
    }
}

fn nodes(looked: &Looked<'_>, findings: &mut Vec<Finding>) {
    let (Some(nodes), Some(csi_nodes)) = (&looked.cluster().nodes, &looked.cluster().csi_nodes) else {
        return;
    };
    let classes = looked.cluster().classes.iter().flatten();
    let has_zones = classes
        .filter(|class| class.provisioner == DRIVER)
        .any(Class::has_zones);
    for node in nodes {
        let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
        // No DaemonSet of Linux' runs there.
        if label("kubernetes.io/os").is_some_and(|os| os != "linux") || label("type") == Some("virtual-kubelet") {
            continue;
        }
        let name = &node.metadata.name;
        let on_it = format!("spec.nodeName={name}");
        let csi_node = csi_nodes.iter().find(|csi_node| csi_node.metadata.name == *name);
        let driver = csi_node.and_then(|csi_node| csi_node.spec.drivers.iter().find(|driver| driver.name == DRIVER));
        let Some(driver) = driver else {
            findings.push(
                Finding::new(
                    Code::NodeWithoutPlugin,
                    format!("node {name}"),
                    "its kubelet does not know the driver".to_owned(),
                    "See whether the DaemonSet's pod runs there: taints, a nodeSelector of your own, an image that is not there.",
                )
                .run(format!(
                    "kubectl get pods -A -l app.kubernetes.io/component=node --field-selector {} -o wide",
                    quoted(&on_it)
                )),
            );
            continue;
        };
        let zone = label(ZONE).filter(|zone| has_zones && !zone.is_empty());
        let is_told = driver.topology_keys.iter().any(|key| key == ZONE);
        if let Some(zone) = zone.filter(|_| !is_told) {
            findings.push(
                Finding::new(
                    Code::NodeZoneUnknown,
                    format!("node {name}"),
                    format!("it is labelled as of zone {zone}, and its kubelet was not told so when it got to know the plugin"),
                    "A plugin that was started with --zones sees to that within a minute of the label. If it does not, delete its pod \
                     there: it is started anew, and the kubelet asks.",
                )
                .run(format!(
                    "kubectl delete pods -A -l app.kubernetes.io/name=cistern-csi,app.kubernetes.io/component=node \
                     --field-selector {}",
                    quoted(&on_it)
                )),
            );
        }
    }
}

/// A class that leads nowhere.
fn class_finding(looked: &Looked<'_>, class: &Class) -> Option<Finding> {
    let object = format!("StorageClass {}", class.metadata.name);
    let delete = format!("kubectl delete storageclass {}", class.metadata.argument());
    let endpoint = class.parameters.get("endpoint").map(|text| text.trim());
    let meant: Vec<&Appliance> = match endpoint {
        None => looked.seen.appliances.iter().collect(),
        Some(endpoint) => {
            let plain = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
            let by_url = |a: &Appliance| {
                a.entry
                    .as_ref()
                    .is_some_and(|entry| plain(&entry.url) == plain(endpoint))
            };
            let found = looked.seen.appliances.iter().find(|a| a.id == endpoint || by_url(a));
            let registered = looked.cluster().registered.as_ref()?;
            match found.filter(|found| registered.contains(&found.id)) {
                Some(found) => vec![found],
                None => {
                    let known: Vec<&str> = registered.iter().map(String::as_str).collect();
                    return Some(
                        Finding::new(
                            Code::ClassWithoutAppliance,
                            object,
                            format!(
                                "its endpoint is {endpoint:?}, and the Secret cistern-appliances has entries for {}",
                                known.join(", ")
                            ),
                            "A class cannot be changed: delete it and make it anew with an endpoint that there is. Volumes that were \
                             made of it stay.",
                        )
                        .run(delete),
                    );
                }
            }
        }
    };
    let pool = class.parameters.get("pool")?;
    // What was not seen may have it.
    let pools = meant
        .iter()
        .map(|appliance| appliance.holdings.as_ref().ok().filter(|_| appliance.shows_all()));
    let pools: Option<Vec<&Pool>> = pools
        .map(|held| Some(&held?.pools))
        .collect::<Option<Vec<_>>>()
        .map(|all| all.into_iter().flatten().collect());
    let pools = pools.filter(|_| !meant.is_empty())?;
    if pools.iter().any(|there| there.name.as_str() == pool) {
        return None;
    }
    let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    Some(
        Finding::new(
            Code::ClassWithoutPool,
            object,
            format!("its pool is {pool:?}, and there are {}", known.join(", ")),
            "A class cannot be changed: delete it and make it anew with a pool that there is. Volumes that were made of it stay.",
        )
        .run(delete),
    )
}
