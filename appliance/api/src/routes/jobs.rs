//! `/v1/jobs`.

use axum::Json;
use cistern_model::{Job, JobId, Problem};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Segment};

/// The jobs that the token may see, those that have ended among them.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs",
    responses((status = 200, body = Vec<Job>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, By(by): By) -> Answer<Vec<Job>> {
    app.call("listing the jobs", move |engine| Ok(engine.jobs(&by)))
        .await
        .map(Json)
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "getJob",
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, By(by): By, Segment(id): Segment<JobId>) -> Answer<Job> {
    app.call("looking at a job", move |engine| engine.job(&by, id))
        .await
        .map(Json)
}
