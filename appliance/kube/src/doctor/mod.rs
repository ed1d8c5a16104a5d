//! What is the matter between a cluster and its appliances: leaks, mismatches, and objects that are stuck.
//!
//! Invariant: [`examine`] is a function of what was seen and of nothing else; it asks nobody and changes nothing. What could not be
//! seen is never taken for what is not there: a kind of object that was not read gives no finding.
//!
//! Not here: how a cluster or an appliance is asked, and how findings are printed; the console does both.

mod appliance;
mod attachments;
mod claims;
mod cluster;
mod finding;
mod groups;
mod quantity;
mod registry;
mod served;
mod setup;
mod snapshots;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{Bytes, Owner, Volume, VolumeId};
use jiff::{SignedDuration, Timestamp};

pub use appliance::{Appliance, Entry, Holdings, Token};
pub use cluster::{Cluster, Kind, Unreadable};
pub use finding::{Code, Finding};

use cluster::{Meta, PersistentVolume};

/// The driver's name.
pub(crate) const DRIVER: &str = "csi.cistern.storage";
/// The annotation of a Node that names its addresses in the storage network; as the plugin has it (`csi/src/nodes.rs`).
const ADDRESS: &str = "csi.cistern.storage/address";
/// The label of nodes by which appliances are near or far; as the plugin has it (`csi/src/appliances.rs`).
const ZONE: &str = "topology.kubernetes.io/zone";
/// What is being deleted for longer than this is stuck.
const STUCK: SignedDuration = SignedDuration::from_secs(60);

/// What was seen of a cluster and of its appliances.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The cluster.
    pub cluster: Cluster,
    /// The appliances, by the ids that the cluster knows them by.
    pub appliances: Vec<Appliance>,
    /// The namespace of the plugin, in which cures are to be applied.
    pub namespace: String,
    /// When; none if that was some time ago, of files. Then whatever is being deleted is taken for stuck, and no lease for old.
    pub now: Option<Timestamp>,
}

/// What is the matter, the worst first.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let looked = Looked::at(seen);
    let mut findings = Vec::new();
    setup::look(&looked, &mut findings);
    registry::look(&looked, &mut findings);
    served::look(&looked, &mut findings);
    volumes::look(&looked, &mut findings);
    claims::look(&looked, &mut findings);
    attachments::look(&looked, &mut findings);
    snapshots::look(&looked, &mut findings);
    groups::look(&looked, &mut findings);
    findings.sort_by(|a, b| {
        let key = |f: &Finding| (std::cmp::Reverse(f.severity), f.code, f.object.clone());
        key(a).cmp(&key(b))
    });
    findings
}

/// What was seen, put in order.
struct Looked<'a> {
    seen: &'a Seen,
    /// What each PersistentVolume of ours names: an appliance that we may not know, and a volume.
    named: Vec<Named<'a>>,
    /// Whose volumes are this cluster's.
    owners: BTreeSet<&'a Owner>,
}

/// A PersistentVolume and what it names.
struct Named<'a> {
    pv: &'a PersistentVolume,
    /// The appliance's id and the volume's; none if its handle is none of this driver's.
    handle: Option<(&'a str, VolumeId)>,
    /// The volume, where it was seen.
    volume: Option<(&'a Appliance, &'a Volume)>,
    /// Whether it is for a folder of the volume, and not for all of it.
    is_part: bool,
}

impl<'a> Looked<'a> {
    fn at(seen: &'a Seen) -> Self {
        let named: Vec<Named<'a>> = seen
            .cluster
            .volumes
            .iter()
            .filter_map(|pv| Named::by(seen, pv))
            .collect();
        // A volume that was made for a claim has the owner that the plugin's token has.
        let provisioned = named.iter().filter(|named| named.pv.is_provisioned());
        let mut owners: BTreeSet<&Owner> = provisioned
            .filter_map(|named| named.volume.map(|(_, volume)| &volume.owner))
            .collect();
        for appliance in &seen.appliances {
            if let Token::Works { sees } = &appliance.token {
                let seen = appliance.volumes().filter(|volume| sees.contains(&volume.id));
                owners.extend(seen.map(|volume| &volume.owner));
            }
        }
        Looked { seen, named, owners }
    }

