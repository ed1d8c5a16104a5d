//! Layers between a pool's disks and LVM: laid on blank disks, opened before LVM looks, taken off disks that leave.
//!
//! Invariant: a disk that is given layers, or is to lose them, stands in a record on the state partition before it is
//! written to, and until it is in a group of LVM's or blank (`layer_record`). Nothing else is ever taken off a disk by itself.
//! A disk of another appliance is opened if it can be, and left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use cistern_host::{BlockDevice, HostErrorKind, LayerKey, LayerSpec, LayerStack};
use cistern_model::{Bytes, DiskId, EventKind, Layers, Orphan, OrphanKind, PoolId, PoolRequest, Severity};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::kept::Kept;
use crate::layer_record::{Phase, Unfinished};
use crate::pools::{no_pool, power_lost};
use crate::view::PoolView;

/// The longest that the host may take to note all blocks of a disk as never written, and some more.
const LAYING: Duration = Duration::from_secs(7 * 3600);

/// What is known of layers until the next start.
#[derive(Debug, Default)]
pub(crate) struct LayersKnown {
    /// The disks that are about to get or to lose some.
    pub(crate) unfinished: Kept<Unfinished>,
    /// Disks at which a request or a job is.
    busy: Mutex<BTreeSet<DiskId>>,
    /// Why disks cannot be opened.
    closed: Mutex<BTreeMap<DiskId, String>>,
    pub(crate) counts: Mutex<crate::checksums::Counts>,
    pub(crate) keys: crate::layer_keys::KeysKnown,
}

impl LayersKnown {
    /// The disks at which somebody is.
    pub(crate) fn busy(&self) -> BTreeSet<DiskId> {
        locked(&self.busy).clone()
    }
}

/// A disk at which somebody is, until this is dropped.
struct Busy<'a>(&'a LayersKnown, &'a [DiskId]);

impl<'a> Busy<'a> {
    fn with(known: &'a LayersKnown, disks: &'a [DiskId]) -> Self {
        locked(&known.busy).extend(disks.iter().cloned());
        Busy(known, disks)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        locked(&self.0.busy).retain(|disk| !self.1.contains(disk));
    }
}

/// What LVM finds of a disk with these layers, laid already or not.
pub(crate) fn size_in(device: &BlockDevice, layers: Layers) -> Bytes {
    match (LayerStack::of(layers), &device.layers) {
        (Some(stack), None) => stack.rest_of(device.size),
        (None, _) | (Some(_), Some(_)) => device.lvm_size(),
    }
}

/// How long giving so many disks these layers may take.
pub(crate) fn laying_limit(layers: Layers, disks: usize) -> Duration {
    match layers.checksums {
        true => LAYING * u32::try_from(disks).unwrap_or(u32::MAX),
        false => Duration::ZERO,
    }
}

/// What to know before choosing these layers.
pub(crate) fn layer_warnings(request: &PoolRequest) -> Vec<String> {
    let mut warnings = Vec::new();
    if request.layers.checksums {
        warnings.push(if request.layout.survives() > 0 {
            "With checksums a block that a disk got wrong is read from another copy, and written anew. They take a \
             thousandth of each disk and up to 64 MiB more, and some of the speed of writes. Those of a disk that takes no discards, as most \
             that turn, are computed by reading all of it once, beside all else, for hours; what that has not come to is not checked."
                .to_owned()
        } else {
            format!(
                "Layout {} keeps one copy: what does not fit its checksum cannot be healed. Reading it is an error, and not \
                 silently wrong.",
                request.layout
            )
        });
    }
    if LayerStack::of(request.layers).is_some_and(LayerStack::encrypted) {
        warnings.push(
            "Without its key the pool is lost. Print it once the pool is made, and keep it elsewhere: `cistern pools key`."
                .to_owned(),
        );
    }
    warnings
}

impl Engine {
    /// The node at which LVM finds a disk with these layers, laid already or not.
    pub(crate) fn lvm_node_in(&self, device: &BlockDevice, layers: Layers) -> PathBuf {
        match (LayerStack::of(layers), &device.layers) {
            (Some(stack), None) => self.0.host.layers.node(&device.id, stack),
            (_, Some(_)) | (None, _) => device.lvm_node().to_owned(),
        }
    }

    /// The commands that would give these disks their layers.
    pub(crate) fn layering_lines(&self, id: PoolId, layers: Layers, devices: &[&BlockDevice]) -> Vec<Vec<String>> {
        let Some(stack) = LayerStack::of(layers) else {
            return Vec::new();
        };
        let lines = devices
            .iter()
            .map(|device| self.0.host.layers.command_lines(&spec_of(id, device, stack)));
        lines.flatten().collect()
    }

