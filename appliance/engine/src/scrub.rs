//! Comparing a pool's copies. Invariant: nothing is written unless that was asked for, and what was found to differ is told
//! until a later comparison finds nothing, whatever became of the one that found it. When it is done by itself is
//! `scrub_schedule`'s.

use std::time::Duration;

use cistern_host::{HostErrorKind, ImageHealth, RaidVolume};
use cistern_model::{
    AlertKind, EventKind, Job, JobId, JobKind, LastScrub, PoolState, Principal, ScrubRequest, Severity,
};

use crate::EngineError;
use crate::alerts::Subject;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pending::busy_with;
use crate::pool_settings::PoolSettings;
use crate::pool_steps::Progress;
use crate::tags::moment;
use crate::view::PoolView;

/// The longest that reading the largest disks may take.
const LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why a pool's copies are compared.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// Somebody asked for it.
    Asked(Principal),
    /// It was time.
    Schedule,
}

/// What a comparison has found so far, in sectors.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// How many differed.
    differing: u64,
    /// How many of them were made to agree.
    mended: u64,
}

impl Engine {
    /// Begins to compare a pool's copies. Asked again while it is under way it is the same job.
    pub fn scrub_pool(&self, by: &Principal, pool: &str, request: &ScrubRequest) -> Result<Job, EngineError> {
        let _operation = self.0.operations.begin(Duration::from_secs(300));
        let pool = self.visible_pool(by, pool)?;
        let pending = locked(&self.0.pending)
            .iter()
            .find(|pending| pending.id == pool.id)
            .cloned();
        match pending {
            Some(pending) if pending.kind == JobKind::ScrubPool => return self.job_now(pending.job),
            Some(pending) => return Err(busy_with(&pool, &pending)),
            None => {}
        }
        refuse_one_copy(&pool)?;
        if pool.state() != PoolState::Ready {
            return Err(EngineError::Unavailable(format!(
                "pool {} is {}; its copies are compared when it is whole",
                pool.tags.name,
                pool.state().name()
            )));
        }
        Ok(self.begin_scrub(pool, Cause::Asked(by.clone()), request.repair))
    }

    /// Begins to compare the copies of a pool at which no job is.
    pub(crate) fn begin_scrub(&self, pool: PoolView, cause: Cause, repair: bool) -> Job {
        let by = cause.principal();
        let layout = pool.tags.layout;
        let job = self.begin_job(&by, JobKind::ScrubPool, &pool.tags.name, layout, Vec::new(), pool.id);
        if matches!(cause, Cause::Schedule) {
            locked(&self.0.care).scheduled.insert(job.id, false);
        }
        let (engine, id) = (self.clone(), job.id);
        self.run_long_job(id, LIMIT, move |progress| {
            let mut found = Found::default();
            let compared = engine.compare_all(&pool, repair, &mut found, progress);
            locked(&engine.0.care).scheduled.remove(&id);
            if compared.is_ok() || found.differing > 0 {
                engine.tell_scrubbed(&cause, &pool, found, compared.is_ok());
            }
            compared?;
            engine.note_scrubbed(&pool, found.differing, repair)
        });
        job
    }

    /// Compares the images of all volumes, one after the other. With `repair` those that differ are gone through once more
    /// and made to agree: of a repair the kernel tells no number.
    fn compare_all(
        &self,
        pool: &PoolView,
        repair: bool,
        found: &mut Found,
        progress: &Progress<'_>,
    ) -> Result<(), EngineError> {
        for raid in pool.raids.iter().filter(|raid| raid.images.len() > 1) {
            let differing = self.compare(pool, raid, false, progress)?;
            found.differing += differing;
            if repair && differing > 0 {
                self.compare(pool, raid, true, progress)?;
                found.mended += differing;
            }
        }
        Ok(())
    }

