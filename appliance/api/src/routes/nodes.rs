//! To which nodes of a cluster volumes are published.

use axum::Json;
use cistern_model::{ClientRemoved, NodeAccess, NodeName, Problem, Volume, VolumeId};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segments};

/// Publishes a volume to a node: it may mount it from these addresses and no others. Asked again with other addresses, those
/// count.
#[utoipa::path(put, path = "/v1/volumes/{id}/nodes/{node}", tag = "volumes", operation_id = "publishVolume",
    params(("id" = String, Path, description = "The volume's id"), ("node" = String, Path, description = "The node's name")),
    request_body = NodeAccess,
    responses((status = 200, body = Volume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn publish(
    app: App,
    By(by): By,
    Segments(id, node): Segments<VolumeId, NodeName>,
    Body(access): Body<NodeAccess>,
) -> Answer<Volume> {
    let what = format!("publishing {id} to node {node}");
    let published = app
        .call(&what, move |engine| engine.publish_to_node(&by, id, &node, &access))
        .await?;
    Ok(Json(published.object))
}

/// Takes a volume from a node, and cuts it off; says what that touched. No error if it does not have it.
#[utoipa::path(delete, path = "/v1/volumes/{id}/nodes/{node}", tag = "volumes", operation_id = "unpublishVolume",
    params(("id" = String, Path, description = "The volume's id"), ("node" = String, Path, description = "The node's name")),
    responses((status = 200, body = ClientRemoved), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn unpublish(
    app: App,
    By(by): By,
    Segments(id, node): Segments<VolumeId, NodeName>,
) -> Answer<ClientRemoved> {
    let what = format!("taking {id} from node {node}");
    app.call(&what, move |engine| engine.unpublish_from_node(&by, id, &node))
        .await
        .map(Json)
}
