//! `/v1/alerts`.

use axum::Json;
use cistern_model::{Alert, AlertId, Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Answer;
use crate::app::App;
use crate::extract::{Asked, By, Segment};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlertsQuery {
    /// Also those whose cause has ended, after the others.
    #[serde(default)]
    cleared: bool,
}

/// What is the matter now: the most serious first, each with what it means and what to do.
#[utoipa::path(get, path = "/v1/alerts", tag = "alerts", operation_id = "listAlerts", params(AlertsQuery),
    responses((status = 200, body = Vec<Alert>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(app: App, Asked(query): Asked<AlertsQuery>) -> Answer<Vec<Alert>> {
    app.call("listing the alerts", move |engine| Ok(engine.alerts(query.cleared)))
        .await
        .map(Json)
}

/// Notes that an alert was seen. It stays until its cause has ended.
#[utoipa::path(post, path = "/v1/alerts/{id}/acknowledge", tag = "alerts", operation_id = "acknowledgeAlert",
    params(("id" = AlertId, Path, description = "The alert's id")),
    responses((status = 200, body = Alert), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn acknowledge(app: App, By(by): By, Segment(id): Segment<AlertId>) -> Answer<Alert> {
    app.call("acknowledging an alert", move |engine| {
        engine.acknowledge_alert(&by, &id)
    })
    .await
    .map(Json)
}
