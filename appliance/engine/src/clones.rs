//! Volumes that are made of a snapshot or of another volume. Invariant: a clone and its source need each other for
//! nothing once the clone's LV is there, which is one commit; what is a clone is never formatted.

use std::collections::BTreeSet;

use cistern_model::{Bytes, PoolId, Principal, VolumeRequest, VolumeSource};

use crate::EngineError;
use crate::clients::refuse_unsettled;
use crate::engine::Engine;
use crate::names::Held;
use crate::snapshots::{snapshot_lock, unsettled};
use crate::tags::Stage;
use crate::volumes::volume_lock;

/// What a new volume's LV is a copy of.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) lv: String,
    /// The bytes of that LV, and at first of its copy.
    pub(crate) device: Bytes,
}

impl Engine {
    /// Keeps the name of a new volume, and what it is made of, from others; always in one order.
    pub(crate) fn hold_for_creation(
        &self,
        by: &Principal,
        pool: PoolId,
        request: &VolumeRequest,
    ) -> Result<Vec<Held<'_>>, EngineError> {
        let wanted = || {
            let mut locks = BTreeSet::from([volume_lock(pool, &request.name)]);
            match request.source {
                None => {}
                Some(VolumeSource::Snapshot(id)) => {
                    locks.insert(snapshot_lock(id));
                }
                Some(VolumeSource::Volume(id)) => {
                    let source = self.visible_volume(by, id);
                    locks.extend(
                        source
                            .ok()
                            .map(|(pool, volume)| volume_lock(pool.id, &volume.tags.name)),
                    );
                }
            }
            locks
        };
        loop {
            let locks = wanted();
            let held = locks
                .iter()
                .map(|lock| self.0.names.hold(lock.clone()))
                .collect::<Result<Vec<_>, _>>()?;
            // The source may have been given another name while one of these was waited for.
            if wanted() == locks {
                return Ok(held);
            }
        }
    }

    /// What a new volume of this size is to be a copy of; none if it is to be empty.
    pub(crate) fn origin(
        &self,
        by: &Principal,
        pool: PoolId,
        request: &VolumeRequest,
        size: Bytes,
    ) -> Result<Option<Origin>, EngineError> {
        let (source_pool, what, least, origin) = match request.source {
            None => return Ok(None),
            Some(VolumeSource::Snapshot(id)) => {
                let (view, snapshot) = self.visible_snapshot(by, id)?;
                if snapshot.tags.state != Stage::Ready {
                    return Err(unsettled(id, &snapshot));
                }
                let origin = Origin {
                    lv: id.to_string(),
                    device: snapshot.device,
                };
                (
                    view,
                    format!("snapshot {}", snapshot.tags.name),
                    snapshot.tags.size,
                    origin,
                )
            }
            Some(VolumeSource::Volume(id)) => {
                let (view, volume) = self.visible_volume(by, id)?;
                refuse_unsettled(id, &volume)?;
                let origin = Origin {
                    lv: id.to_string(),
                    device: volume.device,
                };
                (view, format!("volume {}", volume.tags.name), volume.tags.size, origin)
            }
        };
        if source_pool.id != pool {
            return Err(EngineError::Invalid(format!(
                "{what} is in pool {}; a volume that is made of it lies in the same pool",
                source_pool.tags.name
            )));
        }
        if size < least {
            return Err(EngineError::Invalid(format!(
                "{what} has {least:#}, and a volume that is made of it is no smaller; {size:#} were asked for"
            )));
        }
        Ok(Some(origin))
    }
}
