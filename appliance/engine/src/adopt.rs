//! Taking over what others made, and giving up what is ours. Invariant: a pool is taken from another appliance only by
//! somebody who names that appliance; what is given up is served to its last moment, or is served again if it could not be
//! given up.
//!
//! - **Import**: the group gets this machine's system ID in one commit; from there on it is a pool of ours, and what is
//!   left to do any reconcile does. Another name than it has is a second commit; if the power goes between the two and the
//!   name is in use here, it is shown under its name and a part of its id, and the same request goes on.
//! - **Release**: unexport, release, unmount, deactivate, `vgexport`. A crash before the last leaves a pool that is ours.
//! - **A volume**: its tags in one commit, then its name, which is its id. A crash between leaves what is still an orphan,
//!   and the same request goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cistern_host::{HostErrorKind, LvmState, TagChange, XfsFound};
use cistern_model::{
    AdoptRequest, Bytes, EventKind, ImportRequest, Orphan, Pool, PoolId, PoolName, Principal, Severity, Volume,
    VolumeId, refuse_hidden,
};
use uuid::Uuid;

use crate::EngineError;
use crate::clients::refuse_clients;
use crate::disks::DISKS;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::locks::Patiently;
use crate::pools::{no_pool, refuse_missing, refuse_unready};
use crate::tags::{self, OptionTags, PoolTags, Stage, Unreadable, VolumeTags};
use crate::view::{PoolView, View};
use crate::volumes::volume_lock;

/// How often a filesystem that is still in use is asked for again.
const ATTEMPTS: u32 = 3;
const LIMIT: Duration = Duration::from_secs(1200);

