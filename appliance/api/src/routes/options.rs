//! `/v1/volumes/{id}/options`.

use axum::Json;
use cistern_model::{Problem, Volume, VolumeId, VolumeOptionsChange};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};

/// Changes how a volume is served; what is not named stays. Its clients go on.
#[utoipa::path(patch, path = "/v1/volumes/{id}/options", tag = "volumes", operation_id = "changeVolumeOptions",
    params(("id" = String, Path, description = "The volume's id")), request_body = VolumeOptionsChange,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn change(
    app: App,
    By(by): By,
    Segment(id): Segment<VolumeId>,
    Body(change): Body<VolumeOptionsChange>,
) -> Answer<Volume> {
    let what = format!("changing how {id} is served");
    app.call(&what, move |engine| engine.set_options(&by, id, &change))
        .await
        .map(Json)
}
