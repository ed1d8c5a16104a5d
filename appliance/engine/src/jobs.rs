//! Jobs: long work, kept after its end. Invariant: a running job is never forgotten; of the ended ones the last are kept.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cistern_model::{Job, JobId, JobKind, JobState, Owner, Principal};
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

    pub(crate) fn end(&self, id: JobId, outcome: Result<&(), &EngineError>, now: Timestamp) {
        self.change(id, |job| {
            job.ended = Some(now);
            job.state = match outcome {
                Ok(&()) => JobState::Succeeded,
                Err(error) => JobState::Failed {
                    problem: error.problem(),
                },
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

    /// A job.
    pub fn job(&self, by: &Principal, id: JobId) -> Result<Job, EngineError> {
        let job = self.0.jobs.get(id).filter(|job| by.may_touch(&job.owner));
        job.ok_or_else(|| no_job(id))
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
            let outcome = work(&Progress::of_job(&engine.0.jobs, id));
            if let Err(error) = &outcome {
                tracing::error!(job = %id, problem = error.problem().detail, "a job failed");
            }
            locked(&engine.0.pending).retain(|pending| pending.job != id);
            let now = engine.0.host.machine.now();
            engine.0.jobs.end(id, outcome.as_ref(), now);
        });
    }
}

fn no_job(id: JobId) -> EngineError {
    EngineError::NotFound {
        what: "job",
        name: id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            jobs.end(job.id, Ok(&()), Timestamp::UNIX_EPOCH);
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
        jobs.end(job.id, Err(&EngineError::Conflict("no".into())), Timestamp::UNIX_EPOCH);
        let ended = jobs.wait(job.id, Duration::from_secs(5)).unwrap();
        assert!(matches!(ended.state, JobState::Failed { problem } if problem.detail == "no"));
    }
}
