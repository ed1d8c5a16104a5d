//! What the gate does with one request: whose it is, whether it may, and who answers it.
//!
//! Invariant: nothing reaches cisternd that the table of routes does not allow to the token's role, and only the gate says
//! for whom it asks. Not here: TLS, sockets, the disk.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use cistern_api::forward::{forward, strip_hop_by_hop};
use cistern_api::peer::{self, PRINCIPAL_HEADER};
use cistern_api::problem::Refusal;
use cistern_api::table::{self, Access, Lookup, Route, Server};
use cistern_model::{ErrorKind, Principal, TokenId};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::enrolment::Enroller;
use crate::lent;
use crate::limits::{Limiter, Rate};
use crate::places::Place;
use crate::tokens::Tokens;

/// No request needs a larger body.
pub const BODY_LIMIT: usize = 64 << 10;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How long cisternd may take to begin its answer: longer than all that it lets a request wait and take, which is 100 s for a new volume.
const ANSWER_TIME: Duration = Duration::from_secs(110);

/// Wrong tokens: quick enough for a client with a stale one, slow for one that guesses.
const TOKEN_RATE: Rate = Rate {
    burst: 20,
    every: Duration::from_secs(3),
};

/// Wrong enrolment codes of one source: typing errors.
const CODE_RATE: Rate = Rate {
    burst: 5,
    every: Duration::from_secs(20),
};

/// Wrong enrolment codes of all sources together.
const CODE_RATE_OF_ALL: Rate = Rate {
    burst: 30,
    every: Duration::from_secs(2),
};

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The network.
    Network(IpAddr),
    /// Root on the appliance.
    Root,
}

/// The gate.
pub struct Gate {
    pub(crate) tokens: Tokens,
    pub(crate) enroller: Enroller,
    pub(crate) supervisor: PathBuf,
    failures: Limiter,
    wrong_codes: Limiter,
    wrong_codes_of_all: Limiter,
}

