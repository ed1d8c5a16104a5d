//! The steps by which a volume is made and taken away, once its LV is there. Invariant: each can be repeated; a
//! filesystem is made only on an LV whose tags say that it is being made, and of nothing; the word that it is ready comes
//! last.

use std::path::Path;

use cistern_host::{Ground, HostErrorKind, XfsSpec};
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
            }
            if tags.source.is_some() {
                self.enlarge_device(pool, id)?;
            } else {
                let found = if fresh {
                    Vec::new()
                } else {
                    filesystems.probe(&node).doing(|| doing("look at the device"))?
                };
                let ground = match (found.is_empty(), fresh && !self.is_overcommitted(pool)) {
                    (false, _) => Ground::Unfinished,
                    // Its log takes no space before it is written to.
                    (true, true) => Ground::Zeroes,
                    // A pool that may be full though its volumes are not: the log takes its space at once, because a
                    // filesystem that cannot write to its log shuts down.
                    (true, false) => Ground::Unnamed,
                };
                let spec = XfsSpec {
                    uuid: id.uuid(),
                    size: tags.size,
                };
                filesystems
                    .make_xfs(&node, &spec, ground)
                    .doing(|| doing("make the filesystem"))?;
            }
            filesystems
                .mount(&node, &path)
                .doing(|| doing("mount the filesystem"))?;
        }
        if tags.source.is_some() {
            // Its root stays as its source's is.
            let grown = filesystems.grow_xfs(&path, tags.size);
            grown.doing(|| doing("grow the filesystem"))?;
        } else {
            filesystems
                .set_root(&path, &root_of(&tags.options.options))
                .doing(|| doing("open the root directory"))?;
        }
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
        )?;
        // A copy's root is its source's, unless something else was asked for.
        self.give_root(pool, id)
    }

    /// Takes a volume away whose tags say that it is being made or deleted.
    pub(crate) fn take_volume_away(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let stage = self
            .view()
            .volume(id)
            .map(|(_, volume)| volume.tags.state)
            .ok_or_else(|| no_volume(id))?;
        if !matches!(stage, Stage::Creating | Stage::Deleting) {
            return Err(EngineError::Conflict(format!("volume {id} is not being deleted")));
        }
        if stage == Stage::Deleting {
            self.drop_scheduled(pool, id)?;
        }
        self.change_view(|view| {
            if let Some(volume) = view.volume_mut(id) {
                volume.exported = false;
            }
        });
        self.publish_volume(id)?;
        self.let_go(&self.path_of(id))?;
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

    /// Makes the NFS server let go of what it no longer exports, and unmounts it. Also where nothing is mounted: the
    /// directory goes with it.
    pub(crate) fn let_go(&self, path: &Path) -> Result<(), EngineError> {
        for attempt in 1.. {
            let released = self.0.host.exports.release(path);
            released.doing(|| format!("release {}", path.display()))?;
            match self.0.host.filesystems.unmount(path) {
                Ok(()) => break,
                Err(error) if error.kind() == HostErrorKind::Busy && attempt < ATTEMPTS => {}
                Err(error) => return Err(error).doing(|| format!("unmount {}", path.display())),
            }
        }
        Ok(())
    }

    /// Makes a volume's device as large as its tags say. Nothing happens if it is.
    pub(crate) fn enlarge_device(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let found = {
            let view = self.view();
            view.volume(id)
                .map(|(pool, volume)| (pool.extent, volume.device, volume.tags.size))
        };
        let (extent, device, size) = found.ok_or_else(|| no_volume(id))?;
        if size.round_up(extent) <= device {
            return Ok(());
        }
        self.change_lvm(
            pool,
            || format!("grow the device of volume {id}"),
            || self.0.host.lvm.extend_thin(&pool.to_string(), &id.to_string(), size),
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.device = size.round_up(extent);
                }
            },
        )
    }

    fn is_overcommitted(&self, pool: PoolId) -> bool {
        let view = self.view();
        let pool = view.pools.get(&pool);
        pool.is_some_and(|pool| pool.overcommit(self.0.config.overcommit_percent) > 100)
    }

    fn is_mounted(&self, id: VolumeId) -> Result<bool, EngineError> {
        self.mounted(&self.path_of(id))
    }
}
