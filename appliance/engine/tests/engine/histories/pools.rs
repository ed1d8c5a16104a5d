//! What is asked of a pool and its disks, what happens to a machine and is asked of nobody, and what is found on its disks.

use cistern_engine::{EngineError, PoolCreation};
use cistern_host::memory::signature;
use cistern_model::{
    AddDisksRequest, AdoptRequest, Bytes, Disk, DiskId, DiskState, DrainRequest, HeldState, ImportRequest, Job,
    JobState, Layers, Layout, Percent, PoolChange, PoolRequest, PoolState, RemoveOrphanRequest, ReplaceRequest,
    ScrubEvery, ScrubRequest,
};

use super::History;
use super::apply::{Outcome, fresh, outcome, peer};
use super::steps::Step;
use super::world::{STRAY, Settings, Vol, World, name_of};
use crate::layers::{BOTH, CHECKSUMS, ENCRYPTED};
use crate::support::{by, path, pool_request, volume_request};

/// Disks beside those that other tests have.
pub(crate) const MORE: [&str; 3] = ["e", "f", "g"];

const LAYERS: [Layers; 4] = [Layers::NONE, CHECKSUMS, ENCRYPTED, BOTH];
const SCRUBS: [ScrubEvery; 3] = ScrubEvery::ALL;

/// The disks of a pool of each layout; those with copies leave some to be spares, where there are enough.
pub(crate) fn disks_for(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::Single => &["a", "c", "small"],
        Layout::Mirror => &["a", "b"],
        Layout::StripeMirror => &["a", "b", "c", "small"],
        Layout::Parity => &["a", "b", "c"],
        Layout::DoubleParity => &["a", "b", "c", "d", "small"],
    }
}

impl History {
    fn blank_disk(&self, nth: u8) -> Option<DiskId> {
        let mut blank = self.rig.engine.disks().ok()?;
        blank.retain(|disk| disk.state == DiskState::Available);
        (!blank.is_empty()).then(|| blank.swap_remove(usize::from(nth) % blank.len()).id)
    }

    pub(super) fn pool_disk(&self, nth: u8) -> Option<DiskId> {
        let pool = self.rig.engine.pool(&by(), "tank").ok()?;
        let disks: Vec<DiskId> = pool
            .disks
            .into_iter()
            .filter(|disk| !pool.spares.contains(disk))
            .collect();
        (!disks.is_empty()).then(|| disks[usize::from(nth) % disks.len()].clone())
    }

    fn job(&self, begun: Result<Job, EngineError>) -> Outcome {
        match begun {
            Ok(job) if self.rig.wait(&job).state == JobState::Succeeded => Outcome::Done,
            Ok(_) => Outcome::Unknown,
            Err(error) => outcome::<()>(&Err(error)),
        }
    }

    fn replace(&self, old: DiskId, new: DiskId) -> Outcome {
        let request = ReplaceRequest { old, new };
        let done = self.job(self.rig.engine.replace_disk(&by(), "tank", &request));
        if done == Outcome::Done {
            let disks = self.rig.engine.pool(&by(), "tank").unwrap().disks;
            assert!(
                disks.contains(&request.new) && !disks.contains(&request.old),
                "{disks:?}"
            );
        }
        done
    }

