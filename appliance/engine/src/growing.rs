//! How a pool's growth is judged and what it comes to, as steps; what is done with them is in `grow_pool`. Invariant: the
//! steps that are shown are those that are done, from the same functions.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cistern_host::{LvmStep, RaidLevel, RaidVolume};
use cistern_model::{Bytes, DiskId, EventKind, GroupGrowth, GrowthPlan, Layout, PoolState, Severity, Waste};

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::growth::{Room, Thin, gains};
use crate::layers::size_in;
use crate::plan::{EXTENT, Member, level};
use crate::view::{DATA, PoolView};
use crate::volumes::bare;

/// Disks that are larger than LVM knows, where they are, and by how much.
pub(crate) type Grown = Vec<(DiskId, PathBuf, Bytes)>;

/// A pool's groups of disks and what each can give.
pub(crate) struct Growth {
    pub(crate) thin: Thin,
    pub(crate) groups: Vec<Vec<Room>>,
    /// Extents of each disk of each group.
    pub(crate) gains: Vec<u64>,
}

impl Growth {
    /// What volumes can take more with one of the groups.
    pub(crate) fn usable(&self, group: usize) -> Bytes {
        EXTENT.saturating_mul(self.extents(group))
    }

    fn extents(&self, group: usize) -> u64 {
        self.gains.get(group).copied().unwrap_or(0) * u64::from(self.thin.level.data_images())
    }

    /// What volumes can take more with all of them.
    pub(crate) fn all_usable(&self) -> Bytes {
        (0..self.groups.len()).map(|group| self.usable(group)).sum()
    }

    /// The step that lays the data on what a group can give; none if that is nothing.
    pub(crate) fn step(&self, pool: &PoolView, group: usize) -> Option<LvmStep> {
        let extents = self.extents(group);
        (extents > 0).then(|| LvmStep::ExtendLv {
            vg: pool.vg(),
            lv: DATA.to_owned(),
            extents,
            nodes: self.nodes(pool, group),
        })
    }

    /// The nodes of a group's disks, each at the place of the image that lies on it.
    fn nodes(&self, pool: &PoolView, group: usize) -> Vec<PathBuf> {
        let images = pool.data().map(|raid| raid.images.as_slice()).unwrap_or_default();
        let image = |node: &PathBuf| images.iter().position(|image| image.nodes.contains(node));
        let mut nodes: Vec<PathBuf> = self.groups[group].iter().map(|room| room.node.clone()).collect();
        nodes.sort_by_key(image);
        nodes
    }
}

impl PoolView {
    /// What its data lies on.
    pub(crate) fn data(&self) -> Option<&RaidVolume> {
        self.raids.iter().find(|raid| raid.name == "data_tdata")
    }

    /// What its metadata lies on.
    pub(crate) fn metadata_volume(&self) -> Option<&RaidVolume> {
        self.raids.iter().find(|raid| raid.name == "data_tmeta")
    }

    /// Its size in extents on one of its disks, as LVM knows it, and how many of them are taken.
    pub(crate) fn extents_of(&self, node: &PathBuf) -> Option<(u64, u64)> {
        let member = self.members.iter().find(|pv| pv.node.as_ref() == Some(node))?;
        let extents = |bytes: Bytes| bytes.get() / self.extent.get().max(1);
        Some((extents(member.size), extents(member.size.saturating_sub(member.free))))
    }

    /// How many disks each stretch of its data lies on.
    pub(crate) fn width(&self) -> usize {
        let level = self.data().and_then(|raid| raid.level);
        match level {
            Some(level) => level.images() as usize,
            None => self.tags.groups.first().map_or(1, Vec::len),
        }
    }
}

impl Engine {
    /// What these groups can give; those that are not joined yet may be among them.
    pub(crate) fn growth(&self, pool: &PoolView, groups: &[Vec<DiskId>]) -> Result<Growth, EngineError> {
        let name = &pool.tags.name;
        let unknown = |what: &str| EngineError::Unavailable(format!("{what} of pool {name} is not known now"));
        let status = self.0.host.thin.status(&pool.vg(), DATA);
        let status = status.doing(|| format!("ask how full pool {name} is"))?;
        let metadata = pool.metadata_volume().ok_or_else(|| unknown("the metadata"))?;
        let chunk = pool.size.get().checked_div(status.chunks).filter(|chunk| *chunk > 0);
        let thin = Thin {
            layout: pool.tags.layout,
            level: level(pool.tags.layout, pool.width()),
            chunk: Bytes::new(chunk.ok_or_else(|| unknown("the size of a chunk"))?),
            size: pool.size,
            metadata: metadata.size.get() / EXTENT.get(),
            copies: metadata.images.len(),
        };
        let holds_metadata: BTreeSet<&PathBuf> = metadata.images.iter().flat_map(|image| &image.nodes).collect();
        let devices = locked(&self.0.devices);
        let room = |disk: &DiskId| {
            let device = devices.iter().find(|device| device.id == *disk);
            let device = device.ok_or_else(|| EngineError::Unavailable(format!("disk {disk} cannot be found")))?;
            // As it was planned, and not as LVM reckons: the same before it is joined and afterwards.
            let extents = Member::of_size(disk.clone(), size_in(device, pool.tags.layers)).extents;
            let node = self.lvm_node_in(device, pool.tags.layers);
            let taken = pool.extents_of(&node).map_or(0, |(_, taken)| taken);
            Ok(Room {
                disk: disk.clone(),
                extents,
                free: extents.saturating_sub(taken),
                metadata: holds_metadata.contains(&node),
                node,
            })
        };
        let rooms = groups.iter().map(|group| group.iter().map(room).collect());
        let groups: Vec<Vec<Room>> = rooms.collect::<Result<_, EngineError>>()?;
        let gains = gains(&thin, &groups)?;
        Ok(Growth { thin, groups, gains })
    }

