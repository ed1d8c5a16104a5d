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
    pub fn judge(&self, at: Moment, found: &Found) -> Vec<String> {
        let mut wrong = Vec::new();
        for volume in &found.volumes {
            if volume.state != VolumeState::Ready {
                wrong.push(format!(
                    "volume {} is {}: {:?}",
                    volume.name, volume.state, volume.reason
                ));
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
                (Due::Owed, Some(volume)) => self.compare(at, known, volume, found, &mut wrong),
                (Due::Open | Due::Excluded, _) => {}
            }
        }
        for snapshot in &found.snapshots {
            if snapshot.state != SnapshotState::Ready {
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
        wrong
    }

    fn compare(&self, at: Moment, known: &Known, volume: &Volume, found: &Found, wrong: &mut Vec<String>) {
        if let Some((_, made)) = &known.made
            && (made.id != volume.id || made.created != volume.created || !known.sizes(at).contains(&volume.size))
        {
            wrong.push(format!("volume {} is not what was answered: {volume:?}", known.name));
        }
        for file in known.files.iter().filter(|file| at >= file.synced) {
            match found.sums.get(&(volume.id.to_string(), file.name.clone())) {
                None => wrong.push(format!("{}/{} was synced and is gone", known.name, file.name)),
                Some(sum) if *sum != file.sum => {
                    wrong.push(format!("{}/{} has other bytes than were synced", known.name, file.name));
                }
                Some(_) => {}
            }
        }
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
        assert_eq!(ledger.judge(15, &nothing), Vec::<String>::new());
        assert_eq!(ledger.judge(25, &nothing).len(), 1);
        let mut found = Found {
            volumes: vec![volume("v")],
            ..Found::default()
        };
        assert_eq!(ledger.judge(25, &found), Vec::<String>::new());
        assert_eq!(ledger.judge(35, &found), ["v/f was synced and is gone"]);
        let key = (found.volumes[0].id.to_string(), "f".to_owned());
        found.sums.insert(key.clone(), "other".to_owned());
        assert_eq!(ledger.judge(35, &found), ["v/f has other bytes than were synced"]);
        found.sums.insert(key, "s".to_owned());
        assert_eq!(ledger.judge(35, &found), Vec::<String>::new());
        assert_eq!(ledger.judge(60, &found), ["volume v must not be there"]);
        found.volumes[0].state = VolumeState::Failed;
        assert_eq!(ledger.judge(45, &found).len(), 1);
    }
}