    /// The commands by which these disks' layers, as far as they have any, would take up what the disks have grown by.
    pub(crate) fn growth_lines(&self, id: PoolId, disks: &[DiskId]) -> Vec<Vec<String>> {
        let devices = locked(&self.0.devices);
        let lines = devices
            .iter()
            .filter(|device| disks.contains(&device.id))
            .filter_map(|device| {
                let spec = spec_of(id, device, device.layers.as_ref()?.stack);
                Some(self.0.host.layers.growth_lines(&spec, device.size))
            });
        lines.flatten().collect()
    }

    /// Takes up in a disk's layers, if it has any, what the disk has grown by.
    pub(crate) fn grow_layers(&self, id: PoolId, disk: &DiskId) -> Result<(), EngineError> {
        let found = self.devices()?.into_iter().find(|device| device.id == *disk);
        let device = found.ok_or_else(|| EngineError::Unavailable(format!("disk {disk} cannot be found")))?;
        let Some(found) = &device.layers else { return Ok(()) };
        let key = match found.stack.encrypted() {
            true => Some(self.key_of(id)?),
            false => None,
        };
        // What is read of the new space before it has checksums is not counted.
        let _busy = Busy::with(&self.0.layers, std::slice::from_ref(disk));
        let grown = self
            .0
            .host
            .layers
            .grow(&spec_of(id, &device, found.stack), key.as_ref());
        grown.doing(|| format!("take up in its layers what disk {disk} has grown by"))
    }

