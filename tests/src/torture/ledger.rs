//! What was asked for and what was answered, each with the moment, and what a cut must therefore have left.
//!
//! Invariant: what is promised of a volume is all that its answers said, and each byte that a client has synced; what was
//! under way at the cut is there whole, as before or as asked for, or, where it was being made or taken away, not at all.
//!
//! Not here: snapshots (`taken`), machines, and which bytes a write hole may cost (`stripes`).

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{Client, Disk, DiskState, Orphan, OrphanKind, Pool, PoolState, Snapshot, Volume, VolumeState};

pub use super::lifetimes::{Due, Life, Moment, Request, Versions};
pub use super::taken::Taken;

/// A volume, from its request to the end of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its making, and each time that it was deleted or taken back out of the trash.
    pub life: Life,
    /// What was answered when it was made, and after each change.
    pub answers: Versions<Volume>,
    /// Files in it that a client has written and synced.
    pub files: Vec<File>,
}

/// A file in a volume, written once.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name.
    pub name: String,
    /// SHA-256 of what is in it, as the client had it.
    pub sum: String,
    /// When the client was told that it is on stable storage.
    pub synced: Moment,
    /// The rolling back that took it away.
    pub gone: Option<Request>,
}

/// The pool.
#[derive(Debug, Clone)]
pub struct KnownPool {
    /// Its making.
    pub life: Life,
    /// What was answered when it was made, and after each change.
    pub answers: Versions<Pool>,
    /// When all its copies were made, or its parity: from then on it can do without a disk.
    pub whole: Moment,
}

/// Everything that was asked for.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// The pool.
    pub pool: KnownPool,
    /// All volumes, those that are gone too.
    pub volumes: Vec<Known>,
    /// All snapshots, those that are gone too.
    pub snapshots: Vec<Taken>,
}

/// What is on an appliance that was given the disks of a cut.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its pools.
    pub pools: Vec<Pool>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Who may mount what, by the kernel's server's own table: paths, each with addresses and whether these may write.
    pub exports: BTreeMap<String, BTreeSet<String>>,
    /// The sums of files, by the volume's or snapshot's id and the file's name; none of one that cannot be read.
    pub sums: BTreeMap<(String, String), Option<String>>,
    /// Whether snapshots were read too, filesystems checked and images compared.
    pub deep: bool,
    /// What `xfs_repair -n` said of filesystems in which it found something, by id.
    pub damaged: BTreeMap<String, String>,
    /// By how many sectors the images of a RAID volume differ.
    pub uneven: BTreeMap<String, u64>,
    /// The disks that were cut, if there is no pool.
    pub disks: Vec<Disk>,
    /// What nothing explains, where that was asked for.
    pub orphans: Vec<Orphan>,
    /// What its supervisor was asked in vain after it had said that it is ready.
    pub refused: BTreeSet<String>,
}

/// Under which conditions a cut is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// A disk was lost with the power: the pool is served degraded, and what was under way waits for its disk.
    pub disk_lost: bool,
    /// The layout has a write hole when a disk is missing: docs/storage.md says which bytes it may cost.
    pub write_hole: bool,
}

/// Something that is lost, or that a write hole has cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The volume's or snapshot's id.
    pub id: String,
    /// The file, if it is there and has other bytes; else anything of the filesystem may be the cause.
    pub file: Option<String>,
    /// What is wrong.
    pub told: String,
}

/// What is wrong with what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was promised and is lost.
    pub lost: Vec<String>,
    /// What is lost too, unless the write hole can have cost just that.
    pub hole: Vec<Damage>,
}

impl Verdict {
    /// Counts as lost what the write hole cannot have cost.
    pub fn excuse(&mut self, may_be_hit: impl Fn(&Damage) -> bool) {
        let (hole, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.hole).into_iter().partition(may_be_hit);
        let told = |damage: Damage| format!("{}, and nothing beside it was being written", damage.told);
        self.lost.extend(lost.into_iter().map(told));
        self.hole = hole;
    }

    pub(super) fn damage(&mut self, terms: Terms, damage: Damage) {
        if terms.write_hole {
            self.hole.push(damage);
        } else {
            self.lost.push(damage.told);
        }
    }
}

/// A volume without what says how it is just now, and without what its pool's snapshots and clients' order make of it.
fn promised(volume: &Volume) -> Volume {
    let mut volume = Volume {
        used: None,
        inodes: None,
        state: VolumeState::Ready,
        reason: None,
        ..volume.clone()
    };
    volume.clients.sort();
    volume
}

