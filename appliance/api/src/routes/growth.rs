//! More room for a pool, and disks that leave it: `/v1/pools/{pool}/disks`, `grow` and `drain`.

use axum::Json;
use axum::http::StatusCode;
use cistern_model::{AddDisksRequest, DrainRequest, GrowthPlan, Job, Problem};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};
use crate::problem::Refusal;

/// Adds blank disks to a pool, in a job; it is served meanwhile. What LVM cannot do is refused with the reason.
#[utoipa::path(post, path = "/v1/pools/{pool}/disks", tag = "pools", operation_id = "addDisks", request_body = AddDisksRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add_disks(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<AddDisksRequest>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("adding disks", move |engine| engine.add_disks(&by, &pool, &request))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// What adding disks to a pool would come to. Nothing is touched.
#[utoipa::path(post, path = "/v1/pools/{pool}/disks/plan", tag = "pools", operation_id = "planDisks",
    request_body = AddDisksRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = GrowthPlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan_disks(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<AddDisksRequest>,
) -> Answer<GrowthPlan> {
    let what = "planning further disks";
    app.call(what, move |engine| engine.plan_disks(&by, &pool, &request))
        .await
        .map(Json)
}

/// Takes up what a pool's disks have grown by, in a job; it is served meanwhile. If there is nothing to take up the job
/// ends well.
#[utoipa::path(post, path = "/v1/pools/{pool}/grow", tag = "pools", operation_id = "growPool",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn grow(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("growing a pool", move |engine| engine.grow_pool(&by, &pool))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// What taking up what a pool's disks have grown by would come to. Nothing is touched.
#[utoipa::path(post, path = "/v1/pools/{pool}/grow/plan", tag = "pools", operation_id = "planGrowth",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = GrowthPlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan_growth(app: App, By(by): By, Segment(pool): Segment<String>) -> Answer<GrowthPlan> {
    app.call("planning a pool's growth", move |engine| engine.plan_growth(&by, &pool))
        .await
        .map(Json)
}

/// Empties a disk of a pool and takes it out, in a job; it is served meanwhile. Only with layout `single`, if the other
/// disks have room.
#[utoipa::path(post, path = "/v1/pools/{pool}/drain", tag = "pools", operation_id = "drainDisk", request_body = DrainRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn drain(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<DrainRequest>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("draining a disk", move |engine| engine.drain_disk(&by, &pool, &request))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}
