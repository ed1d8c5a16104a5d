//! The router of cisternd's socket. Invariant: a request meets the table of routes first, so that a handler never sees one
//! that its caller may not make; and whatever a handler does, its client gets an answer of the documented form.

use std::any::Any;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Response;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{delete, get, patch, post, put};
use cistern_model::{ErrorKind, Principal};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::extract::By;
use crate::peer::{Caller, PRINCIPAL_HEADER, PeerUid};
use crate::problem::Refusal;
use crate::routes::{
    alerts, clients, disks, events, gate, growth, jobs, keys, nodes, options, orphans, pools, snapshots, system, trash,
    volumes,
};
use crate::table::{self, Access, Lookup};

/// All routes. Needs [`ConnectInfo<PeerUid>`] in each request.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(system::health))
        .route("/metrics", get(system::metrics))
        .route("/v1/openapi.json", get(system::openapi))
        .route("/v1/system", get(system::show))
        .route("/v1/system/power", post(system::power))
        .route("/v1/system/root-shell", post(system::root_shell))
        .route("/v1/disks", get(disks::list))
        .route("/v1/disks/{id}", get(disks::show))
        .route("/v1/disks/{id}/wipe", post(disks::wipe))
        .route("/v1/pools", get(pools::list).post(pools::create))
        .route("/v1/pools/plan", post(pools::plan))
        .route(
            "/v1/pools/{pool}",
            get(pools::show).patch(pools::change).delete(pools::remove),
        )
        .route("/v1/pools/{pool}/replace", post(pools::replace))
        .route(
            "/v1/pools/{pool}/spares",
            post(pools::add_spare).delete(pools::remove_spare),
        )
        .route("/v1/pools/{pool}/scrub", post(pools::scrub))
        .route("/v1/pools/{pool}/disks", post(growth::add_disks))
        .route("/v1/pools/{pool}/disks/plan", post(growth::plan_disks))
        .route("/v1/pools/{pool}/drain", post(growth::drain))
        .route("/v1/pools/{pool}/key", get(keys::show).post(keys::give))
        .route("/v1/pools/{pool}/grow", post(growth::grow))
        .route("/v1/pools/{pool}/grow/plan", post(growth::plan_growth))
        .route("/v1/volumes", get(volumes::list).post(volumes::create))
        .route(
            "/v1/volumes/{id}",
            get(volumes::show).patch(volumes::change).delete(volumes::remove),
        )
        .route(
            "/v1/volumes/{id}/clients",
            post(volumes::add_client).delete(volumes::remove_client),
        )
        .route(
            "/v1/volumes/{id}/nodes/{node}",
            put(nodes::publish).delete(nodes::unpublish),
        )
        .route("/v1/volumes/{id}/options", patch(options::change))
        .route("/v1/volumes/{id}/snapshots", post(snapshots::create))
        .route("/v1/volumes/{id}/rollback", post(snapshots::roll_back))
        .route("/v1/clients", get(clients::list))
        .route("/v1/snapshots", get(snapshots::list).post(snapshots::create_group))
        .route("/v1/snapshots/{id}", get(snapshots::show).delete(snapshots::remove))
        .route("/v1/snapshots/{id}/clients", put(snapshots::serve))
        .route("/v1/trash", get(trash::list))
        .route("/v1/trash/{id}", delete(trash::purge))
        .route("/v1/trash/{id}/undelete", post(trash::undelete))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/events", get(events::list))
        .route("/v1/orphans", get(orphans::list))
        .route("/v1/orphans/adopt", post(orphans::adopt))
        .route("/v1/orphans/remove", post(orphans::remove))
        .route("/v1/pools/import", post(orphans::import))
        .route("/v1/pools/plan-topology", post(orphans::plan_topology))
        .route("/v1/pools/{pool}/release", post(orphans::release))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/{id}/acknowledge", post(alerts::acknowledge))
        .route("/v1/gate/token-changes", post(gate::token_changed))
        .route("/v1/enrol", post(gate::enrol))
        .route("/v1/tokens", get(gate::tokens).post(gate::create_token))
        .route("/v1/tokens/{id}", delete(gate::delete_token))
        .fallback(nowhere)
        .layer(from_fn_with_state(app.clone(), admit))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

async fn nowhere(request: Request) -> Refusal {
    let (method, path) = (request.method().as_str(), request.uri().path());
    Refusal::missing(method, path, &table::find(method, path))
        .unwrap_or_else(|| Refusal::new(ErrorKind::Internal, format!("{method} {path} has no answer here")))
}

/// Lets a request through to its handler if the table allows it to whoever asks.
async fn admit(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<PeerUid>,
    mut request: Request,
    next: Next,
) -> Result<Response<Body>, Refusal> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = app.policy.caller(peer, request.headers())?;
    request.headers_mut().remove(PRINCIPAL_HEADER);
    let lookup = table::find(method.as_str(), &path);
    let Lookup::Found(route) = lookup else {
        let missing = Refusal::missing(method.as_str(), &path, &lookup);
        return Err(missing.unwrap_or_else(|| Refusal::new(ErrorKind::NoRoute, "there is no such path")));
    };
    match (&caller, route.access) {
        (_, Access::Open) | (Caller::Local, Access::Roles(_) | Access::Local) | (Caller::Gate, Access::Gate) => {}
        (Caller::Token(principal), _) if route.access.allows(principal) => {}
        (Caller::Token(principal), _) => return Err(table::forbidden(route, principal).into()),
        (Caller::Local, Access::Gate) => return Err(table::forbidden(route, &Principal::local()).into()),
        (Caller::Gate, Access::Roles(_) | Access::Local) => {
            return Err(Refusal::new(ErrorKind::Unauthenticated, "this needs a token"));
        }
    }
    let by = match &caller {
        Caller::Local => Some(Principal::local()),
        Caller::Token(principal) => Some(principal.clone()),
        Caller::Gate => None,
    };
    let name = by.as_ref().map_or_else(|| "gate".to_owned(), |p| p.owner.to_string());
    if let Some(principal) = by {
        request.extensions_mut().insert(By(principal));
    }
    let response = next.run(request).await;
    let (status, path) = (response.status().as_u16(), table::shown(&path));
    if method.is_safe() {
        tracing::debug!(by = name, status, "{method} {path:?}");
    } else {
        tracing::info!(by = name, status, "{method} {path:?}");
    }
    Ok(response)
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response<Body> {
    // The panic hook has written what and where.
    Refusal::new(
        ErrorKind::Internal,
        "the request broke off; the journal of cisternd says where",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_handler_that_panics_answers_as_a_fault_of_the_appliance() {
        async fn broken() -> &'static str {
            panic!("as the test wants it")
        }
        let router: Router = Router::new()
            .route("/", get(broken))
            .layer(CatchPanicLayer::custom(panicked));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status().as_u16(), 500);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("as the test wants it"));
    }
}