    /// Gives blank disks the layers of a pool, then joins them to it. If that fails they are blank again.
    pub(crate) fn join_in_layers<T>(
        &self,
        id: PoolId,
        layers: Layers,
        devices: &[BlockDevice],
        join: impl FnOnce(&[BlockDevice]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Some(stack) = LayerStack::of(layers) else {
            return join(devices);
        };
        let disks: Vec<DiskId> = devices.iter().map(|device| device.id.clone()).collect();
        let _busy = Busy::with(&self.0.layers, &disks);
        let key = match stack.encrypted() {
            true => Some(self.key_of(id)?),
            false => None,
        };
        self.note_unfinished(&disks, Phase::Making)?;
        let outcome = devices.iter().try_for_each(|device| {
            let spec = spec_of(id, device, stack);
            let made = self.0.host.layers.make(&spec, key.as_ref());
            made.doing(|| format!("give disk {} its layers", device.id))
        });
        let outcome = outcome.and_then(|()| {
            let all = self.devices()?;
            let laid = all.into_iter().filter(|device| disks.contains(&device.id));
            // From here on something may lie on them.
            self.note_unfinished(&disks, Phase::Parting)?;
            join(&laid.collect::<Vec<_>>())
        });
        // In a group or blank: then it is forgotten.
        match (outcome, self.tidy(&disks)) {
            (Err(error), _) | (Ok(_), Err(error)) if power_lost(&error) => Err(error),
            (outcome, Ok(())) => outcome,
            (outcome, Err(error)) => {
                tracing::warn!(%error, "disks are not tidied up; the next round does it");
                outcome
            }
        }
    }

    /// Parts disks from a pool by `part`; those that are in no group afterwards become blank.
    pub(crate) fn strip_after(
        &self,
        layers: Layers,
        disks: &[DiskId],
        part: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        if layers.is_none() {
            return part();
        }
        let _busy = Busy::with(&self.0.layers, disks);
        self.note_unfinished(disks, Phase::Parting)?;
        part()?;
        match self.tidy(disks) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "disks are not blank yet; the next round does it");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Joins a disk to a pool that has layers. What an interruption left on one that was to come is made anew.
    pub(crate) fn join_layered(&self, pool: &PoolView, device: &BlockDevice) -> Result<(), EngineError> {
        let id = device.id.clone();
        if device.layers.is_some() {
            self.tidy(std::slice::from_ref(&id))?;
        }
        let all = self.devices()?;
        let device = all.iter().find(|device| device.id == id);
        let device = device.ok_or_else(|| EngineError::Unavailable(format!("disk {id} cannot be found")))?;
        self.refuse_signatures(device)?;
        let (vg, layers) = (pool.vg(), pool.tags.layers);
        self.join_in_layers(pool.id, layers, std::slice::from_ref(device), |laid| {
            for device in laid {
                let doing = || format!("add disk {id} to pool {}", pool.tags.name);
                let extend = || self.0.host.raids.extend_vg(&vg, device.lvm_node());
                self.change_lvm(pool.id, doing, extend, |_| {})?;
            }
            Ok(())
        })
    }

    /// Opens the layers of all disks that have any, as far as that can be done. Fails only if the machine is gone.
    pub(crate) fn open_layers(&self) -> Result<(), EngineError> {
        let devices = locked(&self.0.devices).clone();
        let busy = self.0.layers.busy();
        let (mut closed, mut opened) = (BTreeMap::new(), false);
        // What the TPM does not open it does not for the next disk either, and it takes its time.
        let mut keyless: BTreeMap<&str, String> = BTreeMap::new();
        for device in devices.iter().filter(|device| !busy.contains(&device.id)) {
            let Some(found) = device.layers.as_ref().filter(|found| found.open.is_none()) else {
                continue;
            };
            let label = found.label.as_deref();
            if let Some(why) = label.and_then(|label| keyless.get(label)) {
                closed.insert(device.id.clone(), why.clone());
                continue;
            }
            match self.open_one(device, found.stack, label) {
                Ok(()) => opened = true,
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => {
                    let why = error.problem().detail;
                    if let Some(label) = label.filter(|label| !self.has_key(label)) {
                        keyless.insert(label, why.clone());
                    }
                    closed.insert(device.id.clone(), why);
                }
            }
        }
        let before = std::mem::replace(&mut *locked(&self.0.layers.closed), closed.clone());
        for (disk, why) in closed.iter().filter(|(disk, why)| before.get(*disk) != Some(*why)) {
            let message = format!("disk {disk} carries layers of Cistern's that cannot be opened: {why}");
            self.record(
                EventKind::DiskAdded,
                Severity::Warning,
                Some(disk.to_string()),
                None,
                message,
            );
        }
        if opened {
            self.devices()?;
        }
        Ok(())
    }

    fn open_one(&self, device: &BlockDevice, stack: LayerStack, label: Option<&str>) -> Result<(), EngineError> {
        let id = label.and_then(|label| label.parse::<PoolId>().ok());
        let key = match (stack.encrypted(), id) {
            (false, _) => None,
            (true, Some(id)) => Some(self.key_of(id)?),
            (true, None) => return Err(EngineError::Unavailable("its encryption was never finished".to_owned())),
        };
        let id = id.unwrap_or_else(|| PoolId::from_uuid(uuid::Uuid::nil()));
        let spec = spec_of(id, device, stack);
        let opened = self.0.host.layers.open(&spec, key.as_ref());
        opened.doing(|| format!("open the layers of disk {}", device.id))
    }

    /// Opens a disk with this key, or says that it does not.
    pub(crate) fn try_key(&self, id: PoolId, device: &BlockDevice, key: &LayerKey) -> Result<(), EngineError> {
        let Some(found) = &device.layers else { return Ok(()) };
        let opened = self.0.host.layers.open(&spec_of(id, device, found.stack), Some(key));
        opened.map_err(|error| match error.kind() {
            HostErrorKind::Failed => EngineError::Conflict(format!("this key does not open disk {}", device.id)),
            HostErrorKind::Busy | HostErrorKind::TimedOut | HostErrorKind::PowerLost => EngineError::Host {
                doing: format!("open the layers of disk {}", device.id),
                source: error,
            },
        })
    }

    /// Encrypted pools whose disks are here and whose keys are not.
    pub(crate) fn locked_pools(&self) -> Vec<Orphan> {
        let mut locked_pools: BTreeMap<String, Vec<DiskId>> = BTreeMap::new();
        // The disks are everybody's, and a key may be long in coming.
        let devices = locked(&self.0.devices).clone();
        for device in &devices {
            let found = device.layers.as_ref().filter(|found| found.open.is_none());
            if let Some(label) = found.and_then(|found| found.label.clone()) {
                locked_pools.entry(label).or_default().push(device.id.clone());
            }
        }
        locked_pools.retain(|label, _| !self.has_key(label));
        let orphan = |(object, disks): (String, Vec<DiskId>)| {
            let wipes: Vec<String> = disks.iter().map(|disk| format!("cistern disks wipe {disk}")).collect();
            Orphan {
                kind: OrphanKind::LockedPool,
                why: "it is an encrypted pool, and its key is not on this appliance".to_owned(),
                name: None,
                system_id: None,
                size: None,
                adopt: Some(format!("cistern pools import {object} --key FILE")),
                remove: wipes.join("; "),
                object,
                disks,
            }
        };
        locked_pools.into_iter().map(orphan).collect()
    }

    /// Why LVM knows no group of this name.
    pub(crate) fn not_found_or_locked(&self, vg: &str) -> EngineError {
        match self.locked_pools().iter().find(|pool| pool.object == vg) {
            Some(pool) => EngineError::Unavailable(format!(
                "pool {vg} is encrypted, and its key is not on this appliance: {}",
                pool.adopt.as_deref().unwrap_or("give its key")
            )),
            None => no_pool(vg),
        }
    }

    /// Why a disk's layers cannot be opened.
    pub(crate) fn closed_words(&self, pool: &PoolView) -> Option<String> {
        let closed = locked(&self.0.layers.closed);
        let members = pool.tags.groups.iter().chain(&pool.tags.coming).flatten();
        let words: Vec<String> = members
            .chain(&pool.tags.spares)
            .filter_map(|disk| Some(format!("disk {disk} cannot be opened: {}", closed.get(disk)?)))
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

fn spec_of(id: PoolId, device: &BlockDevice, stack: LayerStack) -> LayerSpec {
    LayerSpec {
        disk: device.id.clone(),
        node: device.node.clone(),
        stack,
        label: id.to_string(),
        discards: device.discards,
    }
}
