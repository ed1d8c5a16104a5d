//! How the disks and the clock are. Invariant: a disk is asked from here only, seldom, and never while a request or a pool
//! waits for the answer; what it said last holds until it says otherwise, so that one that sleeps needs not be woken.

use std::collections::{BTreeMap, BTreeSet};

use cistern_host::SelfReport;
use cistern_model::{AlertKind, DiskId, JobId, PoolId, Severity};
use jiff::{SignedDuration, Timestamp};

use crate::alerts::Subject;
use crate::engine::{Engine, locked};

/// How often it is asked whether the clock is kept right.
const CLOCK_PACE: SignedDuration = SignedDuration::from_mins(10);
/// How long nothing may keep the clock right: a server of times takes its time after a start, and is away at times.
const UNKEPT: SignedDuration = SignedDuration::from_hours(2);
/// How long a request that failed counts against a disk.
const LATELY: SignedDuration = SignedDuration::from_hours(24);
/// The longest that asking hundreds of disks may take, of which each may hang.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// What is remembered until the next start.
#[derive(Debug, Default)]
pub(crate) struct Care {
    /// What is the matter with each disk that was asked, as it said itself.
    said: BTreeMap<DiskId, Vec<String>>,
    /// Scrubs that nobody asked for, and whether they are to give way to what somebody asks for.
    pub(crate) scheduled: BTreeMap<JobId, bool>,
    /// Pools whose copies are to be compared as their tags say, or would if they could be written.
    pub(crate) uneven: BTreeSet<PoolId>,
    /// When the image was made.
    built: Option<Timestamp>,
    /// When it was last asked whether the clock is kept right.
    clock_asked: Option<Timestamp>,
    /// Since when nothing has kept it right.
    unkept: Option<Timestamp>,
    /// Whether it was last seen to show a time that cannot be.
    unset: bool,
}

impl Engine {
    /// Asks all disks how they are. To be called every hour or so, on a thread that may wait.
    pub fn ask_disks(&self) {
        if !self.is_started() {
            return;
        }
        let Some(_one) = self.0.names.try_hold("the asking of all disks".to_owned()) else {
            return;
        };
        let _operation = self.0.operations.begin(LIMIT);
        let devices = locked(&self.0.devices).clone();
        for device in &devices {
            match self.0.host.health.ask(device) {
                Ok(SelfReport::Told(troubles)) => {
                    locked(&self.0.care).said.insert(device.id.clone(), troubles);
                }
                Ok(SelfReport::Silent) => {
                    locked(&self.0.care).said.insert(device.id.clone(), Vec::new());
                }
                Ok(SelfReport::Asleep) => {}
                Err(error) => tracing::warn!(%error, "how a disk is cannot be asked"),
            }
        }
        self.review_disks();
    }

    /// Disks that err, or say that they will. One that is gone has another alert; one that was not yet asked since the
    /// start keeps the one that it has.
    pub(crate) fn review_disks(&self) {
        let mut troubles: BTreeMap<DiskId, Vec<String>> = BTreeMap::new();
        {
            let view = self.view();
            let devices = locked(&self.0.devices);
            for pool in view.pools.values() {
                let failed = pool.failed_nodes();
                for device in devices.iter().filter(|device| failed.contains(device.lvm_node())) {
                    let why = format!("it gave errors, and pool {} does without it", pool.tags.name);
                    troubles.entry(device.id.clone()).or_default().push(why);
                }
            }
        }
        let there: BTreeSet<DiskId> = locked(&self.0.devices).iter().map(|device| device.id.clone()).collect();
        for disk in there.iter().filter(|disk| self.is_shunned(disk)) {
            let why = "it gave errors again when it was asked back, and its pool does without it".to_owned();
            troubles.entry(disk.clone()).or_default().push(why);
        }
        let mut said = locked(&self.0.care).said.clone();
        said.retain(|disk, _| there.contains(disk));
        for (disk, why) in said.iter().filter(|(_, why)| !why.is_empty()) {
            troubles.entry(disk.clone()).or_default().extend(why.iter().cloned());
        }
        for (disk, why) in self.requests_failed() {
            troubles.entry(disk).or_default().push(why);
        }
        for (disk, why) in &troubles {
            let message = format!("disk {disk}: {}", why.join("; "));
            self.raise_alert(
                AlertKind::DiskFailing,
                &Subject::object(disk),
                Severity::Warning,
                message,
            );
        }
        self.clear_alerts_but(AlertKind::DiskFailing, |disk| {
            let troubled = troubles.keys().any(|id| id.as_str() == disk);
            let unasked = there.iter().any(|id| id.as_str() == disk) && !said.keys().any(|id| id.as_str() == disk);
            troubled || unasked
        });
    }

