//! A cluster as `kubectl get -o json` tells it: of each object what is looked at here, and no more.
//!
//! Types of our own rather than a library's of all of Kubernetes' API: a field more or less in another version of it changes nothing
//! here, and what is not looked at is not kept.

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::quoted;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{DRIVER, ZONE};

/// What of a cluster was seen.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub(super) volumes: Vec<PersistentVolume>,
    pub(super) claims: Vec<Claim>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) nodes: Option<Vec<Node>>,
    pub(super) csi_nodes: Option<Vec<CsiNode>>,
    pub(super) drivers: Option<Vec<Driver>>,
    pub(super) classes: Option<Vec<Class>>,
    pub(super) snapshots: Option<Vec<Snapshot>>,
    pub(super) contents: Option<Vec<Content>>,
    pub(super) groups: Option<Vec<Group>>,
    pub(super) group_contents: Option<Vec<GroupContent>>,
    pub(super) pods: Option<Vec<Pod>>,
    pub(super) events: Option<Vec<Event>>,
    pub(super) leases: Option<Vec<Lease>>,
    /// The ids that the plugin's Secret has entries for; none if it could not be read.
    pub(super) registered: Option<BTreeSet<String>>,
}

/// A kind of object that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is a kind of Kubernetes'")]
pub enum Kind {
    PersistentVolume,
    PersistentVolumeClaim,
    VolumeAttachment,
    Node,
    CSINode,
    CSIDriver,
    StorageClass,
    VolumeSnapshot,
    VolumeSnapshotContent,
    VolumeGroupSnapshot,
    VolumeGroupSnapshotContent,
    Pod,
    Event,
    Lease,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::PersistentVolume,
        Kind::PersistentVolumeClaim,
        Kind::VolumeAttachment,
        Kind::Node,
        Kind::CSINode,
        Kind::CSIDriver,
        Kind::StorageClass,
        Kind::VolumeSnapshot,
        Kind::VolumeSnapshotContent,
        Kind::VolumeGroupSnapshot,
        Kind::VolumeGroupSnapshotContent,
        Kind::Pod,
        Kind::Event,
        Kind::Lease,
    ];

    /// What `kubectl get` calls it.
    pub const fn resource(self) -> &'static str {
        match self {
            Kind::PersistentVolume => "persistentvolumes",
            Kind::PersistentVolumeClaim => "persistentvolumeclaims",
            Kind::VolumeAttachment => "volumeattachments.storage.k8s.io",
            Kind::Node => "nodes",
            Kind::CSINode => "csinodes.storage.k8s.io",
            Kind::CSIDriver => "csidrivers.storage.k8s.io",
            Kind::StorageClass => "storageclasses.storage.k8s.io",
            Kind::VolumeSnapshot => "volumesnapshots.snapshot.storage.k8s.io",
            Kind::VolumeSnapshotContent => "volumesnapshotcontents.snapshot.storage.k8s.io",
            Kind::VolumeGroupSnapshot => "volumegroupsnapshots.groupsnapshot.storage.k8s.io",
            Kind::VolumeGroupSnapshotContent => "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io",
            Kind::Pod => "pods",
            Kind::Event => "events",
            Kind::Lease => "leases.coordination.k8s.io",
        }
    }

    /// Whether nothing can be said without it.
    pub const fn is_needed(self) -> bool {
        matches!(
            self,
            Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::VolumeAttachment
        )
    }

    /// Whether a cluster may well have no such kind, and lacks nothing.
    pub const fn is_extra(self) -> bool {
        matches!(self, Kind::VolumeGroupSnapshot | Kind::VolumeGroupSnapshotContent)
    }
}

/// Text that is no list of objects.
#[derive(Debug, thiserror::Error)]
#[error("it is not what `kubectl get -o json` prints: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

impl Cluster {
    /// Notes that this kind was asked for: what is not there then is not there.
    pub fn asked(&mut self, kind: Kind) {
        match kind {
            Kind::PersistentVolume | Kind::PersistentVolumeClaim | Kind::VolumeAttachment => {}
            Kind::Node => drop(self.nodes.get_or_insert_default()),
            Kind::CSINode => drop(self.csi_nodes.get_or_insert_default()),
            Kind::CSIDriver => drop(self.drivers.get_or_insert_default()),
            Kind::StorageClass => drop(self.classes.get_or_insert_default()),
            Kind::VolumeSnapshot => drop(self.snapshots.get_or_insert_default()),
            Kind::VolumeSnapshotContent => drop(self.contents.get_or_insert_default()),
            Kind::VolumeGroupSnapshot => drop(self.groups.get_or_insert_default()),
            Kind::VolumeGroupSnapshotContent => drop(self.group_contents.get_or_insert_default()),
            Kind::Pod => drop(self.pods.get_or_insert_default()),
            Kind::Event => drop(self.events.get_or_insert_default()),
            Kind::Lease => drop(self.leases.get_or_insert_default()),
        }
    }

