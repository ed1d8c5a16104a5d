//! Which pools this appliance has, kept beside them: of one of which no disk is here any more nobody else knows.
//!
//! Invariant: what may lie in a pool that is away is not told to be gone: who is told so forgets it, as a cluster does with a volume
//! that it wanted deleted. A pool is away until its disks are back, or somebody says that it is gone for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use cistern_host::{HostError, HostErrorKind};
use cistern_model::{EventKind, Job, JobKind, Layout, PoolId, PoolName, Principal, Severity};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::kept::Record;
use crate::tags::Stage;

/// What is known of a pool that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Had {
    pub(crate) name: PoolName,
    layout: Layout,
}

/// The pools that this appliance has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PoolsHad(BTreeMap<PoolId, Had>);

impl Record for PoolsHad {
    const NAME: &str = "pools.json";
    const WITHOUT: &str = "while none of a pool's disks is here, its volumes are told to be gone";
}

impl Engine {
    /// Notes the pools that are here, but those that are being parted with. Fails only if the machine is gone: a state partition that
    /// cannot be written keeps nothing from being served.
    pub(crate) fn note_pools(&self) -> Result<(), EngineError> {
        self.0.failures.looked.store(true, Ordering::SeqCst);
        self.note_those(|_| true)
    }

    /// Notes one that was made. Fails as [`Engine::note_pools`].
    pub(crate) fn note_new_pool(&self, id: PoolId) -> Result<(), EngineError> {
        self.note_those(|pool| pool == id)
    }

