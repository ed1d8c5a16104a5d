//! The steps by which a pool is made and taken away. Invariant: each can be repeated; after any of them the group's tags
//! say which way it is going, so that whoever finds it goes on.
//!
//! Making: the disks are joined, with all that is to be known, in one command; before it there is nothing of ours on any
//! disk. Then the metadata, the data group by group, one thin pool of both, and the word that it is ready.

use std::path::PathBuf;

use cistern_host::{BlockDevice, LogicalVolume, LvmState};
use cistern_model::{DiskId, Encryption, JobId, PoolId};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::jobs::Jobs;
use crate::layout::{self, Making};
use crate::plan::{Member, Plan, plan};
use crate::pools::{refuse_missing, refuse_volumes};
use crate::tags::{PoolTags, Stage};
use crate::view::{DATA, METADATA, PoolView, View};

/// Where a job says how far it is.
pub(crate) struct Progress<'a>(Option<(&'a Jobs, JobId)>);

impl<'a> Progress<'a> {
    pub(crate) fn of_job(jobs: &'a Jobs, id: JobId) -> Self {
        Progress(Some((jobs, id)))
    }

    /// For work that nobody asked for.
    pub(crate) fn unseen() -> Self {
        Progress(None)
    }

    /// The job that the work is.
    pub(crate) fn job(&self) -> Option<JobId> {
        self.0.map(|(_, id)| id)
    }

    pub(crate) fn step(&self, done: usize, total: usize, step: &str) {
        tracing::info!(step, done, total, "pool");
        if let Some((jobs, id)) = self.0 {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            jobs.step(id, count(done), count(total), step);
        }
    }
}

impl Engine {
    /// Joins blank disks in a group with these tags. The disks that were left out stay untouched.
    pub(crate) fn join_disks(
        &self,
        id: PoolId,
        tags: &PoolTags,
        devices: &[BlockDevice],
        progress: &Progress<'_>,
    ) -> Result<(), EngineError> {
        let total = tags.groups.len() + 4;
        let devices = self.with_parts_made(devices, progress, total)?;
        progress.step(0, total, "looking at the disks once more");
        for device in devices.iter().filter(|device| tags.holds(&device.id)) {
            self.refuse_signatures(device)?;
        }
        let joined: Vec<BlockDevice> = devices
            .iter()
            .filter(|device| tags.holds(&device.id))
            .cloned()
            .collect();
        if !tags.layers.is_none() {
            progress.step(0, total, "giving the disks their layers");
        }
        self.join_in_layers(id, tags.layers, &joined, |laid| {
            progress.step(0, total, "joining the disks");
            let join = layout::joining(&id.to_string(), nodes_of(laid, tags), tags.write());
            self.change_lvm(
                id,
                || format!("join the disks of pool {}", tags.name),
                || join.perform(self.0.host.lvm.as_ref(), self.0.host.raids.as_ref()),
                |_| {},
            )
        })?;
        self.read_lvm()
    }

    /// Goes on from whatever step the making of a pool has reached, to its end.
    pub(crate) fn finish_pool(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let vg = id.to_string();
        let lvm = &self.0.host.lvm;
        let devices = self.devices()?;
        let reading = || lvm.state().doing(|| format!("read the state of {vg}"));
        let mut state = reading()?;
        let (view, _) = View::read(&state, &View::default());
        let pool = view.pools.get(&id).ok_or_else(|| crate::pools::no_pool(&vg))?;
        refuse_missing(pool)?;
        if self.remove_unfinished(pool, &state)? {
            state = reading()?;
        }
        let found = Found::read(&state, pool, &devices)?;
        let plan = found.plan(pool)?;
        let steps = layout::making(&plan, &vg, |disks| found.nodes(disks))?;
        let (total, data) = (steps.len() + 1, volume(&state, &vg, DATA));
        let thin = data.is_some_and(|lv| lv.attributes.thin_pool);
        let mut have = data.map_or(0, |lv| lv.size.get() / pool.extent.get());
        let mut planned = 0;
        for (number, step) in steps.iter().enumerate() {
            let done = match step {
                Making::Metadata(_) => thin || volume(&state, &vg, METADATA).is_some(),
                Making::Data(_, after) => {
                    let (before, done) = (planned, thin || have >= *after);
                    planned = *after;
                    if !done && have != before {
                        return Err(EngineError::Conflict(format!(
                            "pool {} lies on its disks otherwise than planned; delete it and make it anew",
                            pool.tags.name
                        )));
                    }
                    have = have.max(*after);
                    done
                }
                Making::Convert(_) => thin,
                Making::Activate(_) | Making::Ready(_) => false,
            };
            if done {
                continue;
            }
            progress.step(number + 1, total, step.words());
            self.change_lvm(
                id,
                || format!("{} of pool {}", step.words(), pool.tags.name),
                || step.step().perform(lvm.as_ref(), self.0.host.raids.as_ref()),
                |_| {},
            )?;
        }
        self.read_lvm()
    }

    /// Removes what of a pool that is being made LVM was kept from making to its end; whether there was any. Nothing is in it:
    /// LVM does not activate it.
    fn remove_unfinished(&self, pool: &PoolView, state: &LvmState) -> Result<bool, EngineError> {
        let mut any = false;
        for name in [METADATA, DATA] {
            if !volume(state, &pool.vg(), name).is_some_and(|lv| lv.attributes.unfinished) {
                continue;
            }
            any = true;
            tracing::warn!(pool = %pool.tags.name, volume = name, "making it was cut short: it is made anew");
            self.change_lvm(
                pool.id,
                || format!("remove what there is of {name} of pool {}", pool.tags.name),
                || self.0.host.lvm.remove_lv(&pool.vg(), name),
                |_| {},
            )?;
        }
        Ok(any)
    }

