//! Jobs: long work, kept after its end. Invariant: each job ends, whatever its work comes to; a running one is never forgotten, and of the
//! ended ones the last are kept. Not here: what outlives the supervisor. What a job is at stands in LVM's tags, and the next start goes on
//! with it (`reconcile`) or has another job do so (`mending`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cistern_model::{ErrorKind, Job, JobId, JobKind, JobState, Owner, Principal, Problem};
use jiff::Timestamp;
use uuid::Uuid;

use crate::EngineError;
use crate::engine::{Engine, locked};
use crate::locks::Patiently;
use crate::pool_steps::Progress;

/// How many ended jobs are kept.
const KEPT: usize = 100;

/// The jobs since the start.
#[derive(Default)]
pub(crate) struct Jobs {
    // In the order in which they began.
    jobs: Mutex<BTreeMap<u64, Job>>,
    changed: Condvar,
}

impl Jobs {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, kind: JobKind, target: String, owner: Owner, total: u32, now: Timestamp) -> Job {
        let job = Job {
            id: JobId::from_uuid(Uuid::new_v4()),
            kind,
            target,
            owner,
            state: JobState::Running {
                done: 0,
                total,
                step: "waiting to begin".to_owned(),
            },
            started: now,
            ended: None,
        };
        let mut jobs = self.locked();
        let number = jobs.last_key_value().map_or(0, |(last, _)| last + 1);
        jobs.insert(number, job.clone());
        let ended: Vec<u64> = jobs
            .iter()
            .filter(|(_, j)| j.ended.is_some())
            .map(|(n, _)| *n)
            .collect();
        for number in ended.iter().take(ended.len().saturating_sub(KEPT)) {
            jobs.remove(number);
        }
        job
    }

    /// Says which step is under way: the number of those that are done, and of all.
    pub(crate) fn step(&self, id: JobId, done: u32, total: u32, step: &str) {
        self.change(id, |job| {
            job.state = JobState::Running {
                done,
                total,
                step: step.to_owned(),
            };
        });
    }

    pub(crate) fn end(&self, id: JobId, outcome: Result<(), Problem>, now: Timestamp) {
        self.change(id, |job| {
            job.ended = Some(now);
            job.state = match outcome {
                Ok(()) => JobState::Succeeded,
                Err(problem) => JobState::Failed { problem },
            };
        });
        self.changed.notify_all();
    }

    fn change(&self, id: JobId, with: impl FnOnce(&mut Job)) {
        if let Some(job) = self.locked().values_mut().find(|job| job.id == id) {
            with(job);
        }
    }

    /// The newest first.
    pub(crate) fn list(&self) -> Vec<Job> {
        self.locked().values().rev().cloned().collect()
    }

    pub(crate) fn get(&self, id: JobId) -> Option<Job> {
        self.locked().values().find(|job| job.id == id).cloned()
    }

    /// The job once it has ended, or as it is at the limit.
    pub(crate) fn wait(&self, id: JobId, limit: Duration) -> Option<Job> {
        let deadline = Instant::now() + limit;
        let mut jobs = self.locked();
        loop {
            let job = jobs.values().find(|job| job.id == id)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if job.ended.is_some() || left.is_zero() {
                return Some(job.clone());
            }
            jobs = self
                .changed
                .wait_timeout(jobs, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Engine {
    /// Jobs that the caller may see, the newest first.
    pub fn jobs(&self, by: &Principal) -> Vec<Job> {
        self.0
            .jobs
            .list()
            .into_iter()
            .filter(|job| by.may_touch(&job.owner))
            .collect()
    }

    /// A job, if it began since the start.
    pub fn job(&self, by: &Principal, id: JobId) -> Result<Job, EngineError> {
        let job = self.0.jobs.get(id).filter(|job| by.may_touch(&job.owner));
        job.ok_or_else(|| match self.is_started() {
            true => no_job(id),
            // The start has another job go on with what was interrupted, and has not come to it.
            false => Engine::not_started(),
        })
    }

    /// A job once it has ended, or as it is when `limit` has passed.
    pub fn wait_for_job(&self, by: &Principal, id: JobId, limit: Duration) -> Result<Job, EngineError> {
        self.0.jobs.wait(id, limit);
        self.job(by, id)
    }

    pub(crate) fn job_now(&self, id: JobId) -> Result<Job, EngineError> {
        self.0.jobs.get(id).ok_or_else(|| no_job(id))
    }

    /// Runs a job on a thread of its own.
    pub(crate) fn run_job(
        &self,
        id: JobId,
        work: impl FnOnce(&Progress<'_>) -> Result<(), EngineError> + Send + 'static,
    ) {
        self.run_long_job(id, Duration::from_secs(3600), work);
    }

    /// Runs a job that may take so long.
    pub(crate) fn run_long_job(
        &self,
        id: JobId,
        limit: Duration,
        work: impl FnOnce(&Progress<'_>) -> Result<(), EngineError> + Send + 'static,
    ) {
        let engine = self.clone();
        std::thread::spawn(move || {
            let _operation = engine.0.operations.begin(limit);
            let _patiently = Patiently::begin();
            let work = AssertUnwindSafe(|| work(&Progress::of_job(&engine.0.jobs, id)));
            let outcome = match catch_unwind(work) {
                Ok(outcome) => outcome.map_err(|error| error.problem()),
                // Else it would seem to run, and its pool be busy, until the next start. The panic hook has written what and where.
                Err(_) => Err(Problem::new(
                    ErrorKind::Internal,
                    "the job broke off; the journal of cisternd says where",
                )),
            };
            if let Err(problem) = &outcome {
                tracing::error!(job = %id, problem = problem.detail, "a job failed");
            }
            locked(&engine.0.pending).retain(|pending| pending.job != id);
            let now = engine.0.host.machine.now();
            engine.0.jobs.end(id, outcome, now);
        });
    }
}

/// Who was told of a job before the last start is not to take what it did for lost. Whether this is such a one its id does not say: a time
/// in it would be of a clock that may have been wrong.
fn no_job(id: JobId) -> EngineError {
    EngineError::NotFound {
        what: "job",
        name: format!(
            "{id} among those since the supervisor's last start (of the ended ones the last {KEPT}); list them: another may go \
             on with what it did"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use cistern_host::memory::MemoryHost;
    use cistern_model::{Layout, PoolId};

    fn begin(jobs: &Jobs, target: usize) -> Job {
        let now = Timestamp::UNIX_EPOCH;
        jobs.begin(JobKind::CreatePool, target.to_string(), Owner::local(), 1, now)
    }

    #[test]
    fn ended_jobs_are_kept_up_to_a_bound_and_running_ones_always() {
        let jobs = Jobs::default();
        let running = begin(&jobs, 0);
        for n in 1..=3 * KEPT {
            let job = begin(&jobs, n);
            jobs.end(job.id, Ok(()), Timestamp::UNIX_EPOCH);
        }
        assert!(jobs.list().len() <= KEPT + 2);
        assert!(jobs.get(running.id).is_some());
        assert_eq!(jobs.list()[0].target, (3 * KEPT).to_string());
    }

    #[test]
    fn waiting_for_a_job_ends_with_it_or_at_the_limit() {
        let jobs = Jobs::default();
        let job = begin(&jobs, 0);
        assert!(jobs.wait(job.id, Duration::ZERO).unwrap().ended.is_none());
        let problem = Problem::new(ErrorKind::Conflict, "no");
        jobs.end(job.id, Err(problem), Timestamp::UNIX_EPOCH);
        let ended = jobs.wait(job.id, Duration::from_secs(5)).unwrap();
        assert!(matches!(ended.state, JobState::Failed { problem } if problem.detail == "no"));
    }

    #[test]
    fn a_job_that_panics_has_failed_and_its_pool_is_free_for_another() {
        let engine = Engine::new(MemoryHost::new(Vec::new()).host(), Config::default());
        let (by, name, pool) = (
            Principal::local(),
            "tank".parse().unwrap(),
            PoolId::from_uuid(Uuid::nil()),
        );
        let job = engine.begin_job(&by, JobKind::GrowPool, &name, Layout::Mirror, Vec::new(), pool);
        assert!(engine.pending_on(pool).is_some());
        engine.run_job(job.id, |_| panic!("as the test wants it"));
        let ended = engine.wait_for_job(&by, job.id, Duration::from_secs(5)).unwrap();
        assert!(
            matches!(&ended.state, JobState::Failed { problem } if problem.kind == ErrorKind::Internal),
            "{ended:?}"
        );
        assert!(engine.pending_on(pool).is_none());
    }

    #[test]
    fn of_a_job_that_is_not_known_is_told_that_another_may_go_on_with_its_work() {
        let engine = Engine::new(MemoryHost::new(Vec::new()).host(), Config::default());
        let ask = || {
            let id = JobId::from_uuid(Uuid::nil());
            engine.job(&Principal::local(), id).unwrap_err().problem()
        };
        let early = ask();
        assert_eq!(early.kind, ErrorKind::Unavailable, "{}", early.detail);
        engine.start().unwrap();
        let unknown = ask();
        assert_eq!(unknown.kind, ErrorKind::NotFound);
        assert!(unknown.detail.contains("another may go on"), "{}", unknown.detail);
    }
}
