//! `/v1/clients`.

use axum::Json;
use cistern_model::{LiveClient, Problem};

use super::Answer;
use crate::app::App;

/// The clients that the NFS server knows now, and what they hold open on volumes.
#[utoipa::path(get, path = "/v1/clients", tag = "volumes", operation_id = "listLiveClients",
    responses((status = 200, body = Vec<LiveClient>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App) -> Answer<Vec<LiveClient>> {
    app.call("listing the NFS server's clients", |engine| engine.live_clients())
        .await
        .map(Json)
}