    /// Takes up a list of objects, or one; those of other kinds are passed over.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn add(&mut self, text: &str) -> Result<(), Unreadable> {
        let mut value: Value = serde_json::from_str(text)?;
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(_) | None => vec![value],
        };
        for item in items {
            let kind = item["kind"].as_str().unwrap_or_default().to_owned();
            match kind.as_str() {
                "PersistentVolume" => self.volumes.push(read(item)?),
                "PersistentVolumeClaim" => self.claims.push(read(item)?),
                "VolumeAttachment" => self.attachments.push(read(item)?),
                "Node" => keep(&mut self.nodes, item)?,
                "CSINode" => keep(&mut self.csi_nodes, item)?,
                "CSIDriver" => keep(&mut self.drivers, item)?,
                "StorageClass" => keep(&mut self.classes, item)?,
                "VolumeSnapshot" => keep(&mut self.snapshots, item)?,
                "VolumeSnapshotContent" => keep(&mut self.contents, item)?,
                "VolumeGroupSnapshot" => keep(&mut self.groups, item)?,
                "VolumeGroupSnapshotContent" => keep(&mut self.group_contents, item)?,
                "Pod" => keep(&mut self.pods, item)?,
                "Event" => keep(&mut self.events, item)?,
                "Lease" => keep(&mut self.leases, item)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes what the plugin's Secret has entries for.
    pub fn set_registered(&mut self, ids: BTreeSet<String>) {
        self.registered = Some(ids);
    }

    /// The appliances that classes name, as far as they name them by their ids.
    pub fn endpoints(&self) -> BTreeSet<String> {
        let classes = self
            .classes
            .iter()
            .flatten()
            .filter(|class| class.provisioner == DRIVER);
        let endpoints = classes.filter_map(|class| class.parameters.get("endpoint"));
        endpoints
            .filter(|endpoint| !endpoint.contains("://"))
            .cloned()
            .collect()
    }

    /// The appliances that are named anywhere but in classes, by their ids.
    pub fn appliances(&self) -> BTreeSet<String> {
        let volumes = self.volumes.iter().filter_map(|pv| pv.spec.csi.as_ref());
        let volumes = volumes
            .filter(|csi| csi.driver == DRIVER)
            .map(|csi| csi.volume_handle.as_str());
        let contents = self
            .contents
            .iter()
            .flatten()
            .filter(|content| content.spec.driver == DRIVER);
        let handles = volumes.chain(contents.filter_map(Content::handle));
        let ids = handles.filter_map(|handle| Some(handle.split_once(':')?.0.to_owned()));
        ids.chain(self.registered.iter().flatten().cloned()).collect()
    }
}

/// Reads an object as if what is null in it were not there: so Go writes a list without items, as a CSINode's drivers are where its
/// kubelet knows none.
fn read<T: DeserializeOwned>(mut item: Value) -> Result<T, Unreadable> {
    drop_nulls(&mut item);
    Ok(serde_json::from_value(item)?)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn keep<T: DeserializeOwned>(list: &mut Option<Vec<T>>, item: Value) -> Result<(), Unreadable> {
    list.get_or_insert_default().push(read(item)?);
    Ok(())
}

/// Declares what is read of an object; whatever is not there is empty.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Default, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub(super) struct $name { $(pub(super) $field: $type,)* }
        )*
    };
}

