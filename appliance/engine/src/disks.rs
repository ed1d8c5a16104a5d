//! Disks: what can be done with each, and wiping one by name. Invariant: a disk on which anything was found is never
//! written to, but by a wipe that names it; what is on it is read from the disk itself just before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cistern_host::{BlockDevice, HostErrorKind};
use cistern_model::{Disk, DiskId, DiskState, EventKind, PoolId, Principal, Severity, Signature};

use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::plan::MINIMUM_DISK;
use crate::volumes::bare;
use crate::{EngineError, view::PoolView};

/// The lock's name of whoever looks for disks to use or to wipe.
pub(crate) const DISKS: &str = "the choice of disks";

impl Engine {
    /// All disks, sorted by id.
    pub fn disks(&self) -> Result<Vec<Disk>, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let devices = self.devices()?;
        let pools = self.pools_by_node();
        let mut disks: Vec<Disk> = devices.iter().map(|device| describe(device, &pools)).collect();
        let grown: Vec<_> = {
            let pools: Vec<PoolView> = self.view().pools.values().map(bare).collect();
            pools.iter().flat_map(|pool| self.grown_disks(pool)).collect()
        };
        for disk in &mut disks {
            let grown = grown.iter().find(|(id, ..)| *id == disk.id);
            disk.grown_by = grown.map(|(.., by)| *by);
        }
        disks.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(disks)
    }

    /// Removes everything from a disk that is neither in use nor in a pool nor the one that the system started from.
    /// Wiping a blank one does nothing. A part of a pool that lacks other disks is wiped if that pool is named in `give_up`: by
    /// its id, if it holds volumes and could be served.
    pub fn wipe_disk(&self, by: &Principal, id: &DiskId, give_up: Option<&str>) -> Result<Disk, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(900));
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        self.read_lvm()?;
        let device = self.device(id)?;
        let before = describe(&device, &self.pools_by_node());
        if device.is_unmade() {
            return Err(EngineError::Conflict(format!(
                "{id} has no partition yet, so there is nothing to wipe; what lies there is looked at when a pool is made of it"
            )));
        }
        match &before.state {
            DiskState::Available => {
                if let Some(named) = give_up {
                    self.forget_given_up(by, named)?;
                }
                return Ok(before);
            }
            DiskState::HasData => {}
            DiskState::InPool { pool } => {
                self.refuse_pending(id)?;
                return self.give_up(by, &before, *pool, give_up);
            }
            DiskState::Boot | DiskState::Busy | DiskState::Unusable { .. } => return Err(refusal(&before)),
        }
        self.refuse_pending(id)?;
        self.wipe_now(&device)?;
        self.forgive(id);
        let message = format!("disk {id} was wiped; it had carried {}", kinds(&before.signatures));
        self.record(
            EventKind::DiskWiped,
            Severity::Warning,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.disk_now(id)
    }

    /// Removes all that is on a device, if nothing holds it.
    pub(crate) fn wipe_now(&self, device: &BlockDevice) -> Result<(), EngineError> {
        let wiped = self.wipe_whole(device);
        wiped.map_err(|error| match error.kind() {
            HostErrorKind::Busy => EngineError::DiskInUse {
                disk: device.id.clone(),
                why: "something on the appliance holds it open".to_owned(),
            },
            HostErrorKind::Failed | HostErrorKind::TimedOut | HostErrorKind::PowerLost => EngineError::Host {
                doing: format!("wipe disk {}", device.id),
                source: error,
            },
        })
    }

    /// A disk as it is now.
    pub(crate) fn disk_now(&self, id: &DiskId) -> Result<Disk, EngineError> {
        Ok(describe(&self.device(id)?, &self.pools_by_node()))
    }

    /// All devices, anew; the engine remembers them for their ids.
    pub(crate) fn devices(&self) -> Result<Vec<BlockDevice>, EngineError> {
        let mut devices = self.0.host.disks.list().doing(|| "list the disks".to_owned())?;
        devices.retain(crate::free_part::worth_telling);
        locked(&self.0.devices).clone_from(&devices);
        self.hide_shunned(&devices);
        Ok(devices)
    }

    pub(crate) fn device(&self, id: &DiskId) -> Result<BlockDevice, EngineError> {
        let found = self.devices()?.into_iter().find(|device| device.id == *id);
        found.ok_or_else(|| EngineError::NotFound {
            what: "disk",
            name: id.to_string(),
        })
    }

    /// A device that a pool of several may have, with nothing on it now.
    pub(crate) fn further_device(&self, devices: &[BlockDevice], id: &DiskId) -> Result<BlockDevice, EngineError> {
        crate::free_part::refuse_free(id)?;
        self.blank_device(devices, id)
    }

    /// A device that a pool may be made of, with nothing on it now.
    pub(crate) fn blank_device(&self, devices: &[BlockDevice], id: &DiskId) -> Result<BlockDevice, EngineError> {
        let device = devices.iter().find(|device| device.id == *id);
        let device = device.ok_or_else(|| EngineError::NotFound {
            what: "disk",
            name: id.to_string(),
        })?;
        let disk = describe(device, &self.pools_by_node());
        if disk.state != DiskState::Available {
            return Err(refusal(&disk));
        }
        self.refuse_pending(id)?;
        self.refuse_signatures(device)?;
        Ok(device.clone())
    }

    /// Looks at the disk itself, whatever udev said.
    pub(crate) fn refuse_signatures(&self, device: &BlockDevice) -> Result<(), EngineError> {
        // Once its partition is made.
        if device.is_unmade() {
            return Ok(());
        }
        let found = self.0.host.disks.signatures(&device.node);
        let signatures = found.doing(|| format!("look at what is on disk {}", device.id))?;
        if signatures.is_empty() {
            return Ok(());
        }
        Err(carries(&device.id, &signatures))
    }

    fn refuse_pending(&self, id: &DiskId) -> Result<(), EngineError> {
        match locked(&self.0.pending)
            .iter()
            .find(|pending| pending.disks.contains(id))
        {
            None => Ok(()),
            Some(pending) => Err(EngineError::DiskInUse {
                disk: id.clone(),
                why: format!("pool {} is just being made of it", pending.name),
            }),
        }
    }

    fn pools_by_node(&self) -> BTreeMap<PathBuf, PoolId> {
        let view = self.view();
        let nodes = |pool: &PoolView| -> Vec<(PathBuf, PoolId)> {
            pool.nodes.iter().map(|node| (node.clone(), pool.id)).collect()
        };
        let mut pools: BTreeMap<PathBuf, PoolId> = view.pools.values().flat_map(nodes).collect();
        // LVM does not see these, but nobody else may have them.
        let devices = locked(&self.0.devices);
        for device in devices.iter().filter(|device| self.is_shunned(&device.id)) {
            if let Some(pool) = view.pools.values().find(|pool| pool.tags.holds(&device.id)) {
                pools.insert(device.lvm_node().to_owned(), pool.id);
            }
        }
        pools
    }

    /// The ids of a pool's disks that are there.
    pub(crate) fn disks_of(&self, pool: &PoolView) -> Vec<DiskId> {
        let devices = locked(&self.0.devices);
        let mut disks: Vec<DiskId> = devices
            .iter()
            .filter(|device| pool.nodes.iter().any(|node| node == device.lvm_node()))
            .map(|device| device.id.clone())
            .collect();
        disks.sort();
        disks
    }
}

