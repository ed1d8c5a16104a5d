//! `/v1/pools`.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cistern_engine::PoolCreation;
use cistern_model::{Job, Pool, PoolChange, PoolPlan, PoolRequest, Problem};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};
use crate::problem::Refusal;

/// All pools that the token may see.
#[utoipa::path(get, path = "/v1/pools", tag = "pools", operation_id = "listPools",
    responses((status = 200, body = Vec<Pool>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(State(app): State<App>, By(by): By) -> Answer<Vec<Pool>> {
    app.call("listing the pools", move |engine| engine.pools(&by))
        .await
        .map(Json)
}

/// One pool, by name or id.
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", operation_id = "getPool",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(State(app): State<App>, By(by): By, Segment(pool): Segment<String>) -> Answer<Pool> {
    app.call("looking at a pool", move |engine| engine.pool(&by, &pool))
        .await
        .map(Json)
}

/// What a request for a pool would come to. Nothing is touched.
#[utoipa::path(post, path = "/v1/pools/plan", tag = "pools", operation_id = "planPool", request_body = PoolRequest,
    responses((status = 200, body = PoolPlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan(State(app): State<App>, Body(request): Body<PoolRequest>) -> Answer<PoolPlan> {
    app.call("planning a pool", move |engine| engine.plan_pool(&request))
        .await
        .map(Json)
}

/// Makes a pool in a job (202), or shows the pool if the same one is there (200).
#[utoipa::path(post, path = "/v1/pools", tag = "pools", operation_id = "createPool", request_body = PoolRequest,
    responses((status = 200, description = "The same pool is there", body = Pool), (status = 202, description = "It is being made", body = Job),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    State(app): State<App>,
    By(by): By,
    Body(request): Body<PoolRequest>,
) -> Result<Response<HttpBody>, Refusal> {
    let what = format!("making the pool {}", request.name);
    let creation = app.call(&what, move |engine| engine.create_pool(&by, &request)).await?;
    Ok(match creation {
        PoolCreation::Exists(pool) => Json(pool).into_response(),
        PoolCreation::Started(job) => (StatusCode::ACCEPTED, Json(job)).into_response(),
    })
}

/// Changes a pool's settings: how much may be promised of it, and how much is kept for snapshots and trash.
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "pools", operation_id = "changePool", request_body = PoolChange,
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    State(app): State<App>,
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
    State(app): State<App>,
    By(by): By,
    Segment(pool): Segment<String>,
) -> Result<(StatusCode, Json<Job>), Refusal> {
    let job = app
        .call("deleting a pool", move |engine| engine.delete_pool(&by, &pool))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}
