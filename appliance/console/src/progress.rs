//! Waiting for a job, with a bar where there is a terminal, and for what is made by name.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use cistern_client::{Client, ClientError};
use cistern_model::{ErrorKind, Job, JobState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;

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

/// Waits until the job has ended, and gives it; an error if it failed.
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
            JobState::Running { done, total, step } => {
                bar.set_length(u64::from(*total));
                bar.set_position(u64::from(*done));
                bar.set_message(step.clone());
            }
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
        match client.job(job.id).await {
            Ok(now) => {
                job = now;
                silent = Duration::ZERO;
            }
            Err(error) if may_pass(&error) && silent < SILENCE => silent += INTERVAL,
            Err(error) => {
                bar.finish_and_clear();
                return Err(error.into());
            }
        }
    }
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
