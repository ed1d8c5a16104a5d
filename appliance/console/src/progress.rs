//! Waiting for a job, with a bar where there is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use cistern_client::{Client, ClientError};
use cistern_model::{ErrorKind, Job, JobState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;

const INTERVAL: Duration = Duration::from_millis(300);
/// How long the appliance may be silent before waiting is given up.
const SILENCE: Duration = Duration::from_secs(60);

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
