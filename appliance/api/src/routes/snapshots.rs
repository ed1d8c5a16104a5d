//! `/v1/snapshots`, the snapshots of a volume, and its rolling back.

use axum::Json;
use axum::http::StatusCode;
use cistern_engine::SnapshotFilter;
use cistern_model::{
    ErrorKind, GroupSnapshotRequest, Page, Problem, RollbackRequest, Snapshot, SnapshotClients, SnapshotId,
    SnapshotName, SnapshotRequest, Volume, VolumeId,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Answer;
use crate::app::App;
use crate::extract::{Asked, By, Json as Body, Segment};
use crate::problem::Refusal;

/// How many snapshots a page has when nothing is said, and may have.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only those in this pool, by name or id.
    pool: Option<String>,
    /// Only those of this volume, which may be gone.
    #[param(value_type = Option<String>)]
    volume: Option<VolumeId>,
    /// Only those of this name.
    #[param(value_type = Option<String>)]
    name: Option<SnapshotName>,
    /// Tell also what each takes of its pool, which is counted anew and may take seconds.
    sizes: Option<bool>,
    /// How many at most, up to 1000. 100 if not given.
    limit: Option<usize>,
    /// Where the page before said to go on.
    #[param(value_type = Option<String>)]
    r#continue: Option<SnapshotId>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowQuery {
    /// Tell also what it takes of its pool, which is counted anew and may take seconds.
    sizes: Option<bool>,
}

/// Snapshots that the token may see, page by page, in the order of their ids.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", operation_id = "listSnapshots", params(ListQuery),
    responses((status = 200, body = Page<Snapshot>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, By(by): By, Asked(query): Asked<ListQuery>) -> Answer<Page<Snapshot>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("the query: limit must be 1 to {LARGEST_PAGE}, not {limit}");
        return Err(Refusal::new(ErrorKind::Invalid, detail));
    }
    let filter = SnapshotFilter {
        pool: query.pool,
        volume: query.volume,
        name: query.name,
    };
    let (sizes, after) = (query.sizes.unwrap_or_default(), query.r#continue);
    app.call("listing snapshots", move |engine| {
        engine.snapshots(&by, &filter, sizes, limit, after)
    })
    .await
    .map(Json)
}

/// Makes a snapshot of a volume (201), or shows it if one of this name is there (200).
#[utoipa::path(post, path = "/v1/volumes/{id}/snapshots", tag = "snapshots", operation_id = "createSnapshot",
    params(("id" = String, Path, description = "The volume's id")), request_body = SnapshotRequest,
    responses((status = 200, description = "It is there", body = Snapshot), (status = 201, description = "It was made", body = Snapshot),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(request): Body<SnapshotRequest>,
) -> Result<(StatusCode, Json<Snapshot>), Refusal> {
    let what = format!("making the snapshot {} of {id}", request.name);
    let made = app
        .call(&what, move |engine| engine.create_snapshot(&by, id, &request))
        .await?;
    Ok((status(made.created), Json(made.object)))
}

/// Makes snapshots of several volumes at one moment (201), or shows them if they are there (200). All or none.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", operation_id = "createGroupSnapshot",
    request_body = GroupSnapshotRequest,
    responses((status = 200, description = "They are there", body = Vec<Snapshot>), (status = 201, description = "They were made", body = Vec<Snapshot>),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_group(
    app: App,
    By(by): By,
    Body(request): Body<GroupSnapshotRequest>,
) -> Result<(StatusCode, Json<Vec<Snapshot>>), Refusal> {
    let what = format!("making the snapshots {}", request.name);
    let made = app
        .call(&what, move |engine| engine.create_group_snapshot(&by, &request))
        .await?;
    Ok((status(made.created), Json(made.object)))
}

fn status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "getSnapshot",
    params(("id" = String, Path, description = "The snapshot's id"), ShowQuery),
    responses((status = 200, body = Snapshot), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(
    app: App,
    By(by): By,
    Segment(id): Segment<SnapshotId>,
    Asked(query): Asked<ShowQuery>,
) -> Answer<Snapshot> {
    let sizes = query.sizes.unwrap_or_default();
    app.call("looking at a snapshot", move |engine| engine.snapshot(&by, id, sizes))
        .await
        .map(Json)
}

/// Deletes a snapshot.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "deleteSnapshot",
    params(("id" = String, Path, description = "The snapshot's id")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(app: App, By(by): By, Segment(id): Segment<SnapshotId>) -> Result<StatusCode, Refusal> {
    let what = format!("deleting the snapshot {id}");
    app.call(&what, move |engine| engine.delete_snapshot(&by, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Serves a snapshot, read-only, to these clients and no others; to nobody if there are none.
#[utoipa::path(put, path = "/v1/snapshots/{id}/clients", tag = "snapshots", operation_id = "serveSnapshot",
    params(("id" = String, Path, description = "The snapshot's id")), request_body = SnapshotClients,
    responses((status = 200, body = Snapshot), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn serve(
    app: App,
    By(by): By,
    Segment(id): Segment<SnapshotId>,
    Body(request): Body<SnapshotClients>,
) -> Answer<Snapshot> {
    let what = format!("serving the snapshot {id}");
    app.call(&what, move |engine| engine.serve_snapshot(&by, id, &request.clients))
        .await
        .map(Json)
}

/// Makes a volume again what one of its snapshots is. Its clients are cut off for the moment.
#[utoipa::path(post, path = "/v1/volumes/{id}/rollback", tag = "snapshots", operation_id = "rollBackVolume",
    params(("id" = String, Path, description = "The volume's id")), request_body = RollbackRequest,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn roll_back(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(request): Body<RollbackRequest>,
) -> Answer<Volume> {
    let what = format!("rolling the volume {id} back");
    app.call(&what, move |engine| engine.roll_back(&by, id, &request))
        .await
        .map(Json)
}
