//! How long who asks waits for an answer. Invariant: a call comes back within the time that its caller gave it (`grpc-timeout`), with
//! `DEADLINE_EXCEEDED` where there is no answer yet; what it began goes on all the same (see `inflight`).
//!
//! tonic keeps that time too, and answers `CANCELLED`: that is what a caller is told who gave up by himself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

/// In which header a caller says how long it waits.
const HEADER: &str = "grpc-timeout";
/// How much earlier it is answered, so that this is heard before the caller and tonic look at their own clocks.
const EARLIER: Duration = Duration::from_millis(20);

/// Has each call answered in its caller's time.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines;

/// What answers, in its callers' time.
#[derive(Debug, Clone)]
pub struct InTime<S>(S);

impl<S> Layer<S> for Deadlines {
    type Service = InTime<S>;

    fn layer(&self, inner: S) -> InTime<S> {
        InTime(inner)
    }
}

impl<S, B> Service<Request<B>> for InTime<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let patience = patience(request.headers());
        let until = patience.and_then(|patience| Instant::now().checked_add(patience.saturating_sub(EARLIER)));
        let answer = self.0.call(request);
        Box::pin(async move {
            match until {
                None => answer.await,
                Some(until) => timeout_at(until, answer).await.unwrap_or_else(|_| Ok(late())),
            }
        })
    }
}

fn late() -> Response<Body> {
    Status::deadline_exceeded("there is no answer in the time that was given; what was begun goes on: ask again")
        .into_http()
}

/// How long a caller waits, as gRPC writes it: up to eight digits and a unit. None, if it does not say so.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderValue;

    use super::*;

    #[test]
    fn how_long_a_caller_waits_is_read_as_grpc_writes_it() {
        for (text, seconds) in [
            ("2H", Some(7200.0)),
            ("3M", Some(180.0)),
            ("60S", Some(60.0)),
            ("1500m", Some(1.5)),
            ("99999999n", Some(0.099_999_999)),
            ("0S", Some(0.0)),
            ("", None),
            ("S", None),
            ("60", None),
            ("123456789S", None),
            ("-1S", None),
        ] {
            let headers = HeaderMap::from_iter([(
                tonic::codegen::http::HeaderName::from_static(HEADER),
                HeaderValue::from_static(text),
            )]);
            let told = patience(&headers).map(|patience| patience.as_secs_f64());
            assert_eq!(told, seconds, "{text}");
        }
        assert_eq!(patience(&HeaderMap::new()), None);
    }
}
