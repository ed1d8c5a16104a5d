//! Comparing a pool's copies. Invariant: nothing is written unless that was asked for, and what was found to differ is told
//! until a later comparison finds nothing. When it is done by itself is `scrub_schedule`'s.

use std::time::Duration;

use cistern_host::{HostErrorKind, ImageHealth};
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
            let raids = pool.raids.iter().filter(|raid| raid.images.len() > 1);
            let compared: Result<u64, EngineError> = raids
                .map(|raid| engine.compare(&pool, &raid.vg, &raid.name, repair, progress))
                .sum();
            locked(&engine.0.care).scheduled.remove(&id);
            let differing = compared?;
            engine.tell_scrubbed(&cause, &pool, repair, differing);
            engine.note_scrubbed(&pool, differing)
        });
        job
    }

    /// Compares the images of one volume; how many sectors differ.
    fn compare(
        &self,
        pool: &PoolView,
        vg: &str,
        lv: &str,
        repair: bool,
        progress: &Progress<'_>,
    ) -> Result<u64, EngineError> {
        let (name, raids) = (&pool.tags.name, &self.0.host.raids);
        self.wait_until_filled(vg, lv, progress)?;
        self.forget_checksums(pool);
        let scrub = raids.scrub(vg, lv, repair);
        scrub.doing(|| format!("compare the copies of pool {name}"))?;
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

    fn tell_scrubbed(&self, cause: &Cause, pool: &PoolView, repair: bool, sectors: u64) {
        let name = &pool.tags.name;
        let (by, how) = match cause {
            Cause::Asked(by) => (Some(by), ""),
            Cause::Schedule => (None, " by its schedule"),
        };
        let (severity, found) = match (sectors, repair) {
            (0, _) => (Severity::Info, "its copies agree".to_owned()),
            (_, false) => (Severity::Error, format!("{sectors} sectors of its copies differ")),
            (_, true) => (
                Severity::Warning,
                format!("{sectors} sectors of its copies differed, and agree now"),
            ),
        };
        let message = format!("pool {name} was scrubbed{how}: {found}");
        let subject = Subject::named(pool.id, name);
        let trouble = (sectors > 0 && !repair).then(|| (severity, message.clone()));
        self.set_alert(AlertKind::ScrubMismatches, &subject, trouble);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolScrubbed, severity, object, by, message);
    }

    /// Keeps when a pool was scrubbed and what was found. A pool that has just lost a disk takes no notes; the next scrub
    /// comes early then.
    fn note_scrubbed(&self, pool: &PoolView, mismatches: u64) -> Result<(), EngineError> {
        let _one = self.0.names.hold(Engine::settings_lock(pool.id))?;
        let Some(pool) = self.view().pools.get(&pool.id).cloned() else {
            return Ok(());
        };
        let ended = moment(self.0.host.machine.now());
        let noted = PoolSettings {
            scrub_from: None,
            last_scrub: Some(LastScrub { ended, mismatches }),
            ..pool.settings
        };
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