fn same_pool(one: &Pool, other: &Pool) -> bool {
    let what = |pool: &Pool| (pool.id, pool.name.clone(), pool.layout, pool.layers, pool.trash_seconds);
    what(one) == what(other)
}

/// Whether an operator can make a pool of it again: it is blank, or has no more on it than LVM's label, and is wiped by name.
fn is_bare(disk: &Disk) -> bool {
    match disk.state {
        DiskState::Available => true,
        DiskState::HasData => disk.signatures.iter().all(|found| found.kind == "LVM2_member"),
        DiskState::Boot | DiskState::InPool { .. } | DiskState::Busy | DiskState::Unusable { .. } => false,
    }
}

/// How the kernel's server knows a client.
pub(super) fn exported(client: &Client) -> String {
    let access = if client.is_read_only() { "ro" } else { "rw" };
    format!("{} {access}", client.with_read_only(false))
}

impl Known {
    fn id(&self) -> String {
        self.answers
            .last()
            .map(|volume| volume.id.to_string())
            .unwrap_or_default()
    }

    fn name(&self) -> String {
        self.answers
            .last()
            .map(|volume| volume.name.to_string())
            .unwrap_or_default()
    }

    /// In what a volume is another one than was answered.
    fn differs(&self, at: Moment, volume: &Volume, found: &Found) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self
            .answers
            .possible(at)
            .iter()
            .any(|answer| promised(answer) == promised(volume))
        {
            wrong.push(format!("volume {} is not what was answered: {volume:?}", volume.name));
        }
        let served = found.exports.get(&volume.export.path).cloned().unwrap_or_default();
        let clients: BTreeSet<String> = volume.clients.iter().map(exported).collect();
        if served != clients && volume.state == VolumeState::Ready {
            wrong.push(format!(
                "volume {} is exported to {served:?} and not to {clients:?}",
                volume.name
            ));
        }
        wrong
    }

    /// Which of its synced files have not the bytes that they had, and which are there that must not be.
    fn bytes_wrong(&self, at: Moment, found: &Found) -> Vec<Damage> {
        let (id, name) = (self.id(), self.name());
        let mut damages = Vec::new();
        for file in self.files.iter().filter(|file| at >= file.synced) {
            let there = found.sums.get(&(id.clone(), file.name.clone()));
            if file.gone.is_some_and(|gone| at > gone.asked) {
                if there.is_some() && file.gone.is_some_and(|gone| at >= gone.answered) {
                    let told = format!("{name}/{} was rolled back and is there", file.name);
                    damages.push(Damage {
                        id: id.clone(),
                        file: None,
                        told,
                    });
                }
                continue;
            }
            damages.extend(compare(
                &id,
                &format!("{name}/{}", file.name),
                &file.name,
                &file.sum,
                there,
            ));
        }
        damages
    }
}

/// What is wrong with a file that is to have this sum.
pub(super) fn compare(id: &str, path: &str, name: &str, sum: &str, there: Option<&Option<String>>) -> Option<Damage> {
    let (file, told) = match there {
        None => (None, format!("{path} was synced and is gone")),
        Some(None) => (None, format!("{path} was synced and cannot be read")),
        Some(Some(other)) if other != sum => (
            Some(name.to_owned()),
            format!("{path} has other bytes than were synced"),
        ),
        Some(Some(_)) => return None,
    };
    Some(Damage {
        id: id.to_owned(),
        file,
        told,
    })
}

impl Ledger {
    /// Whether a request was under way at this moment: asked for and not answered.
    pub fn under_way(&self, at: Moment) -> bool {
        self.pool.life.due(at) == Due::Open
            || self
                .volumes
                .iter()
                .any(|v| v.life.due(at) == Due::Open || v.answers.under_way(at))
            || self.snapshots.iter().any(|taken| taken.under_way(at))
            || self.pool.answers.under_way(at)
    }