impl Engine {
    /// Takes in a pool that another appliance made, with all its volumes. One that was not released is taken only from
    /// the appliance that is named.
    pub fn import_pool(&self, by: &Principal, request: &ImportRequest) -> Result<Pool, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let id = request.pool;
        let vg = id.to_string();
        let lvm = &self.0.host.lvm;
        let state = lvm.state().doing(|| "read the pools' state".to_owned())?;
        let group = state
            .vgs
            .iter()
            .find(|group| group.name == vg)
            .ok_or_else(|| self.not_found_or_locked(&vg))?;
        let tags = PoolTags::read(&group.tags).map_err(|why| {
            EngineError::Conflict(match why {
                Unreadable::NotOurs => format!("{vg} is no pool of an appliance"),
                Unreadable::Damaged(why) => format!("the tags of {vg} cannot be read: {why}"),
            })
        })?;
        if group.missing > 0 {
            return Err(EngineError::Unavailable(format!(
                "{} disk(s) of pool {} ({vg}) are not there; LVM lets nobody take over a part",
                group.missing, tags.name
            )));
        }
        let name = request.name.clone().unwrap_or_else(|| tags.name.clone());
        let taken = self
            .view()
            .pools
            .values()
            .any(|pool| pool.id != id && pool.tags.name == name)
            || locked(&self.0.pending)
                .iter()
                .any(|pending| pending.id != id && pending.name == name);
        if taken {
            return Err(EngineError::NameTaken(format!(
                "this appliance has a pool {name}; give the one that is imported another name"
            )));
        }
        let takeover = &self.0.host.takeover;
        let doing = || format!("take over pool {} ({vg})", tags.name);
        match (group.ours, group.exported) {
            (true, _) if name == tags.name => {}
            // What was begun goes on: its name was to be changed, as another has it.
            (true, _) if others_named(&state, &vg, &tags.name) => {}
            (true, _) => {
                return Err(EngineError::Conflict(format!(
                    "pool {} is this appliance's already",
                    tags.name
                )));
            }
            (false, true) => self.change_lvm(id, doing, || takeover.import_group(&vg), |_| {})?,
            (false, false) if request.take_from.as_deref() == Some(group.system_id.as_str()) => {
                self.change_lvm(id, doing, || takeover.take_group(&vg, &group.system_id), |_| {})?;
            }
            (false, false) => {
                return Err(EngineError::Conflict(format!(
                    "pool {} belongs to the appliance whose LVM system ID is {}, and was not released there. If that \
                     appliance can never use these disks again, say so by naming it; two that use them destroy them",
                    tags.name, group.system_id
                )));
            }
        }
        if name != tags.name {
            let change = renaming(&tags, &name);
            self.change_lvm(
                id,
                || format!("name the imported pool {name}"),
                || lvm.tag_vg(&vg, &change),
                |_| {},
            )?;
        }
        self.devices()?;
        self.read_lvm()?;
        self.reconcile()?;
        let pool = self.visible_pool(by, &vg)?;
        if !group.ours {
            let from = if group.exported {
                "that was released"
            } else {
                "of another appliance"
            };
            let message = format!("pool {name} {from} was imported, with {} volume(s)", pool.volumes.len());
            self.record(EventKind::PoolImported, Severity::Warning, Some(vg), Some(by), message);
        }
        Ok(self.pool_model(&pool))
    }

    /// Gives a pool up, whole, so that another appliance can import it. Its volumes are no longer served here.
    pub fn release_pool(&self, by: &Principal, name_or_id: &str) -> Result<Orphan, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        let _disks = self.0.names.hold(DISKS.to_owned())?;
        let pool = match self.visible_pool(by, name_or_id) {
            Ok(pool) => pool,
            // Asked for again after it was done.
            Err(error) => return self.released(name_or_id)?.ok_or(error),
        };
        refuse_missing(&pool)?;
        refuse_unready(&pool)?;
        if let Some((id, _)) = pool
            .volumes
            .iter()
            .find(|(_, volume)| volume.tags.state != Stage::Ready)
        {
            return Err(EngineError::Conflict(format!(
                "volume {id} of pool {} is being made or deleted; ask again when that is done",
                pool.tags.name
            )));
        }
        self.parting_with(&pool, || {
            self.note_pool_gone(pool.id)?;
            self.release(&pool)
        })?;
        self.devices()?;
        let message = format!("pool {} was released; another appliance can import it", pool.tags.name);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolReleased, Severity::Warning, object, Some(by), message);
        self.review_alerts();
        self.released(&pool.vg())?.ok_or_else(|| no_pool(name_or_id))
    }

    /// Does what ends with a pool that is served no more. If it fails the pool is served again.
    pub(crate) fn parting_with<T>(
        &self,
        pool: &PoolView,
        part: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let releasing = |now: bool| {
            self.change_view(|view| {
                if let Some(pool) = view.pools.get_mut(&pool.id) {
                    pool.releasing = now;
                }
            });
        };
        // Its clients have nothing meanwhile: what was begun goes on, whatever comes between.
        let _patiently = Patiently::begin();
        releasing(true);
        let outcome = self.stop_serving(pool).and_then(|()| part());
        releasing(false);
        if let Err(error) = &outcome
            && !crate::pools::power_lost(error)
            && let Err(again) = self.reconcile()
        {
            tracing::error!(%again, "a pool that was not parted with is not wholly served");
        }
        outcome
    }

    /// Takes a pool from its clients and lets go of it, as far as it is in use.
    fn stop_serving(&self, pool: &PoolView) -> Result<(), EngineError> {
        let vg = pool.vg();
        let name = &pool.tags.name;
        self.publish()?;
        for id in pool.volumes.keys() {
            let path = self.path_of(*id);
            for attempt in 1.. {
                let released = self.0.host.exports.release(&path);
                released.doing(|| format!("free volume {id} from its clients"))?;
                match self.0.host.filesystems.unmount(&path) {
                    Ok(()) => break,
                    Err(error) if error.kind() == HostErrorKind::Busy && attempt < ATTEMPTS => {
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    Err(error) => return Err(error).doing(|| format!("unmount volume {id}")),
                }
            }
        }
        for (id, _) in pool.snapshots.iter().filter(|(_, snapshot)| snapshot.active) {
            self.let_go(&self.snapshot_path(*id))?;
        }
        // One whose proof was cut short may be mounted.
        for path in pool.volumes.keys().map(|id| self.copy_path(*id)) {
            if self.mounted(&path)? {
                self.let_go(&path)?;
            }
        }
        self.change_lvm(
            pool.id,
            || format!("deactivate pool {name}"),
            || self.0.host.lvm.deactivate_vg(&vg),
            |view| {
                if let Some(pool) = view.pools.get_mut(&pool.id) {
                    pool.active = false;
                    pool.volumes.values_mut().for_each(|volume| volume.active = false);
                }
            },
        )
    }

    fn release(&self, pool: &PoolView) -> Result<(), EngineError> {
        let released = self.change_lvm(
            pool.id,
            || format!("release pool {}", pool.tags.name),
            || self.0.host.takeover.export_group(&pool.vg()),
            |view| {
                view.pools.remove(&pool.id);
            },
        );
        match released {
            // The error was in the telling: it is given up.
            Err(_) if !self.view().pools.contains_key(&pool.id) => Ok(()),
            other => other,
        }
    }

    /// A pool that was released, by its name or id, as it can be imported.
    fn released(&self, name_or_id: &str) -> Result<Option<Orphan>, EngineError> {
        let called = |orphan: &Orphan| orphan.object == name_or_id || orphan.name.as_deref() == Some(name_or_id);
        let released = |orphan: &Orphan| orphan.kind == cistern_model::OrphanKind::ReleasedPool;
        Ok(self
            .orphans()?
            .into_iter()
            .find(|orphan| released(orphan) && called(orphan)))
    }

    /// The filesystem of a volume that can be adopted, which is active.
    fn judge_adoption(&self, pool: PoolId, request: &AdoptRequest, size: Bytes) -> Result<XfsFound, EngineError> {
        let (vg, lv) = (pool.to_string(), request.object.rsplit('/').next().unwrap_or_default());
        let xfs = self.0.host.takeover.xfs_on(&self.0.host.lvm.node(&vg, lv));
        let xfs = xfs.doing(|| format!("look at what is on {}", request.object))?;
        let xfs = xfs
            .filter(|xfs| xfs.size <= size)
            .ok_or_else(|| EngineError::Conflict(format!("{} holds no XFS that lies wholly on it", request.object)))?;
        {
            let view = self.view();
            let pool = view.pools.get(&pool).ok_or_else(|| no_pool(&vg))?;
            refuse_unready(pool)?;
            if pool.volumes.values().any(|volume| volume.tags.name == request.name) {
                return Err(EngineError::NameTaken(format!(
                    "pool {} has a volume {}",
                    pool.tags.name, request.name
                )));
            }
            let available = pool.available(self.0.config.overcommit_percent);
            if pool.taken_by(xfs.size) > available {
                return Err(EngineError::NoSpace(format!(
                    "pool {} has {available:#} left for volumes, and {} has {:#}",
                    pool.tags.name, request.object, xfs.size
                )));
            }
        }
        Ok(xfs)
    }

    /// Takes a thin volume of one of our pools that holds an XFS as a volume.
    pub fn adopt_volume(&self, by: &Principal, request: &AdoptRequest) -> Result<Volume, EngineError> {
        let _operation = self.0.operations.begin(LIMIT);
        refuse_clients(&request.clients)?;
        refuse_hidden("volume name", request.name.as_str())?;
        let (pool, lv) = self.orphan_volume(&request.object)?;
        let name = self.0.names.hold(volume_lock(pool, &request.name))?;
        let _one = self.0.names.hold(format!("the adoption of {}", request.object))?;
        let vg = pool.to_string();
        let state = self.0.host.lvm.state().doing(|| "read the pools' state".to_owned())?;
        let found = state.lvs.iter().find(|found| found.vg == vg && found.name == lv);
        let found = found.filter(|lv| lv.attributes.thin_volume).ok_or_else(|| {
            EngineError::Conflict(format!(
                "{} is no thin volume; only those can be adopted",
                request.object
            ))
        })?;
        self.change_lvm(
            pool,
            || format!("activate {}", request.object),
            || {
                self.0
                    .host
                    .lvm
                    .activate_lv(&vg, &lv, cistern_host::Activation::Complete)
            },
            |_| {},
        )?;
        let judged = self.judge_adoption(pool, request, found.size);
        if judged.is_err() && !found.attributes.active {
            // As it was; if that cannot be done it is in nobody's way.
            let deactivate = || self.0.host.lvm.deactivate_lv(&vg, &lv);
            let _ = self.change_lvm(pool, || format!("deactivate {}", request.object), deactivate, |_| {});
        }
        let xfs = judged?;
        // One whose name was changed already, and no more.
        let id = lv.parse().unwrap_or_else(|_| VolumeId::from_uuid(Uuid::new_v4()));
        let tags = VolumeTags {
            name: request.name.clone(),
            state: Stage::Ready,
            size: xfs.size,
            owner: by.owner.clone(),
            created: tags::moment(self.0.host.machine.now()),
            clients: request.clients.iter().copied().collect(),
            nodes: BTreeMap::new(),
            nodes_were: BTreeSet::new(),
            options: OptionTags::default(),
            labels: Default::default(),
            schedule: Default::default(),
            source: None,
            deleted: None,
            deleted_unsure: false,
            rollback: None,
        };
        let add = tags.write();
        let stale = found
            .tags
            .iter()
            .filter(|tag| tag.starts_with("cistern.") && !add.contains(tag));
        let change = TagChange {
            remove: stale.cloned().collect(),
            add,
        };
        self.change_lvm(
            pool,
            || format!("note what {} is", request.object),
            || self.0.host.lvm.tag_lv(&vg, &lv, &change),
            |_| {},
        )?;
        if lv != id.to_string() {
            self.change_lvm(
                pool,
                || format!("name {} by its id", request.object),
                || self.0.host.lvm.rename_lv(&vg, &lv, &id.to_string()),
                |_| {},
            )?;
        }
        // Reconcile passes by what a request is at.
        drop(name);
        self.read_lvm()?;
        self.reconcile()?;
        let message = format!(
            "{} was adopted as volume {} of {}",
            request.object, request.name, xfs.size
        );
        self.record(
            EventKind::VolumeCreated,
            Severity::Warning,
            Some(id.to_string()),
            Some(by),
            message,
        );
        self.volume_model(id)
    }
}

