//! What a finding is, and the kinds that there are.

use cistern_model::{ErrorKind, Severity};
use serde::Serialize;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub code: Code,
    /// How serious.
    pub severity: Severity,
    /// The object, as its side names it.
    pub object: String,
    /// What was found.
    pub message: String,
    /// What it means for whoever uses volumes.
    pub meaning: &'static str,
    /// What to do.
    pub cure: String,
    /// The commands for that, where there are any.
    pub commands: Vec<String>,
}

/// Declares the kinds of findings: name, severity, the kind of error that `cistern` ends with, and what it means.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident, $name:literal, $severity:ident, $kind:ident, $meaning:literal;)*) => {
        /// What kind of finding. The names are stable; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$code => $name,)* }
            }

            /// How serious.
            pub const fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// What kind of error it is like.
            pub const fn kind(self) -> ErrorKind {
                match self { $(Code::$code => ErrorKind::$kind,)* }
            }

            /// What it means for whoever uses volumes.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$code => $meaning,)* }
            }
        }
    };
}

codes! {
    // How the plugin is installed.
    /// There is no CSIDriver.
    DriverMissing, "driver-missing", Error, NotFound,
        "Kubernetes does not know the driver: nothing is attached, and nodes may mount without being let in.";
    /// The CSIDriver says something else than what is printed.
    DriverDiffers, "driver-differs", Warning, Conflict,
        "Kubernetes treats volumes otherwise than the plugin was tested with.";
    /// A sidecar of the controller does not lead.
    ControllerSilent, "controller-silent", Error, Unavailable,
        "What this part of the controller does is not done: claims, attachments or snapshots wait.";
    /// A pod of the plugin cannot start.
    PluginWaits, "plugin-waits", Error, Unavailable,
        "The plugin does not run there.";
    /// A node without the plugin.
    NodeWithoutPlugin, "node-without-plugin", Warning, Unavailable,
        "Pods with volumes of this driver are not started on that node.";
    /// A node's kubelet was not told of its zone.
    NodeZoneUnknown, "node-zone-unknown", Warning, Unavailable,
        "Pods are put on that node whose volumes are to be made in its zone, and are not: such claims stay pending.";
    /// The Secret names no such appliance.
    ApplianceUnregistered, "appliance-unregistered", Error, NotFound,
        "The plugin cannot reach the appliance: its volumes are neither attached nor deleted.";
    /// The token in the Secret is refused.
    TokenRefused, "token-refused", Error, Unauthenticated,
        "The plugin can do nothing on the appliance. Volumes that are mounted are served on.";
    /// The Secret has another certificate.
    CertificateDiffers, "certificate-differs", Error, Unauthenticated,
        "The plugin takes the appliance for a stranger and asks it for nothing.";
    /// A class names an appliance that there is not.
    ClassWithoutAppliance, "class-without-appliance", Error, NotFound,
        "Claims of this class are refused.";
    /// A class names a pool that there is not.
    ClassWithoutPool, "class-without-pool", Error, NotFound,
        "Claims of this class are refused.";
    // What the appliances are like.
    /// An appliance was not looked at.
    ApplianceNotSeen, "appliance-not-seen", Warning, Unavailable,
        "Whether its volumes are as the cluster thinks is not known.";
    /// A pool is not served.
    PoolNotServed, "pool-not-served", Error, Unavailable,
        "Whoever has a volume of this pool mounted waits.";
    /// A pool lacks disks.
    PoolDegraded, "pool-degraded", Warning, Unavailable,
        "It is served, with fewer copies of its data than it should have.";
    /// A pool is almost full of written data.
    PoolFull, "pool-full", Error, NoSpace,
        "When nothing is left, writes to its volumes fail.";
    /// A pool has no room for claims.
    PoolWithoutRoom, "pool-without-room", Warning, NoSpace,
        "New claims and larger ones are refused; what there is goes on.";
    /// A volume is not served.
    VolumeNotServed, "volume-not-served", Error, Unavailable,
        "Pods that use it wait, and new ones do not start.";
    // Volumes.
    /// A PersistentVolume names something that is no id.
    HandleInvalid, "handle-invalid", Error, Invalid,
        "No node can mount it.";
    /// A PersistentVolume names a volume that there is not.
    VolumeGone, "volume-gone", Error, NotFound,
        "What was in it is not on the appliance any more; pods that use it get errors (ESTALE) or do not start.";
    /// A PersistentVolume names a volume in the trash.
    VolumeInTrash, "volume-in-trash", Error, NotFound,
        "It was deleted behind the cluster's back. Until it is purged it can be had back as it was.";
    /// Two PersistentVolumes name one volume.
    HandleTwice, "handle-twice", Error, Conflict,
        "Two claims believe that they have a volume of their own, and if either is deleted the data of both may go.";
    /// A volume that was made for a claim and has no PersistentVolume.
    VolumeLeftOver, "volume-left-over", Warning, Conflict,
        "It takes room, and nothing in the cluster leads to it.";
    /// A volume of somebody else's, that no PersistentVolume names.
    VolumeUnclaimed, "volume-unclaimed", Info, Conflict,
        "It was not made for this cluster; that is as it should be if somebody else uses it.";
    /// A PersistentVolume and its volume differ in size.
    SizeDiffers, "size-differs", Warning, Conflict,
        "Pods see the volume's size, whatever the cluster says.";
    /// No node may mount a volume that Kubernetes' own NFS client is to mount.
    NobodyLetIn, "nobody-let-in", Error, Forbidden,
        "Kubernetes' own NFS client does not ask to be let in; mounts are refused.";
    /// A volume of a claim that others may mount.
    OthersLetIn, "others-let-in", Info, Conflict,
        "They can mount it whatever the claim's access mode says.";
    /// A PersistentVolume that nobody claims any more.
    PvReleased, "pv-released", Warning, Conflict,
        "Its claim is gone and its data are kept, as its reclaim policy says. It takes room and serves nobody.";
    /// A PersistentVolume whose volume is not deleted.
    PvNotDeleted, "pv-not-deleted", Error, Conflict,
        "Its claim is gone, and deleting its volume has failed so far.";
    /// A PersistentVolume that does not go.
    PvTerminating, "pv-terminating", Warning, Conflict,
        "It stays until what holds it is gone.";
    // Claims.
    /// A claim gets no volume.
    ClaimPending, "claim-pending", Error, Conflict,
        "Pods that use it do not start.";
    /// A claim lost its PersistentVolume.
    ClaimLost, "claim-lost", Error, NotFound,
        "Its PersistentVolume was deleted under it. Pods that use it do not start.";
    /// A claim does not go.
    ClaimTerminating, "claim-terminating", Warning, Conflict,
        "It stays until what uses it is gone.";
    /// A claim does not become as large as it is to be.
    ResizeStuck, "resize-stuck", Warning, Conflict,
        "The volume stays as large as it was.";
    /// A claim does not become what its VolumeAttributesClass says.
    ModifyStuck, "modify-stuck", Warning, Conflict,
        "The volume is served as before.";
    // Attachments.
    /// An attachment to a node that is gone.
    AttachmentNodeGone, "attachment-node-gone", Error, NotFound,
        "A volume for one node stays with a node that there is not, and no other gets it.";
    /// An attachment of a PersistentVolume that is gone.
    AttachmentPvGone, "attachment-pv-gone", Warning, NotFound,
        "Nobody can take the volume from the node in an orderly way any more.";
    /// An attachment fails.
    AttachFails, "attach-fails", Error, Conflict,
        "The pod on that node waits for the volume.";
    /// An attachment does not go.
    DetachStuck, "detach-stuck", Warning, Conflict,
        "The volume stays with the node, and where it is for one node alone no other gets it.";
    /// Attached, and the appliance does not let the node in.
    NotPublished, "not-published", Error, Conflict,
        "The node's mount waits or is refused.";
    /// The appliance lets a node in that nothing is attached to.
    PublishedUnattached, "published-unattached", Warning, Conflict,
        "A node may read and write what the cluster does not think it has.";
    /// A node mounts from other addresses than the appliance lets in.
    NodeMoved, "node-moved", Error, Conflict,
        "The node's mount waits or is refused, and somebody else may have its old address.";
    /// A client holds something on a volume that it may not mount.
    HoldsWithoutAccess, "holds-without-access", Warning, Conflict,
        "It was cut off and has the volume mounted still; programs there get errors. Or it is a node of the volume's that moved, whose session \
         keeps the address with which it began: then nothing is the matter.";
    /// A client that no volume lets in.
    ClientWithoutVolume, "client-without-volume", Warning, Conflict,
        "Something is mounted there that it may not use; what touches it waits or gets errors.";
    // Snapshots.
    /// A VolumeSnapshotContent names something that is no id.
    SnapshotHandleInvalid, "snapshot-handle-invalid", Error, Invalid,
        "Nothing can be restored from it.";
    /// A VolumeSnapshotContent names a snapshot that there is not.
    SnapshotGone, "snapshot-gone", Error, NotFound,
        "Nothing can be restored from it.";
    /// A snapshot that was made for a cluster and has no VolumeSnapshotContent.
    SnapshotLeftOver, "snapshot-left-over", Warning, Conflict,
        "It takes room, and nothing in the cluster leads to it.";
    /// A snapshot is not made.
    SnapshotNotReady, "snapshot-not-ready", Warning, Conflict,
        "Nothing can be restored from it yet.";
    /// A snapshot does not go.
    SnapshotTerminating, "snapshot-terminating", Warning, Conflict,
        "It stays until what holds it is gone.";
}

impl Finding {
    pub(super) fn new(code: Code, object: String, message: String, cure: impl Into<String>) -> Self {
        Finding {
            code,
            severity: code.severity(),
            object,
            message,
            meaning: code.meaning(),
            cure: cure.into(),
            commands: Vec::new(),
        }
    }

    pub(super) fn run(mut self, command: String) -> Self {
        self.commands.push(command);
        self
    }
}
