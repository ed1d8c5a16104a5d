//! What is on the disks and not explained. Invariant: it is only told; what becomes of it is decided by somebody who names
//! it.

use cistern_host::{LvmState, VolumeGroup};
use cistern_model::{DiskId, EventKind, Orphan, OrphanKind, PoolId, Principal, RemoveOrphanRequest, Severity};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pools::refuse_missing;
use crate::tags::{PoolTags, Unreadable};
use crate::view::{DATA, View};

impl Engine {
    /// Everything that is on the disks and not explained, each with the way to take it over or to remove it.
    pub fn orphans(&self) -> Result<Vec<Orphan>, EngineError> {
        let _operation = self.0.operations.begin(std::time::Duration::from_secs(300));
        self.devices()?;
        let state = self.0.host.lvm.state().doing(|| "read the pools' state".to_owned())?;
        Ok(self.explain(&state))
    }

    pub(crate) fn explain(&self, state: &LvmState) -> Vec<Orphan> {
        let strange = {
            let view = self.view();
            View::read(state, &view).1
        };
        let mut all = Vec::new();
        for vg in &state.vgs {
            let disks = self.disks_of_group(state, &vg.name);
            let why = strange
                .iter()
                .find(|orphan| orphan.object == vg.name)
                .map(|orphan| orphan.why.clone());
            all.extend(group(vg, disks, why));
        }
        for orphan in &strange {
            let Some((vg, lv)) = orphan.object.split_once('/') else {
                continue;
            };
            let found = state.lvs.iter().find(|found| found.vg == vg && found.name == lv);
            let thin = found.is_some_and(|lv| lv.attributes.thin_volume && lv.thin_pool.as_deref() == Some(DATA));
            all.push(Orphan {
                object: orphan.object.clone(),
                kind: OrphanKind::Volume,
                why: orphan.why.clone(),
                name: None,
                system_id: None,
                size: found.map(|lv| lv.size),
                disks: self.disks_of_group(state, vg),
                adopt: thin.then(|| format!("cistern orphans adopt {} --name NAME", orphan.object)),
                remove: format!("cistern orphans remove {}", orphan.object),
            });
        }
        for pv in state.pvs.iter().filter(|pv| pv.vg.is_none()) {
            let devices = locked(&self.0.devices);
            let device = devices
                .iter()
                .find(|device| Some(device.lvm_node()) == pv.node.as_deref());
            let Some(device) = device else { continue };
            all.push(Orphan {
                object: device.id.to_string(),
                kind: OrphanKind::Label,
                why: "it carries LVM's label and is in no volume group".to_owned(),
                name: None,
                system_id: None,
                size: Some(device.size),
                disks: vec![device.id.clone()],
                adopt: None,
                remove: format!("cistern disks wipe {}", device.id),
            });
        }
        all.extend(self.locked_pools());
        all.sort_by(|a, b| a.kind.cmp(&b.kind).then_with(|| a.object.cmp(&b.object)));
        all
    }

    fn disks_of_group(&self, state: &LvmState, vg: &str) -> Vec<DiskId> {
        let nodes = state
            .pvs
            .iter()
            .filter(|pv| pv.vg.as_deref() == Some(vg))
            .filter_map(|pv| pv.node.as_ref());
        let nodes: Vec<_> = nodes.collect();
        let devices = locked(&self.0.devices);
        let there = devices
            .iter()
            .filter(|device| nodes.iter().any(|node| *node == device.lvm_node()));
        let mut disks: Vec<DiskId> = there.map(|device| device.id.clone()).collect();
        disks.sort();
        disks
    }