    fn cluster(&self) -> &'a Cluster {
        &self.seen.cluster
    }

    fn appliance(&self, id: &str) -> Option<&'a Appliance> {
        self.seen.appliances.iter().find(|appliance| appliance.id == id)
    }

    /// Each appliance once: a cluster may know one by two ids, with a token for each.
    fn machines(&self) -> Vec<&'a Appliance> {
        let mut machines: Vec<&Appliance> = Vec::new();
        for appliance in &self.seen.appliances {
            let same = |known: &&Appliance| known.fingerprint.is_some() && known.fingerprint == appliance.fingerprint;
            if !machines.iter().any(same) {
                machines.push(appliance);
            }
        }
        machines
    }

    /// Whether something has been so for long enough to be stuck.
    fn is_stuck(&self, since: Option<Timestamp>) -> bool {
        match (self.seen.now, since) {
            (Some(now), Some(since)) => now.duration_since(since) > STUCK,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// Whether an object is being deleted and does not go.
    fn is_terminating(&self, meta: &Meta) -> bool {
        self.is_stuck(meta.deletion_timestamp)
    }

    /// The last warning about an object, in the words of who gave it; of those whose reason has the word `about`, if that is not empty.
    fn said(&self, kind: &str, meta: &Meta, about: &str) -> Option<&'a str> {
        let all = self.cluster().events.iter().flatten();
        let warnings = all.filter(|event| {
            let of = &event.involved_object;
            let is_it = of.uid.is_empty() || meta.uid.is_empty() || of.uid == meta.uid;
            of.kind == kind && of.name == meta.name && of.namespace == meta.namespace && is_it
        });
        let last = warnings
            .filter(|event| event.type_ != "Normal" && event.reason.contains(about))
            .max_by_key(|event| event.at());
        last.map(|event| event.message.trim())
    }

    /// PersistentVolumes by the volume that each names.
    fn by_volume(&self) -> BTreeMap<VolumeId, Vec<&Named<'a>>> {
        let mut by: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for named in &self.named {
            if let Some((_, volume)) = named.handle {
                by.entry(volume).or_default().push(named);
            }
        }
        by
    }
}

impl<'a> Named<'a> {
    /// What a PersistentVolume of this driver names, or one of Kubernetes' own NFS client that mounts a volume of an appliance's.
    fn by(seen: &'a Seen, pv: &'a PersistentVolume) -> Option<Self> {
        let (appliance, volume, is_part) = match (&pv.spec.csi, &pv.spec.nfs) {
            (Some(csi), _) if csi.driver == DRIVER => {
                let parts = csi.volume_handle.split_once(':');
                let Some((appliance, Ok(volume))) = parts.map(|(id, volume)| (id, volume.parse())) else {
                    return Some(Named {
                        pv,
                        handle: None,
                        volume: None,
                        is_part: false,
                    });
                };
                (appliance, volume, false)
            }
            (None, Some(nfs)) => {
                let below = nfs.path.strip_prefix("/volumes/")?;
                let mut below = below.split('/').filter(|part| !part.is_empty());
                let volume: VolumeId = below.next()?.parse().ok()?;
                let has =
                    |appliance: &&Appliance| appliance.serves_at(&nfs.server) || appliance.volume(volume).is_some();
                let appliance = seen.appliances.iter().find(has)?.id.as_str();
                (appliance, volume, below.next().is_some())
            }
            _ => return None,
        };
        let found = seen.appliances.iter().find(|known| known.id == appliance);
        Some(Named {
            pv,
            handle: Some((appliance, volume)),
            volume: found.and_then(|known| Some((known, known.volume(volume)?))),
            is_part,
        })
    }
}

/// A size as people and `kubectl` read it.
fn shown(size: Bytes) -> String {
    format!("{size:#}").replace(' ', "")
}
