//! `/v1/disks`.

use axum::Json;
use cistern_model::{Disk, DiskId, ErrorKind, Problem};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};
use crate::problem::Refusal;

/// Wipes a disk: everything on it is lost.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WipeRequest {
    /// The disk's id once more, so that a slip in a path wipes nothing.
    confirm: DiskId,
    /// The name or the id of the pool that the disk is a part of, if that pool lacks other disks for good and what this one
    /// has of it is given up.
    give_up: Option<String>,
}

/// All disks, with what is on them.
#[utoipa::path(get, path = "/v1/disks", tag = "disks", operation_id = "listDisks",
    responses((status = 200, body = Vec<Disk>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App) -> Answer<Vec<Disk>> {
    app.call("listing the disks", |engine| engine.disks()).await.map(Json)
}

/// One disk.
#[utoipa::path(get, path = "/v1/disks/{id}", tag = "disks", operation_id = "getDisk",
    params(("id" = String, Path, description = "The disk's id")),
    responses((status = 200, body = Disk), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, Segment(id): Segment<DiskId>) -> Answer<Disk> {
    let disks = app.call("listing the disks", |engine| engine.disks()).await?;
    let found = disks.into_iter().find(|disk| disk.id == id);
    found
        .map(Json)
        .ok_or_else(|| Refusal::new(ErrorKind::NotFound, format!("there is no disk {id}")))
}

/// Removes everything from a disk, which makes it available. `confirm` must be its id.
#[utoipa::path(post, path = "/v1/disks/{id}/wipe", tag = "disks", operation_id = "wipeDisk",
    params(("id" = String, Path, description = "The disk's id")), request_body = WipeRequest,
    responses((status = 200, body = Disk), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn wipe(
    app: App,
    By(by): By,
    Segment(id): Segment<DiskId>,
    Body(request): Body<WipeRequest>,
) -> Answer<Disk> {
    if request.confirm != id {
        let detail = format!(
            "to wipe the disk {id}, `confirm` must be its id; it was {}",
            request.confirm
        );
        return Err(Refusal::new(ErrorKind::Invalid, detail));
    }
    let what = format!("wiping the disk {id}");
    app.call(&what, move |engine| {
        engine.wipe_disk(&by, &id, request.give_up.as_deref())
    })
    .await
    .map(Json)
}
