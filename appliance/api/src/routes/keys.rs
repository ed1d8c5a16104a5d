//! The keys of encrypted pools: `/v1/pools/{pool}/key`.

use axum::Json;
use cistern_model::{PoolKey, PoolKeyRequest, Problem};

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body, Segment};

/// The key of an encrypted pool, to be kept elsewhere: without it the pool is lost when this appliance is.
#[utoipa::path(get, path = "/v1/pools/{pool}/key", tag = "pools", operation_id = "showPoolKey",
    params(("pool" = String, Path, description = "The pool's name or id")),
    responses((status = 200, body = PoolKey), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, By(by): By, Segment(pool): Segment<String>) -> Answer<PoolKey> {
    app.call("reading a pool's key", move |engine| engine.pool_key(&by, &pool))
        .await
        .map(Json)
}

/// Gives the appliance the key of an encrypted pool whose disks are here and whose key is not. One that opens none of
/// them is refused.
#[utoipa::path(post, path = "/v1/pools/{pool}/key", tag = "pools", operation_id = "givePoolKey",
    request_body = PoolKeyRequest,
    params(("pool" = String, Path, description = "The pool's id")),
    responses((status = 200, body = PoolKey), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn give(
    app: App,
    By(by): By,
    Segment(pool): Segment<String>,
    Body(request): Body<PoolKeyRequest>,
) -> Answer<PoolKey> {
    let what = "giving a pool's key";
    app.call(what, move |engine| engine.give_pool_key(&by, &pool, &request))
        .await
        .map(Json)
}
