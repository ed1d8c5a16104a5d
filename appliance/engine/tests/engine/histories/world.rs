//! What is known of a machine: what was answered, and what may or may not have been done. Invariant: it is compared with
//! what the engine says and with what lies on the disks, as a whole; nothing in it comes from the engine's own state.

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{
    Bytes, Client, Labels, Layout, NodeAccess, NodeName, Owner, Pool, PublishedNode, Schedule, ScrubEvery, SnapshotId,
    VolumeId, VolumeOptions, VolumeSource,
};

use crate::support::{Rig, by, path};

pub(crate) type Files = BTreeMap<String, Bytes>;

/// A volume. Its id is not known before it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vol {
    pub(crate) id: Option<VolumeId>,
    pub(crate) size: Bytes,
    pub(crate) clients: BTreeSet<Client>,
    pub(crate) nodes: BTreeMap<NodeName, NodeAccess>,
    pub(crate) files: Files,
    pub(crate) options: VolumeOptions,
    pub(crate) labels: Labels,
    pub(crate) owner: Owner,
    pub(crate) schedule: Schedule,
    pub(crate) source: Option<VolumeSource>,
}

/// A snapshot that somebody made; what it holds comes from the disks themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snap {
    pub(crate) volume: VolumeId,
    /// Its name, or the beginning of the name of one that was kept at a rolling back.
    pub(crate) name: String,
    pub(crate) size: Bytes,
    pub(crate) files: Files,
    pub(crate) clients: BTreeSet<Client>,
    /// Its volume's, also when that is gone.
    pub(crate) owner: Owner,
    pub(crate) id: Option<SnapshotId>,
}

/// What an operator set for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) trash_seconds: u32,
    pub(crate) overcommit: u32,
    /// In percent; none if what is reserved is no such part of the pool as steps ask for.
    pub(crate) reserve: Option<u32>,
    pub(crate) scrub: ScrubEvery,
}

impl Settings {
    /// Of a pool that was just made.
    pub(crate) fn of_new(layout: Layout) -> Settings {
        Settings {
            trash_seconds: 0,
            overcommit: 100,
            reserve: Some(10),
            scrub: match layout.survives() {
                0 => ScrubEvery::None,
                _ => ScrubEvery::default(),
            },
        }
    }

    fn of(pool: &Pool) -> Settings {
        let part = |percent: &u32| Bytes::new(pool.size.get() / 100 * u64::from(*percent)).round_down(Bytes::mib(4));
        Settings {
            trash_seconds: pool.trash_seconds,
            overcommit: pool.overcommit_percent,
            reserve: [0, 5, 10].into_iter().find(|percent| part(percent) == pool.reserve),
            scrub: pool.scrub,
        }
    }
}

/// One way in which all may be. Volumes go by the numbers of their names, trash by what it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct World {
    pub(crate) pool: Option<Settings>,
    /// The pool is another appliance's, or nobody's; all that is in it is as it was when it comes back.
    pub(crate) away: bool,
    pub(crate) volumes: BTreeMap<u8, Vol>,
    pub(crate) trash: BTreeMap<VolumeId, (u8, Vol)>,
    pub(crate) snapshots: Vec<Snap>,
    pub(crate) stray: bool,
}

/// A snapshot that a schedule made: of which volume, and what it holds.
pub(crate) type Scheduled = BTreeMap<SnapshotId, (VolumeId, Files)>;

/// The name of a volume.
pub(crate) fn name_of(number: u8) -> String {
    format!("v{number}")
}

fn number_of(name: &str) -> u8 {
    name.strip_prefix('v').and_then(|n| n.parse().ok()).unwrap()
}

/// A snapshot's name without the time in it.
pub(crate) fn plain(name: &str) -> String {
    let kept = name.starts_with("before-rollback-");
    if kept {
        "before-rollback".to_owned()
    } else {
        name.to_owned()
    }
}

/// The volume on the disks that nobody can explain.
pub(crate) const STRAY: &str = "stray";