    /// Removes a volume that nobody can explain from one of our pools, with all that is in it.
    pub fn remove_orphan(&self, by: &Principal, request: &RemoveOrphanRequest) -> Result<(), EngineError> {
        let _operation = self.0.operations.begin(std::time::Duration::from_secs(300));
        let object = &request.object;
        if request.confirm != *object {
            return Err(EngineError::Invalid(format!(
                "the confirmation names {:?}, and {object:?} is to be removed",
                request.confirm
            )));
        }
        let (pool, lv) = self.orphan_volume(object)?;
        self.change_lvm(
            pool,
            || format!("remove {object}"),
            || self.0.host.lvm.remove_lv(&pool.to_string(), &lv),
            |_| {},
        )?;
        self.read_lvm()?;
        let message = format!("{object}, which was no volume of Cistern's, was removed");
        self.record(
            EventKind::OrphanRemoved,
            Severity::Warning,
            Some(object.clone()),
            Some(by),
            message,
        );
        Ok(())
    }

    /// The pool and the name of a volume in it that nobody can explain, looked for on the disks themselves.
    pub(crate) fn orphan_volume(&self, object: &str) -> Result<(PoolId, String), EngineError> {
        let none = || EngineError::NotFound {
            what: "orphan",
            name: object.to_owned(),
        };
        let all = self.orphans()?;
        let found = all.iter().find(|orphan| orphan.object == object).ok_or_else(none)?;
        let (vg, lv) = match found.kind {
            OrphanKind::Volume => object.split_once('/').ok_or_else(none)?,
            OrphanKind::ForeignPool
            | OrphanKind::ReleasedPool
            | OrphanKind::LockedPool
            | OrphanKind::Group
            | OrphanKind::Label => {
                return Err(EngineError::Invalid(format!(
                    "{object} is no single volume; {}",
                    found.adopt.clone().unwrap_or_else(|| found.remove.clone())
                )));
            }
        };
        let pool = vg.parse::<PoolId>().map_err(|_| none())?;
        let view = self.view();
        refuse_missing(view.pools.get(&pool).ok_or_else(none)?)?;
        Ok((pool, lv.to_owned()))
    }
}

/// A group, if it is none of our pools. `why`: what kept one that is ours from being understood.
fn group(vg: &VolumeGroup, disks: Vec<DiskId>, why: Option<String>) -> Option<Orphan> {
    let tags = PoolTags::read(&vg.tags);
    let pool = vg.name.parse::<PoolId>().ok().and(tags.as_ref().ok());
    let (kind, why, adopt) = match (vg.ours, vg.exported, pool) {
        (true, _, Some(_)) if why.is_none() => return None,
        (true, _, _) => {
            let why = why.unwrap_or_else(|| "it is a volume group that has nothing to do with Cistern".to_owned());
            (OrphanKind::Group, why, None)
        }
        (false, true, Some(_)) => {
            let why = "an appliance released this pool, so that it can be imported".to_owned();
            (
                OrphanKind::ReleasedPool,
                why,
                Some(format!("cistern pools import {}", vg.name)),
            )
        }
        (false, false, Some(_)) => {
            let why = format!(
                "it is a pool of the appliance whose LVM system ID is {}, which may be using it",
                vg.system_id
            );
            let adopt = format!("cistern pools import {} --take-from {}", vg.name, vg.system_id);
            (OrphanKind::ForeignPool, why, Some(adopt))
        }
        (false, exported, None) => {
            let why = match (exported, &tags) {
                (_, Err(Unreadable::Damaged(why))) => {
                    format!("it looks like a pool, and its tags cannot be read: {why}")
                }
                (true, _) => "it is a volume group that some machine exported".to_owned(),
                (false, _) => format!(
                    "it is a volume group of the machine whose LVM system ID is {}",
                    vg.system_id
                ),
            };
            (OrphanKind::Group, why, None)
        }
    };
    let wipes: Vec<String> = disks.iter().map(|disk| format!("cistern disks wipe {disk}")).collect();
    Some(Orphan {
        object: vg.name.clone(),
        kind,
        why,
        name: pool.map(|tags| tags.name.to_string()),
        system_id: Some(vg.system_id.clone()).filter(|id| !id.is_empty()),
        size: None,
        disks,
        adopt,
        remove: wipes.join("; "),
    })
}
