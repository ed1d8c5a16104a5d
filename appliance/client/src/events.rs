//! The stream of events (server-sent events, as the HTML standard has them). Invariant: an event is given once it is
//! complete; one of a kind that this version does not know is passed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use cistern_model::Event;
use futures::{Stream, StreamExt};
use reqwest::Method;

use crate::{Client, ClientError};

/// More than this without a line's end is no event of ours.
const LONGEST_LINE: usize = 1 << 20;

/// Events as they happen, until the connection ends.
pub struct EventStream {
    inner: Pin<Box<dyn Stream<Item = Result<Event, ClientError>> + Send>>,
}

impl Stream for EventStream {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl Client {
    /// Events after the one numbered `after`, those that there were first, then each as it happens.
    pub async fn follow_events(&self, after: Option<u64>) -> Result<EventStream, ClientError> {
        let endpoint = self.endpoint().to_owned();
        let mut request = self
            .request(Method::GET, &["v1", "events"])
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.query(&[("after", after)]);
        }
        let answer = request.send().await.map_err(|e| ClientError::transport(&endpoint, e))?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes().await.map_err(|e| ClientError::transport(&endpoint, e))?;
            return Err(ClientError::from_answer(&endpoint, status.as_u16(), &body));
        }
        let start = (
            Box::pin(answer.bytes_stream()),
            Lines::default(),
            Vec::new().into_iter(),
            endpoint,
        );
        let inner = futures::stream::try_unfold(start, |(mut bytes, mut lines, mut ready, endpoint)| async move {
            loop {
                if let Some(event) = ready.next() {
                    return Ok(Some((event, (bytes, lines, ready, endpoint))));
                }
                match bytes.next().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(ClientError::transport(&endpoint, error)),
                    Some(Ok(chunk)) => match lines.feed(&chunk) {
                        Ok(events) => ready = events.into_iter(),
                        Err(why) => {
                            return Err(ClientError::Answer {
                                endpoint,
                                why: why.to_owned(),
                            });
                        }
                    },
                }
            }
        });
        Ok(EventStream { inner: Box::pin(inner) })
    }
}

/// Cuts a stream of bytes into events.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    data: String,
}

impl Lines {
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Event>, &'static str> {
        self.partial.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                events.extend(serde_json::from_str::<Event>(&std::mem::take(&mut self.data)).ok());
            } else if let Some(rest) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(rest.strip_prefix(' ').unwrap_or(rest));
            }
        }
        if self.partial.len() > LONGEST_LINE || self.data.len() > LONGEST_LINE {
            return Err("an event is longer than any event is");
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: &str) -> String {
        format!(
            r#"{{"seq":{seq},"time":"2026-01-01T00:00:00Z","kind":"{kind}","severity":"info","object":null,"actor":null,"message":"ü"}}"#
        )
    }

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text = format!(
            ": hello\n\nid: 1\nevent: x\ndata: {}\n\ndata:{}\r\n\r\ndata: {}\n\n",
            event(1, "started"),
            event(2, "root-shell"),
            event(3, "of-the-future")
        );
        for size in [1, 2, 7, 64, text.len()] {
            let mut lines = Lines::default();
            let seen: Vec<u64> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|c| lines.feed(c).unwrap())
                .map(|e| e.seq)
                .collect();
            assert_eq!(seen, [1, 2], "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut lines = Lines::default();
        assert!((0..20).any(|_| lines.feed(&[b'x'; 1 << 17]).is_err()));
    }
}
