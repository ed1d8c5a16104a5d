//! Waiting for a job, with a bar where there is a terminal, and for what is made by name.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use cistern_client::{Client, ClientError};
use cistern_model::{ErrorKind, Job, JobKind, JobState, Pool, PoolState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;
use crate::output::shown;

const INTERVAL: Duration = Duration::from_millis(300);
/// How long the appliance may be silent before waiting is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// How long something may be in the making.
const LONGEST: Duration = Duration::from_secs(600);

/// Asks for something that is made by name until it is there, and says whether it was asked for more than once. An appliance with much to
/// do answers after a minute that the work goes on, and goes on with it for who asks again.
pub(crate) async fn to_the_end<T>(ask: impl AsyncFn() -> Result<T, ClientError>) -> Result<(T, bool), ClientError> {
    let (began, mut again) = (Instant::now(), false);
    loop {
        match ask().await {
            Ok(made) => return Ok((made, again)),
            Err(ClientError::Problem(problem)) if problem.kind == ErrorKind::TimedOut && began.elapsed() < LONGEST => {
                if !again {
                    eprintln!("note: the appliance has much to do; waiting for it");
                }
                again = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the job has ended, and gives it, or the one that went on with it when the appliance had started anew; an error if it failed.
pub(crate) async fn wait(client: &Client, mut job: Job, show: bool) -> Result<Job, CliError> {
    let bar = ProgressBar::new(0);
    if !show || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} ({elapsed})") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut silent = Duration::ZERO;
    loop {
        match &job.state {
            JobState::Running { done, total, step } => advance(&bar, *done, *total, step),
            JobState::Succeeded => {
                bar.finish_and_clear();
                return Ok(job);
            }
            JobState::Failed { problem } => {
                bar.finish_and_clear();
                return Err(CliError::Job(problem.clone()));
            }
        }
        tokio::time::sleep(INTERVAL).await;
        let now = match client.job(job.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => after_a_start(client, &job).await,
            now => now.map_err(CliError::from),
        };
        match now {
            Ok(now) => {
                if now.id != job.id {
                    let note = format!("the appliance has started anew; {} goes on with {}", now.id, job.id);
                    bar.suspend(|| eprintln!("note: {note}"));
                }
                job = now;
                silent = Duration::ZERO;
            }
            Err(CliError::Client(error)) if may_pass(&error) && silent < SILENCE => silent += INTERVAL,
            Err(error) => {
                bar.finish_and_clear();
                return Err(error);
            }
        }
    }
}

/// Puts on the bar how far a job is. The step is the appliance's text, which is to do nothing to the terminal.
fn advance(bar: &ProgressBar, done: u32, total: u32, step: &str) {
    bar.set_length(u64::from(total));
    bar.set_position(u64::from(done));
    bar.set_message(shown(step).into_owned());
}

/// What has become of a job that the appliance knows no more, since it has started anew: the job that goes on with it, or how the pool
/// shows that it ended. All jobs that are known have begun since, and a pool has one at a time.
async fn after_a_start(client: &Client, job: &Job) -> Result<Job, CliError> {
    let same = |other: &Job| other.kind == job.kind && other.target == job.target;
    if let Some(newest) = client.jobs().await?.into_iter().find(same) {
        return Ok(newest);
    }
    match client.pool(&job.target).await {
        Ok(pool) => ended(job, Some(&pool)),
        Err(error) if error.kind() == ErrorKind::NotFound => ended(job, None),
        Err(error) => Err(error.into()),
    }
}

/// How a job has ended with which no other one goes on, if its pool shows it: the start itself makes pools, and deletes them, to the end.
fn ended(job: &Job, pool: Option<&Pool>) -> Result<Job, CliError> {
    let made = pool.is_some_and(|pool| match pool.state {
        PoolState::Ready | PoolState::Degraded | PoolState::Incomplete => true,
        PoolState::Creating | PoolState::Deleting => false,
    });
    let done = match job.kind {
        JobKind::CreatePool => made,
        JobKind::DeletePool => pool.is_none(),
        JobKind::ReplaceDisk | JobKind::ScrubPool | JobKind::AddDisks | JobKind::GrowPool | JobKind::DrainDisk => false,
    };
    if done {
        return Ok(Job {
            state: JobState::Succeeded,
            ..job.clone()
        });
    }
    let seen = match pool {
        Some(pool) => format!("pool {} is {}", pool.name, pool.state.name()),
        None => format!("there is no pool {}", job.target),
    };
    let message = format!(
        "the appliance has started anew, and whether {} had come to its end is not known; no job goes on with it, and {seen}",
        job.id
    );
    let hint = "`pools show` and `jobs list` say how it is; what is not done can be asked for again";
    Err(CliError::other(ErrorKind::TimedOut, message, Some(hint)))
}

/// Reading a job again is harmless, so what may pass is waited out.
fn may_pass(error: &ClientError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::TooManyRequests
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_model::Problem;
    use std::cell::RefCell;

    const POOL: &str = r#"{"id":"pool-0f8fad5bd9cb469fa16570867728950e","name":"tank","layout":"mirror","state":"degraded",
        "reason":"a disk is away","disks":["serial-b"],"missing_disks":1,"size":1073741824,"promised":0,"available":0,"used":0,
        "metadata_percent":1.0,"sync_percent":100.0,"volumes":0}"#;

    /// A job on the pool `tank`, which runs.
    fn job(kind: &str) -> Job {
        let text = format!(
            r#"{{"id":"job-0f8fad5bd9cb469fa16570867728950e","kind":"{kind}","target":"tank","owner":"local","state":"running",
            "done":1,"total":2,"step":"filling the new disk","started":"2026-01-02T03:04:05Z","ended":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_pool_shows_whether_it_was_made_or_deleted_and_of_other_jobs_nothing() {
        let pool: Pool = serde_json::from_str(POOL).unwrap();
        let half = Pool {
            state: PoolState::Creating,
            ..pool.clone()
        };
        for (kind, pool, done) in [
            ("create-pool", Some(&pool), true),
            ("create-pool", Some(&half), false),
            ("create-pool", None, false),
            ("delete-pool", Some(&pool), false),
            ("delete-pool", None, true),
            ("replace-disk", Some(&pool), false),
            ("grow-pool", None, false),
        ] {
            assert_eq!(ended(&job(kind), pool).is_ok(), done, "{kind} {pool:?}");
        }
    }

    #[test]
    fn what_a_step_is_called_does_nothing_to_the_terminal() {
        let bar = ProgressBar::hidden();
        advance(&bar, 1, 2, "filling disk \u{1b}]52;c;cm0gLXJm\u{7}");
        assert_eq!(bar.message(), r"filling disk \u{1b}]52;c;cm0gLXJm\u{7}");
        assert_eq!((bar.position(), bar.length()), (1, Some(2)));
    }

    #[tokio::test]
    async fn what_goes_on_is_asked_for_until_it_is_there_and_nothing_else_is() {
        let problem = |kind| Err(ClientError::Problem(Problem::new(kind, "it")));
        for (answers, made) in [
            (vec![Ok(1)], Some((1, false))),
            (
                vec![problem(ErrorKind::TimedOut), problem(ErrorKind::TimedOut), Ok(2)],
                Some((2, true)),
            ),
            (vec![problem(ErrorKind::NameTaken), Ok(3)], None),
            (
                vec![problem(ErrorKind::TimedOut), problem(ErrorKind::NoSpace), Ok(4)],
                None,
            ),
        ] {
            let answers = RefCell::new(answers.into_iter());
            let asked = to_the_end(async || answers.borrow_mut().next().unwrap()).await;
            assert_eq!(asked.ok(), made);
        }
    }
}
