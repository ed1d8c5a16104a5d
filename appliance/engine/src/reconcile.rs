//! Makes mounts, exports and services match what the tags say, object by object. Invariant: one sick object never keeps
//! the others from being served; nothing that cannot be explained is touched; the NFS server starts only after every
//! known volume has its export.
//!
//! What was interrupted: a pool's making or deleting is finished; a volume's deletion is finished; a volume that was
//! being made, of which nobody was told, is taken away (asking for it first goes on with it).

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cistern_host::Activation;
use cistern_model::{EventKind, PoolId, PoolState, Principal, Severity, VolumeId};

use crate::EngineError;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::failure::Way;
use crate::locks::Patiently;
use crate::pool_steps::Progress;
use crate::pools::power_lost;
use crate::tags::Stage;
use crate::volumes::volume_lock;

/// The longest that reconciling thousands of volumes may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(3600);

/// What is held while all is reconciled.
pub(crate) const RECONCILING: &str = "the reconciling of everything";
/// How long a start waits for a command of LVM's that the supervisor before left running.
const LAST_COMMAND: Duration = Duration::from_secs(60);

impl Engine {
    /// Makes everything as the disks say, then starts the NFS server. Fails if the disks cannot be read or NFS cannot be
    /// started; single pools and volumes that fail are said in their state.
    pub fn start(&self) -> Result<(), EngineError> {
        self.recall();
        // What another supervisor on this machine kept from LVM is looked at anew.
        self.0.host.lvm.hide(BTreeSet::new());
        // Before anything is asked of a filesystem: what lies on a suspended volume does not answer, and the kernel loses
        // count of who froze it if it is thawed under a command that suspends it. One of the supervisor before may run yet.
        self.resume_suspended(LAST_COMMAND);
        self.thaw_all()?;
        self.reconcile()?;
        self.remember_surroundings();
        self.watch_raids();
        self.0.started.store(true, Ordering::SeqCst);
        let (pools, volumes) = {
            let view = self.view();
            (
                view.pools.len(),
                view.pools.values().map(|pool| pool.volumes.len()).sum::<usize>(),
            )
        };
        let message = format!("the supervisor started; it found {pools} pool(s) with {volumes} volume(s)");
        self.record(EventKind::Started, Severity::Info, None, None, message);
        Ok(())
    }

    /// Makes everything as the disks say. What is just being worked on by a request is left to it.
    pub fn reconcile(&self) -> Result<(), EngineError> {
        let outcome = self.reconcile_all();
        if !outcome.as_ref().is_err_and(power_lost) {
            self.review_alerts();
            self.tell_what_grew();
        }
        outcome
    }

