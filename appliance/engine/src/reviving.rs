//! Ready volumes that are not served, looked at by the clock: the kernel has shut their filesystem down, or they could not be mounted
//! when everything was.
//!
//! Invariant: one that can be served again is, whatever kept it from that and without anybody's asking. Each try that fails makes the
//! next one later, since a damaged filesystem fills the kernel's log with each.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cistern_host::{Activation, ThinMode};
use cistern_model::{EventKind, PoolId, PoolState, Severity, VolumeId};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::power_lost;
use crate::reconcile::{LIMIT, RECONCILING};
use crate::tags::Stage;
use crate::view::DATA;

/// How long is waited after a second try that failed, and twice that after each other one. After the first it is tried in the next round.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Of volumes that were tried in vain, when they are tried again.
pub(crate) type Tries = HashMap<VolumeId, Try>;

/// When a volume is tried again, and how long was waited for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    at: Instant,
    pause: Duration,
}

impl Engine {
    /// One look. Fails only if the machine is gone.
    pub(crate) fn revive_volumes(&self) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        // One whose disks hang may hang this too: nobody is to wait for it. Whoever serves them looks again.
        let mut down = self.volumes_in(|stage| stage == Stage::Ready);
        down.retain(|(_, id)| self.0.host.filesystems.is_up(&self.path_of(*id)).is_ok_and(|up| !up));
        // Between two mounts a volume is not served: nobody is to be told meanwhile that it is not there. And while all is being
        // reconciled a pool may be taken down to be brought up.
        let Some(_still) = self.0.names.try_hold(RECONCILING.to_owned()) else {
            return Ok(());
        };
        let mounted = down.iter().map(|(_, id)| self.path_of(*id)).collect();
        self.serve_all(down.clone(), &mounted)?;
        let mut due = self.due_again();
        due.retain(|volume| !down.contains(volume));
        if !due.is_empty() {
            self.serve_again(&due)?;
        }
        self.note_tries(down.into_iter().chain(due));
        Ok(())
    }

    fn serve_again(&self, due: &[(PoolId, VolumeId)]) -> Result<(), EngineError> {
        self.activate_volumes(due)?;
        let mounts = self.0.host.filesystems.mounts_below(&self.0.config.volumes_dir);
        let mounted: HashSet<PathBuf> = mounts
            .doing(|| "list the mounts".to_owned())?
            .into_iter()
            .map(|mount| mount.target)
            .collect();
        self.serve_all(due.to_vec(), &mounted)
    }

    fn note_tries(&self, tried: impl Iterator<Item = (PoolId, VolumeId)>) {
        let mut tries = locked(&self.0.tries);
        for (_, id) in tried {
            let served = self
                .view()
                .volume(id)
                .is_none_or(|(_, volume)| volume.trouble.is_none());
            if served {
                tries.remove(&id);
                continue;
            }
            let pause = match tries.get(&id).map(|before| before.pause) {
                None => Duration::ZERO,
                Some(Duration::ZERO) => FIRST_PAUSE,
                Some(before) => (before * 2).min(LONGEST_PAUSE),
            };
            let at = Instant::now() + pause;
            tries.insert(id, Try { at, pause });
        }
    }

    /// The volumes in trouble whose time has come. None of a pool that cannot serve them, or that takes no writes: a log that is
    /// to be recovered needs some.
    fn due_again(&self) -> Vec<(PoolId, VolumeId)> {
        let mut troubled = Vec::new();
        for pool in self.view().pools.values() {
            let serves = pool.active && !pool.releasing && pool.tags.state == Stage::Ready;
            if !serves || pool.state() == PoolState::Incomplete {
                continue;
            }
            let in_trouble = |(_, volume): &(_, &crate::view::VolumeView)| {
                volume.tags.state == Stage::Ready && volume.trouble.is_some()
            };
            troubled.extend(pool.volumes.iter().filter(in_trouble).map(|(id, _)| (pool.id, *id)));
        }
        let now = Instant::now();
        let mut tries = locked(&self.0.tries);
        tries.retain(|id, _| troubled.iter().any(|(_, other)| other == id));
        troubled.retain(|(_, id)| tries.get(id).is_none_or(|next| next.at <= now));
        drop(tries);
        let mut writable: HashMap<PoolId, bool> = HashMap::new();
        troubled.retain(|(pool, _)| {
            *writable.entry(*pool).or_insert_with(|| {
                let status = self.0.host.thin.status(&pool.to_string(), DATA);
                status.is_ok_and(|status| status.mode == ThinMode::Writable)
            })
        });
        troubled
    }

    /// Activates those whose devices are not. One that cannot be is in trouble still. Fails only if the machine is gone.
    fn activate_volumes(&self, volumes: &[(PoolId, VolumeId)]) -> Result<(), EngineError> {
        for (pool, id) in volumes {
            if self.view().volume(*id).is_none_or(|(_, volume)| volume.active) {
                continue;
            }
            self.activate_volume(*pool, *id, self.activation(*pool))?;
        }
        Ok(())
    }

    /// Activates a volume's device. One that cannot be says so itself. Fails only if the machine is gone.
    pub(crate) fn activate_volume(&self, pool: PoolId, id: VolumeId, mode: Activation) -> Result<(), EngineError> {
        let activated = self.change_lvm(
            pool,
            || format!("activate volume {id}"),
            || self.0.host.lvm.activate_lv(&pool.to_string(), &id.to_string(), mode),
            |view| {
                if let Some(volume) = view.volume_mut(id) {
                    volume.active = true;
                }
            },
        );
        match activated {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                tracing::warn!(error = error.problem().detail, "a volume could not be activated");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Mounts a filesystem anew that the kernel has shut down. While its pool takes no writes that would be in vain.
    pub(crate) fn mount_anew(&self, pool: PoolId, id: VolumeId, path: &Path) -> Result<(), EngineError> {
        let (vg, filesystems) = (pool.to_string(), &self.0.host.filesystems);
        // What cannot be asked is left as it is.
        if filesystems.is_up(path).unwrap_or(true) {
            return Ok(());
        }
        let status = self.0.host.thin.status(&vg, DATA);
        let status = status.doing(|| format!("ask how full {vg} is"))?;
        if status.mode != ThinMode::Writable {
            return Err(EngineError::Unavailable(
                "the kernel has shut its filesystem down, and its pool takes no writes".to_owned(),
            ));
        }
        self.give_back(path)?;
        let mounted = filesystems.mount(&self.0.host.lvm.node(&vg, &id.to_string()), path);
        mounted.doing(|| "its filesystem was shut down, and cannot be mounted again".to_owned())?;
        let message = format!("volume {id} was mounted again: the kernel had shut its filesystem down");
        let object = Some(id.to_string());
        self.record(EventKind::VolumeChanged, Severity::Warning, object, None, message);
        Ok(())
    }
}
