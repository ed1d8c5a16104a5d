//! What handlers take from a request. Invariant: whatever is wrong with a request becomes a problem here, before the
//! handler runs.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Path, Query};
use axum::http::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use cistern_model::{ErrorKind, Principal};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::json::parse_body;
use crate::problem::Refusal;

/// No request needs a larger body, in bytes.
pub const BODY_LIMIT: usize = 64 << 10;

/// Who asks; put into the request when it was admitted.
#[derive(Debug, Clone)]
pub(crate) struct By(pub(crate) Principal);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts
            .extensions
            .get::<By>()
            .cloned()
            .ok_or_else(|| Refusal::new(ErrorKind::Unauthenticated, "this needs a token"))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for By {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        Ok(parts.extensions.get::<By>().cloned())
    }
}

/// The one variable segment of the path.
pub(crate) struct Segment<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Segment<T>
where
    S: Send + Sync,
    T: FromStr<Err: Display>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let invalid = |why: &dyn Display| Refusal::new(ErrorKind::Invalid, format!("the path: {why}"));
        let Path(text) = <Path<String> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map_err(|e| invalid(&e.body_text()))?;
        text.parse().map(Segment).map_err(|e| invalid(&e))
    }
}

/// The two variable segments of the path.
pub(crate) struct Segments<A, B>(pub(crate) A, pub(crate) B);

impl<S, A, B> FromRequestParts<S> for Segments<A, B>
where
    S: Send + Sync,
    A: FromStr<Err: Display>,
    B: FromStr<Err: Display>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let invalid = |why: &dyn Display| Refusal::new(ErrorKind::Invalid, format!("the path: {why}"));
        let Path((one, two)) = <Path<(String, String)> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map_err(|e| invalid(&e.body_text()))?;
        let (one, two) = (
            one.parse().map_err(|e| invalid(&e))?,
            two.parse().map_err(|e| invalid(&e))?,
        );
        Ok(Segments(one, two))
    }
}

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match <Query<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Asked(query)),
            Err(error) => Err(Refusal::new(
                ErrorKind::Invalid,
                format!("the query: {}", error.body_text()),
            )),
        }
    }
}

/// The body.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let announced = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > BODY_LIMIT as u64) {
            return Err(Refusal::too_large(BODY_LIMIT));
        }
        match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => parse_body(&parts.headers, &body.to_bytes()).map(Json),
            Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(BODY_LIMIT)),
            Err(error) => {
                Err(Refusal::new(ErrorKind::Invalid, format!("the body did not arrive whole: {error}")).closing())
            }
        }
    }
}