impl World {
    /// What there is, as the engine tells it and as it lies on the disks.
    pub(crate) fn observe(rig: &Rig) -> (World, Scheduled) {
        let mut world = World {
            stray: rig.machine.objects().iter().any(|object| object.ends_with(STRAY)),
            ..World::default()
        };
        let mut scheduled = Scheduled::new();
        let Ok(pool) = rig.engine.pool(&by(), "tank") else {
            world.away = !rig.machine.objects().is_empty();
            return (world, scheduled);
        };
        world.pool = Some(Settings::of(&pool));
        let vg = pool.id.to_string();
        let files = |lv: String| -> Files { rig.machine.contents(&vg, &lv).unwrap_or_default().into_iter().collect() };
        for volume in rig.volumes() {
            let seen = rig.machine.files(&path(volume.id));
            let seen = seen.unwrap_or_else(|| panic!("{} is not mounted: {volume:?}", volume.name));
            let known = Vol {
                id: Some(volume.id),
                size: volume.size,
                clients: volume.clients.iter().copied().collect(),
                nodes: volume.nodes.into_iter().map(access_of).collect(),
                files: seen.into_iter().collect(),
                options: volume.options,
                labels: volume.labels,
                owner: volume.owner,
                schedule: volume.schedule,
                source: volume.source,
            };
            let twice = world.volumes.insert(number_of(volume.name.as_str()), known);
            assert_eq!(twice, None, "two volumes have one name");
        }
        for volume in rig.engine.trash(&by()) {
            let known = Vol {
                id: Some(volume.id),
                size: volume.size,
                clients: BTreeSet::new(),
                nodes: BTreeMap::new(),
                files: files(volume.id.to_string()),
                options: VolumeOptions::default(),
                labels: volume.labels,
                owner: volume.owner,
                schedule: Schedule::default(),
                source: None,
            };
            world.trash.insert(volume.id, (number_of(volume.name.as_str()), known));
        }
        for snapshot in rig.snapshots() {
            let holds = files(snapshot.id.to_string());
            if !snapshot.scheduled.is_empty() {
                scheduled.insert(snapshot.id, (snapshot.volume, holds));
                continue;
            }
            world.snapshots.push(Snap {
                volume: snapshot.volume,
                name: plain(snapshot.name.as_str()),
                size: snapshot.size,
                files: holds,
                clients: snapshot.clients.into_iter().collect(),
                owner: snapshot.owner,
                id: Some(snapshot.id),
            });
        }
        (world, scheduled)
    }

    /// Why this cannot be what there is; none if it can. `emptied`: the trash may have been emptied of some.
    pub(crate) fn differs(&self, seen: &World, emptied: bool) -> Option<String> {
        if self.away != seen.away {
            return Some(format!("the pool is away: {}, and was to be: {}", seen.away, self.away));
        }
        if self.away {
            return None;
        }
        if (self.pool, self.stray) != (seen.pool, seen.stray) {
            let (pool, stray) = (self.pool, self.stray);
            return Some(format!(
                "{:?} {}, and was to be {pool:?} {stray}",
                seen.pool, seen.stray
            ));
        }
        for name in 0..=u8::MAX {
            match (self.volumes.get(&name), seen.volumes.get(&name)) {
                (None, None) => {}
                (Some(known), Some(there)) if known.like(there) => {}
                (known, there) => return Some(format!("v{name} is {there:?}, and was to be {known:?}")),
            }
        }
        for (id, (name, known)) in &self.trash {
            match seen.trash.get(id) {
                None if emptied => {}
                Some((called, there)) if called == name && (known.size, &known.files) == (there.size, &there.files) => {
                }
                there => return Some(format!("of the trash {id} is {there:?}, and was to be {known:?}")),
            }
        }
        if let Some(id) = seen.trash.keys().find(|id| !self.trash.contains_key(id)) {
            return Some(format!("{id} is in the trash, and was not put there"));
        }
        // Those whose ids are known find theirs first.
        let mut known: Vec<&Snap> = self.snapshots.iter().collect();
        known.sort_by_key(|snap| snap.id.is_none());
        let mut rest: Vec<&Snap> = seen.snapshots.iter().collect();
        for snap in known {
            let Some(at) = rest.iter().position(|there| snap.like(there)) else {
                return Some(format!("there is no {snap:?} among {:?}", seen.snapshots));
            };
            rest.swap_remove(at);
        }
        (!rest.is_empty()).then(|| format!("nobody made {rest:?}; there were to be {:?}", self.snapshots))
    }

    /// What there is, with what cannot be seen of what is in the trash, or away.
    pub(crate) fn settle(self, mut seen: World) -> World {
        for (id, entry) in &mut seen.trash {
            if let Some(known) = self.trash.get(id) {
                *entry = known.clone();
                entry.1.id = Some(*id);
            }
        }
        seen
    }

    /// The clients that may mount what goes by this id, a volume's or a snapshot's.
    pub(crate) fn clients_of(&self, id: &str) -> BTreeSet<Client> {
        let is = |there: Option<String>| there.is_none_or(|there| there == id);
        let volumes = self
            .volumes
            .values()
            .filter(|v| id.starts_with("vol-") && is(v.id.map(|id| id.to_string())));
        let snapshots = self
            .snapshots
            .iter()
            .filter(|s| id.starts_with("snap-") && is(s.id.map(|id| id.to_string())));
        let of_volumes = volumes.flat_map(|v| {
            let nodes = v.nodes.values().map(|node| (&node.addresses[..], node.read_only));
            cistern_model::peers(v.clients.iter().copied(), nodes)
        });
        let all = of_volumes.chain(snapshots.flat_map(|s| s.clients.iter().copied()));
        if self.away { BTreeSet::new() } else { all.collect() }
    }
}

fn access_of(node: PublishedNode) -> (NodeName, NodeAccess) {
    let access = NodeAccess {
        addresses: node.addresses,
        read_only: node.read_only,
        alone: node.alone,
    };
    (node.name, access)
}

impl Vol {
    fn like(&self, there: &Vol) -> bool {
        let known = Vol {
            id: self.id.or(there.id),
            ..self.clone()
        };
        known == *there
    }
}

impl Snap {
    fn like(&self, there: &Snap) -> bool {
        let known = Snap {
            id: self.id.or(there.id),
            ..self.clone()
        };
        known == *there
    }
}