/// A request whose origin, rights and body have been looked at.
pub(crate) struct Admitted {
    pub(crate) route: &'static Route,
    pub(crate) path: String,
    pub(crate) principal: Option<Principal>,
    /// Whose principal it is; root has none.
    pub(crate) token: Option<TokenId>,
    pub(crate) origin: Origin,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Gate {
    /// A gate before the cisternd that listens at `supervisor`.
    pub fn new(tokens: Tokens, enroller: Enroller, supervisor: PathBuf) -> Arc<Self> {
        Arc::new(Gate {
            tokens,
            enroller,
            supervisor,
            failures: Limiter::new(TOKEN_RATE),
            wrong_codes: Limiter::new(CODE_RATE),
            wrong_codes_of_all: Limiter::new(CODE_RATE_OF_ALL),
        })
    }

    /// Answers a request, and tells the place of its connection whether it showed a valid token; root's have none.
    pub(crate) async fn handle(
        self: Arc<Self>,
        origin: Origin,
        place: Option<&Place>,
        request: Request<Body>,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), table::shown(request.uri().path()));
        let by = Arc::new(std::sync::OnceLock::new());
        let response = match self.admit_and_answer(origin, place, request, &by).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        let status = response.status().as_u16();
        let by = by.get().map(String::as_str);
        let from = match origin {
            Origin::Network(address) => address.to_canonical().to_string(),
            Origin::Root => "the console".to_owned(),
        };
        // Paths come from clients: `?` escapes what would break a line. Who has no token cannot wash the journal away.
        match by {
            Some(by) if method != Method::GET && method != Method::HEAD => {
                tracing::info!(by, from, status, "{method} {path:?}");
            }
            Some(_) | None => {
                let by = by.unwrap_or("nobody");
                tracing::debug!(by, from, status, "{method} {path:?}");
            }
        }
        response
    }

    async fn admit_and_answer(
        self: &Arc<Self>,
        origin: Origin,
        place: Option<&Place>,
        mut request: Request<Body>,
        by: &std::sync::OnceLock<String>,
    ) -> Result<Response<Body>, Refusal> {
        request.headers_mut().remove(PRINCIPAL_HEADER);
        let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
        let lookup = table::find(&method, &path);
        let open = matches!(&lookup, Lookup::Found(route) if route.access == Access::Open);
        let authenticated = self.authenticate(origin, request.headers());
        if let Some(place) = place {
            place.shows_token(authenticated.is_ok());
        }
        let (principal, token) = match authenticated {
            Ok((principal, token)) => (Some(principal), token),
            Err(_) if open => (None, None),
            Err(refusal) => return Err(refusal),
        };
        if let Some(principal) = &principal {
            let _ = by.set(principal.owner.to_string());
        }
        let route = match lookup {
            Lookup::Found(route) => route,
            Lookup::OtherMethods(_) | Lookup::Unknown => {
                let missing = Refusal::missing(&method, &path, &lookup);
                return Err(missing.unwrap_or_else(|| Refusal::new(ErrorKind::NoRoute, "there is no such path")));
            }
        };
        if let Some(principal) = &principal
            && !route.access.allows(principal)
        {
            return Err(table::forbidden(route, principal).into());
        }
        let (parts, body) = request.into_parts();
        let body = read_body(&parts.headers, body).await?;
        // The body may have come long after the head, and the token have been deleted between them.
        self.tokens.still_there(token).map_err(|error| error.problem())?;
        let admitted = Admitted {
            route,
            path,
            principal,
            token,
            origin,
            headers: parts.headers.clone(),
            body: body.clone(),
        };
        match route.server {
            Server::Gate => self.answer(admitted).await,
            Server::Supervisor => {
                self.pass_on(admitted, Request::from_parts(parts, Body::from(body)))
                    .await
            }
        }
    }

    /// Whose request it is, and by which token. Failures are counted; a valid token is let in whatever others at its
    /// address did.
    fn authenticate(&self, origin: Origin, headers: &HeaderMap) -> Result<(Principal, Option<TokenId>), Refusal> {
        let address = match origin {
            Origin::Root => return Ok((Principal::local(), None)),
            Origin::Network(address) => address,
        };
        let given = headers.get(AUTHORIZATION);
        if let Some((token, principal)) = given.and_then(bearer).and_then(|secret| self.tokens.holder(secret)) {
            return Ok((principal, Some(token)));
        }
        let now = Instant::now();
        if let Err(wait) = self.failures.check(address, now) {
            let detail = format!("too many requests without a valid token; wait {} s", wait.seconds);
            return Err(Refusal::new(ErrorKind::TooManyRequests, detail).retry_after(wait.seconds));
        }
        let detail = match given {
            None => "no token was given; send `Authorization: Bearer cistern_...`",
            Some(_) => "the token is not known here; it may have been deleted, or be another appliance's",
        };
        if given.is_some() {
            self.failures.failed(address, now);
        }
        Err(Refusal::new(ErrorKind::Unauthenticated, detail))
    }

    /// Whether the source may try an enrolment code now.
    pub(crate) fn may_try_code(&self, origin: Origin) -> Result<(), Refusal> {
        let Origin::Network(address) = origin else {
            return Ok(());
        };
        let now = Instant::now();
        let of_all = self.wrong_codes_of_all.check(EVERYBODY, now);
        self.wrong_codes.check(address, now).and(of_all).map_err(|wait| {
            let detail = format!("too many wrong enrolment codes; wait {} s", wait.seconds);
            Refusal::new(ErrorKind::TooManyRequests, detail).retry_after(wait.seconds)
        })
    }

    /// Counts a wrong enrolment code.
    pub(crate) fn wrong_code(&self, origin: Origin) {
        if let Origin::Network(address) = origin {
            let now = Instant::now();
            self.wrong_codes.failed(address, now);
            self.wrong_codes_of_all.failed(EVERYBODY, now);
        }
    }

    async fn pass_on(&self, admitted: Admitted, mut request: Request<Body>) -> Result<Response<Body>, Refusal> {
        if admitted.origin == Origin::Root {
            let detail = "this socket only serves tokens; the rest is at cisternd's";
            return Err(Refusal::new(ErrorKind::NoRoute, detail));
        }
        request.headers_mut().remove(AUTHORIZATION);
        // Before the principal is put in, which a client could name in its `Connection`, too.
        strip_hop_by_hop(request.headers_mut());
        if let Some(principal) = &admitted.principal {
            let header = peer::encode(principal)
                .ok_or_else(|| Refusal::new(ErrorKind::Internal, "the token cannot be passed on"))?;
            request.headers_mut().insert(PRINCIPAL_HEADER, header);
        }
        let answer = forward(&self.supervisor, "cisternd", ANSWER_TIME, request).await;
        if admitted.route.path == "/healthz" && admitted.principal.is_none() {
            return Ok(bare_health(answer.is_ok_and(|r| r.status() == StatusCode::OK)));
        }
        match admitted.token {
            Some(token) => answer.map(|answer| answer.map(|body| lent::until(self.tokens.deleted(token), body))),
            None => answer,
        }
    }
}

/// The one source under which all wrong codes are counted together.
const EVERYBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Health without its reasons, for those without a token.
fn bare_health(healthy: bool) -> Response<Body> {
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, json, format!("{{\"healthy\":{healthy}}}")).into_response()
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The whole body, unless it is too large, which is known from its announced length before any of it is read.
async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(Refusal::too_large(BODY_LIMIT));
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large(BODY_LIMIT)),
        Ok(Err(error)) => {
            Err(Refusal::new(ErrorKind::Invalid, format!("the body did not arrive whole: {error}")).closing())
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIME.as_secs());
            Err(Refusal::new(ErrorKind::TimedOut, detail).closing())
        }
    }
}
