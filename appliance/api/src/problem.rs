//! Problems as HTTP answers. Invariant: every answer of the API that is an error is made here, so that each is
//! problem+json with the status of its kind.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use cistern_model::{ErrorKind, Problem};

use crate::table::Lookup;

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem on its way out as an answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A problem of this kind.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Problem::new(kind, detail).into()
    }

    /// The body is larger than `limit` bytes. The connection ends with it: nobody reads the rest.
    pub fn too_large(limit: usize) -> Self {
        Refusal::new(
            ErrorKind::TooLarge,
            format!("the body is larger than {limit} bytes, more than any request needs"),
        )
        .closing()
    }

    /// Ask again after so many seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// The connection ends after this answer.
    pub fn closing(mut self) -> Self {
        self.headers.push((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// What is answered where there is no route, or not with this method.
    pub fn missing(method: &str, path: &str, lookup: &Lookup) -> Option<Self> {
        let mut refusal = Refusal::from(crate::table::missing(method, path, lookup)?);
        if let Lookup::OtherMethods(others) = lookup
            && let Ok(value) = HeaderValue::from_str(&others.join(", "))
        {
            refusal.headers.push((ALLOW, value));
        }
        Some(refusal)
    }

    /// What it says.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let headers = if problem.kind == ErrorKind::Unauthenticated {
            vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cistern\""))]
        } else {
            Vec::new()
        };
        Refusal { problem, headers }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.extend(self.headers);
        response
    }
}
