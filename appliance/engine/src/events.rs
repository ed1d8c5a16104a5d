//! Events: the last ones, kept over restarts, and a stream of new ones. Invariant: their numbers grow, in the order in
//! which they are kept and sent, and none is ever used twice.
//!
//! They are kept as a log of JSON lines. What is added is made durable soon, or at once if it is no mere information; a
//! power cut may take the last ones, and their numbers are then passed over. While the log cannot be written it goes on
//! in memory, and is written anew, whole, once that can be done. One that could not be read is not written over: it goes on
//! in memory until it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cistern_host::{HostError, Records};
use cistern_model::{Event, EventKind, Principal, Severity};
use jiff::Timestamp;
use tokio::sync::broadcast;

/// How many are kept at most.
const KEPT: usize = 10_000;
/// And of how many bytes, as JSON.
const KEPT_BYTES: usize = 4 << 20;
/// How far a listener may fall behind.
const STREAM: usize = 1000;
/// Numbers that are passed over at a start: more than a power cut can have taken.
const GAP: u64 = 1000;
/// The log's name.
const LOG: &str = "events.jsonl";

/// The events.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    stream: broadcast::Sender<Event>,
    records: Arc<dyn Records>,
}

#[derive(Default)]
struct Ring {
    last: u64,
    since_start: u64,
    /// Each with its length in the log.
    events: VecDeque<(Event, usize)>,
    bytes: usize,
    log: Log,
}

/// How the log on the state partition is.
#[derive(Default)]
struct Log {
    state: LogState,
    /// Its length; it is written anew when it is twice what is kept.
    bytes: usize,
    lines: usize,
    /// Whether something was added that is not durable.
    dirty: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum LogState {
    /// Not looked at: nothing is written.
    #[default]
    Unread,
    /// It could not be read: nothing is written either.
    Unreadable,
    /// It has all that is kept.
    Whole,
    /// Something could not be written.
    Behind,
}

impl Log {
    fn is_read(&self) -> bool {
        match self.state {
            LogState::Unread | LogState::Unreadable => false,
            LogState::Whole | LogState::Behind => true,
        }
    }
}

impl Ring {
    fn push(&mut self, event: Event, bytes: usize) {
        self.bytes += bytes;
        self.events.push_back((event, bytes));
        while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some((_, bytes)) = self.events.pop_front() else {
                return;
            };
            self.bytes -= bytes;
        }
    }

    fn whole_text(&self) -> String {
        self.events.iter().map(|(event, _)| line(event)).collect()
    }
}

/// An event as the log has it.
fn line(event: &Event) -> String {
    // An event is plain data: its JSON cannot fail.
    let mut text = serde_json::to_string(event).unwrap_or_default();
    text.push('\n');
    text
}

impl Events {
    pub(crate) fn new(records: Arc<dyn Records>) -> Self {
        Events {
            ring: Mutex::default(),
            stream: broadcast::channel(STREAM).0,
            records,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what was kept, once. Lines that are torn, or of a later version, are passed over. After an error nothing is written
    /// before a later call has read it.
    pub(crate) fn load(&self) -> Result<(), HostError> {
        if self.locked().log.is_read() {
            return Ok(());
        }
        // Not under the lock: a disk that errs takes its time. Nobody writes to what was not read.
        let read = self.records.read(LOG);
        let mut ring = self.locked();
        if ring.log.is_read() {
            return Ok(());
        }
        let text = match read {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                ring.log.state = LogState::Unreadable;
                return Err(error);
            }
        };
        let mut kept = Ring::default();
        for line in text.lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            kept.last = kept.last.max(value["seq"].as_u64().unwrap_or_default());
            if let Ok(event) = serde_json::from_value::<Event>(value) {
                kept.push(event, line.len() + 1);
            }
        }
        if kept.last > 0 {
            kept.last = (kept.last / GAP + 1).saturating_mul(GAP);
        }
        kept.log = Log {
            // A torn last line is not added to.
            state: if text.is_empty() || text.ends_with('\n') {
                LogState::Whole
            } else {
                LogState::Behind
            },
            bytes: text.len(),
            lines: text.lines().count(),
            dirty: false,
        };
        // What happened before this was read comes after it; under the number that it was sent with, unless the clock was wrong.
        let before = std::mem::replace(&mut *ring, kept);
        for (mut event, _) in before.events {
            ring.last = event.seq.max(ring.last + 1);
            event.seq = ring.last;
            let bytes = line(&event).len();
            ring.push(event, bytes);
            ring.log.state = LogState::Behind;
        }
        ring.since_start = before.since_start;
        Ok(())
    }

