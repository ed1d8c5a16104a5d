//! What is free of the disk that the system started from: a disk of its own, for machines that have no other.
//!
//! Invariant: it is used only at the word of somebody who names it, and alone: as the one disk of a pool with one copy and
//! no layers. Its partition is made before anything else of the pool; what is found in it then is not touched. A partition
//! that was made stays, and is a disk like any other.

use cistern_host::BlockDevice;
use cistern_model::{DiskId, Layout, PoolRequest};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::plan::MINIMUM_DISK;
use crate::pool_steps::Progress;
use crate::view::PoolView;

/// A room that is too small is not told of: it is on most boot disks.
pub(crate) fn worth_telling(device: &BlockDevice) -> bool {
    !device.is_unmade() || device.size >= MINIMUM_DISK
}

/// Refuses a pool that has the boot disk's free part and is not of it alone.
pub(crate) fn refuse_free_among(request: &PoolRequest) -> Result<(), EngineError> {
    let mut named = request.disks.iter().chain(&request.spares);
    let Some(part) = named.find(|disk| disk.is_free_part()) else {
        return Ok(());
    };
    let refuse = |why: &str| {
        Err(EngineError::Invalid(format!(
            "{part} is the free part of the boot disk: {why}"
        )))
    };
    if request.spares.contains(part) {
        return refuse("it can be no spare; name a disk of its own");
    }
    if request.disks.len() > 1 || !request.spares.is_empty() {
        return refuse("it is the only disk of its pool; leave the others out, or leave it out");
    }
    if request.layout != Layout::Single {
        return refuse("one disk has one copy; ask for layout single, or for other disks");
    }
    if !request.layers.is_none() {
        return refuse("a pool on it has no checksums and no encryption; leave them out, or use a disk of its own");
    }
    Ok(())
}

/// Refuses it where a further disk is wanted.
pub(crate) fn refuse_free(disk: &DiskId) -> Result<(), EngineError> {
    match disk.is_free_part() {
        false => Ok(()),
        true => Err(EngineError::Invalid(format!(
            "{disk} is the free part of the boot disk: it can only be the one disk of a pool of its own; name another disk"
        ))),
    }
}

/// Refuses further disks in a pool that lies on it.
pub(crate) fn refuse_beside_free(pool: &PoolView) -> Result<(), EngineError> {
    let members = pool.tags.groups.iter().flatten();
    match members.into_iter().find(|disk| disk.is_free_part()) {
        None => Ok(()),
        Some(part) => Err(EngineError::Invalid(format!(
            "pool {name} lies on {part}, the free part of the boot disk, and has no other disk beside it; move it to a disk of \
             its own first: `cistern pools replace {name} --old {part} --new DISK`",
            name = pool.tags.name
        ))),
    }
}

/// What to know before using it.
pub(crate) fn free_warnings(request: &PoolRequest) -> Vec<String> {
    let part = request.disks.iter().find(|disk| disk.is_free_part());
    let warning = part.map(|part| {
        format!(
            "{part} is a part of the disk that the system starts from: whoever loses this disk loses the system and the pool \
             at once, and what writes to the one slows the other down. A pool on disks of its own is better wherever there \
             is any."
        )
    });
    warning.into_iter().collect()
}

impl Engine {
    /// The commands that would make the partitions that are not there.
    pub(crate) fn part_lines(&self, devices: &[BlockDevice]) -> Vec<Vec<String>> {
        let unmade = devices.iter().filter(|device| device.is_unmade());
        unmade.map(|device| self.0.host.disks.part_line(device)).collect()
    }

    /// Makes the partitions that are not there; the devices as they are then.
    pub(crate) fn with_parts_made(
        &self,
        devices: &[BlockDevice],
        progress: &Progress<'_>,
        total: usize,
    ) -> Result<Vec<BlockDevice>, EngineError> {
        if !devices.iter().any(BlockDevice::is_unmade) {
            return Ok(devices.to_vec());
        }
        progress.step(0, total, "making the partition");
        for device in devices.iter().filter(|device| device.is_unmade()) {
            let made = self.0.host.disks.make_part(device);
            made.doing(|| format!("make a partition of {}", device.id))?;
        }
        let all = self.devices()?;
        let now = |device: &BlockDevice| {
            let found = all.iter().find(|found| found.id == device.id && !found.is_unmade());
            found
                .cloned()
                .ok_or_else(|| EngineError::Unavailable(format!("disk {} cannot be found", device.id)))
        };
        devices.iter().map(now).collect()
    }
}
