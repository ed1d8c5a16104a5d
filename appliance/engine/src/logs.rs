//! Logs of filesystems that snapshots share. One that finds no space in a full pool shuts its filesystem down; so each gets
//! space of its own while there is some left for it, and what is left after that is for files.
//!
//! Invariant: it is done once for each snapshot that shares a log, when a pool runs short and not before: it takes space,
//! which a pool with room for all has better uses for.

use std::collections::{BTreeSet, HashMap};

use cistern_host::{ThinMode, ThinStatus};
use cistern_model::{Bytes, PoolId, VolumeId};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::fill;
use crate::pools::power_lost;
use crate::tags::Stage;
use crate::view::{DATA, PoolView};
use crate::volumes::{LIMIT, volume_lock};

/// What shared a volume's log when it got space of its own: its snapshots, and what it is a copy of.
pub(crate) type Owned = HashMap<VolumeId, BTreeSet<String>>;

/// A volume whose log something shares.
struct Shared {
    volume: VolumeId,
    /// How large the log is.
    log: Bytes,
    /// Whether it had space of its own before a snapshot shared it again.
    had_its_own: bool,
    sharing: BTreeSet<String>,
}

/// A pool that is fuller than this may be full before the next round of all that is done by the clock.
const FILLING: f64 = 40.0;

impl Engine {
    /// Looks at the logs of pools that fill, and at nothing else, which may take long: a client can write what is left of a
    /// small pool between two rounds. To be called every second or two.
    pub fn look_at_logs(&self) {
        if !self.is_started() {
            return;
        }
        let Some(_one) = self.0.names.try_hold("logs of pools that fill".to_owned()) else {
            return;
        };
        let filling: Vec<PoolId> = {
            let view = self.view();
            let fills = |pool: &&PoolView| {
                pool.active
                    && pool.tags.state == Stage::Ready
                    && !pool.releasing
                    && f64::from(pool.data) >= FILLING
                    && !self.shared_logs(pool).is_empty()
            };
            view.pools.values().filter(fills).map(|pool| pool.id).collect()
        };
        for id in filling {
            // What each volume maps is of no matter here.
            let status = self.0.host.thin.status(&id.to_string(), DATA);
            let status = status.doing(|| format!("ask how full {id} is"));
            match status.and_then(|status| self.own_logs(id, status)) {
                Ok(_) => {}
                Err(error) if power_lost(&error) => return,
                Err(error) => tracing::warn!(pool = %id, error = error.problem().detail, "its logs were not looked at"),
            }
        }
    }

    /// Gives logs space of their own, if a pool will soon have none for them.
    pub(crate) fn own_logs(&self, id: PoolId, status: ThinStatus) -> Result<ThinStatus, EngineError> {
        if status.mode != ThinMode::Writable {
            return Ok(status);
        }
        let shared = {
            let view = self.view();
            let pool = view.pools.get(&id).filter(|pool| pool.active && !pool.releasing);
            pool.map(|pool| (pool.size, self.shared_logs(pool))).unwrap_or_default()
        };
        let (size, shared) = shared;
        let needed = |all: &[Shared]| all.iter().map(|shared| shared.log).sum();
        let mut shared = shared;
        if !fill::logs_are_in_danger(size, &status, needed(&shared), true) {
            shared.retain(|shared| !shared.had_its_own);
            if !fill::logs_are_in_danger(size, &status, needed(&shared), false) {
                return Ok(status);
            }
        }
        let mut status = status;
        for Shared {
            volume, log, sharing, ..
        } in shared
        {
            // What is made here never fills the pool.
            if !fill::has_room_for_a_log(size, &status, log) {
                break;
            }
            let name = self.view().volume(volume).map(|(_, volume)| volume.tags.name.clone());
            let Some(name) = name else { continue };
            // Whoever is at it may be holding its writes back.
            let Some(_name) = self.0.names.try_hold(volume_lock(id, &name)) else {
                continue;
            };
            // It is written anew piece by piece, each with the filesystem at rest.
            let _operation = self.0.operations.begin(LIMIT);
            let owned = self.0.host.filesystems.own_log(&self.path_of(volume));
            match owned.doing(|| format!("give the log of volume {name} its own space")) {
                Err(error) if power_lost(&error) => return Err(error),
                Err(error) => tracing::warn!(
                    error = error.problem().detail,
                    "a full pool may shut its filesystem down"
                ),
                Ok(()) => {
                    tracing::info!(volume = %name, "its pool runs short: its log has its own space now");
                    locked(&self.0.owned_logs).insert(volume, sharing);
                }
            }
            status = self.measure(id)?;
        }
        Ok(status)
    }

    /// The served volumes whose logs something shares that did not when they last got space of their own.
    fn shared_logs(&self, pool: &PoolView) -> Vec<Shared> {
        let owned = locked(&self.0.owned_logs);
        let served = pool
            .volumes
            .iter()
            .filter(|(_, volume)| volume.tags.state == Stage::Ready && volume.trouble.is_none());
        let shared = served.filter_map(|(id, volume)| {
            let of_it = pool
                .snapshots
                .iter()
                .filter(|(_, snapshot)| snapshot.tags.volume == *id);
            let mut sharing: BTreeSet<String> = of_it.map(|(snapshot, _)| snapshot.to_string()).collect();
            sharing.extend(volume.tags.source.map(|source| source.to_string()));
            let new = owned
                .get(id)
                .map_or(!sharing.is_empty(), |before| !sharing.is_subset(before));
            new.then(|| Shared {
                volume: *id,
                log: fill::log_of(volume.tags.size),
                had_its_own: owned.contains_key(id),
                sharing,
            })
        });
        shared.collect()
    }
}