    /// Disks of which the kernel told lately that requests failed, all disks and not only those of pools.
    fn requests_failed(&self) -> Vec<(DiskId, String)> {
        let reported = match self.0.host.health.reported_errors() {
            Ok(reported) => reported,
            Err(error) => {
                tracing::warn!(%error, "what the kernel tells of disks cannot be read");
                return Vec::new();
            }
        };
        let now = self.0.host.machine.now();
        let devices = locked(&self.0.devices);
        let lately = reported
            .iter()
            .filter(|errors| now.duration_since(errors.last) < LATELY);
        let mut counts: BTreeMap<DiskId, u64> = BTreeMap::new();
        for errors in lately {
            if let Some(device) = devices.iter().find(|device| device.is_at(&errors.node)) {
                *counts.entry(device.id.clone()).or_default() += errors.count;
            }
        }
        let words = |(disk, count): (DiskId, u64)| {
            // The number goes up with each of them, and each would be news.
            let least = 10_u64.pow(count.max(1).ilog10());
            (
                disk,
                format!("the kernel tells of at least {least} request(s) that it failed"),
            )
        };
        counts.into_iter().map(words).collect()
    }

    /// The time; none if the clock was never set, or that cannot be said.
    pub(crate) fn trusted_time(&self) -> Option<Timestamp> {
        let now = self.0.host.machine.now();
        (self.built()? <= now).then_some(now)
    }

    fn built(&self) -> Option<Timestamp> {
        if let Some(built) = locked(&self.0.care).built {
            return Some(built);
        }
        match self.0.host.machine.facts() {
            Ok(facts) => {
                locked(&self.0.care).built = Some(facts.built);
                Some(facts.built)
            }
            Err(error) => {
                tracing::warn!(%error, "when the image was made cannot be said");
                None
            }
        }
    }

    /// Whether something kept the clock right when that was last asked. If it never was, it is now.
    pub(crate) fn clock_was_kept(&self) -> bool {
        if locked(&self.0.care).clock_asked.is_none() {
            self.look_at_clock();
        }
        let care = locked(&self.0.care);
        care.clock_asked.is_some() && care.unkept.is_none() && !care.unset
    }

    /// Whether the clock was set, and is kept right.
    pub(crate) fn look_at_clock(&self) {
        let Some(built) = self.built() else { return };
        let machine = &self.0.host.machine;
        let now = machine.now();
        let subject = Subject::appliance();
        if now < built {
            let message = "the clock shows a time before this system was made".to_owned();
            self.raise_alert(AlertKind::ClockUnset, &subject, Severity::Warning, message);
            locked(&self.0.care).unset = true;
            return;
        }
        if std::mem::take(&mut locked(&self.0.care).unset) {
            self.clear_alert(AlertKind::ClockUnset, &subject);
            locked(&self.0.care).clock_asked = None;
        }
        let asked = locked(&self.0.care).clock_asked;
        if asked.is_some_and(|asked| now.duration_since(asked).abs() < CLOCK_PACE) {
            return;
        }
        let kept = match machine.clock_is_kept() {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "whether the clock is kept right cannot be asked");
                return;
            }
        };
        let since = {
            let mut care = locked(&self.0.care);
            care.clock_asked = Some(now);
            care.unkept = (!kept).then(|| care.unkept.unwrap_or(now));
            care.unkept
        };
        match since {
            None => self.clear_alert(AlertKind::ClockUnset, &subject),
            Some(since) if now.duration_since(since).abs() >= UNKEPT => {
                let message = "nothing keeps the clock right: no NTP server was reached".to_owned();
                self.raise_alert(AlertKind::ClockUnset, &subject, Severity::Warning, message);
            }
            Some(_) => {}
        }
    }
}
