//! The steps by which a pool is made and taken away. Invariant: each can be repeated; after any of them the group's tags
//! say which way it is going, so that whoever finds it goes on.
//!
//! Making: the disks are joined, with all that is to be known, in one command; before it there is nothing of ours on any
//! disk. Then the metadata, the data group by group, one thin pool of both, and the word that it is ready.

use std::path::PathBuf;

use cistern_host::{BlockDevice, LogicalVolume, LvmState, RaidLevel};
use cistern_model::{DiskId, JobId, Layout, PoolId};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;
use crate::jobs::Jobs;
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

    fn step(&self, done: usize, total: usize, step: &str) {
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
        progress.step(0, total, "looking at the disks once more");
        let members: Vec<&BlockDevice> = devices
            .iter()
            .filter(|device| tags.groups.iter().flatten().any(|disk| *disk == device.id))
            .collect();
        for device in &members {
            self.refuse_signatures(device)?;
        }
        progress.step(0, total, "joining the disks");
        let nodes: Vec<PathBuf> = members.iter().map(|device| device.node.clone()).collect();
        self.change_lvm(
            id,
            || format!("join the disks of pool {}", tags.name),
            || self.0.host.lvm.create_vg(&id.to_string(), &nodes, &tags.write()),
            |_| {},
        )?;
        self.read_lvm()
    }

    /// Goes on from whatever step the making of a pool has reached, to its end.
    pub(crate) fn finish_pool(&self, id: PoolId, progress: &Progress<'_>) -> Result<(), EngineError> {
        let vg = id.to_string();
        let lvm = &self.0.host.lvm;
        let devices = self.devices()?;
        let state = lvm.state().doing(|| format!("read the state of {vg}"))?;
        let (view, _) = View::read(&state, &View::default());
        let pool = view.pools.get(&id).ok_or_else(|| crate::pools::no_pool(&vg))?;
        refuse_missing(pool)?;
        let found = Found::read(&state, pool, &devices)?;
        let plan = found.plan(pool)?;
        let total = plan.groups.len() + 4;
        let nothing = |_: &mut View| {};
        let doing = |what: &str| format!("{what} of pool {}", pool.tags.name);

        let data = volume(&state, &vg, DATA);
        if !data.is_some_and(|lv| lv.attributes.thin_pool) {
            progress.step(1, total, "laying out the metadata");
            if volume(&state, &vg, METADATA).is_none() {
                let nodes = found.nodes(&plan.metadata_on)?;
                let level = if nodes.len() > 1 {
                    RaidLevel::Mirror
                } else {
                    RaidLevel::Linear
                };
                let make = || lvm.create_lv(&vg, METADATA, level, plan.metadata, &nodes, &[]);
                self.change_lvm(id, || doing("lay out the metadata"), make, nothing)?;
            }
            let mut have = data.map_or(0, |lv| lv.size.get() / pool.extent.get());
            let mut planned = 0;
            for (number, group) in plan.groups.iter().enumerate() {
                progress.step(2 + number, total, "laying out the data");
                let disks: Vec<DiskId> = group.members.iter().map(|m| m.disk.clone()).collect();
                let nodes = found.nodes(&disks)?;
                if have < planned + group.data {
                    if have != planned {
                        return Err(EngineError::Conflict(format!(
                            "pool {} lies on its disks otherwise than planned; delete it and make it anew",
                            pool.tags.name
                        )));
                    }
                    let level = match plan.layout {
                        Layout::Single => RaidLevel::Linear,
                        Layout::Mirror => RaidLevel::Mirror,
                    };
                    let lay = || match have {
                        0 => lvm.create_lv(&vg, DATA, level, group.data, &nodes, &[]),
                        _ => lvm.extend_lv(&vg, DATA, group.data, &nodes),
                    };
                    self.change_lvm(id, || doing("lay out the data"), lay, nothing)?;
                    have += group.data;
                }
                planned += group.data;
            }
            progress.step(total - 2, total, "making the thin pool");
            let convert = || lvm.convert_to_thin_pool(&vg, DATA, METADATA, plan.chunk);
            self.change_lvm(id, || doing("make the thin pool"), convert, nothing)?;
        }
        progress.step(total - 1, total, "activating it");
        self.change_lvm(
            id,
            || doing("activate the thin pool"),
            || lvm.activate_lv(&vg, DATA),
            nothing,
        )?;
        let ready = || lvm.tag_vg(&vg, &Stage::Ready.change());
        self.change_lvm(id, || doing("note the readiness"), ready, nothing)?;
        self.read_lvm()
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
        });
        let (pool, state) = self.after_lvm(marked)?;
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
        self.0.lvm.forget(id);
        self.devices()?;
        Ok(())
    }
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
            let device = devices.iter().find(|device| Some(&device.node) == pv.node.as_ref());
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