    fn note_those(&self, wanted: impl Fn(PoolId) -> bool) -> Result<(), EngineError> {
        let kept = self.change_had(|PoolsHad(all)| {
            let view = self.view();
            let ready = view
                .pools
                .values()
                .filter(|pool| pool.tags.state == Stage::Ready && !pool.releasing && wanted(pool.id));
            let had = |name: &PoolName, layout: Layout| Had {
                name: name.clone(),
                layout,
            };
            all.extend(ready.map(|pool| (pool.id, had(&pool.tags.name, pool.tags.layout))));
        });
        match kept {
            Err(error) if error.kind() == HostErrorKind::PowerLost => {
                Err(error).doing(|| "note which pools there are".to_owned())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Notes that a pool is no longer this appliance's. Fails if that cannot be kept: it would be waited for, and missed, for good.
    pub(crate) fn note_pool_gone(&self, id: PoolId) -> Result<(), EngineError> {
        let kept = self.change_had(|PoolsHad(all)| drop(all.remove(&id)));
        kept.doing(|| format!("note that {id} is gone"))
    }

    /// A pool that is deleted meanwhile does not come back into the record: each change is of what is known then.
    fn change_had(&self, change: impl FnOnce(&mut PoolsHad)) -> Result<(), HostError> {
        let kept = self.change_kept(&self.0.pools_had, change);
        self.note_keeping(&kept);
        kept
    }

    /// Which pools are away.
    pub(crate) fn pools_away(&self) -> Result<BTreeSet<PoolId>, HostError> {
        Ok(self.away()?.into_keys().collect())
    }

    /// The pools of which nothing is here, with the reason. None before it was looked for them.
    pub(crate) fn away_and_why(&self) -> Result<Vec<(PoolId, PoolName, &'static str)>, HostError> {
        if !self.0.failures.looked.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        let away = self.away()?;
        if away.is_empty() {
            return Ok(Vec::new());
        }
        let locked: BTreeSet<String> = self.locked_pools().into_iter().map(|pool| pool.object).collect();
        let why = |id: PoolId| match locked.contains(&id.to_string()) {
            true => "it is encrypted, and its key is not on this appliance",
            false => "none of its disks is here, or they are another appliance's",
        };
        Ok(away.into_iter().map(|(id, had)| (id, had.name, why(id))).collect())
    }

    /// The pools of which nothing is here.
    fn away(&self) -> Result<BTreeMap<PoolId, Had>, HostError> {
        let PoolsHad(mut all) = self.kept(&self.0.pools_had)?;
        let view = self.view();
        all.retain(|id, _| !view.pools.contains_key(id));
        Ok(all)
    }

    /// What is told of something that was not found, and that may lie in a pool that is away.
    /// Named is what the caller may use; that there is more is said all the same, since its tokens may have been others once.
    pub(crate) fn not_here(&self, by: &Principal, not_found: EngineError) -> EngineError {
        match self.away() {
            Ok(away) if away.is_empty() => not_found,
            Ok(away) => {
                let named = away.iter().filter(|(_, had)| by.may_use_pool(&had.name));
                let mut pools: Vec<String> = named.map(|(id, had)| format!("{} ({id})", had.name)).collect();
                if pools.len() < away.len() {
                    pools.push("one that this token may not use".to_owned());
                }
                EngineError::Unavailable(format!(
                    "{not_found} here, and it may lie in a pool that is not here, or not open: {}. Bring its disks or its key \
                     back; if they are gone for good say so: `cistern pools delete` with its id",
                    pools.join(", ")
                ))
            }
            Err(error) => EngineError::Unavailable(format!(
                "{not_found} here, and whether there is a pool that is not here cannot be read: {error}"
            )),
        }
    }

    /// Refuses a list that would be empty, or lack what is there, for another reason than that there is nothing: the start has not ended,
    /// or the pool whose things are asked for is away.
    pub(crate) fn refuse_to_list(&self, by: &Principal, pool: Option<&str>) -> Result<(), EngineError> {
        match (self.is_started(), pool) {
            (false, _) => Err(Engine::not_started()),
            (true, Some(pool)) => self.visible_pool(by, pool).map(drop),
            (true, None) => Ok(()),
        }
    }

    /// Refuses to say that nothing has this name where it may lie in a pool that is away.
    pub(crate) fn refuse_as_none(&self, what: &'static str, by: &Principal, name: &str) -> Result<(), EngineError> {
        let name = name.to_owned();
        match self.absent(by, EngineError::NotFound { what, name }) {
            EngineError::NotFound { .. } => Ok(()),
            unknown => Err(unknown),
        }
    }

    /// What is told of a pool that was not found: of one that is away, that it is.
    pub(crate) fn no_pool_here(&self, by: &Principal, name_or_id: &str, not_found: EngineError) -> EngineError {
        let named = self.away_named(name_or_id);
        match named.filter(|(_, had)| by.may_use_pool(&had.name)) {
            None => not_found,
            Some((id, _)) if self.is_locked(id) => self.not_found_or_locked(&id.to_string()),
            Some((id, had)) => EngineError::Unavailable(format!(
                "none of the disks of pool {} ({id}) is here; bring them back, or if they are gone for good say so: `cistern pools \
                 delete {id}`",
                had.name
            )),
        }
    }

    /// Whether its disks are here, and its key is not.
    pub(crate) fn is_locked(&self, id: PoolId) -> bool {
        let id = id.to_string();
        self.locked_pools().iter().any(|pool| pool.object == id)
    }

    /// One that is away, by its name or id.
    pub(crate) fn away_named(&self, name_or_id: &str) -> Option<(PoolId, Had)> {
        let mut away = self.away().unwrap_or_default().into_iter();
        away.find(|(id, had)| id.to_string() == name_or_id || had.name.as_str() == name_or_id)
    }

    /// Gives up a pool of which nothing is here: it is no longer waited for. None if there is no such pool.
    pub(crate) fn give_up_away(&self, by: &Principal, name_or_id: &str) -> Result<Option<Job>, EngineError> {
        let Some((id, had)) = self
            .away_named(name_or_id)
            .filter(|(_, had)| by.may_use_pool(&had.name))
        else {
            return Ok(None);
        };
        if self.is_locked(id) {
            return Err(self.not_found_or_locked(&id.to_string()));
        }
        let job = self.begin_job(by, JobKind::DeletePool, &had.name, had.layout, Vec::new(), id);
        let (engine, by) = (self.clone(), by.clone());
        self.run_job(job.id, move |_| {
            engine.note_pool_gone(id)?;
            engine.publish()?;
            let message = format!(
                "pool {} ({id}), none of whose disks was here, was given up: it is no longer waited for",
                had.name
            );
            let object = Some(id.to_string());
            engine.record(EventKind::PoolDeleted, Severity::Warning, object, Some(&by), message);
            Ok(())
        });
        Ok(Some(job))
    }
}
