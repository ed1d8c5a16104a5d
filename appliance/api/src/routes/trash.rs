//! `/v1/trash`.

use axum::Json;
use axum::http::StatusCode;
use cistern_model::{Problem, TrashedVolume, UndeleteRequest, Volume, VolumeId};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};
use crate::problem::Refusal;

/// Deleted volumes that can be had back and that the token may see, the oldest first.
#[utoipa::path(get, path = "/v1/trash", tag = "trash", operation_id = "listTrash",
    responses((status = 200, body = Vec<TrashedVolume>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, By(by): By) -> Answer<Vec<TrashedVolume>> {
    app.call("listing the trash", move |engine| Ok(engine.trash(&by)))
        .await
        .map(Json)
}

/// Takes a volume back out of the trash, under another name if its own was taken meanwhile.
#[utoipa::path(post, path = "/v1/trash/{id}/undelete", tag = "trash", operation_id = "undeleteVolume",
    params(("id" = String, Path, description = "The volume's id")), request_body = UndeleteRequest,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn undelete(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(request): Body<UndeleteRequest>,
) -> Answer<Volume> {
    let what = format!("taking the volume {id} back out of the trash");
    app.call(&what, move |engine| engine.undelete(&by, id, &request))
        .await
        .map(Json)
}

/// Removes a volume that is in the trash, for good.
#[utoipa::path(delete, path = "/v1/trash/{id}", tag = "trash", operation_id = "purgeVolume",
    params(("id" = String, Path, description = "The volume's id")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn purge(app: App, By(by): By, Segment(id): Segment<VolumeId>) -> Result<StatusCode, Refusal> {
    let what = format!("removing the volume {id} from the trash");
    app.call(&what, move |engine| engine.purge(&by, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
