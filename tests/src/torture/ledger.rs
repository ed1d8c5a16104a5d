//! What was asked for and what was answered, each with the moment, and what a cut must therefore have left.
//!
//! Invariant: a thing is owed from the moment at which its answer was there, until the moment at which its end was asked
//! for; it is excluded before it was asked for, and after its end was answered. Between these it may be there, and then it
//! must be whole.
//!
//! Not here: machines.

use std::collections::BTreeMap;

use cistern_model::{Bytes, Snapshot, SnapshotState, Volume, VolumeState};

/// A moment, as a count of events of all disks.
pub type Moment = u64;

/// A volume, from its request to the end of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// When it was asked for.
    pub asked: Moment,
    /// What was answered, and when.
    pub made: Option<(Moment, Volume)>,
    /// The sizes that were asked for later, each with when that was asked and when it was answered.
    pub resized: Vec<(Bytes, Moment, Option<Moment>)>,
    /// When its deletion was asked for.
    pub end_asked: Option<Moment>,
    /// When that was answered.
    pub ended: Option<Moment>,
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
}

/// A snapshot that was asked for, and never deleted.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its name, which no other has.
    pub name: String,
    /// When it was asked for.
    pub asked: Moment,
    /// What was answered, and when.
    pub made: Option<(Moment, Snapshot)>,
}

impl Taken {
    /// What a cut at this moment must have left of it.
    pub fn due(&self, at: Moment) -> Due {
        if at <= self.asked {
            Due::Excluded
        } else if self.made.as_ref().is_some_and(|(made, _)| at >= *made) {
            Due::Owed
        } else {
            Due::Open
        }
    }
}

/// Everything that was asked for.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// When the pool's making was answered.
    pub pool_made: Moment,
    /// All volumes, those that are gone too.
    pub volumes: Vec<Known>,
    /// All snapshots.
    pub snapshots: Vec<Taken>,
}

/// What is on an appliance that was given the disks of a cut.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
    /// The sums of their files, by volume's id and file's name.
    pub sums: BTreeMap<(String, String), String>,
}

/// Under which conditions a cut is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// A disk was lost with the power: the pool is served degraded, and what was under way waits for its disk.
    pub disk_lost: bool,
    /// The layout has a write hole when a disk is missing: docs/storage.md says which bytes it may cost.
    pub write_hole: bool,
}

/// What is wrong with what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was promised and is lost.
    pub lost: Vec<String>,
    /// What the write hole has cost, as documented.
    pub hole: Vec<String>,
}

/// What a cut must have left of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It must be there.
    Owed,
    /// It may be there, whole, or not.
    Open,
    /// It must not be there.
    Excluded,
}

impl Known {
    /// What a cut at this moment must have left of it.
    pub fn due(&self, at: Moment) -> Due {
        if at <= self.asked || self.ended.is_some_and(|ended| at >= ended) {
            return Due::Excluded;
        }
        let answered = self.made.as_ref().is_some_and(|(made, _)| at >= *made);
        if answered && self.end_asked.is_none_or(|asked| at <= asked) {
            Due::Owed
        } else {
            Due::Open
        }
    }

    /// The sizes that it may have at this moment: the last one that was answered, and those asked for since.
    fn sizes(&self, at: Moment) -> Vec<Bytes> {
        let mut sizes: Vec<Bytes> = self.made.iter().map(|(_, volume)| volume.size).collect();
        for (size, asked, answered) in &self.resized {
            if answered.is_some_and(|answered| at >= answered) {
                sizes.clear();
            }
            if at > *asked {
                sizes.push(*size);
            }
        }
        sizes
    }

    /// In what a volume that was answered is another one now.
    fn differs(&self, at: Moment, volume: &Volume) -> Option<String> {
        let (_, made) = self.made.as_ref()?;
        let same = made.id == volume.id && made.created == volume.created && self.sizes(at).contains(&volume.size);
        (!same).then(|| format!("volume {} is not what was answered: {volume:?}", self.name))
    }

