//! `/v1/orphans`, and taking pools in and giving them up.

use axum::Json;
use axum::http::StatusCode;
use cistern_model::{
    AdoptRequest, ImportRequest, Orphan, Pool, Problem, RemoveOrphanRequest, TopologyPlan, TopologyRequest, Volume,
};

use super::Answer;
use super::pools::refuse_segment;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};
use crate::problem::Refusal;

/// What is on the disks and not explained, each with the way to take it over or to remove it.
#[utoipa::path(get, path = "/v1/orphans", tag = "orphans", operation_id = "listOrphans",
    responses((status = 200, body = Vec<Orphan>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App) -> Answer<Vec<Orphan>> {
    app.call("listing the orphans", |engine| engine.orphans())
        .await
        .map(Json)
}

/// Takes a volume that is none of Cistern's, and holds an XFS, as a volume. What is in it stays.
#[utoipa::path(post, path = "/v1/orphans/adopt", tag = "orphans", operation_id = "adoptOrphan", request_body = AdoptRequest,
    responses((status = 201, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn adopt(
    app: App,
    By(by): By,
    Body(request): Body<AdoptRequest>,
) -> Result<(StatusCode, Json<Volume>), Refusal> {
    let what = format!("adopting {}", request.object);
    let volume = app
        .call(&what, move |engine| engine.adopt_volume(&by, &request))
        .await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

/// Removes a volume that is none of Cistern's, with all that is in it. Its name has to be given twice.
#[utoipa::path(post, path = "/v1/orphans/remove", tag = "orphans", operation_id = "removeOrphan",
    request_body = RemoveOrphanRequest,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(
    app: App,
    By(by): By,
    Body(request): Body<RemoveOrphanRequest>,
) -> Result<StatusCode, Refusal> {
    let what = format!("removing {}", request.object);
    app.call(&what, move |engine| engine.remove_orphan(&by, &request))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes in a pool that another appliance made, with all its volumes.
#[utoipa::path(post, path = "/v1/pools/import", tag = "pools", operation_id = "importPool", request_body = ImportRequest,
    responses((status = 200, body = Pool), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn import(app: App, By(by): By, Body(request): Body<ImportRequest>) -> Answer<Pool> {
    match &request.name {
        Some(name) => refuse_segment(name.as_str())?,
        None => {
            let group = request.pool.to_string();
            let orphans = app.call("listing the orphans", |engine| engine.orphans()).await?;
            let pool = orphans.into_iter().find(|orphan| orphan.object == group);
            refuse_segment(&pool.and_then(|pool| pool.name).unwrap_or_default())?;
        }
    }
    app.call("importing a pool", move |engine| engine.import_pool(&by, &request))
        .await
        .map(Json)
}

/// Gives a pool up, so that another appliance can import it. Its volumes are no longer served here.
#[utoipa::path(post, path = "/v1/pools/{pool}/release", tag = "pools", operation_id = "releasePool",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = Orphan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn release(app: App, By(by): By, Segment(pool): Segment<String>) -> Answer<Orphan> {
    app.call("releasing a pool", move |engine| engine.release_pool(&by, &pool))
        .await
        .map(Json)
}

/// What the node of a heketi topology that is this appliance would come to as a pool. Nothing is touched.
#[utoipa::path(post, path = "/v1/pools/plan-topology", tag = "pools", operation_id = "planTopology",
    request_body = TopologyRequest,
    responses((status = 200, body = TopologyPlan), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan_topology(app: App, Body(request): Body<TopologyRequest>) -> Answer<TopologyPlan> {
    refuse_segment(request.name.as_str())?;
    app.call("planning a pool", move |engine| engine.plan_topology(&request))
        .await
        .map(Json)
}
