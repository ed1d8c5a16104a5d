//! What cistern-gate answers: on cisternd's socket root's requests are passed on to it. And what it tells cisternd.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use cistern_model::{
    EnrolRequest, ErrorKind, EventKind, Principal, Problem, Role, Severity, Token, TokenCreated, TokenRequest,
};

use crate::app::{App, OPERATION_LIMIT};
use crate::extract::{By, Json};
use crate::forward::forward;
use crate::problem::Refusal;
use crate::token_change::TokenChange;

/// Exchanges the console's one-time code for the first token, an admin's.
#[utoipa::path(post, path = "/v1/enrol", tag = "tokens", operation_id = "enrol", request_body = EnrolRequest, security(()),
    responses((status = 201, body = TokenCreated), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn enrol(app: App, by: By, request: Request) -> Result<Response<Body>, Refusal> {
    to_gate(&app, by, request).await
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", operation_id = "listTokens",
    responses((status = 200, body = Vec<Token>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn tokens(app: App, by: By, request: Request) -> Result<Response<Body>, Refusal> {
    to_gate(&app, by, request).await
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", operation_id = "createToken", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_token(app: App, by: By, request: Request) -> Result<Response<Body>, Refusal> {
    to_gate(&app, by, request).await
}

/// Takes a token back: it is of no use from now on. The last admin's stays.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", operation_id = "deleteToken",
    params(("id" = String, Path, description = "The token's id")),
    responses((status = 204, description = "It is of no use any more"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_token(app: App, by: By, request: Request) -> Result<Response<Body>, Refusal> {
    to_gate(&app, by, request).await
}

/// Only root's requests: a token's are answered by the gate itself and never come here.
async fn to_gate(app: &App, By(by): By, request: Request) -> Result<Response<Body>, Refusal> {
    if by != Principal::local() {
        return Err(Refusal::new(ErrorKind::Forbidden, "cistern-gate answers this itself"));
    }
    forward(&app.gate_socket, "cistern-gate", OPERATION_LIMIT, request).await
}

/// Records what became of a token. Not documented: only cistern-gate may call it.
pub(crate) async fn token_changed(app: App, Json(change): Json<TokenChange>) -> Result<StatusCode, Refusal> {
    let message = format!(
        "the token {} ({}) was {} by {}",
        change.token.name,
        change.token.role,
        change.kind.name(),
        change.by
    );
    let by = change.by.parse().ok().map(|owner| Principal {
        owner,
        role: Role::Admin,
        pools: Vec::new(),
    });
    let object = Some(change.token.id.to_string());
    app.call("recording a token's change", move |engine| {
        engine.record(EventKind::TokenChanged, Severity::Info, object, by.as_ref(), message);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
