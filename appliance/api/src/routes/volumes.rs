//! `/v1/volumes`.

use axum::Json;
use axum::http::StatusCode;
use cistern_engine::VolumeFilter;
use cistern_model::{
    Client, ClientRemoved, ClientRequest, ErrorKind, Label, Page, Problem, Volume, VolumeChange, VolumeId, VolumeName,
    VolumeRequest,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Answer;
use crate::app::App;
use crate::extract::{Asked, By, Json as Body, Segment};
use crate::problem::Refusal;

/// How many volumes a page has when nothing is said.
const PAGE: usize = 100;

/// How many volumes a page may have.
const LARGEST_PAGE: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only those in this pool, by name or id.
    pool: Option<String>,
    /// Only those of this name: one in each pool at most.
    #[param(value_type = Option<String>)]
    name: Option<VolumeName>,
    /// Only those with all of these labels: `KEY=VALUE`, several with line feeds between them.
    label: Option<String>,
    /// How many at most, up to 1000. 100 if not given.
    limit: Option<usize>,
    /// Where the page before said to go on.
    #[param(value_type = Option<String>)]
    r#continue: Option<VolumeId>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClientQuery {
    /// The address or network, in which `/` is written `%2F`.
    #[param(value_type = String)]
    client: Client,
}

/// Labels, each on a line: no other character cannot be in one.
fn labels(text: &str) -> Result<Vec<Label>, Refusal> {
    let parsed = text.split('\n').filter(|part| !part.is_empty()).map(str::parse);
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(ErrorKind::Invalid, format!("the query: {error}")))
}

/// Volumes that the token may see, page by page, in the order of their ids.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", operation_id = "listVolumes", params(ListQuery),
    responses((status = 200, body = Page<Volume>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, By(by): By, Asked(query): Asked<ListQuery>) -> Answer<Page<Volume>> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("the query: limit must be 1 to {LARGEST_PAGE}, not {limit}");
        return Err(Refusal::new(ErrorKind::Invalid, detail));
    }
    let filter = VolumeFilter {
        pool: query.pool,
        name: query.name,
        labels: labels(query.label.as_deref().unwrap_or_default())?,
    };
    let after = query.r#continue;
    app.call("listing volumes", move |engine| {
        engine.volumes(&by, &filter, limit, after)
    })
    .await
    .map(Json)
}

/// Makes a volume (201), or shows it if the same one is there (200).
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", operation_id = "createVolume", request_body = VolumeRequest,
    responses((status = 200, description = "The same volume is there", body = Volume), (status = 201, description = "It was made", body = Volume),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    app: App,
    By(by): By,
    Body(request): Body<VolumeRequest>,
) -> Result<(StatusCode, Json<Volume>), Refusal> {
    let what = format!("making the volume {}", request.name);
    let pool = request.pool.to_string();
    let made = app
        .make(&what, &pool, move |engine| engine.create_volume(&by, &request))
        .await?;
    let status = if made.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(made.object)))
}

/// One volume.
#[utoipa::path(get, path = "/v1/volumes/{id}", tag = "volumes", operation_id = "getVolume",
    params(("id" = String, Path, description = "The volume's id")),
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, By(by): By, Segment(id): Segment<VolumeId>) -> Answer<Volume> {
    app.call("looking at a volume", move |engine| engine.volume(&by, id))
        .await
        .map(Json)
}

/// Changes what is given of a volume: its name, labels, owner, size and schedule. A size is absolute and never smaller.
#[utoipa::path(patch, path = "/v1/volumes/{id}", tag = "volumes", operation_id = "changeVolume",
    params(("id" = String, Path, description = "The volume's id")), request_body = VolumeChange,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(change): Body<VolumeChange>,
) -> Answer<Volume> {
    let what = format!("changing the volume {id}");
    app.call(&what, move |engine| engine.change_volume(&by, id, &change))
        .await
        .map(Json)
}

/// Deletes a volume and what is in it.
#[utoipa::path(delete, path = "/v1/volumes/{id}", tag = "volumes", operation_id = "deleteVolume",
    params(("id" = String, Path, description = "The volume's id")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove(app: App, By(by): By, Segment(id): Segment<VolumeId>) -> Result<StatusCode, Refusal> {
    let what = format!("deleting the volume {id}");
    app.call(&what, move |engine| engine.delete_volume(&by, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Allows a client to mount a volume. No error if it may already.
#[utoipa::path(post, path = "/v1/volumes/{id}/clients", tag = "volumes", operation_id = "addClient",
    params(("id" = String, Path, description = "The volume's id")), request_body = ClientRequest,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn add_client(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(request): Body<ClientRequest>,
) -> Answer<Volume> {
    let what = format!("allowing {} to mount {id}", request.client);
    let added = app
        .call(&what, move |engine| engine.add_client(&by, id, request.client))
        .await?;
    Ok(Json(added.object))
}

/// Allows a client no longer to mount a volume, and cuts it off; says what that touched. No error if it may not already.
#[utoipa::path(delete, path = "/v1/volumes/{id}/clients", tag = "volumes", operation_id = "removeClient",
    params(("id" = String, Path, description = "The volume's id"), ClientQuery),
    responses((status = 200, body = ClientRemoved), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn remove_client(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Asked(query): Asked<ClientQuery>,
) -> Answer<ClientRemoved> {
    let what = format!("allowing {} no longer to mount {id}", query.client);
    app.call(&what, move |engine| engine.remove_client(&by, id, query.client))
        .await
        .map(Json)
}