    /// Keeps an event and sends it. An error says that it is kept in memory only.
    pub(crate) fn record(
        &self,
        time: Timestamp,
        kind: EventKind,
        severity: Severity,
        object: Option<String>,
        by: Option<&Principal>,
        message: String,
    ) -> Result<(), HostError> {
        match severity {
            Severity::Info => tracing::info!(?kind, object, "{message}"),
            Severity::Warning => tracing::warn!(?kind, object, "{message}"),
            Severity::Error => tracing::error!(?kind, object, "{message}"),
        }
        let kept = {
            let mut ring = self.locked();
            ring.last += 1;
            if ring.log.state == LogState::Unreadable {
                // Which numbers were used is not known; the milliseconds since 1970 are beyond any that were counted.
                ring.last = ring.last.max(u64::try_from(time.as_millisecond()).unwrap_or_default());
            }
            ring.since_start += 1;
            let event = Event {
                seq: ring.last,
                time,
                kind,
                severity,
                object,
                actor: by.map(|principal| principal.owner.to_string()),
                message,
            };
            let text = line(&event);
            ring.push(event.clone(), text.len());
            // Sent under the lock, so that the stream has the ring's order. Nobody listening is no error.
            let _ = self.stream.send(event);
            self.add(&mut ring, &text)
        };
        let told = matches!(
            kind,
            EventKind::AlertRaised | EventKind::AlertCleared | EventKind::AlertAcknowledged
        );
        match severity {
            Severity::Info if !told => kept,
            Severity::Info | Severity::Warning | Severity::Error => kept.and_then(|()| self.sync()),
        }
    }

    fn add(&self, ring: &mut Ring, text: &str) -> Result<(), HostError> {
        if ring.log.state != LogState::Whole {
            return Ok(());
        }
        let added = if ring.log.lines >= 2 * KEPT || ring.log.bytes >= 2 * KEPT_BYTES {
            self.rewrite(ring)
        } else {
            self.records.append(LOG, text)
        };
        match added {
            Ok(()) => {
                ring.log.lines += 1;
                ring.log.bytes += text.len();
                ring.log.dirty = true;
                Ok(())
            }
            Err(error) => {
                ring.log.state = LogState::Behind;
                Err(error)
            }
        }
    }

    fn rewrite(&self, ring: &mut Ring) -> Result<(), HostError> {
        self.records.replace(LOG, &ring.whole_text())?;
        ring.log = Log {
            state: LogState::Whole,
            bytes: ring.bytes,
            lines: ring.events.len(),
            dirty: false,
        };
        Ok(())
    }

    /// Makes durable what is kept; what could not be written before is written now. Nothing, before the log was read.
    pub(crate) fn sync(&self) -> Result<(), HostError> {
        {
            let mut ring = self.locked();
            match ring.log.state {
                LogState::Unread | LogState::Unreadable => return Ok(()),
                LogState::Behind => return self.rewrite(&mut ring),
                LogState::Whole if !ring.log.dirty => return Ok(()),
                LogState::Whole => ring.log.dirty = false,
            }
        }
        // Not under the lock: a slow disk must keep nobody from recording.
        let synced = self.records.sync(LOG);
        if synced.is_err() {
            self.locked().log.state = LogState::Behind;
        }
        synced
    }

    /// Those after `after`, at most `limit`, oldest first.
    pub(crate) fn after(&self, after: u64, limit: usize) -> Vec<Event> {
        let ring = self.locked();
        let begin = ring.events.partition_point(|(event, _)| event.seq <= after);
        ring.events
            .iter()
            .skip(begin)
            .take(limit)
            .map(|(event, _)| event.clone())
            .collect()
    }

    /// The newest before `before`, at most `limit`, oldest first.
    pub(crate) fn before(&self, before: u64, limit: usize) -> Vec<Event> {
        let ring = self.locked();
        let end = ring.events.partition_point(|(event, _)| event.seq < before);
        let wanted = ring.events.range(end.saturating_sub(limit)..end);
        wanted.map(|(event, _)| event.clone()).collect()
    }

