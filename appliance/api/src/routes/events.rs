//! `/v1/events`: as a list, or as a stream that goes on where the client was. Invariant: a stream has each event that the
//! engine still knows once, in order; a client that is too slow misses only what has left the engine's ring.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, Response};
use axum::response::IntoResponse;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use cistern_model::{ErrorKind, Event, Problem};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use crate::app::App;
use crate::extract::Asked;
use crate::problem::Refusal;

/// The most in one list, and the most of the past that begins a stream.
const MOST: usize = 1000;

/// How many of the past a stream has in memory: who reads slowly has no more of the appliance's.
const PAGE: usize = 100;

/// A comment is sent this often, so that a dead connection is noticed and a middlebox keeps a live one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Off the async threads too: while an event is written to the state partition, who asks for others waits.
const LISTING: &str = "listing the events";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Only those with a larger `seq`, from there on. For a stream `Last-Event-ID` wins.
    after: Option<u64>,
    /// Only those with a smaller `seq`, the newest of them; only for a list, and not with `after`.
    before: Option<u64>,
    /// How many at most, up to 1000; only for a list.
    limit: Option<usize>,
}

/// The last events, the oldest first; those before or after one of them with `before` or `after`. With `Accept: text/event-stream` a stream of them that goes on; each has its `seq`
/// as id and its JSON as data.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "listEvents",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "For a stream: the id of the last event that was seen")),
    responses((status = 200, content((Vec<Event> = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    app: App,
    headers: HeaderMap,
    Asked(query): Asked<EventsQuery>,
) -> Result<Response<Body>, Refusal> {
    let limit = query.limit.unwrap_or(MOST);
    if !(1..=MOST).contains(&limit) {
        let detail = format!("the query: limit must be 1 to {MOST}, not {limit}");
        return Err(Refusal::new(ErrorKind::Invalid, detail));
    }
    let streams = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.contains("text/event-stream"));
    if !streams {
        let (after, before) = (query.after, query.before);
        if after.is_some() && before.is_some() {
            let detail = "the query: give after or before, not both";
            return Err(Refusal::new(ErrorKind::Invalid, detail));
        }
        let events = app.call(LISTING, move |engine| {
            Ok(match after {
                Some(after) => engine.events(after, limit),
                None => engine.events_before(before.unwrap_or(u64::MAX), limit),
            })
        });
        return Ok(Json(events.await?).into_response());
    }
    let last: Option<u64> = headers
        .get(LAST_EVENT_ID)
        .and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let after = last.or(query.after);
    Ok(Sse::new(follow(app, after).await?)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

struct Follower {
    app: App,
    receiver: Receiver<Event>,
    stopping: tokio::sync::watch::Receiver<bool>,
    /// A page of what is to be sent before the next is awaited, the oldest first.
    ready: std::vec::IntoIter<Event>,
    /// Whether the ring may have more after that page which the receiver does not.
    behind: bool,
    last: u64,
}

async fn follow(app: App, after: Option<u64>) -> Result<impl Stream<Item = Result<Sent, Infallible>> + Send, Refusal> {
    let follower = Follower::begin(app, after).await?;
    Ok(futures::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        let sent = Sent::default().id(event.seq.to_string());
        // An event is plain data: its JSON cannot fail.
        let sent = sent.json_data(&event).unwrap_or_default();
        Some((Ok(sent), follower))
    }))
}

impl Follower {
    /// Without `after`, from the last [`MOST`] on.
    async fn begin(app: App, after: Option<u64>) -> Result<Self, Refusal> {
        // First the receiver, then the ring: what happens in between is in both, and its number tells.
        let receiver = app.engine.subscribe();
        let from = app.call(LISTING, move |engine| {
            let last = engine.events_before(u64::MAX, MOST);
            let newest = last.last().map_or(0, |event| event.seq);
            let before = last.first().map_or(0, |event| event.seq.saturating_sub(1));
            // Without a state partition numbers begin anew: who has seen a larger one has seen none of these.
            Ok(after.filter(|after| *after <= newest).unwrap_or(before))
        });
        let last = from.await?;
        Ok(Follower {
            stopping: app.stopping(),
            ready: Vec::new().into_iter(),
            behind: true,
            receiver,
            last,
            app,
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.next() {
                self.last = event.seq;
                return Some(event);
            }
            if self.behind {
                let last = self.last;
                let page = self.app.call(LISTING, move |engine| Ok(engine.events(last, PAGE)));
                // A stream that ends is asked for anew, from the last event on.
                let page = page.await.ok()?;
                self.behind = page.len() == PAGE;
                self.ready = page.into_iter();
                continue;
            }
            let received = tokio::select! {
                received = self.receiver.recv() => received,
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            };
            match received {
                Ok(event) if event.seq > self.last => {
                    self.last = event.seq;
                    return Some(event);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_engine::{Config, Engine};
    use cistern_host::memory::MemoryHost;
    use cistern_model::{EventKind, Severity};

    use crate::peer::PeerPolicy;

    #[tokio::test]
    async fn a_stream_that_is_far_behind_has_each_event_once_and_a_page_of_them_in_memory() {
        let engine = Engine::new(MemoryHost::new(Vec::new()).host(), Config::default());
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        let policy = PeerPolicy { root: 0, gate: None };
        let app = App::new(engine.clone(), policy, "admin.sock".into(), stopping);
        let happen = |count: usize| {
            for _ in 0..count {
                let message = "a disk was added".to_owned();
                engine.record(EventKind::DiskAdded, Severity::Info, None, None, message);
            }
        };
        happen(3 * PAGE);
        let mut follower = Follower::begin(app.clone(), Some(0)).await.unwrap();
        let mut seen = 0;
        // Further ones while it is at the past; and so many that the receiver has not all of them.
        for more in [1, 2 * MOST] {
            happen(more);
            let newest = engine.events_before(u64::MAX, 1)[0].seq;
            while seen < newest {
                seen += 1;
                assert_eq!(follower.next().await.unwrap().seq, seen);
                assert!(follower.ready.len() < PAGE, "{}", follower.ready.len());
            }
        }
        happen(1);
        assert_eq!(follower.next().await.unwrap().seq, seen + 1);

        let mut fresh = Follower::begin(app, None).await.unwrap();
        assert_eq!(fresh.next().await.unwrap().seq, seen + 2 - MOST as u64);
    }
}