    /// Compares the images of one volume, and with `repair` makes them agree; how many sectors a comparison alone found to
    /// differ.
    fn compare(
        &self,
        pool: &PoolView,
        raid: &RaidVolume,
        repair: bool,
        progress: &Progress<'_>,
    ) -> Result<u64, EngineError> {
        let (name, raids) = (&pool.tags.name, &self.0.host.raids);
        let (vg, lv) = (raid.vg.as_str(), raid.name.as_str());
        self.wait_until_filled(vg, lv, progress)?;
        self.forget_checksums(pool);
        let scrub = raids.scrub(vg, lv, repair);
        scrub.doing(|| match repair {
            true => format!("make the copies of pool {name} agree"),
            false => format!("compare the copies of pool {name}"),
        })?;
        if let Err(error) = self.wait_until_filled(vg, lv, progress) {
            let stopped = raids.stop_scrub(vg, lv);
            stopped.doing(|| format!("stop comparing the copies of pool {name}"))?;
            return Err(error);
        }
        let status = raids.raid_status(vg, lv);
        let status = status.doing(|| format!("ask what was found in pool {name}"))?;
        // The kernel gives up comparing when a disk fails, and compares only what is wholly filled.
        match status {
            Some(status) if status.images.iter().all(|image| *image == ImageHealth::Good) => Ok(status.mismatches),
            Some(_) | None => Err(EngineError::Unavailable(format!(
                "pool {name} lost a disk while its copies were compared; they are compared when it is whole"
            ))),
        }
    }

    /// Tells a scrub that nobody asked for to give way; false if the job is none.
    pub(crate) fn tell_to_give_way(&self, job: JobId) -> bool {
        let mut care = locked(&self.0.care);
        let told = care.scheduled.get_mut(&job);
        told.map(|told| *told = true).is_some()
    }

    /// Fails if this work is to give way to what somebody asks for.
    pub(crate) fn give_way(&self, progress: &Progress<'_>) -> Result<(), EngineError> {
        let told = progress
            .job()
            .and_then(|job| locked(&self.0.care).scheduled.get(&job).copied());
        match told {
            Some(true) => Err(EngineError::Conflict(
                "the scrub was broken off for what was asked of the pool; it begins again when that is done".to_owned(),
            )),
            Some(false) | None => Ok(()),
        }
    }

    /// Tells what a comparison found. One that did not come to its end says nothing of what it has not come to, and ends no
    /// alert.
    fn tell_scrubbed(&self, cause: &Cause, pool: &PoolView, found: Found, ended: bool) {
        let name = &pool.tags.name;
        let (by, how) = match cause {
            Cause::Asked(by) => (Some(by), ""),
            Cause::Schedule => (None, " by its schedule"),
        };
        let far = if ended { "" } else { ", not to the end" };
        let left = found.differing.saturating_sub(found.mended);
        let (severity, what) = match (left, found.mended) {
            (0, 0) => (Severity::Info, "its copies agree".to_owned()),
            (0, mended) => (
                Severity::Warning,
                format!("{mended} sectors of its copies differed, and agree now"),
            ),
            (left, _) => (Severity::Error, format!("{left} sectors of its copies differ")),
        };
        let message = format!("pool {name} was scrubbed{how}{far}: {what}");
        let subject = Subject::named(pool.id, name);
        let trouble = (left > 0).then(|| (severity, message.clone()));
        if ended || trouble.is_some() {
            self.set_alert(AlertKind::ScrubMismatches, &subject, trouble);
        }
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolScrubbed, severity, object, by, message);
    }

    /// Keeps when a pool was scrubbed and what was found. A pool that has just lost a disk takes no notes; the next scrub
    /// comes early then.
    fn note_scrubbed(&self, pool: &PoolView, mismatches: u64, repaired: bool) -> Result<(), EngineError> {
        let _one = self.0.names.hold(Engine::settings_lock(pool.id))?;
        let Some(pool) = self.view().pools.get(&pool.id).cloned() else {
            return Ok(());
        };
        let ended = moment(self.0.host.machine.now());
        let noted = PoolSettings {
            scrub_from: None,
            last_scrub: Some(LastScrub { ended, mismatches }),
            uneven: pool.settings.uneven && !repaired,
            ..pool.settings
        };
        if repaired {
            locked(&self.0.care).uneven.remove(&pool.id);
        }
        match self.settle(&pool, noted) {
            Err(EngineError::Host { source, .. }) if source.kind() != HostErrorKind::PowerLost && pool.missing > 0 => {
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }
}

impl Cause {
    fn principal(&self) -> Principal {
        match self {
            Cause::Asked(by) => by.clone(),
            Cause::Schedule => Principal::local(),
        }
    }
}

/// There must be something to compare.
pub(crate) fn refuse_one_copy(pool: &PoolView) -> Result<(), EngineError> {
    match pool.tags.layout.survives() {
        0 => Err(EngineError::Invalid(format!(
            "pool {} keeps one copy: there is nothing to compare it with",
            pool.tags.name
        ))),
        _ => Ok(()),
    }
}
