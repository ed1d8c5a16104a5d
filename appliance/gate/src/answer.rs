//! The routes that the gate answers itself: tokens and enrolment. Invariant: each change is logged and told to cisternd, so
//! that it is among the events; a cisternd that is away delays no answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use cistern_api::forward::forward;
use cistern_api::json::parse_body;
use cistern_api::problem::Refusal;
use cistern_api::{TokenChange, TokenChangeKind};
use cistern_model::{EnrolRequest, ErrorKind, Token, TokenId, TokenRequest};
use serde::Serialize;

use crate::gate::{Admitted, Gate};
use crate::tokens::TokenError;

impl Gate {
    /// Answers a request to one of the gate's own routes.
    pub(crate) async fn answer(self: &Arc<Self>, admitted: Admitted) -> Result<Response<Body>, Refusal> {
        match (admitted.route.method, admitted.route.path) {
            ("POST", "/v1/enrol") => self.enrol(admitted).await,
            ("GET", "/v1/tokens") => json(StatusCode::OK, &self.tokens.list()),
            ("POST", "/v1/tokens") => self.create(admitted).await,
            ("DELETE", "/v1/tokens/{id}") => self.delete(admitted).await,
            (method, path) => Err(Refusal::new(
                ErrorKind::Internal,
                format!("{method} {path} has no answer here"),
            )),
        }
    }

    async fn enrol(self: &Arc<Self>, admitted: Admitted) -> Result<Response<Body>, Refusal> {
        let request: EnrolRequest = parse_body(&admitted.headers, &admitted.body)?;
        self.may_try_code(admitted.origin)?;
        let name = request.name.to_string();
        let made = self
            .blocking(move |gate| gate.enroller.enrol(&request, &gate.tokens))
            .await;
        if let Err(refusal) = &made
            && refusal.problem().kind == ErrorKind::Unauthenticated
        {
            tracing::warn!(origin = ?admitted.origin, "a wrong enrolment code");
            self.wrong_code(admitted.origin);
        }
        let made = made?;
        self.report(TokenChangeKind::Enrolled, &made.token, &name);
        json(StatusCode::CREATED, &made)
    }

    async fn create(self: &Arc<Self>, admitted: Admitted) -> Result<Response<Body>, Refusal> {
        let request: TokenRequest = parse_body(&admitted.headers, &admitted.body)?;
        let by = admitted.token;
        let made = self
            .blocking(move |gate| {
                let made = gate.tokens.create_by(by, &request)?;
                gate.enroller.withdraw_if_admin(&gate.tokens)?;
                Ok(made)
            })
            .await?;
        self.report(TokenChangeKind::Created, &made.token, &actor(&admitted));
        json(StatusCode::CREATED, &made)
    }

    async fn delete(self: &Arc<Self>, admitted: Admitted) -> Result<Response<Body>, Refusal> {
        let text = admitted.path.rsplit('/').next().unwrap_or_default();
        let id: TokenId = text
            .parse()
            .map_err(|e| Refusal::new(ErrorKind::Invalid, format!("{e}")))?;
        let by = admitted.token;
        let removed = self.blocking(move |gate| gate.tokens.delete_by(by, id)).await?;
        self.report(TokenChangeKind::Deleted, &removed, &actor(&admitted));
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Gate) -> Result<T, TokenError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let gate = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&gate)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if error.kind() == ErrorKind::Internal {
                    tracing::error!(error = ?error, "tokens");
                }
                Err(error.problem().into())
            }
            Err(error) => {
                tracing::error!(%error, "a change of tokens broke off");
                Err(Refusal::new(ErrorKind::Internal, "the change of tokens broke off"))
            }
        }
    }

    fn report(self: &Arc<Self>, kind: TokenChangeKind, token: &Token, by: &str) {
        tracing::info!(by, token = %token.name, role = %token.role, id = %token.id, "token {}", kind.name());
        let change = TokenChange {
            kind,
            token: token.clone(),
            by: by.to_owned(),
        };
        let Ok(body) = serde_json::to_vec(&change) else {
            return;
        };
        let request = Request::post("/v1/gate/token-changes")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body));
        let Ok(request) = request else {
            return;
        };
        let socket = self.supervisor.clone();
        tokio::spawn(async move {
            match forward(&socket, "cisternd", Duration::from_secs(10), request).await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => tracing::warn!(status = %answer.status(), "cisternd did not take a token's change"),
                Err(_) => tracing::warn!("a token's change is not among cisternd's events"),
            }
        });
    }
}

fn actor(admitted: &Admitted) -> String {
    admitted
        .principal
        .as_ref()
        .map_or_else(|| "nobody".to_owned(), |p| p.owner.to_string())
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Body>, Refusal> {
    let body =
        serde_json::to_vec(value).map_err(|e| Refusal::new(ErrorKind::Internal, format!("cannot show it: {e}")))?;
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((status, json, body).into_response())
}