    /// Asks for it.
    pub(super) fn apply_to_pool(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::KeepTrash { seconds } => {
                let change = PoolChange {
                    trash_seconds: Some(seconds),
                    ..PoolChange::default()
                };
                let done = self.rig.engine.change_pool(&by(), "tank", &change);
                self.became(outcome(&done), |world| {
                    if let Some(pool) = &mut world.pool {
                        pool.trash_seconds = seconds;
                    }
                })
            }
            Step::Settings { overcommit, reserve } => {
                let change = PoolChange {
                    overcommit_percent: Some(u32::from(overcommit).try_into().unwrap()),
                    reserve_percent: Some(u32::from(reserve).try_into().unwrap()),
                    trash_seconds: None,
                    scrub: None,
                };
                let done = self.rig.engine.change_pool(&by(), "tank", &change);
                self.became(outcome(&done), |world| {
                    if let Some(pool) = &mut world.pool {
                        (pool.overcommit, pool.reserve) = (overcommit.into(), Some(reserve.into()));
                    }
                })
            }
            Step::ScrubEvery { which } => {
                let every = SCRUBS[usize::from(which)];
                let change = PoolChange {
                    scrub: Some(every),
                    ..PoolChange::default()
                };
                let done = self.rig.engine.change_pool(&by(), "tank", &change);
                self.became(outcome(&done), |world| {
                    if let Some(pool) = &mut world.pool {
                        pool.scrub = every;
                    }
                })
            }
            Step::MakePool { .. } if self.worlds.iter().any(|world| world.away) => Outcome::Idle,
            Step::MakePool { layout, layers } => {
                let request = PoolRequest {
                    layers: LAYERS[usize::from(layers)],
                    ..pool_request("tank", layout, disks_for(layout))
                };
                let begun = self.rig.engine.create_pool(&by(), &request);
                let done = match begun {
                    Ok(PoolCreation::Started(job)) => self.job(Ok(job)),
                    Ok(PoolCreation::Exists(_)) => Outcome::Done,
                    Err(error) => outcome::<()>(&Err(error)),
                };
                let made = Settings::of_new(layout);
                self.became(done, |world| world.pool = world.pool.or(Some(made)))
            }
            Step::DeletePool => {
                let done = self.job(self.rig.engine.delete_pool(&by(), "tank"));
                self.became(done, |world| {
                    let empty = world.volumes.is_empty() && world.snapshots.is_empty() && world.trash.is_empty();
                    if empty && !world.stray {
                        world.pool = None;
                    }
                })
            }
            Step::AddSpare { nth } => {
                let Some(disk) = self.blank_disk(nth) else {
                    return Outcome::Idle;
                };
                match self.rig.engine.add_spare(&by(), "tank", &disk) {
                    Ok(pool) => {
                        assert!(pool.spares.contains(&disk), "{disk} was made a spare: {pool:?}");
                        Outcome::Done
                    }
                    Err(error) => outcome::<()>(&Err(error)),
                }
            }
            Step::RemoveSpare => {
                let pool = self.rig.engine.pool(&by(), "tank");
                let Some(disk) = pool.ok().and_then(|pool| pool.spares.first().cloned()) else {
                    return Outcome::Idle;
                };
                match self.rig.engine.remove_spare(&by(), "tank", &disk) {
                    Ok(pool) => {
                        assert!(!pool.spares.contains(&disk), "{disk} is no spare any more: {pool:?}");
                        Outcome::Done
                    }
                    Err(error) => outcome::<()>(&Err(error)),
                }
            }
            Step::Replace { nth, with } => {
                let (Some(old), Some(new)) = (self.pool_disk(nth), self.blank_disk(with)) else {
                    return Outcome::Idle;
                };
                self.replace(old, new)
            }
            Step::ReplaceMissing { with } => {
                let (Some(old), Some(new)) = (self.detached.clone(), self.blank_disk(with)) else {
                    return Outcome::Idle;
                };
                self.replace(old, new)
            }
            Step::AddDisks { nth } => {
                let Ok(pool) = self.rig.engine.pool(&by(), "tank") else {
                    return Outcome::Idle;
                };
                // As many as lie beside each other.
                let mut disks: Vec<DiskId> = (0..pool.layout.minimum_disks())
                    .filter_map(|more| self.blank_disk(nth + u8::try_from(more).unwrap_or(0)))
                    .collect();
                disks.sort();
                disks.dedup();
                let request = AddDisksRequest { disks };
                let done = self.job(self.rig.engine.add_disks(&by(), "tank", &request));
                if done == Outcome::Done {
                    let now = self.rig.engine.pool(&by(), "tank").unwrap();
                    assert!(request.disks.iter().all(|disk| now.disks.contains(disk)), "{now:?}");
                    assert!(now.size > pool.size, "{pool:?}, then {now:?}");
                }
                done
            }
            Step::Grow => {
                let Ok(before) = self.rig.engine.pool(&by(), "tank") else {
                    return Outcome::Idle;
                };
                let done = self.job(self.rig.engine.grow_pool(&by(), "tank"));
                if done == Outcome::Done {
                    let now = self.rig.engine.pool(&by(), "tank").unwrap();
                    assert!(now.size >= before.size, "{before:?}, then {now:?}");
                }
                done
            }
            Step::Drain { nth } => {
                let Some(disk) = self.pool_disk(nth) else {
                    return Outcome::Idle;
                };
                // Whoever wants one emptied makes room on the others first.
                let pool = self.rig.engine.pool(&by(), "tank").ok();
                for other in pool
                    .into_iter()
                    .flat_map(|pool| pool.disks)
                    .filter(|other| *other != disk)
                {
                    self.rig.machine.change_device(&other, |device| {
                        device.size = device.size.saturating_add(Bytes::gib(10)).min(Bytes::gib(40));
                    });
                }
                let request = DrainRequest { disk };
                let done = self.job(self.rig.engine.drain_disk(&by(), "tank", &request));
                if done == Outcome::Done {
                    let disks = self.rig.engine.pool(&by(), "tank").unwrap().disks;
                    assert!(!disks.contains(&request.disk), "{disks:?}");
                }
                done
            }
            Step::Wipe { nth } => self.wipe(nth),
            Step::GiveUp => self.give_up(),
            Step::Scrub { repair } => self.job(self.rig.engine.scrub_pool(&by(), "tank", &ScrubRequest { repair })),
            Step::Release => {
                let done = outcome(&self.rig.engine.release_pool(&by(), "tank"));
                self.became(done, |world| world.away = world.pool.is_some())
            }
            Step::Import => self.import(),
            Step::Adopt { name } => {
                let object = self.stray();
                let request = AdoptRequest {
                    object: object.clone(),
                    name: name_of(name).parse().unwrap(),
                    clients: vec![peer(2, false)],
                };
                let done = outcome(&self.rig.engine.adopt_volume(&by(), &request));
                self.became(done, |world| {
                    let plain = volume_request(&name_of(name), Bytes::gib(1));
                    if std::mem::take(&mut world.stray) {
                        let adopted = Vol {
                            clients: request.clients.iter().copied().collect(),
                            files: [(STRAY.to_owned(), Bytes::mib(1))].into(),
                            ..fresh(&plain)
                        };
                        world.volumes.insert(name, adopted);
                    }
                })
            }
            Step::RemoveStray => {
                let object = self.stray();
                let request = RemoveOrphanRequest {
                    confirm: object.clone(),
                    object,
                };
                let done = outcome(&self.rig.engine.remove_orphan(&by(), &request));
                self.became(done, |world| world.stray = false)
            }
            Step::Reconcile => {
                let done = outcome(&self.rig.engine.reconcile());
                if done == Outcome::Unknown { Outcome::Idle } else { done }
            }
            Step::Restart => {
                // The power went before, so that what goes wrong does so during the start.
                let _ = self.rig.engine.start();
                Outcome::Idle
            }
            _ => self.befall(step),
        }
    }

    /// A disk on which something is found is wiped by its name.
    fn wipe(&self, nth: u8) -> Outcome {
        let Ok(disks) = self.rig.engine.disks() else {
            return Outcome::Idle;
        };
        let full = |disk: &&Disk| disk.signatures.iter().any(|found| found.kind == "ext4");
        let there = disks.iter().find(full).map(|disk| disk.id.clone());
        let Some(disk) = there.or_else(|| self.blank_disk(nth)) else {
            return Outcome::Idle;
        };
        self.rig.machine.change_device(&disk, |device| {
            device.signatures = ["dos", "ext4"].map(signature).to_vec()
        });
        let wiped = self.rig.engine.wipe_disk(&by(), &disk, None);
        if let Ok(wiped) = &wiped {
            assert_eq!(wiped.state, DiskState::Available, "{wiped:?}");
        }
        // What is left on it by one that failed is wiped by the next.
        outcome(&wiped)
    }

    /// The disk that is out is gone for good, and the pool with it: its other disks are wiped, one by one. What goes wrong at
    /// that is gone on with (`settle`).
    fn give_up(&mut self) -> Outcome {
        let (Some(lost), Ok(pool)) = (self.detached.clone(), self.rig.engine.pool(&by(), "tank")) else {
            return Outcome::Idle;
        };
        if pool.missing_disks == 0 {
            return Outcome::Idle;
        }
        self.detached = None;
        self.rig.machine.lose(&lost);
        self.giving_up = Some(pool.id);
        let named = pool.id.to_string();
        let mut done = Outcome::Done;
        for disk in pool.disks.iter().chain(&pool.spares) {
            done = outcome(&self.rig.engine.wipe_disk(&by(), disk, Some(&named)));
            if done != Outcome::Done {
                break;
            }
        }
        let gone = self.worlds.clone().into_iter().map(|_| World::default());
        match done {
            Outcome::Done => self.worlds = gone.collect(),
            // None of it stays: that is seen once all is wiped.
            Outcome::Unknown | Outcome::Refused | Outcome::Idle => self.worlds.extend(gone.collect::<Vec<_>>()),
        }
        self.worlds.dedup();
        Outcome::Done
    }

    pub(super) fn stray(&self) -> String {
        let pool = self.rig.engine.pool(&by(), "tank");
        pool.map_or_else(|_| STRAY.to_owned(), |pool| format!("{}/{STRAY}", pool.id))
    }

    pub(super) fn import(&mut self) -> Outcome {
        let orphans = self.rig.engine.orphans().unwrap_or_default();
        let Some(pool) = orphans.iter().find_map(|orphan| orphan.object.parse().ok()) else {
            return Outcome::Idle;
        };
        let request = ImportRequest {
            pool,
            name: None,
            take_from: Some("other".to_owned()),
        };
        let done = outcome(&self.rig.engine.import_pool(&by(), &request));
        if !matches!(done, Outcome::Done | Outcome::Unknown) {
            return done;
        }
        let mut back = self.worlds.clone();
        back.iter_mut().for_each(|world| world.away = false);
        match done {
            Outcome::Done => self.worlds = back,
            Outcome::Unknown | Outcome::Refused | Outcome::Idle => self.worlds.extend(back),
        }
        done
    }

    /// Lets it happen; then all is reconciled, as the kernel tells of it.
    pub(super) fn befall(&mut self, step: &Step) -> Outcome {
        let pool = self.rig.engine.pool(&by(), "tank");
        match (step, pool) {
            (Step::Detach { nth }, Ok(pool)) => {
                let whole = pool.state == PoolState::Ready && self.detached.is_none();
                let Some(disk) = self.pool_disk(*nth).filter(|_| whole && pool.layout.survives() > 0) else {
                    return Outcome::Idle;
                };
                self.rig.machine.detach(&disk);
                self.detached = Some(disk);
            }
            (Step::GrowDisk { nth }, Ok(_)) => {
                let Some(disk) = self.pool_disk(*nth) else {
                    return Outcome::Idle;
                };
                self.rig.machine.change_device(&disk, |device| {
                    device.size = device.size.saturating_add(Bytes::gib(2)).min(Bytes::gib(20));
                });
            }
            (Step::Attach, _) => {
                let Some(disk) = self.detached.take() else {
                    return Outcome::Idle;
                };
                self.rig.machine.attach(&disk);
            }
            (Step::MoveAway, Ok(pool)) if self.detached.is_none() => {
                self.rig.power_cycle();
                self.rig.machine.give_group(&pool.id.to_string(), "other");
                let started = self.rig.engine.start();
                self.worlds.iter_mut().for_each(|world| world.away = true);
                return if started.is_ok() { Outcome::Done } else { Outcome::Idle };
            }
            (Step::FindStray, Ok(pool)) => {
                let vg = pool.id.to_string();
                // What comes to a pool that is given up goes with it.
                let stays = self.giving_up.is_none();
                if stays && !self.rig.machine.objects().contains(&format!("{vg}/{STRAY}")) {
                    self.rig.machine.add_strange_volume(&vg, STRAY, &["backup"]);
                    self.rig.machine.put_xfs(&vg, STRAY, Bytes::gib(1), STRAY);
                    self.worlds.iter_mut().for_each(|world| world.stray = true);
                }
            }
            (Step::FillMetadata, Ok(_)) => {
                self.rig.machine.set_metadata_percent(Percent::from(70.0));
                return Outcome::Idle;
            }
            (Step::Lock { name, client }, Ok(_)) => {
                let Some(volume) = self.find(*name) else {
                    return Outcome::Idle;
                };
                let held = HeldState {
                    opens: 1,
                    locks: 1,
                    delegations: 0,
                };
                let address = format!("10.0.0.{}", client + 1);
                self.rig.machine.client_holds(&address, &path(volume.id), held);
                return Outcome::Idle;
            }
            (Step::Hold { name }, Ok(_)) => {
                // A client has files open there.
                let Some(volume) = self.find(*name) else {
                    return Outcome::Idle;
                };
                self.rig.machine.hold(&path(volume.id));
                return Outcome::Idle;
            }
            _ => return Outcome::Idle,
        }
        // The kernel tells of it, and what is done about it by itself is done.
        let _ = self.rig.engine.reconcile();
        self.wait_for_jobs();
        Outcome::Idle
    }
}