    /// Which of its synced files have not the bytes that they had.
    fn bytes_wrong(&self, at: Moment, volume: &Volume, found: &Found) -> Vec<String> {
        let synced = self.files.iter().filter(|file| at >= file.synced);
        let told = synced.filter_map(
            |file| match found.sums.get(&(volume.id.to_string(), file.name.clone())) {
                None => Some(format!("{}/{} was synced and is gone", self.name, file.name)),
                Some(sum) if *sum != file.sum => {
                    Some(format!("{}/{} has other bytes than were synced", self.name, file.name))
                }
                Some(_) => None,
            },
        );
        told.collect()
    }
}

impl Ledger {
    /// Whether a request was under way at this moment: asked for and not answered.
    pub fn under_way(&self, at: Moment) -> bool {
        let within = |asked: Moment, answered: Option<Moment>| at > asked && answered.is_none_or(|a| at < a);
        self.volumes.iter().any(|v| {
            within(v.asked, v.made.as_ref().map(|(made, _)| *made))
                || v.end_asked.is_some_and(|asked| within(asked, v.ended))
                || v.resized.iter().any(|(_, asked, answered)| within(*asked, *answered))
        }) || self.snapshots.iter().any(|s| s.due(at) == Due::Open)
    }

    /// What is wrong with what was found after a cut at this moment; nothing, if nothing was lost.
    pub fn judge(&self, at: Moment, terms: Terms, found: &Found) -> Verdict {
        let mut verdict = Verdict::default();
        let Verdict { lost: wrong, hole } = &mut verdict;
        for volume in &found.volumes {
            let known = self.volumes.iter().find(|v| v.name == volume.name.as_str());
            let waits = terms.disk_lost && known.is_some_and(|known| known.due(at) == Due::Open);
            if volume.state != VolumeState::Ready && !waits {
                let told = format!("volume {} is {}: {:?}", volume.name, volume.state, volume.reason);
                match volume.state {
                    VolumeState::Failed if terms.write_hole => hole.push(told),
                    _ => wrong.push(told),
                }
            }
            if !self.volumes.iter().any(|v| v.name == volume.name.as_str()) {
                wrong.push(format!("volume {} was never asked for", volume.name));
            }
        }
        for known in &self.volumes {
            let there = found.volumes.iter().find(|v| v.name.as_str() == known.name);
            match (known.due(at), there) {
                (Due::Owed, None) => wrong.push(format!("volume {} was answered and is gone", known.name)),
                (Due::Excluded, Some(_)) => wrong.push(format!("volume {} must not be there", known.name)),
                (Due::Owed, Some(volume)) => {
                    if let Some(other) = known.differs(at, volume) {
                        wrong.push(other);
                    }
                    let bytes = known.bytes_wrong(at, volume, found);
                    if terms.write_hole { &mut *hole } else { &mut *wrong }.extend(bytes);
                }
                (Due::Open | Due::Excluded, _) => {}
            }
        }
        for snapshot in &found.snapshots {
            let known = self.snapshots.iter().find(|s| s.name == snapshot.name.as_str());
            let waits = terms.disk_lost && known.is_some_and(|known| known.due(at) == Due::Open);
            if snapshot.state != SnapshotState::Ready && !waits {
                wrong.push(format!("snapshot {} is {}", snapshot.name, snapshot.state));
            }
            if !self.snapshots.iter().any(|s| s.name == snapshot.name.as_str()) {
                wrong.push(format!("snapshot {} was never asked for", snapshot.name));
            }
        }
        for taken in &self.snapshots {
            let there = found.snapshots.iter().find(|s| s.name.as_str() == taken.name);
            match (taken.due(at), there) {
                (Due::Owed, None) => wrong.push(format!("snapshot {} was answered and is gone", taken.name)),
                (Due::Excluded, Some(_)) => wrong.push(format!("snapshot {} must not be there", taken.name)),
                (Due::Owed, Some(found)) => {
                    let made = taken.made.as_ref().map(|(_, made)| (made.id, made.volume, made.size));
                    if made != Some((found.id, found.volume, found.size)) {
                        wrong.push(format!("snapshot {} is not what was answered: {found:?}", taken.name));
                    }
                }
                (Due::Open | Due::Excluded, _) => {}
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Volume {
        serde_json::from_value(serde_json::json!({
            "id": "vol-0f8fad5bd9cb469fa16570867728950e", "name": name, "pool": "pool-0f8fad5bd9cb469fa16570867728950e",
            "pool_name": "tank", "size": 314572800, "used": null, "state": "ready", "reason": null, "owner": "local",
            "clients": [], "created": "2026-11-21T00:00:00Z",
            "export": {"path": "/volumes/x", "fsid": "0f8fad5b-d9cb-469f-a165-70867728950e"}
        }))
        .unwrap()
    }

    fn ledger() -> Ledger {
        let known = Known {
            name: "v".to_owned(),
            asked: 10,
            made: Some((20, volume("v"))),
            resized: Vec::new(),
            end_asked: Some(40),
            ended: Some(50),
            files: vec![File {
                name: "f".to_owned(),
                sum: "s".to_owned(),
                synced: 30,
            }],
        };
        Ledger {
            pool_made: 5,
            volumes: vec![known],
            snapshots: Vec::new(),
        }
    }

    #[test]
    fn a_volume_is_owed_from_its_answer_until_its_end_is_asked_for() {
        let known = &ledger().volumes[0];
        for (at, due) in [
            (10, Due::Excluded),
            (11, Due::Open),
            (19, Due::Open),
            (20, Due::Owed),
            (40, Due::Owed),
            (41, Due::Open),
            (50, Due::Excluded),
        ] {
            assert_eq!(known.due(at), due, "{at}");
            assert_eq!(ledger().under_way(at), due == Due::Open, "{at}");
        }
    }

    #[test]
    fn what_is_lost_is_named() {
        let (ledger, nothing) = (ledger(), Found::default());
        assert_eq!(ledger.judge(15, Terms::default(), &nothing).lost, Vec::<String>::new());
        assert_eq!(ledger.judge(25, Terms::default(), &nothing).lost.len(), 1);
        let mut found = Found {
            volumes: vec![volume("v")],
            ..Found::default()
        };
        assert_eq!(ledger.judge(25, Terms::default(), &found).lost, Vec::<String>::new());
        assert_eq!(
            ledger.judge(35, Terms::default(), &found).lost,
            ["v/f was synced and is gone"]
        );
        let key = (found.volumes[0].id.to_string(), "f".to_owned());
        found.sums.insert(key.clone(), "other".to_owned());
        assert_eq!(
            ledger.judge(35, Terms::default(), &found).lost,
            ["v/f has other bytes than were synced"]
        );
        found.sums.insert(key, "s".to_owned());
        assert_eq!(ledger.judge(35, Terms::default(), &found).lost, Vec::<String>::new());
        assert_eq!(
            ledger.judge(60, Terms::default(), &found).lost,
            ["volume v must not be there"]
        );
        let hole = Terms {
            disk_lost: true,
            write_hole: true,
        };
        let other = Found {
            sums: BTreeMap::from([(
                ("vol-0f8fad5bd9cb469fa16570867728950e".to_owned(), "f".to_owned()),
                "other".to_owned(),
            )]),
            ..found.clone()
        };
        assert_eq!(ledger.judge(35, hole, &other).lost, Vec::<String>::new());
        assert_eq!(ledger.judge(35, hole, &other).hole.len(), 1);
        assert_eq!(ledger.judge(35, hole, &nothing).lost.len(), 1, "no hole costs a volume");
        found.volumes[0].state = VolumeState::Deleting;
        assert_eq!(
            ledger.judge(45, hole, &found).lost,
            Vec::<String>::new(),
            "it waits for its disk"
        );
        found.volumes[0].state = VolumeState::Failed;
        assert_eq!(ledger.judge(45, Terms::default(), &found).lost.len(), 1);
    }
}
