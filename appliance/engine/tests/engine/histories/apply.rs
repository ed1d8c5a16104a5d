//! One step, asked of the engine, and what it makes of what is known if it is done: volumes, snapshots and the trash.

use std::collections::BTreeSet;

use cistern_engine::EngineError;
use cistern_model::{
    Bytes, Client, GroupSnapshotRequest, NodeAccess, NodeName, Owner, Snapshot, SnapshotRequest, UndeleteRequest,
    Volume, VolumeChange, VolumeOptions, VolumeOptionsChange, VolumeRequest, VolumeSource,
};

use super::History;
use super::steps::Step;
use super::world::{Snap, Vol, World, name_of, plain};
use crate::changes::{labels, to_name, to_owner, to_size};
use crate::clones::of;
use crate::rollback::to;
use crate::support::{by, client, path, volume_request};

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered: it is done.
    Done,
    /// It was judged and not begun.
    Refused,
    /// It failed on its way.
    Unknown,
    /// There was nothing to ask for.
    Idle,
}

pub(super) fn outcome<T>(result: &Result<T, EngineError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(EngineError::Host { .. }) => Outcome::Unknown,
        Err(_) => Outcome::Refused,
    }
}

const OPTIONS: [&str; 5] = [
    r#"{"squash":"root"}"#,
    r#"{"read_only":true}"#,
    r#"{"read_only":false,"squash":"none"}"#,
    r#"{"squash":"all","anonymous_uid":1000}"#,
    r#"{"root_uid":1000,"root_mode":"0750"}"#,
];
const SCHEDULES: [&str; 3] = ["hourly=2", "hourly=1,daily=2,weekly=1", "none"];

pub(super) fn peer(number: u8, read_only: bool) -> Client {
    client(&format!("10.0.0.{}", number + 1)).with_read_only(read_only)
}

fn node_name(number: u8) -> NodeName {
    format!("node-{number}").parse().unwrap()
}

/// Its address may be a client's or another node's too.
fn node_access(number: u8, alone: bool) -> NodeAccess {
    NodeAccess {
        addresses: vec![format!("10.0.0.{}", number + 1).parse().unwrap()],
        read_only: false,
        alone,
    }
}

pub(super) fn fresh(request: &VolumeRequest) -> Vol {
    Vol {
        id: None,
        size: request.size.max(Bytes::mib(300)),
        clients: request.clients.iter().copied().collect(),
        nodes: Default::default(),
        files: Default::default(),
        options: VolumeOptions::default(),
        labels: Default::default(),
        owner: by().owner,
        schedule: Default::default(),
        source: request.source,
    }
}

impl History {
    pub(super) fn find(&self, name: u8) -> Option<Volume> {
        self.rig
            .volumes()
            .into_iter()
            .find(|v| v.name.as_str() == name_of(name))
    }

    /// A snapshot that somebody made, by its place.
    fn nth_snapshot(&self, nth: u8) -> Option<Snapshot> {
        let mut all = self.rig.snapshots();
        all.retain(|s| s.scheduled.is_empty());
        all.sort_by_key(|s| (s.created, s.name.clone(), s.id));
        (!all.is_empty()).then(|| all.swap_remove(usize::from(nth) % all.len()))
    }

    /// In each of the ways in which all may be: as it was, if it was refused; as it is to be, if it was done; else both.
    pub(super) fn became(&mut self, outcome: Outcome, after: impl Fn(&mut World)) -> Outcome {
        if matches!(outcome, Outcome::Refused | Outcome::Idle) {
            return outcome;
        }
        let before = self.worlds.clone();
        self.worlds.iter_mut().filter(|world| !world.away).for_each(after);
        if outcome == Outcome::Unknown {
            self.worlds.extend(before);
        }
        let mut different: Vec<World> = Vec::new();
        for world in self.worlds.drain(..) {
            if !different.contains(&world) {
                different.push(world);
            }
        }
        self.worlds = different;
        outcome
    }