objects! {
    Meta {
        name: String,
        namespace: String,
        uid: String,
        annotations: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        finalizers: Vec<String>,
        creation_timestamp: Option<Timestamp>,
        deletion_timestamp: Option<Timestamp>,
    }
    Reference { kind: String, namespace: String, name: String, uid: String, }

    PersistentVolume { metadata: Meta, spec: VolumeSpec, status: VolumeStatus, }
    VolumeSpec {
        capacity: Resources,
        csi: Option<CsiSource>,
        nfs: Option<NfsSource>,
        claim_ref: Option<Reference>,
        persistent_volume_reclaim_policy: String,
    }
    VolumeStatus { phase: String, message: String, last_phase_transition_time: Option<Timestamp>, }
    CsiSource { driver: String, volume_handle: String, }
    NfsSource { server: String, path: String, }
    Resources { storage: String, }

    Claim { metadata: Meta, spec: ClaimSpec, status: ClaimStatus, }
    ClaimSpec {
        storage_class_name: Option<String>,
        volume_attributes_class_name: Option<String>,
        volume_name: String,
        resources: Requests,
    }
    Requests { requests: Resources, }
    ClaimStatus {
        phase: String,
        capacity: Resources,
        conditions: Vec<Condition>,
        allocated_resource_statuses: BTreeMap<String, String>,
        modify_volume_status: Option<ModifyStatus>,
    }
    ModifyStatus { status: String, target_volume_attributes_class_name: String, }

    Attachment { metadata: Meta, spec: AttachmentSpec, status: AttachmentStatus, }
    AttachmentSpec { attacher: String, node_name: String, source: AttachmentSource, }
    AttachmentSource { persistent_volume_name: Option<String>, }
    AttachmentStatus { attached: bool, attach_error: Option<Failure>, detach_error: Option<Failure>, }
    Failure { message: String, }

    Node { metadata: Meta, status: NodeStatus, }
    NodeStatus { addresses: Vec<NodeAddress>, }

    CsiNode { metadata: Meta, spec: CsiNodeSpec, }
    CsiNodeSpec { drivers: Vec<CsiNodeDriver>, }
    CsiNodeDriver { name: String, topology_keys: Vec<String>, }

    Driver { metadata: Meta, spec: DriverSpec, }
    DriverSpec {
        attach_required: Option<bool>,
        pod_info_on_mount: Option<bool>,
        fs_group_policy: Option<String>,
        storage_capacity: Option<bool>,
        volume_lifecycle_modes: Vec<String>,
    }

    Class {
        metadata: Meta,
        provisioner: String,
        parameters: BTreeMap<String, String>,
        volume_binding_mode: String,
        allowed_topologies: Vec<Topology>,
    }
    Topology { match_label_expressions: Vec<TopologyExpression>, }
    TopologyExpression { key: String, }

    Snapshot { metadata: Meta, spec: SnapshotSpec, status: SnapshotStatus, }
    SnapshotSpec { source: SnapshotSource, }
    SnapshotSource { persistent_volume_claim_name: Option<String>, }
    SnapshotStatus { bound_volume_snapshot_content_name: String, ready_to_use: Option<bool>, error: Option<Failure>, }

    Content { metadata: Meta, spec: ContentSpec, status: ContentStatus, }
    ContentSpec { driver: String, deletion_policy: String, source: ContentSource, volume_snapshot_ref: Reference, }
    ContentSource { snapshot_handle: Option<String>, }
    ContentStatus { snapshot_handle: Option<String>, ready_to_use: Option<bool>, error: Option<Failure>, }

    Group { metadata: Meta, spec: GroupSpec, status: GroupStatus, }
    GroupSpec { source: GroupSource, }
    GroupSource { selector: Option<Selector>, }
    Selector { match_labels: BTreeMap<String, String>, }
    GroupStatus {
        bound_volume_group_snapshot_content_name: String,
        ready_to_use: Option<bool>,
        error: Option<Failure>,
    }

    GroupContent { metadata: Meta, spec: GroupContentSpec, status: GroupContentStatus, }
    GroupContentSpec { driver: String, volume_group_snapshot_ref: Reference, }
    GroupContentStatus { ready_to_use: Option<bool>, error: Option<Failure>, }

    Pod { metadata: Meta, spec: PodSpec, status: PodStatus, }
    PodSpec { node_name: String, volumes: Vec<PodVolume>, }
    PodVolume { persistent_volume_claim: Option<PodClaim>, }
    PodClaim { claim_name: String, }
    PodStatus { phase: String, container_statuses: Vec<ContainerStatus>, }
    ContainerStatus { name: String, state: ContainerState, }
    ContainerState { waiting: Option<Waiting>, }
    Waiting { reason: String, message: String, }

    Lease { metadata: Meta, spec: LeaseSpec, }
    LeaseSpec { holder_identity: Option<String>, renew_time: Option<Timestamp>, lease_duration_seconds: Option<i64>, }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) address: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) status: String,
    pub(super) message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) involved_object: Reference,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
}

impl Event {
    /// When it was last given.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.last_timestamp.max(self.event_time)
    }
}

impl Class {
    /// Whether its volumes are for the nodes of certain zones.
    pub(super) fn has_zones(&self) -> bool {
        let mut expressions = self
            .allowed_topologies
            .iter()
            .flat_map(|one| &one.match_label_expressions);
        expressions.any(|expression| expression.key == ZONE)
    }
}

impl PersistentVolume {
    /// Whether it was made for a claim by this driver.
    pub(super) fn is_provisioned(&self) -> bool {
        self.metadata
            .annotations
            .get("pv.kubernetes.io/provisioned-by")
            .is_some_and(|by| by == DRIVER)
    }
}

impl Content {
    /// What it names on the appliance.
    pub(super) fn handle(&self) -> Option<&str> {
        let named = self.status.snapshot_handle.as_deref();
        named.or(self.spec.source.snapshot_handle.as_deref())
    }
}

impl Meta {
    /// `NAMESPACE/NAME`, or the name where there is no namespace.
    pub(super) fn path(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }

    /// What `kubectl` is told to mean it.
    pub(super) fn argument(&self) -> String {
        argument(&self.namespace, &self.name)
    }
}

impl Reference {
    /// What `kubectl` is told to mean it.
    pub(super) fn argument(&self) -> String {
        argument(&self.namespace, &self.name)
    }
}

/// As words of a command. A reference may hold any text, and a file whatever somebody wrote into it.
fn argument(namespace: &str, name: &str) -> String {
    match namespace {
        "" => quoted(name).into_owned(),
        namespace => format!("{} -n {}", quoted(name), quoted(namespace)),
    }
}