fn describe(device: &BlockDevice, pools: &BTreeMap<PathBuf, PoolId>) -> Disk {
    let state = if device.boot {
        DiskState::Boot
    } else if let Some(pool) = pools.get(device.lvm_node()) {
        DiskState::InPool { pool: *pool }
    } else if device.busy {
        DiskState::Busy
    } else if device.read_only {
        DiskState::Unusable {
            why: "it is read-only".to_owned(),
        }
    } else if !device.signatures.is_empty() {
        DiskState::HasData
    } else if device.size < MINIMUM_DISK {
        DiskState::Unusable {
            why: format!("it is smaller than {MINIMUM_DISK}"),
        }
    } else {
        DiskState::Available
    };
    Disk {
        id: device.id.clone(),
        kernel_name: device
            .node
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        size: device.size,
        model: device.model.clone(),
        serial: device.serial.clone(),
        wwn: device.wwn.clone(),
        rotational: device.rotational,
        transport: device.transport,
        state,
        signatures: device.signatures.clone(),
        grown_by: None,
    }
}

fn kinds(signatures: &[Signature]) -> String {
    let mut kinds: Vec<&str> = signatures.iter().map(|s| s.kind.as_str()).collect();
    kinds.dedup();
    kinds.join(", ")
}

fn carries(id: &DiskId, signatures: &[Signature]) -> EngineError {
    EngineError::DiskInUse {
        disk: id.clone(),
        why: format!(
            "it carries {}; if nothing on it is needed any more, wipe it by name first: `cistern disks wipe {id}`",
            kinds(signatures)
        ),
    }
}

/// Why a disk that is not available cannot be used.
fn refusal(disk: &Disk) -> EngineError {
    let why = match &disk.state {
        DiskState::HasData => return carries(&disk.id, &disk.signatures),
        DiskState::Available => "it is being looked at by another request; ask again".to_owned(),
        DiskState::Boot => "the system started from it".to_owned(),
        DiskState::InPool { pool } => format!("it belongs to {pool}"),
        DiskState::Busy => "something on the appliance holds it open or has mounted it".to_owned(),
        DiskState::Unusable { why } => why.clone(),
    };
    EngineError::DiskInUse {
        disk: disk.id.clone(),
        why,
    }
}
