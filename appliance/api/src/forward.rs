//! Passing a request on to another daemon's Unix socket, answers streamed. Invariant: what belongs to one connection
//! (RFC 9110 section 7.6.1) never crosses to the next.
//!
//! One connection a request: on a Unix socket that costs microseconds, and no idle one can go stale.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, Request, Response};
use cistern_model::ErrorKind;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::problem::Refusal;

/// How long a connection may take to be accepted.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes the headers that belong to one connection, those that `Connection` names among them.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Sends the request to the socket and gives back its answer once its head is there, within `limit`; the body streams on.
/// `who` is the daemon behind the socket, for the message.
pub async fn forward(
    socket: &Path,
    who: &str,
    limit: Duration,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let away = |error: &dyn std::fmt::Display| {
        // Not louder: anybody could fill the journal by asking for the health.
        tracing::debug!(socket = %socket.display(), %error, "{who} does not answer");
        Refusal::new(
            ErrorKind::Unavailable,
            format!("{who} does not answer; it may be starting, ask again"),
        )
        .retry_after(2)
    };
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(CONTENT_LENGTH);
    request.headers_mut().insert(HOST, HeaderValue::from_static("cistern"));
    let stream = match timeout(CONNECT_LIMIT, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(away(&error)),
        Err(elapsed) => return Err(away(&elapsed)),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| away(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a passed-on connection ended");
        }
    });
    match timeout(limit, sender.send_request(request)).await {
        Ok(Ok(mut response)) => {
            strip_hop_by_hop(response.headers_mut());
            Ok(response.map(Body::new))
        }
        Ok(Err(error)) => Err(away(&error)),
        Err(_) => Err(Refusal::new(
            ErrorKind::TimedOut,
            format!(
                "{who} gave no answer within {} s; what was asked may still be done",
                limit.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_do_not_cross() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-secret"),
            ("x-secret", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "text/event-stream"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