    /// How many there were since the start.
    pub(crate) fn since_start(&self) -> u64 {
        self.locked().since_start
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.stream.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cistern_host::memory::MemoryHost;

    fn on(machine: &MemoryHost) -> Events {
        let events = Events::new(machine.host().records);
        events.load().unwrap();
        events
    }

    fn record(events: &Events, severity: Severity, message: &str) -> Result<(), HostError> {
        let (time, message) = (Timestamp::UNIX_EPOCH, message.to_owned());
        events.record(time, EventKind::DiskAdded, severity, None, None, message)
    }

    fn messages(events: &Events) -> Vec<String> {
        events
            .after(0, usize::MAX)
            .into_iter()
            .map(|event| event.message)
            .collect()
    }

    #[test]
    fn they_are_numbered_without_gaps_and_read_forwards_and_backwards() {
        let events = on(&MemoryHost::new(Vec::new()));
        let mut stream = events.subscribe();
        for n in 1..=50 {
            record(&events, Severity::Info, &n.to_string()).unwrap();
            assert_eq!(stream.try_recv().unwrap().seq, n);
        }
        let numbers = |events: Vec<Event>| events.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(numbers(events.after(10, 3)), [11, 12, 13]);
        assert_eq!(numbers(events.before(10, 3)), [7, 8, 9]);
        assert_eq!(numbers(events.before(u64::MAX, 2)), [49, 50]);
        assert_eq!(numbers(events.before(2, 5)), [1]);
        assert!(events.after(50, 1).is_empty() && events.before(1, 5).is_empty());
    }

    #[test]
    fn what_was_synced_outlives_a_power_cut_and_what_was_not_is_passed_over() {
        let machine = MemoryHost::new(Vec::new());
        let events = on(&machine);
        record(&events, Severity::Info, "a").unwrap();
        record(
            &events,
            Severity::Warning,
            "a disk is gone: synced with what came before",
        )
        .unwrap();
        record(&events, Severity::Info, "lost").unwrap();
        record(&events, Severity::Info, "lost too").unwrap();
        machine.restart();
        assert!(!machine.record(LOG).unwrap().ends_with('\n'), "the last line is torn");
        let events = on(&machine);
        assert_eq!(messages(&events).len(), 2);
        record(&events, Severity::Info, "after").unwrap();
        assert_eq!(events.before(u64::MAX, 1)[0].seq, 1001, "no number is used twice");
        events.sync().unwrap();
        machine.restart();
        let kept = messages(&on(&machine));
        assert_eq!((kept.len(), kept[2].as_str()), (3, "after"));
        // A supervisor that starts again on a machine that runs loses nothing.
        let events = on(&machine);
        record(&events, Severity::Info, "not synced").unwrap();
        assert_eq!(messages(&on(&machine)).len(), 4);
    }

    #[test]
    fn the_log_is_bounded_whatever_is_recorded() {
        let machine = MemoryHost::new(Vec::new());
        let events = on(&machine);
        for n in 0..2 * KEPT + 10 {
            record(&events, Severity::Info, &n.to_string()).unwrap();
        }
        let log = machine.record(LOG).unwrap();
        assert!(log.lines().count() <= KEPT + 10);
        assert_eq!(messages(&events).len(), KEPT);
        let long = "x".repeat(KEPT_BYTES / 8);
        for _ in 0..20 {
            record(&events, Severity::Info, &long).unwrap();
        }
        assert!(events.after(0, usize::MAX).len() < 8);
        assert!(machine.record(LOG).unwrap().len() < 3 * KEPT_BYTES);
        assert_eq!(messages(&on(&machine)), messages(&events));
    }

    #[test]
    fn while_nothing_can_be_written_it_goes_on_in_memory_and_is_made_up_for() {
        let machine = MemoryHost::new(Vec::new());
        let events = on(&machine);
        record(&events, Severity::Info, "kept").unwrap();
        machine.break_records(true);
        assert!(record(&events, Severity::Info, "one").is_err());
        assert!(record(&events, Severity::Info, "two").is_ok(), "said once");
        assert!(events.sync().is_err());
        assert_eq!(messages(&events), ["kept", "one", "two"]);
        machine.break_records(false);
        events.sync().unwrap();
        machine.restart();
        assert_eq!(messages(&on(&machine)), ["kept", "one", "two"]);
    }

    #[test]
    fn what_could_not_be_read_is_not_written_over_and_comes_before_what_happened_meanwhile() {
        // By a clock that is right, and by one that was never set.
        for (second, told, kept) in [
            (1_785_000_000, 1_785_000_000_000_u64, 1_785_000_000_000_u64),
            (0, 1, 1001),
        ] {
            let machine = MemoryHost::new(Vec::new());
            record(&on(&machine), Severity::Warning, "kept").unwrap();
            let log = machine.record(LOG);
            let events = Events::new(machine.host().records);
            machine.fail_next("records.read", MemoryHost::failure("records.read"));
            assert!(events.load().is_err());
            let mut stream = events.subscribe();
            let (time, message) = (Timestamp::from_second(second).unwrap(), "meanwhile".to_owned());
            events
                .record(time, EventKind::DiskAdded, Severity::Error, None, None, message)
                .unwrap();
            events.sync().unwrap();
            assert_eq!(machine.record(LOG), log);
            assert_eq!(stream.try_recv().unwrap().seq, told);
            events.load().unwrap();
            record(&events, Severity::Info, "after").unwrap();
            let numbers: Vec<u64> = events.after(0, 10).into_iter().map(|event| event.seq).collect();
            assert_eq!(numbers, [1, kept, kept + 1]);
            events.sync().unwrap();
            machine.restart();
            assert_eq!(messages(&on(&machine)), ["kept", "meanwhile", "after"]);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_passed_over_and_its_number_is_not_used_again() {
        let machine = MemoryHost::new(Vec::new());
        let text = "not json\n{\"seq\":4321,\"kind\":\"of-later\"}\n\n{\"seq\":\n";
        machine.host().records.replace(LOG, text).unwrap();
        let events = on(&machine);
        assert!(messages(&events).is_empty());
        record(&events, Severity::Info, "new").unwrap();
        assert_eq!(events.after(0, 1)[0].seq, 5001);
    }
}