    /// Takes a pool without volumes away, from whatever step that has reached.
    pub(crate) fn take_pool_away(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let vg = id.to_string();
        let lvm = &self.0.host.lvm;
        const TOTAL: usize = 5;
        progress.step(0, TOTAL, "looking whether it is empty");
        // What is asked and what is noted must be one: nobody makes a volume in between.
        let marked = self.0.lvm.change(id, || {
            let state = lvm.state().doing(|| format!("read the state of {vg}"))?;
            let (view, _) = View::read(&state, &View::default());
            let pool = view.pools.get(&id).ok_or_else(|| crate::pools::no_pool(&vg))?;
            refuse_missing(pool)?;
            refuse_volumes(pool)?;
            // LVM would remove what lies in a thin pool together with it.
            let strange = |lv: &&LogicalVolume| lv.vg == vg && lv.name != DATA && lv.name != METADATA;
            if let Some(lv) = state.lvs.iter().find(strange) {
                return Err(EngineError::Conflict(format!(
                    "pool {} holds {}, which is no volume of Cistern's",
                    pool.tags.name, lv.name
                )));
            }
            let deleting = lvm.tag_vg(&vg, &Stage::Deleting.change());
            deleting.doing(|| format!("note the deletion of pool {}", pool.tags.name))?;
            self.change_view(|view| {
                if let Some(pool) = view.pools.get_mut(&id) {
                    pool.tags.state = Stage::Deleting;
                }
            });
            Ok((pool.clone(), state))
        })?;
        let (pool, state) = self.after_lvm(marked)?;
        // It holds nothing. Afterwards nobody would say that it is gone, if the power went in between.
        self.note_pool_gone(id)?;
        let doing = |what: &str| format!("{what} pool {}", pool.tags.name);
        let nothing = |_: &mut View| {};
        progress.step(1, TOTAL, "deactivating it");
        self.change_lvm(id, || doing("deactivate"), || lvm.deactivate_vg(&vg), nothing)?;
        progress.step(2, TOTAL, "removing the thin pool");
        for lv in [DATA, METADATA] {
            if volume(&state, &vg, lv).is_some() {
                self.change_lvm(id, || doing("remove the data of"), || lvm.remove_lv(&vg, lv), nothing)?;
            }
        }
        progress.step(3, TOTAL, "parting the disks");
        let part = || lvm.remove_vg(&vg);
        let disks = self.disks_of(&pool);
        self.strip_after(pool.tags.layers, &disks, || {
            self.change_lvm(
                id,
                || doing("part the disks of"),
                part,
                |view| {
                    view.pools.remove(&id);
                },
            )?;
            progress.step(4, TOTAL, "taking the labels off the disks");
            for node in &pool.nodes {
                self.change_lvm(
                    id,
                    || doing("take the labels off the disks of"),
                    || lvm.remove_pv(node),
                    nothing,
                )?;
            }
            Ok(())
        })?;
        if pool.tags.layers.encryption != Encryption::None {
            self.forget_key(id);
        }
        self.devices()?;
        Ok(())
    }
}

/// The nodes of those devices that belong to a pool's groups.
pub(crate) fn nodes_of(devices: &[BlockDevice], tags: &PoolTags) -> Vec<PathBuf> {
    let joined = devices.iter().filter(|device| tags.holds(&device.id));
    joined.map(|device| device.lvm_node().to_owned()).collect()
}

fn volume<'a>(state: &'a LvmState, vg: &str, name: &str) -> Option<&'a LogicalVolume> {
    state.lvs.iter().find(|lv| lv.vg == vg && lv.name == name)
}

/// A group's disks as they are: where, and what of each can be used.
struct Found(Vec<(Member, PathBuf)>);

impl Found {
    fn read(state: &LvmState, pool: &PoolView, devices: &[BlockDevice]) -> Result<Self, EngineError> {
        let vg = pool.vg();
        let mut found = Vec::new();
        for pv in state.pvs.iter().filter(|pv| pv.vg.as_ref() == Some(&vg)) {
            let device = devices
                .iter()
                .find(|device| Some(device.lvm_node()) == pv.node.as_deref());
            let (Some(device), Some(node)) = (device, &pv.node) else {
                return Err(EngineError::Unavailable(format!(
                    "a disk of pool {} cannot be found",
                    pool.tags.name
                )));
            };
            let member = Member {
                disk: device.id.clone(),
                extents: pv.size.get() / pool.extent.get(),
            };
            found.push((member, node.clone()));
        }
        Ok(Found(found))
    }

    fn of(&self, disk: &DiskId) -> Result<&(Member, PathBuf), EngineError> {
        let found = self.0.iter().find(|(member, _)| member.disk == *disk);
        found.ok_or_else(|| EngineError::Unavailable(format!("disk {disk} cannot be found")))
    }

    fn nodes(&self, disks: &[DiskId]) -> Result<Vec<PathBuf>, EngineError> {
        disks
            .iter()
            .map(|disk| self.of(disk).map(|(_, node)| node.clone()))
            .collect()
    }

    /// The plan for the groups that the tags name: the same each time it is made.
    fn plan(&self, pool: &PoolView) -> Result<Plan, EngineError> {
        let group = |disks: &Vec<DiskId>| -> Result<Vec<Member>, EngineError> {
            disks
                .iter()
                .map(|disk| self.of(disk).map(|(member, _)| member.clone()))
                .collect()
        };
        let groups: Vec<Vec<Member>> = pool.tags.groups.iter().map(group).collect::<Result<_, _>>()?;
        plan(pool.tags.layout, groups, Vec::new())
    }
}
