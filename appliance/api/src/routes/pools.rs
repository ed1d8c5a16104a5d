//! `/v1/pools`.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cistern_engine::PoolCreation;
use cistern_model::{
    DiskId, ErrorKind, Job, Pool, PoolChange, PoolPlan, PoolRequest, Problem, ReplaceRequest, ScrubRequest,
    SpareRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Answer;
use crate::app::App;
use crate::extract::{Asked, By, Json as Body, Segment};
use crate::problem::Refusal;
use crate::table;

/// Refuses a name by which the pool could not be asked for.
pub(super) fn refuse_segment(name: &str) -> Result<(), Refusal> {
    if !table::is_segment("/v1/pools", name) {
        return Ok(());
    }
    let detail = format!("no pool can be called {name}, as /v1/pools/{name} is something else; give it another name");
    Err(Refusal::new(ErrorKind::Invalid, detail))
}

/// All pools that the token may see.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "listPools",
    responses((status = 200, body = Vec<Pool>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, By(by): By) -> Answer<Vec<Pool>> {
    app.call("listing the pools", move |engine| engine.pools(&by))
        .await
        .map(Json)
}

/// One pool, by name or id.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", operation_id = "getPool",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, By(by): By, Segment(pool): Segment<String>) -> Answer<Pool> {
    app.call("looking at a pool", move |engine| engine.pool(&by, &pool))
        .await
        .map(Json)
}

/// What a request for a pool would come to. Nothing is touched.
#[utoipa::path(post, path = "/v1/pools/plan", tag = "pools", operation_id = "planPool", request_body = PoolRequest,
    responses((status = 200, body = PoolPlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan(app: App, Body(request): Body<PoolRequest>) -> Answer<PoolPlan> {
    refuse_segment(request.name.as_str())?;
    app.call("planning a pool", move |engine| engine.plan_pool(&request))
        .await
        .map(Json)
}

/// Makes a pool in a job (202), or shows the pool if the same one is there (200).
#[utoipa::path(post, path = "/v1/pools", tag = "pools", operation_id = "createPool", request_body = PoolRequest,
    responses((status = 200, description = "The same pool is there", body = Pool), (status = 202, description = "It is being made", body = Job),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    app: App,
    By(by): By,
    Body(request): Body<PoolRequest>,
) -> Result<Response<HttpBody>, Refusal> {
    refuse_segment(request.name.as_str())?;
    let what = format!("making the pool {}", request.name);
    let creation = app.call(&what, move |engine| engine.create_pool(&by, &request)).await?;
    Ok(match creation {
        PoolCreation::Exists(pool) => Json(pool).into_response(),
        PoolCreation::Started(job) => (StatusCode::ACCEPTED, Json(job)).into_response(),
    })
}

/// Changes a pool's settings: how much may be promised of it, how much is kept for snapshots and trash, how
/// long deleted volumes stay in the trash, and how often its disks are compared.
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "pools", operation_id = "changePool", request_body = PoolChange,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(change): Body<PoolChange>,
) -> Answer<Pool> {
    app.call("changing a pool's settings", move |engine| {
        engine.change_pool(&by, &pool, &change)
    })
    .await
    .map(Json)
}

/// Deletes a pool that has no volumes, in a job.
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "pools", operation_id = "deletePool",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("deleting a pool", move |engine| engine.delete_pool(&by, &pool))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Which spare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SpareQuery {
    /// The disk.
    #[param(value_type = String)]
    disk: DiskId,
}

/// Lets a disk take the place of another one of a pool, in a job. The pool is served meanwhile.
#[utoipa::path(post, path = "/v1/pools/{pool}/replace", tag = "pools", operation_id = "replaceDisk", request_body = ReplaceRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn replace(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<ReplaceRequest>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let what = "replacing a disk";
    let job = app
        .call(what, move |engine| engine.replace_disk(&by, &pool, &request))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Makes a blank disk a spare of a pool.
#[utoipa::path(post, path = "/v1/pools/{pool}/spares", tag = "pools", operation_id = "addSpare", request_body = SpareRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add_spare(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<SpareRequest>,
) -> Answer<Pool> {
    let what = "adding a spare disk";
    app.call(what, move |engine| engine.add_spare(&by, &pool, &request.disk))
        .await
        .map(Json)
}

/// Takes a spare disk out of a pool. It is blank afterwards.
#[utoipa::path(delete, path = "/v1/pools/{pool}/spares", tag = "pools", operation_id = "removeSpare",
    params(("pool" = String, Path, description = "The pool's name or id"), SpareQuery),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove_spare(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Asked(query): Asked<SpareQuery>,
) -> Answer<Pool> {
    let what = "removing a spare disk";
    app.call(what, move |engine| engine.remove_spare(&by, &pool, &query.disk))
        .await
        .map(Json)
}

/// Compares a pool's copies, in a job.
#[utoipa::path(post, path = "/v1/pools/{pool}/scrub", tag = "pools", operation_id = "scrubPool", request_body = ScrubRequest,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 202, body = Job), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn scrub(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<ScrubRequest>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("scrubbing a pool", move |engine| {
            engine.scrub_pool(&by, &pool, &request)
        })
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}
