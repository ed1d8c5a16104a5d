//! Waiting for a job of an appliance that starts anew meanwhile.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::Output;

use cistern_model::{ErrorKind, Job, JobState, Problem};
use support::{POOL, run, text};

/// A job of this number on the pool `tank`, which runs.
fn job(number: u32, kind: &str) -> Job {
    let json = format!(
        r#"{{"id":"job-{number:032}","kind":"{kind}","target":"tank","owner":"local","state":"running","done":1,"total":2,
        "step":"comparing the copies","started":"2026-01-02T03:04:05Z","ended":null}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn succeeded(job: Job) -> Job {
    Job {
        state: JobState::Succeeded,
        ..job
    }
}

/// Has a pool's copies compared by an appliance that forgets the job, number 1, at once and knows of these.
fn scrub(jobs: &[Job]) -> Output {
    let forgotten = Problem::new(ErrorKind::NotFound, "there is none");
    let answers = vec![
        (
            "POST /v1/pools/tank/scrub ",
            202,
            serde_json::to_string(&job(1, "scrub-pool")).unwrap(),
        ),
        ("GET /v1/jobs/", 404, serde_json::to_string(&forgotten).unwrap()),
        ("GET /v1/jobs ", 200, serde_json::to_string(jobs).unwrap()),
        ("GET /v1/pools/tank ", 200, POOL.to_owned()),
    ];
    run(&["pools", "scrub", "tank", "-o", "json"], answers)
}

#[test]
fn after_a_restart_the_job_is_followed_that_goes_on_with_the_work() {
    let output = scrub(&[
        job(4, "replace-disk"),
        succeeded(job(3, "scrub-pool")),
        job(2, "scrub-pool"),
    ]);
    assert!(output.status.success(), "{output:?}");
    let ended: Job = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(ended, succeeded(job(3, "scrub-pool")));
}

#[test]
fn after_a_restart_that_leaves_no_job_it_is_told_how_the_pool_is() {
    let output = scrub(&[]);
    let code = ErrorKind::TimedOut.exit_code();
    assert_eq!(output.status.code(), Some(i32::from(code)), "{output:?}");
    assert!(text(&output.stderr).contains("pool tank is degraded"), "{output:?}");
}
