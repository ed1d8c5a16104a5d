//! Events: a ring of the last ones, and a stream of new ones. Invariant: their numbers grow by one, in the order in which
//! they are kept and sent.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use cistern_model::{Event, EventKind, Principal, Severity};
use jiff::Timestamp;
use tokio::sync::broadcast;

/// How many are kept.
const KEPT: usize = 1000;

/// The events since the start.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    stream: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Events {
            ring: Mutex::default(),
            stream: broadcast::channel(KEPT).0,
        }
    }

    pub(crate) fn record(
        &self,
        time: Timestamp,
        kind: EventKind,
        severity: Severity,
        object: Option<String>,
        by: Option<&Principal>,
        message: String,
    ) {
        match severity {
            Severity::Info => tracing::info!(?kind, object, "{message}"),
            Severity::Warning => tracing::warn!(?kind, object, "{message}"),
            Severity::Error => tracing::error!(?kind, object, "{message}"),
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let event = Event {
            seq: ring.last,
            time,
            kind,
            severity,
            object,
            actor: by.map(|principal| principal.owner.to_string()),
            message,
        };
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Sent under the lock, so that the stream has the ring's order. Nobody listening is no error.
        let _ = self.stream.send(event);
    }

    /// Those after `after`, at most `limit`, oldest first.
    pub(crate) fn after(&self, after: u64, limit: usize) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.events
            .iter()
            .filter(|e| e.seq > after)
            .take(limit)
            .cloned()
            .collect()
    }

    /// The number of the last one.
    pub(crate) fn last(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stream.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_are_kept_and_numbered_without_gaps() {
        let events = Events::new();
        let mut stream = events.subscribe();
        for n in 1..=1500 {
            events.record(
                Timestamp::UNIX_EPOCH,
                EventKind::DiskAdded,
                Severity::Info,
                None,
                Some(&Principal::local()),
                format!("{n}"),
            );
            assert_eq!(stream.try_recv().unwrap().seq, n);
        }
        let all = events.after(0, usize::MAX);
        assert_eq!((all.len(), all[0].seq, all[999].seq), (KEPT, 501, 1500));
        assert_eq!(events.after(1498, 1)[0].message, "1499");
        assert_eq!(all[0].actor.as_deref(), Some("local"));
    }
}