    /// What is wrong with what was found after a cut at this moment; nothing, if nothing was lost.
    pub fn judge(&self, at: Moment, terms: Terms, found: &Found) -> Verdict {
        let mut verdict = Verdict::default();
        let refused = found.refused.iter();
        let told = refused.map(|told| format!("its supervisor was ready and did not answer {told}"));
        verdict.lost.extend(told);
        self.judge_orphans(at, found, &mut verdict);
        if !self.judge_pool(at, terms, found, &mut verdict) {
            return verdict;
        }
        for volume in &found.volumes {
            self.judge_found(at, terms, volume, &mut verdict);
        }
        for known in &self.volumes {
            self.judge_known(at, terms, known, found, &mut verdict);
        }
        self.judge_snapshots(at, terms, found, &mut verdict);
        let uneven = found.uneven.iter().filter(|(_, sectors)| **sectors > 0);
        let told = uneven.map(|(volume, sectors)| format!("the images of {volume} differ by {sectors} sectors"));
        verdict.lost.extend(told);
        for (id, told) in &found.damaged {
            let (id, told) = (id.clone(), format!("xfs_repair finds {id} damaged: {told}"));
            verdict.damage(terms, Damage { id, file: None, told });
        }
        verdict
    }

    /// Of a pool whose making was undone LVM's bare label may be left, which an operator wipes by name; of nothing else anything.
    fn judge_orphans(&self, at: Moment, found: &Found, verdict: &mut Verdict) {
        let undone = self.pool.life.due(at) == Due::Open && found.pools.is_empty();
        let may_be = |orphan: &&Orphan| undone && orphan.kind == OrphanKind::Label;
        let left = found.orphans.iter().filter(|orphan| !may_be(orphan));
        let told = left.map(|orphan| format!("nothing explains {}: {}", orphan.object, orphan.why));
        verdict.lost.extend(told);
    }

    /// Whether there is a pool to look into.
    fn judge_pool(&self, at: Moment, terms: Terms, found: &Found, verdict: &mut Verdict) -> bool {
        let state = if terms.disk_lost {
            PoolState::Degraded
        } else {
            PoolState::Ready
        };
        match (self.pool.life.due(at), found.pools.as_slice()) {
            (Due::Owed | Due::Open, [pool]) if pool.state == state => {
                if !self
                    .pool
                    .answers
                    .possible(at)
                    .iter()
                    .any(|answer| same_pool(answer, pool))
                {
                    verdict
                        .lost
                        .push(format!("the pool is not what was answered: {pool:?}"));
                }
                true
            }
            (Due::Open | Due::Excluded, []) => {
                let held = found.disks.iter().filter(|disk| !is_bare(disk));
                let told = held.map(|disk| format!("there is no pool, and a disk is left {disk:?}"));
                verdict.lost.extend(told);
                false
            }
            (Due::Owed | Due::Open | Due::Excluded, other) => {
                verdict.lost.push(format!("the pool is not served: {other:?}"));
                false
            }
        }
    }

    fn known(&self, volume: &Volume) -> Option<&Known> {
        self.volumes.iter().find(|known| known.id() == volume.id.to_string())
    }

    fn judge_found(&self, at: Moment, terms: Terms, volume: &Volume, verdict: &mut Verdict) {
        let Some(known) = self.known(volume) else {
            verdict.lost.push(format!("volume {} was never asked for", volume.name));
            return;
        };
        let open = known.life.due(at) == Due::Open || known.answers.under_way(at);
        let waits = terms.disk_lost && open && volume.state != VolumeState::Failed;
        if volume.state != VolumeState::Ready && !waits {
            let told = format!("volume {} is {}: {:?}", volume.name, volume.state, volume.reason);
            let damage = Damage {
                id: volume.id.to_string(),
                file: None,
                told,
            };
            match volume.state {
                VolumeState::Failed => verdict.damage(terms, damage),
                VolumeState::Creating | VolumeState::Ready | VolumeState::RollingBack | VolumeState::Deleting => {
                    verdict.lost.push(damage.told);
                }
            }
        }
    }

    fn judge_known(&self, at: Moment, terms: Terms, known: &Known, found: &Found, verdict: &mut Verdict) {
        let there = found.volumes.iter().find(|volume| volume.id.to_string() == known.id());
        match (known.life.due(at), there) {
            (Due::Owed, None) => verdict
                .lost
                .push(format!("volume {} was answered and is gone", known.name())),
            (Due::Excluded, Some(_)) => verdict.lost.push(format!("volume {} must not be there", known.name())),
            // What was being made or taken away, and is there and served, is there whole.
            (due @ (Due::Owed | Due::Open), Some(volume)) if due == Due::Owed || volume.state == VolumeState::Ready => {
                verdict.lost.extend(known.differs(at, volume, found));
                if volume.state == VolumeState::Ready || !(terms.disk_lost && known.answers.under_way(at)) {
                    for damage in known.bytes_wrong(at, found) {
                        verdict.damage(terms, damage);
                    }
                }
            }
            (Due::Owed | Due::Open | Due::Excluded, _) => {}
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