    fn change(&mut self, name: u8, change: &VolumeChange, after: impl Fn(&mut Vol)) -> Outcome {
        let Some(volume) = self.find(name) else {
            return Outcome::Idle;
        };
        let changed = self.rig.engine.change_volume(&by(), volume.id, change);
        self.became(outcome(&changed), |world| {
            world.volumes.get_mut(&name).map(&after);
        })
    }

    fn create(
        &mut self,
        name: u8,
        request: &VolumeRequest,
        files: impl Fn(&World) -> Option<super::world::Files>,
    ) -> Outcome {
        let made = self.rig.engine.create_volume(&by(), request);
        self.became(outcome(&made), |world| {
            let files = files(world).unwrap_or_default();
            let new = || Vol {
                files,
                ..fresh(request)
            };
            world.volumes.entry(name).or_insert_with(new);
        })
    }

    /// Asks for it. What is known then is what may be.
    pub(crate) fn apply(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::Create { name, mib } => {
                let request = volume_request(&name_of(name), Bytes::mib(mib.into()));
                self.create(name, &request, |_| None)
            }
            Step::Clone { name, to, more } => {
                let Some(volume) = self.find(name).filter(|_| self.find(to).is_none()) else {
                    return Outcome::Idle;
                };
                let size = volume.size.saturating_add(Bytes::mib(more.into()));
                let request = of(VolumeSource::Volume(volume.id), &name_of(to), size);
                self.create(to, &request, |world| Some(world.volumes.get(&name)?.files.clone()))
            }
            Step::CloneSnapshot { nth, to } => {
                let Some(snapshot) = self.nth_snapshot(nth).filter(|_| self.find(to).is_none()) else {
                    return Outcome::Idle;
                };
                let request = of(VolumeSource::Snapshot(snapshot.id), &name_of(to), snapshot.size);
                self.create(to, &request, |world| world.held_by(&snapshot))
            }
            Step::Delete { name } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let done = self.rig.engine.delete_volume(&by(), volume.id);
                self.became(outcome(&done), |world| {
                    let keeps = world.pool.is_some_and(|pool| pool.trash_seconds > 0);
                    if let Some(gone) = world.volumes.remove(&name).filter(|_| keeps) {
                        world.trash.insert(volume.id, (name, gone));
                    }
                })
            }
            Step::Undelete { nth, to } => {
                let trash = self.rig.engine.trash(&by());
                if trash.is_empty() {
                    return Outcome::Idle;
                }
                let there = &trash[usize::from(nth) % trash.len()];
                let request = UndeleteRequest {
                    name: to.map(|to| name_of(to).parse().unwrap()),
                };
                let back = self.rig.engine.undelete(&by(), there.id, &request);
                self.became(outcome(&back), |world| {
                    if let Some((name, volume)) = world.trash.remove(&there.id) {
                        world.volumes.insert(to.unwrap_or(name), volume);
                    }
                })
            }
            Step::Purge { nth } => {
                let trash = self.rig.engine.trash(&by());
                if trash.is_empty() {
                    return Outcome::Idle;
                }
                let id = trash[usize::from(nth) % trash.len()].id;
                let done = self.rig.engine.purge(&by(), id);
                self.became(outcome(&done), |world| drop(world.trash.remove(&id)))
            }
            Step::Allow {
                name,
                client,
                read_only,
            } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let new = peer(client, read_only);
                let done = self.rig.engine.add_client(&by(), volume.id, new);
                self.became(outcome(&done), |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.clients.retain(|there| !there.is_same_peer(&new));
                        volume.clients.insert(new);
                    }
                })
            }
            Step::Forbid { name, client } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let old = peer(client, false);
                let done = self.rig.engine.remove_client(&by(), volume.id, old);
                self.became(outcome(&done), |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.clients.retain(|there| !there.is_same_peer(&old));
                    }
                })
            }
            Step::Publish { name, node, to, alone } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let (node, access) = (node_name(node), node_access(to, alone));
                let done = self.rig.engine.publish_to_node(&by(), volume.id, &node, &access);
                self.became(outcome(&done), |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.nodes.insert(node.clone(), access.clone());
                    }
                })
            }
            Step::Unpublish { name, node } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let node = node_name(node);
                let done = self.rig.engine.unpublish_from_node(&by(), volume.id, &node);
                self.became(outcome(&done), |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.nodes.remove(&node);
                    }
                })
            }
            Step::Options { name, which } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let change: VolumeOptionsChange = serde_json::from_str(OPTIONS[usize::from(which)]).unwrap();
                let done = self.rig.engine.set_options(&by(), volume.id, &change);
                self.became(outcome(&done), |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.options = change.apply(&volume.options);
                    }
                })
            }
            Step::Label { name, value } => {
                let set = labels(&[("tier", &value.to_string())]);
                let change = VolumeChange {
                    labels: Some(set.clone()),
                    ..VolumeChange::default()
                };
                self.change(name, &change, |volume| volume.labels = set.clone())
            }
            Step::GiveTo { name, owner } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let owner: Owner = ["local", "team"][usize::from(owner)].parse().unwrap();
                let given = self.rig.engine.change_volume(&by(), volume.id, &to_owner(&owner));
                self.became(outcome(&given), |world| {
                    if let Some(known) = world.volumes.get_mut(&name) {
                        known.owner = owner.clone();
                        let its = world.snapshots.iter_mut().filter(|s| s.volume == volume.id);
                        its.for_each(|s| s.owner = owner.clone());
                    }
                })
            }
            Step::Schedule { name, which } => {
                let schedule = SCHEDULES[usize::from(which)].parse().unwrap();
                let change = VolumeChange {
                    schedule: Some(schedule),
                    ..VolumeChange::default()
                };
                self.change(name, &change, |volume| volume.schedule = schedule)
            }
            Step::Tick { minutes } => {
                self.rig.machine.pass(jiff::SignedDuration::from_mins(minutes.into()));
                self.before_tick();
                self.rig.engine.tick();
                // What it has begun is a part of it.
                self.wait_for_jobs();
                Outcome::Done
            }
            Step::Write { name, mib } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                // Whose data it is stands in its name.
                let file = format!("{}/{mib}", volume.id);
                let size = Bytes::mib(mib.into());
                let written = self.rig.machine.write_file(&path(volume.id), &file, size).is_ok();
                let files = self.rig.machine.files(&path(volume.id)).unwrap_or_default();
                if files.iter().any(|(name, has)| *name == file && *has < size) {
                    // What fitted of it is not what anybody was promised.
                    self.rig.machine.remove_file(&path(volume.id), &file);
                }
                self.became(if written { Outcome::Done } else { Outcome::Idle }, |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.files.insert(file.clone(), size);
                    }
                })
            }
            Step::Erase { name } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let files = self.rig.machine.files(&path(volume.id)).unwrap_or_default();
                let Some((file, _)) = files.first() else {
                    return Outcome::Idle;
                };
                self.rig.machine.remove_file(&path(volume.id), file);
                self.became(Outcome::Done, |world| {
                    if let Some(volume) = world.volumes.get_mut(&name) {
                        volume.files.remove(file);
                    }
                })
            }
            Step::Expand { name, mib } => {
                let size = Bytes::mib(mib.into());
                self.change(name, &to_size(size), |volume| volume.size = volume.size.max(size))
            }
            Step::Rename { name, to } => {
                let Some(volume) = self.find(name).filter(|_| self.find(to).is_none()) else {
                    return Outcome::Idle;
                };
                let renamed = self.rig.engine.change_volume(&by(), volume.id, &to_name(&name_of(to)));
                self.became(outcome(&renamed), |world| {
                    if let Some(volume) = world.volumes.remove(&name) {
                        world.volumes.insert(to, volume);
                    }
                })
            }
            Step::Snapshot { name, number } => {
                let Some(volume) = self.find(name) else {
                    return Outcome::Idle;
                };
                let request = SnapshotRequest {
                    name: format!("s{number}").parse().unwrap(),
                };
                let made = self.rig.engine.create_snapshot(&by(), volume.id, &request);
                self.became(outcome(&made), |world| world.snap(name, &volume, &format!("s{number}")))
            }
            Step::SnapshotAll { number } => {
                let volumes = self.rig.volumes();
                let request = GroupSnapshotRequest {
                    name: format!("s{number}").parse().unwrap(),
                    volumes: volumes.iter().map(|v| v.id).collect(),
                };
                let made = self.rig.engine.create_group_snapshot(&by(), &request);
                self.became(outcome(&made), |world| {
                    for volume in &volumes {
                        let name: u8 = volume.name.as_str()[1..].parse().unwrap();
                        world.snap(name, volume, &format!("s{number}"));
                    }
                })
            }
            Step::DeleteSnapshot { nth } => {
                let Some(snapshot) = self.nth_snapshot(nth) else {
                    return Outcome::Idle;
                };
                let done = self.rig.engine.delete_snapshot(&by(), snapshot.id);
                self.became(outcome(&done), |world| world.snapshots.retain(|s| !s.is(&snapshot)))
            }
            Step::Serve { nth, clients } => {
                let Some(snapshot) = self.nth_snapshot(nth) else {
                    return Outcome::Idle;
                };
                let clients: BTreeSet<Client> = (0..clients).map(|number| peer(number, false)).collect();
                let list: Vec<Client> = clients.iter().copied().collect();
                let done = self.rig.engine.serve_snapshot(&by(), snapshot.id, &list);
                self.became(outcome(&done), |world| {
                    let served = world.snapshots.iter_mut().filter(|s| s.is(&snapshot));
                    served.for_each(|s| s.clients.clone_from(&clients));
                })
            }
            Step::RollBack { nth, discard } => {
                let Some(snapshot) = self.nth_snapshot(nth) else {
                    return Outcome::Idle;
                };
                let back = self
                    .rig
                    .engine
                    .roll_back(&by(), snapshot.volume, &to(snapshot.id, discard));
                self.rolled_back.insert(snapshot.volume);
                self.became(outcome(&back), |world| {
                    // The volume itself, or else one of which it is not known yet what it became.
                    let own = world.volumes.values().any(|vol| vol.id == Some(snapshot.volume));
                    let of = |vol: &&mut Vol| vol.id == own.then_some(snapshot.volume);
                    let Some(held) = world.held_by(&snapshot) else { return };
                    let Some(volume) = world.volumes.values_mut().find(of) else {
                        return;
                    };
                    let before = Snap {
                        volume: snapshot.volume,
                        name: "before-rollback".to_owned(),
                        size: volume.size,
                        files: std::mem::replace(&mut volume.files, held),
                        clients: BTreeSet::new(),
                        owner: volume.owner.clone(),
                        id: None,
                    };
                    world.snapshots.extend((!discard).then_some(before));
                })
            }
            _ => self.apply_to_pool(step),
        }
    }
}

impl World {
    fn held_by(&self, snapshot: &Snapshot) -> Option<super::world::Files> {
        let found = self.snapshots.iter().find(|s| s.is(snapshot));
        found.map(|s| s.files.clone())
    }

    fn snap(&mut self, name: u8, volume: &Volume, called: &str) {
        let there = self.snapshots.iter().any(|s| s.volume == volume.id && s.name == called);
        if let Some(known) = self.volumes.get(&name).filter(|_| !there) {
            self.snapshots.push(Snap {
                volume: volume.id,
                name: called.to_owned(),
                size: known.size,
                files: known.files.clone(),
                clients: BTreeSet::new(),
                owner: known.owner.clone(),
                id: None,
            });
        }
    }
}

impl Snap {
    /// Those that were kept at rollings back have one name here.
    fn is(&self, snapshot: &Snapshot) -> bool {
        let same = |id| id == snapshot.id;
        let named = self.volume == snapshot.volume && self.name == plain(snapshot.name.as_str());
        self.id.map_or(named, same)
    }
}
