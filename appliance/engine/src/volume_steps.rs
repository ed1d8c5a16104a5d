//! The steps by which a volume is made and taken away, once its LV is there. Invariant: each can be repeated; a
//! filesystem is made only on an LV whose tags say that it is being made, and the word that it is ready comes last.

use cistern_host::{HostErrorKind, XfsSpec};
use cistern_model::{PoolId, VolumeId};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::tags::Stage;
use crate::volume_options::root_of;
use crate::volumes::no_volume;

/// How often a filesystem that is still in use is asked for again: what holds it is told to let go before each.
const ATTEMPTS: u32 = 3;

impl Engine {
    /// Goes on from whatever step the making of a volume has reached, to its end. `fresh`: its LV was made just now.
    pub(crate) fn finish_volume(&self, pool: PoolId, id: VolumeId, fresh: bool) -> Result<(), EngineError> {
        let (vg, lv, path) = (pool.to_string(), id.to_string(), self.path_of(id));
        let (lvm, filesystems) = (&self.0.host.lvm, &self.0.host.filesystems);
        let tags = self
            .view()
            .volume(id)
            .map(|(_, v)| v.tags.clone())
            .ok_or_else(|| no_volume(id))?;
        if tags.state != Stage::Creating {
            return Err(EngineError::Conflict(format!("volume {id} is not being made")));
        }
        let doing = |what: &str| format!("{what} of volume {} ({id})", tags.name);
        if fresh || !self.is_mounted(id)? {
            let node = lvm.node(&vg, &lv);
            let mut overwrite = false;
            if !fresh {
                self.change_lvm(
                    pool,
                    || doing("activate the device"),
                    || lvm.activate_lv(&vg, &lv, cistern_host::Activation::Complete),
                    |view| {
                        if let Some(volume) = view.volume_mut(id) {
                            volume.active = true;
                        }
                    },
                )?;
                let found = filesystems.probe(&node).doing(|| doing("look at the device"))?;
                overwrite = !found.is_empty();
            }
            let spec = XfsSpec {
                uuid: id.uuid(),
                size: tags.size,
            };
            filesystems
                .make_xfs(&node, &spec, overwrite)
                .doing(|| doing("make the filesystem"))?;
            filesystems
                .mount(&node, &path)
                .doing(|| doing("mount the filesystem"))?;
        }
        filesystems
            .set_root(&path, &root_of(&tags.options.options))
            .doing(|| doing("open the root directory"))?;
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.exported = true;
            }
        });
        self.publish_volume(id)?;
        self.change_lvm(
            pool,
            || doing("note the readiness"),
            || lvm.tag_lv(&vg, &lv, &Stage::Ready.change()),
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.tags.state = Stage::Ready;
                    volume.trouble = None;
                }
            },
        )
    }

    /// Takes a volume away whose tags say that it is being made or deleted.
    pub(crate) fn take_volume_away(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let stage = self
            .view()
            .volume(id)
            .map(|(_, volume)| volume.tags.state)
            .ok_or_else(|| no_volume(id))?;
        if stage == Stage::Ready {
            return Err(EngineError::Conflict(format!("volume {id} is not being deleted")));
        }
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.exported = false;
            }
        });
        self.publish_volume(id)?;
        let path = self.path_of(id);
        // Also where nothing is mounted: the directory goes with it.
        for attempt in 1.. {
            let released = self.0.host.exports.release(&path);
            released.doing(|| format!("release volume {id}"))?;
            match self.0.host.filesystems.unmount(&path) {
                Ok(()) => break,
                Err(error) if error.kind() == HostErrorKind::Busy && attempt < ATTEMPTS => {}
                Err(error) => return Err(error).doing(|| format!("unmount volume {id}")),
            }
        }
        let removed = self.change_lvm(
            pool,
            || format!("remove volume {id}"),
            || self.0.host.lvm.remove_lv(&pool.to_string(), &id.to_string()),
            |view| {
                view.pools.get_mut(&pool).map(|pool| pool.volumes.remove(&id));
            },
        );
        match removed {
            // The error was in the telling: it is gone.
            Err(_) if self.view().volume(id).is_none() => Ok(()),
            other => other,
        }
    }

    fn is_mounted(&self, id: VolumeId) -> Result<bool, EngineError> {
        let path = self.path_of(id);
        let mounts = self.0.host.filesystems.mounts_below(&self.0.config.volumes_dir);
        let mounts = mounts.doing(|| "list the mounts".to_owned())?;
        Ok(mounts.iter().any(|mount| mount.target == path))
    }
}
