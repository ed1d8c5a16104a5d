//! Snapshots: what was asked of each, and what a cut must have left of them.
//!
//! Invariant: of snapshots that are made at one moment all are there or none is; one that is served is served to those who were
//! named, read-only.
//!
//! Not here: the pool and its volumes (`ledger`).

use std::collections::{BTreeMap, BTreeSet};

use cistern_model::{Export, Snapshot, SnapshotState};

use super::ledger::{Damage, Found, Ledger, Terms, Verdict, compare, exported};
use super::lifetimes::{Due, Life, Moment, Versions};

/// What the name of a snapshot begins with that a rolling back keeps.
const KEPT: &str = "before-rollback-";

/// A snapshot, from its request to the end of it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its making, and its deletion.
    pub life: Life,
    /// What was answered when it was made, and each time that it was said who may mount it.
    pub answers: Versions<Snapshot>,
    /// What it holds: the sums of the files that were synced by then.
    pub files: BTreeMap<String, String>,
}

/// A snapshot without what says how it is just now, and without what becomes of its volume.
fn promised(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        volume_exists: false,
        state: SnapshotState::Ready,
        reason: None,
        referenced: None,
        exclusive: None,
        ..snapshot.clone()
    }
}

impl Taken {
    /// Whether a request for it was under way.
    pub(super) fn under_way(&self, at: Moment) -> bool {
        self.life.due(at) == Due::Open || self.answers.under_way(at)
    }

    /// Whether it is this one.
    pub(super) fn is(&self, snapshot: &Snapshot) -> bool {
        self.answers.last().is_some_and(|last| last.id == snapshot.id)
    }

    fn name(&self) -> String {
        let last = self.answers.last();
        last.map(|snapshot| snapshot.name.to_string()).unwrap_or_default()
    }

    /// What is wrong with one that is there and ready.
    fn judge(&self, at: Moment, terms: Terms, snapshot: &Snapshot, found: &Found, verdict: &mut Verdict) {
        let (id, name) = (snapshot.id.to_string(), self.name());
        // Named by when it is taken, and nobody was told of that yet.
        let nameless = self.life.due(at) == Due::Open && name.starts_with(KEPT);
        let same = |answer: &Snapshot| {
            let mut answer = answer.clone();
            if nameless {
                (answer.name, answer.created) = (snapshot.name.clone(), snapshot.created);
            }
            promised(&answer) == promised(snapshot)
        };
        if !self.answers.possible(at).into_iter().any(same) {
            verdict
                .lost
                .push(format!("snapshot {name} is not what was answered: {snapshot:?}"));
        }
        let export = Export::of_snapshot(snapshot.id);
        let served = found.exports.get(&export.path).cloned().unwrap_or_default();
        let clients = snapshot.clients.iter();
        let clients: BTreeSet<String> = clients.map(|client| exported(&client.with_read_only(true))).collect();
        if let Some(reason) = &snapshot.reason {
            let damage = Damage {
                id: id.clone(),
                file: None,
                told: format!("snapshot {name} is not served: {reason}"),
            };
            verdict.damage(terms, damage);
        } else if served != clients {
            verdict.lost.push(format!(
                "snapshot {name} is exported to {served:?} and not to {clients:?}"
            ));
        }
        for (file, sum) in self.files.iter().filter(|_| found.deep) {
            let there = found.sums.get(&(id.clone(), file.clone()));
            if let Some(damage) = compare(&id, &format!("snapshot {name}/{file}"), file, sum, there) {
                verdict.damage(terms, damage);
            }
        }
    }
}

impl Ledger {
    pub(super) fn judge_snapshots(&self, at: Moment, terms: Terms, found: &Found, verdict: &mut Verdict) {
        for snapshot in &found.snapshots {
            let known = self.snapshots.iter().find(|taken| taken.is(snapshot));
            let waits = terms.disk_lost && known.is_some_and(|taken| taken.under_way(at));
            if snapshot.state != SnapshotState::Ready && !waits {
                verdict
                    .lost
                    .push(format!("snapshot {} is {}", snapshot.name, snapshot.state));
            }
            // A schedule makes its own, on whatever appliance the volume is.
            if known.is_none() && snapshot.scheduled.is_empty() {
                verdict
                    .lost
                    .push(format!("snapshot {} was never asked for", snapshot.name));
            }
        }
        let ready = found.snapshots.iter();
        let ready = ready.filter(|snapshot| snapshot.state == SnapshotState::Ready);
        let begun: BTreeSet<_> = ready.filter_map(|snapshot| snapshot.group).collect();
        for taken in &self.snapshots {
            let name = taken.name();
            let making = taken.answers.made().is_some_and(|request| request.under_way(at));
            let group = taken.answers.last().and_then(|snapshot| snapshot.group);
            let with_others = group.is_some_and(|group| begun.contains(&group));
            let there = found.snapshots.iter().find(|snapshot| taken.is(snapshot));
            match (taken.life.due(at), there) {
                (Due::Owed, None) => verdict.lost.push(format!("snapshot {name} was answered and is gone")),
                (Due::Excluded, Some(_)) => verdict.lost.push(format!("snapshot {name} must not be there")),
                (Due::Open, None) if making && with_others => verdict.lost.push(format!(
                    "snapshot {name} is not there, and another is that was made at the same moment"
                )),
                (Due::Owed | Due::Open, Some(snapshot)) if snapshot.state == SnapshotState::Ready => {
                    taken.judge(at, terms, snapshot, found, verdict);
                }
                (Due::Owed | Due::Open | Due::Excluded, _) => {}
            }
        }
    }
}