/// Whether another pool on these disks has this name.
fn others_named(state: &LvmState, vg: &str, name: &PoolName) -> bool {
    let others = state.vgs.iter().filter(|group| group.ours && group.name != vg);
    others
        .filter_map(|group| PoolTags::read(&group.tags).ok())
        .any(|tags| tags.name == *name)
}

fn renaming(tags: &PoolTags, name: &PoolName) -> TagChange {
    let mut new = tags.clone();
    new.name = name.clone();
    let (old, new) = (tags.write(), new.write());
    TagChange {
        add: new.iter().filter(|tag| !old.contains(tag)).cloned().collect(),
        remove: old.into_iter().filter(|tag| !new.contains(tag)).collect(),
    }
}

/// Of pools that have one name (one of them was just imported) all but one get a part of their id with it: the one that
/// had the name before keeps it.
pub(crate) fn tell_apart(view: &mut View, old: &View) {
    let mut named: BTreeMap<PoolName, Vec<PoolId>> = BTreeMap::new();
    for pool in view.pools.values() {
        named.entry(pool.tags.name.clone()).or_default().push(pool.id);
    }
    for (name, mut ids) in named.into_iter().filter(|(_, ids)| ids.len() > 1) {
        ids.sort_by_key(|id| (old.pools.get(id).is_none_or(|pool| pool.tags.name != name), *id));
        for id in ids.into_iter().skip(1) {
            let part: String = id.uuid().simple().to_string().chars().take(8).collect();
            let room = 63_usize.saturating_sub(part.len() + 1);
            let short: String = name.as_str().chars().take(room).collect();
            if let (Some(pool), Ok(apart)) = (view.pools.get_mut(&id), format!("{short}-{part}").parse()) {
                pool.tags.name = apart;
            }
        }
    }
}
