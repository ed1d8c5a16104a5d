//! Comparing a pool's copies. Invariant: nothing is written unless that was asked for, and what was found to differ is told
//! until a later comparison finds nothing.

use std::time::Duration;

use cistern_model::{AlertKind, EventKind, Job, JobKind, PoolState, Principal, ScrubRequest, Severity};

use crate::EngineError;
use crate::alerts::Subject;
use crate::engine::{Engine, locked};
use crate::error::Doing as _;
use crate::pending::busy_with;
use crate::view::PoolView;

/// The longest that reading the largest disks may take.
const LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

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
        if pool.tags.layout.survives() == 0 {
            return Err(EngineError::Invalid(format!(
                "pool {} keeps one copy: there is nothing to compare it with",
                pool.tags.name
            )));
        }
        if pool.state() != PoolState::Ready {
            return Err(EngineError::Unavailable(format!(
                "pool {} is {}; its copies are compared when it is whole",
                pool.tags.name,
                pool.state().name()
            )));
        }
        let layout = pool.tags.layout;
        let job = self.begin_job(by, JobKind::ScrubPool, &pool.tags.name, layout, Vec::new(), pool.id);
        let (engine, by, repair) = (self.clone(), by.clone(), request.repair);
        self.run_long_job(job.id, LIMIT, move |progress| {
            let mut differing = 0;
            for raid in pool.raids.iter().filter(|raid| raid.images.len() > 1) {
                engine.wait_until_filled(&raid.vg, &raid.name, progress)?;
                let scrub = engine.0.host.raids.scrub(&raid.vg, &raid.name, repair);
                scrub.doing(|| format!("compare the copies of pool {}", pool.tags.name))?;
                engine.wait_until_filled(&raid.vg, &raid.name, progress)?;
                let status = engine.0.host.raids.raid_status(&raid.vg, &raid.name);
                let status = status.doing(|| format!("ask what was found in pool {}", pool.tags.name))?;
                differing += status.map_or(0, |status| status.mismatches);
            }
            engine.tell_scrubbed(&by, &pool, repair, differing);
            Ok(())
        });
        Ok(job)
    }

    fn tell_scrubbed(&self, by: &Principal, pool: &PoolView, repair: bool, sectors: u64) {
        let name = &pool.tags.name;
        let (severity, message) = match (sectors, repair) {
            (0, _) => (Severity::Info, format!("pool {name} was scrubbed: its copies agree")),
            (_, false) => (
                Severity::Error,
                format!("pool {name} was scrubbed: {sectors} sectors of its copies differ"),
            ),
            (_, true) => (
                Severity::Warning,
                format!("pool {name} was scrubbed: {sectors} sectors of its copies differed, and agree now"),
            ),
        };
        let subject = Subject::named(pool.id, name);
        let trouble = (sectors > 0 && !repair).then(|| (severity, message.clone()));
        self.set_alert(AlertKind::ScrubMismatches, &subject, trouble);
        let object = Some(pool.id.to_string());
        self.record(EventKind::PoolScrubbed, severity, object, Some(by), message);
    }
}