    fn reconcile_all(&self) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let _patiently = Patiently::begin();
        let owed = &self.0.failures.owed;
        let one = self.0.names.hold(RECONCILING.to_owned());
        // Whoever has it may have looked at the disks before they changed.
        owed.store(one.is_err(), Ordering::SeqCst);
        let _one = one?;
        self.devices()?;
        self.open_layers()?;
        self.read_lvm()?;
        self.seal_open_keys()?;
        self.tidy_layers()?;
        let pools: Vec<PoolId> = self.view().pools.keys().copied().collect();
        for pool in pools {
            self.settle_pool(pool)?;
        }
        self.note_pools()?;
        self.finish_rollbacks()?;
        // In this order: what is ready before the mounts are listed is mounted by then, if anybody has mounted it.
        let ready = self.volumes_in(|stage| stage == Stage::Ready);
        let mounts = self.0.host.filesystems.mounts_below(&self.0.config.volumes_dir);
        let mounted: HashSet<PathBuf> = mounts
            .doing(|| "list the mounts".to_owned())?
            .into_iter()
            .map(|mount| mount.target)
            .collect();
        self.publish_what_has_come()?;
        self.serve_all(ready, &mounted)?;
        self.serve_snapshots(&mounted)?;
        self.publish()?;
        self.answer_those_who_wait()?;
        self.withdraw_trash(&mounted)?;
        let nfs = self.start_nfs();
        for (pool, id) in self.volumes_in(|stage| matches!(stage, Stage::Creating | Stage::Deleting)) {
            self.clear(pool, id)?;
        }
        self.clear_snapshots()?;
        nfs
    }

    pub(crate) fn volumes_in(&self, which: impl Fn(Stage) -> bool) -> Vec<(PoolId, VolumeId)> {
        let view = self.view();
        let mut found = Vec::new();
        for pool in view.pools.values() {
            let volumes = pool.volumes.iter().filter(|(_, volume)| which(volume.tags.state));
            found.extend(volumes.map(|(id, _)| (pool.id, *id)));
        }
        found
    }

    /// Brings a pool where its tags say. Fails only if the machine is gone.
    fn settle_pool(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        let outcome = match pool.tags.state {
            Stage::Ready => {
                // A disk that cannot be taken back does not keep the pool from being served.
                let back = self.take_disks_back(id);
                match &back {
                    Err(error) if power_lost(error) => back,
                    Ok(()) | Err(_) => self.renew(id).and_then(|()| self.activate(id)).and(back),
                }
            }
            // No pool is.
            Stage::RollingBack | Stage::Trash => Ok(()),
            Stage::Creating | Stage::Deleting => {
                let Some(_disks) = self.0.names.try_hold(DISKS.to_owned()) else {
                    return Ok(());
                };
                if locked(&self.0.pending).iter().any(|pending| pending.id == id) {
                    return Ok(());
                }
                let (kind, done, outcome) = if pool.tags.state == Stage::Creating {
                    let outcome = self.finish_pool(id, &Progress::unseen());
                    (EventKind::PoolCreated, "making", outcome)
                } else {
                    let outcome = self.take_pool_away(id, &Progress::unseen());
                    (EventKind::PoolDeleted, "deletion", outcome)
                };
                if outcome.is_ok() {
                    let message = format!("the interrupted {done} of pool {} was finished", pool.tags.name);
                    self.record(kind, Severity::Info, Some(id.to_string()), None, message);
                }
                outcome
            }
        };
        let trouble = match outcome {
            Err(error) if power_lost(&error) => return Err(error),
            Err(error) => Some(error.problem().detail),
            Ok(()) => None,
        };
        self.note_pool(id, trouble);
        self.note_left_out(id)?;
        match self.mend(id) {
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => {
                let message = format!("no disk could take another's place: {}", error.problem().detail);
                self.record(
                    EventKind::PoolChanged,
                    Severity::Warning,
                    Some(id.to_string()),
                    None,
                    message,
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Activates what is not active, as far as its disks allow. LVM's refusal is no failure of ours: the pool's state says
    /// it.
    fn activate(&self, id: PoolId) -> Result<(), EngineError> {
        let Some(pool) = self.view().pools.get(&id).cloned() else {
            return Ok(());
        };
        let way = self.way_to_activate(&pool);
        // A group of which no disk is there is not known to LVM.
        let idle = !pool.nodes.is_empty()
            && !pool.releasing
            && (!pool.active || pool.volumes.values().any(|volume| !volume.active));
        if !idle {
            return Ok(());
        }
        let mode = match way {
            Way::Now(mode) => mode,
            Way::In(left) => {
                self.reconcile_in(left);
                let why = self.lacking_words(&pool).unwrap_or_default();
                return Err(EngineError::Unavailable(format!(
                    "{why}; it is served without in {} s if they do not come",
                    left.as_secs().max(1)
                )));
            }
            Way::Older(disks) => {
                return Err(EngineError::Unavailable(format!(
                    "it was last served without disk {}, and what is there is older than what was answered since; bring \
                     back the disks that it lacks",
                    disks.join(", ")
                )));
            }
            Way::Not => return Ok(()),
        };
        if mode == Activation::Partial {
            self.keep_left_out(&pool)?;
        }
        let outcome = self.change_lvm(
            id,
            || format!("activate {id}"),
            || self.0.host.lvm.activate_vg(&id.to_string(), mode),
            |view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.active = true;
                    // It lies on what is there.
                    pool.broken = false;
                }
            },
        );
        match outcome {
            Err(error) if mode == Activation::Partial && !power_lost(&error) => Err(self.not_without(&pool, error)),
            Err(error) => Err(error),
            Ok(()) => {
                self.activate_skipped(id, mode)?;
                self.see_whether_uneven(id)
            }
        }
    }

    /// Activates volumes that LVM passes by when it activates their group: one that was made by hand as a snapshot carries a
    /// flag for that. What is active is asked, not assumed. Fails only if that cannot be done.
    fn activate_skipped(&self, id: PoolId, mode: Activation) -> Result<(), EngineError> {
        self.read_lvm()?;
        let skipped: Vec<VolumeId> = {
            let view = self.view();
            let volumes = view.pools.get(&id).map(|pool| &pool.volumes);
            let inactive = volumes.into_iter().flatten().filter(|(_, volume)| !volume.active);
            inactive.map(|(volume, _)| *volume).collect()
        };
        for volume in skipped {
            self.activate_volume(id, volume, mode)?;
        }
        Ok(())
    }

    fn note_pool(&self, id: PoolId, failure: Option<String>) {
        let lacking = {
            let pool = self.view().pools.get(&id).cloned();
            pool.and_then(|pool| self.lacking_words(&pool))
        };
        let noted = self.change_view(|view| {
            let pool = view.pools.get_mut(&id)?;
            let trouble = match (lacking, failure) {
                // What waits says so.
                (Some(lacking), Some(failure)) if failure.starts_with(&lacking) => Some(failure),
                // Else what it lacks is not the whole story.
                (Some(lacking), Some(failure)) => Some(format!("{lacking}; {failure}")),
                (lacking, failure) => lacking.or(failure),
            };
            let news = (pool.trouble != trouble).then(|| pool.tags.name.clone());
            pool.trouble = trouble;
            Some((news?, pool.state(), pool.trouble.clone()))
        });
        let Some((name, state, trouble)) = noted else { return };
        let severity = match state {
            PoolState::Ready | PoolState::Creating | PoolState::Deleting if trouble.is_none() => Severity::Info,
            PoolState::Ready | PoolState::Creating | PoolState::Deleting | PoolState::Degraded => Severity::Warning,
            PoolState::Incomplete => Severity::Error,
        };
        let why = trouble.map(|why| format!(": {why}")).unwrap_or_default();
        let message = format!("pool {name} is {}{why}", state.name());
        self.record(EventKind::PoolChanged, severity, Some(id.to_string()), None, message);
    }

    /// Mounts a ready volume. Fails only if the machine is gone.
    pub(crate) fn serve(&self, pool: PoolId, id: VolumeId, mounted: &HashSet<PathBuf>) -> Result<(), EngineError> {
        let Ok((_, volume)) = self.visible_volume(&Principal::local(), id) else {
            return Ok(());
        };
        let Some(_name) = self.0.names.try_hold(volume_lock(pool, &volume.tags.name)) else {
            return Ok(());
        };
        self.bring_up(pool, id, mounted)
    }

    /// Mounts a volume whose name is held, if it is ready. Fails only if the machine is gone.
    pub(crate) fn bring_up(&self, pool: PoolId, id: VolumeId, mounted: &HashSet<PathBuf>) -> Result<(), EngineError> {
        let Ok((view, volume)) = self.visible_volume(&Principal::local(), id) else {
            return Ok(());
        };
        // Whoever had the name may have begun to delete it.
        if volume.tags.state != Stage::Ready {
            return Ok(());
        }
        if view.releasing {
            return Ok(());
        }
        let path = self.path_of(id);
        // An expansion may have stopped between its promise and its filesystem.
        let fill = || match self.fill_device(id, &volume) {
            Ok(()) => Ok(None),
            Err(error) if power_lost(&error) => Err(error),
            Err(error) => Ok(Some(error.problem().detail)),
        };
        let trouble = if view.state() == PoolState::Incomplete {
            let why = view
                .trouble
                .clone()
                .or_else(|| view.missing_reason())
                .unwrap_or_default();
            Some(format!("pool {} is not complete: {why}", view.tags.name))
        } else if mounted.contains(&path) {
            match self.mount_anew(pool, id, &path) {
                Ok(()) => fill()?,
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => Some(error.problem().detail),
            }
        } else if !volume.active {
            Some("its device could not be activated".to_owned())
        } else {
            let node = self.0.host.lvm.node(&pool.to_string(), &id.to_string());
            match self
                .0
                .host
                .filesystems
                .mount(&node, &path)
                .doing(|| "its filesystem cannot be mounted".to_owned())
            {
                Ok(()) => fill()?,
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => Some(error.problem().detail),
            }
        };
        let trouble = match trouble {
            None => match self.give_root(pool, id) {
                Err(error) if power_lost(&error) => return Err(error),
                // It is served all the same; the tag stays, and the next reconcile tries again.
                Err(error) => {
                    tracing::warn!(%error, volume = %id, "its root directory is not as it was asked for");
                    None
                }
                Ok(()) => None,
            },
            trouble => trouble,
        };
        let changed = self.change_view(|view| {
            let volume = view.volume_mut(id)?;
            let changed = volume.trouble != trouble;
            volume.trouble.clone_from(&trouble);
            Some(changed)
        });
        if changed == Some(true) {
            let name = &volume.tags.name;
            let (severity, message) = match trouble {
                None => (Severity::Info, format!("volume {name} is served again")),
                Some(why) => (Severity::Error, format!("volume {name} is not served: {why}")),
            };
            self.record(EventKind::VolumeChanged, severity, Some(id.to_string()), None, message);
        }
        Ok(())
    }

    /// Takes away a volume that was being made or deleted, unless somebody is at it. Fails only if the machine is gone.
    fn clear(&self, pool: PoolId, id: VolumeId) -> Result<(), EngineError> {
        let Some((whole, name)) = self
            .view()
            .volume(id)
            .map(|(p, v)| (p.missing == 0, v.tags.name.clone()))
        else {
            return Ok(());
        };
        let Some(_name) = self.0.names.try_hold(volume_lock(pool, &name)) else {
            return Ok(());
        };
        let stage = self.view().volume(id).map(|(_, volume)| volume.tags.state);
        let Some(stage @ (Stage::Creating | Stage::Deleting)) = stage else {
            return Ok(());
        };
        if !whole {
            return Ok(());
        }
        let what = if stage == Stage::Creating {
            "making was undone"
        } else {
            "deletion was finished"
        };
        match self.take_volume_away(pool, id) {
            Err(error) if power_lost(&error) => return Err(error),
            Err(error) => {
                let message = format!("volume {name} could not be taken away: {}", error.problem().detail);
                self.record(
                    EventKind::VolumeChanged,
                    Severity::Warning,
                    Some(id.to_string()),
                    None,
                    message,
                );
            }
            Ok(()) => {
                let message = format!("volume {name}: its interrupted {what}");
                self.record(
                    EventKind::VolumeDeleted,
                    Severity::Info,
                    Some(id.to_string()),
                    None,
                    message,
                );
            }
        }
        Ok(())
    }
}
