//! Reading JSON bodies. Invariant: a body that is not exactly what the route takes is refused with the place of the fault.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use cistern_model::{ErrorKind, Problem};
use serde::de::DeserializeOwned;

use crate::problem::Refusal;
use crate::unknown_field::is_unknown_field;

/// A request's body, which must say that it is JSON. Depth is limited by serde_json itself (128).
pub fn parse_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        let detail = "the body is not said to be JSON; send `Content-Type: application/json`";
        return Err(Refusal::new(ErrorKind::Invalid, detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body: {error}");
        Refusal::from(match is_unknown_field::<T>(body) {
            true => Problem::unknown_field(detail),
            false => Problem::new(ErrorKind::Invalid, detail),
        })
    })
}