    /// What a pool that is whole could take up of its own disks now.
    pub(crate) fn growable(&self, pool: &PoolView) -> Bytes {
        // Only where every disk of a group has something left can it give anything.
        let left = |disk: &DiskId| self.left_on(pool, disk) > 0;
        let perhaps = pool.tags.groups.iter().any(|group| group.iter().all(left));
        if pool.state() != PoolState::Ready || !pool.tags.coming.is_empty() || !perhaps {
            return Bytes::ZERO;
        }
        let growth = self.growth(pool, &pool.tags.groups);
        growth.map_or(Bytes::ZERO, |growth| growth.all_usable())
    }

    fn left_on(&self, pool: &PoolView, disk: &DiskId) -> u64 {
        let devices = locked(&self.0.devices);
        let Some(device) = devices.iter().find(|device| device.id == *disk) else {
            return 0;
        };
        let taken = pool
            .extents_of(&device.lvm_node().to_owned())
            .map_or(0, |(_, taken)| taken);
        Member::of_size(disk.clone(), device.lvm_size())
            .extents
            .saturating_sub(taken)
    }

    /// The disks of a pool, spares too, that are larger than LVM knows, and by how much.
    pub(crate) fn grown_disks(&self, pool: &PoolView) -> Grown {
        let devices = locked(&self.0.devices);
        let grown = devices.iter().filter_map(|device| {
            let node = device.lvm_node().to_owned();
            let (known, _) = pool.extents_of(&node)?;
            let now = Member::of_size(device.id.clone(), device.lvm_size()).extents;
            let more = now.checked_sub(known).filter(|more| *more > 0)?;
            Some((device.id.clone(), node, EXTENT.saturating_mul(more)))
        });
        grown.collect()
    }

    /// Tells of disks that have grown: once for each size.
    pub(crate) fn tell_what_grew(&self) {
        let pools: Vec<PoolView> = self.view().pools.values().map(bare).collect();
        for pool in pools.iter().filter(|pool| pool.state() == PoolState::Ready) {
            let grown = self.grown_disks(pool);
            let told = locked(&self.0.told_grown).insert(pool.id, grown.clone());
            if grown.is_empty() || told.as_ref() == Some(&grown) {
                continue;
            }
            let Ok(growth) = self.growth(pool, &pool.tags.groups) else {
                continue;
            };
            let disks: Vec<String> = grown.iter().map(|(id, _, by)| format!("{id} by {by}")).collect();
            let (name, disks, more) = (&pool.tags.name, disks.join(", "), growth.all_usable());
            let message = match self.held_back(pool, &growth) {
                Some(why) if more == Bytes::ZERO => why,
                Some(_) | None => {
                    format!("pool {name} can grow by {more}: disk {disks} has grown; `pools grow {name}` takes that up")
                }
            };
            let object = Some(pool.id.to_string());
            self.record(EventKind::PoolChanged, Severity::Info, object, None, message);
        }
    }

    /// What is said of a growth before it is begun; `which` of its groups are to give, after `before` was done and before
    /// `after` is.
    pub(crate) fn describe_growth(
        &self,
        pool: &PoolView,
        growth: &Growth,
        which: impl Fn(usize) -> bool,
        before: Vec<LvmStep>,
        after: Vec<LvmStep>,
    ) -> Result<GrowthPlan, EngineError> {
        let giving = || (0..growth.groups.len()).filter(|group| which(*group) && growth.gains[*group] > 0);
        let steps = before
            .into_iter()
            .chain(giving().filter_map(|group| growth.step(pool, group)))
            .chain(after);
        let line = |step: LvmStep| {
            let line = self.0.host.lvm.command_line(&step);
            line.doing(|| "say what would be done".to_owned())
        };
        let groups = giving().map(|group| GroupGrowth {
            disks: growth.groups[group].iter().map(|room| room.disk.clone()).collect(),
            of_each: EXTENT.saturating_mul(growth.gains[group]),
            usable: growth.usable(group),
        });
        let more: Bytes = giving().map(|group| growth.usable(group)).sum();
        Ok(GrowthPlan {
            pool: pool.tags.name.clone(),
            layout: pool.tags.layout,
            groups: groups.collect(),
            size: pool.size,
            size_after: pool.size.saturating_add(more),
            wasted: giving().flat_map(|group| wasted(&growth.groups[group])).collect(),
            warnings: warnings(growth, &which, self.spares_too_small(pool, growth, &which)),
            commands: steps.map(line).collect::<Result<_, _>>()?,
        })
    }

