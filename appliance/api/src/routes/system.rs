//! The appliance as a whole: health, metrics, power, and this API's own description.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cistern_model::{ErrorKind, EventKind, PowerAction, Problem, Severity, System};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Answer;
use crate::app::App;
use crate::extract::{By, Json as Body};
use crate::problem::Refusal;
use crate::table::READ;

/// Whether everything that is known is served.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// NFS answers, and every pool and volume that is known is served.
    healthy: bool,
    /// What is not as it should be. It is left out without a token, and with a provisioner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
}

/// What to do with the machine.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PowerRequest {
    action: PowerAction,
}

/// Whether the appliance is healthy; 503 if it is not.
#[utoipa::path(get, path = "/healthz", tag = "system", operation_id = "health", security(()),
    responses((status = 200, body = HealthAnswer), (status = 503, body = HealthAnswer)))]
pub(crate) async fn health(app: App, by: Option<By>) -> Result<Response<HttpBody>, Refusal> {
    let health = app.health.now(&app.engine).await?;
    let status = if health.healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answer = HealthAnswer {
        healthy: health.healthy,
        // They name pools and volumes, whoever's they are.
        reasons: by.filter(|By(by)| READ.allows(by)).map(|_| health.reasons),
    };
    Ok((status, Json(answer)).into_response())
}

/// Numbers in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "system", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn metrics(app: App) -> Result<Response<HttpBody>, Refusal> {
    let numbers = app.call("counting", |engine| engine.metrics()).await?;
    let text = crate::metrics::render(&numbers);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "system", operation_id = "openapi", security(()),
    responses((status = 200, body = Object, content_type = "application/json")))]
pub(crate) async fn openapi() -> Result<Response<HttpBody>, Refusal> {
    let text = crate::openapi::text().map_err(|error| {
        let detail = format!("the document cannot be shown: {error}");
        Refusal::new(ErrorKind::Internal, detail)
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

/// The appliance and how it is.
#[utoipa::path(get, path = "/v1/system", tag = "system", operation_id = "getSystem",
    responses((status = 200, body = System), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn show(app: App, By(by): By) -> Answer<System> {
    app.call("looking at the system", move |engine| engine.system(&by))
        .await
        .map(Json)
}

/// Restarts the machine or switches it off.
#[utoipa::path(post, path = "/v1/system/power", tag = "system", operation_id = "power", request_body = PowerRequest,
    responses((status = 202, description = "It begins"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn power(app: App, By(by): By, Body(request): Body<PowerRequest>) -> Result<StatusCode, Refusal> {
    app.call("changing the power", move |engine| engine.power(&by, request.action))
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// Records that somebody goes to a root shell on the console. Only on the appliance itself.
#[utoipa::path(post, path = "/v1/system/root-shell", tag = "system", operation_id = "recordRootShell",
    responses((status = 204, description = "It is recorded"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn root_shell(app: App, By(by): By) -> Result<StatusCode, Refusal> {
    let message = "somebody went to a root shell on the console".to_owned();
    app.call("recording that somebody goes to a root shell", move |engine| {
        engine.record(EventKind::RootShell, Severity::Warning, None, Some(&by), message);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