    /// Spares that could not take the place of a disk afterwards.
    fn spares_too_small(&self, pool: &PoolView, growth: &Growth, which: impl Fn(usize) -> bool) -> Vec<DiskId> {
        let more: u64 = (0..growth.groups.len())
            .filter(|group| which(*group))
            .map(|group| growth.gains[group])
            .sum();
        let needed = crate::spares::extents_for(pool.raids.iter(), pool.extent) + more;
        let devices = locked(&self.0.devices);
        let spares = devices.iter().filter(|device| pool.tags.spares.contains(&device.id));
        spares
            .filter(|device| crate::spares::fits(device, pool.tags.layers, needed).is_err())
            .map(|device| device.id.clone())
            .collect()
    }
}

/// What larger disks of a group do not give.
fn wasted(group: &[Room]) -> Vec<Waste> {
    let least = group.iter().map(|room| room.extents).min().unwrap_or(0);
    let larger = group.iter().filter(|room| room.extents > least);
    larger
        .map(|room| Waste {
            disk: room.disk.clone(),
            size: EXTENT.saturating_mul(room.extents - least),
            why: "all disks of its group give as much as the smallest".to_owned(),
        })
        .collect()
}

fn warnings(growth: &Growth, which: impl Fn(usize) -> bool, spares: Vec<DiskId>) -> Vec<String> {
    let mut warnings = Vec::new();
    let groups = growth.groups.iter().filter(|group| !group.is_empty()).count();
    let image: u64 = growth
        .groups
        .iter()
        .enumerate()
        .map(|(number, group)| {
            let free = |room: &Room| room.extents - room.free.min(room.extents);
            let now = group.iter().map(free).max().unwrap_or(0);
            now + if which(number) { growth.gains[number] } else { 0 }
        })
        .sum();
    if growth.thin.level == RaidLevel::Linear {
        warnings.push(format!(
            "Layout single keeps one copy: if any of the then {groups} disk(s) is lost the pool is lost."
        ));
    } else if groups > 1 {
        warnings.push(format!(
            "Each image then lies on {groups} disks: LVM counts one that lacks any of them as lost, whole, and makes all of \
             it anew on the disk that takes the place of a lost one. That disk has to have about {}.",
            EXTENT.saturating_mul(image)
        ));
    }
    for spare in spares {
        warnings.push(format!(
            "Spare {spare} would be too small to take a disk's place: replace it by a larger one."
        ));
    }
    let members = growth.groups.iter().enumerate().filter(|(number, _)| which(*number));
    for room in members
        .flat_map(|(_, group)| group)
        .filter(|room| room.disk.as_str().starts_with("path-"))
    {
        warnings.push(format!(
            "Disk {} has no serial number and is known by its place only: do not move it before this is done.",
            room.disk
        ));
    }
    warnings
}

/// The groups that further disks make, or why they make none.
pub(crate) fn grouped(pool: &PoolView, mut members: Vec<Member>) -> Result<Vec<Vec<DiskId>>, EngineError> {
    let (name, layout, width) = (&pool.tags.name, pool.tags.layout, pool.width());
    if members.is_empty() {
        return Err(EngineError::Invalid("name at least one disk".to_owned()));
    }
    if !members.len().is_multiple_of(width) {
        let named = members.len();
        return Err(EngineError::Invalid(match layout {
            Layout::Single => "name at least one disk".to_owned(),
            Layout::Mirror => {
                format!("pool {name} is a mirror, which takes its disks in pairs, and {named} were named")
            }
            Layout::StripeMirror | Layout::Parity | Layout::DoubleParity => format!(
                "pool {name} lies on {width} disks at once, with layout {layout}. LVM cannot reshape that under a thin pool \
                 ('Unable to convert stacked volume'): it grows only by {width} further disks at once, or a multiple of \
                 that, and {named} were named. A further pool can be made of them, or they can be kept as spares"
            ),
        }));
    }
    crate::plan::by_size(&mut members);
    let ids = |group: &[Member]| {
        let mut ids: Vec<DiskId> = group.iter().map(|member| member.disk.clone()).collect();
        ids.sort();
        ids
    };
    Ok(members.chunks(width).map(ids).collect())
}
