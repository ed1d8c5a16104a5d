//! JSON documents, one a line, over a socket whose other end is QEMU or the guest agent.
//!
//! Invariant: an answer reaches the call that asked for it and no other, even when an earlier call gave up waiting; events
//! are kept in the order they came. Unknown events are no error: a newer QEMU has more of them.
//!
//! Not here: what the commands are; `qmp` and `agent` know.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Why a call got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The other end is gone.
    Closed,
    /// None came in time.
    Late,
    /// It was refused.
    Refused { class: String, description: String },
}

/// One end of a conversation in JSON lines.
pub(crate) struct Wire {
    stream: Mutex<UnixStream>,
    shared: Arc<Shared>,
    next: AtomicU64,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Inbox {
    /// Calls that wait, and their answers.
    calls: HashMap<u64, Option<Value>>,
    events: Vec<Value>,
    closed: bool,
}

impl Wire {
    /// Starts reading from `stream`, in a thread that ends with it.
    pub(crate) fn new(stream: UnixStream, name: &str) -> io::Result<Wire> {
        let reader = stream.try_clone()?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || read(reader, &theirs))?;
        Ok(Wire {
            stream: Mutex::new(stream),
            shared,
            next: AtomicU64::new(1),
        })
    }

    /// Sends a command after `prefix` and waits for its answer.
    pub(crate) fn call(
        &self,
        prefix: &[u8],
        name: &str,
        arguments: &Value,
        within: Duration,
    ) -> Result<Value, NoAnswer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line = prefix.to_vec();
        let command = match arguments {
            Value::Object(map) if map.is_empty() => json!({ "execute": name, "id": id }),
            _ => json!({ "execute": name, "arguments": arguments, "id": id }),
        };
        line.extend(command.to_string().into_bytes());
        line.push(b'\n');

        self.inbox().calls.insert(id, None);
        let sent = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&line);
        let result = match sent {
            Err(_) => Err(NoAnswer::Closed),
            Ok(()) => self.wait(within, |inbox| inbox.calls.get_mut(&id).and_then(Option::take)),
        };
        self.inbox().calls.remove(&id);
        let answer = result?;
        match (answer.get("return"), answer.get("error")) {
            (Some(value), _) => Ok(value.clone()),
            (None, error) => {
                let text = |key: &str| {
                    error
                        .and_then(|e| e.get(key))
                        .and_then(Value::as_str)
                        .unwrap_or("unknown")
                        .to_string()
                };
                Err(NoAnswer::Refused {
                    class: text("class"),
                    description: text("desc"),
                })
            }
        }
    }

    /// How many events came so far; what to give to [`Wire::event`] as `since`.
    pub(crate) fn events(&self) -> usize {
        self.inbox().events.len()
    }

    /// Waits for an event that came after the first `since` and that `wanted` accepts.
    pub(crate) fn event(
        &self,
        since: usize,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, NoAnswer> {
        self.wait(within, |inbox| {
            inbox.events[since..].iter().find(|event| wanted(event)).cloned()
        })
    }

    fn wait<T>(&self, within: Duration, mut ready: impl FnMut(&mut Inbox) -> Option<T>) -> Result<T, NoAnswer> {
        let began = Instant::now();
        let mut inbox = self.inbox();
        loop {
            if let Some(value) = ready(&mut inbox) {
                return Ok(value);
            }
            if inbox.closed {
                return Err(NoAnswer::Closed);
            }
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(NoAnswer::Late);
            }
            inbox = self
                .shared
                .changed
                .wait_timeout(inbox, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Ends the reading thread, which has its own copy of the descriptor.
        let _ = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shutdown(Shutdown::Both);
    }
}

fn read(stream: UnixStream, shared: &Shared) {
    let lock = || shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            break;
        }
        // The guest agent puts 0xff before an answer that resynchronises, and may have left half an answer before it.
        let start = line.iter().rposition(|&byte| byte == 0xff).map_or(0, |at| at + 1);
        let Ok(message) = serde_json::from_slice::<Value>(&line[start..]) else {
            continue;
        };
        let mut inbox = lock();
        if message.get("event").is_some() {
            inbox.events.push(message);
        } else if let Some(slot) = message
            .get("id")
            .and_then(Value::as_u64)
            .and_then(|id| inbox.calls.get_mut(&id))
        {
            *slot = Some(message);
        }
        shared.changed.notify_all();
    }
    lock().closed = true;
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn read_line(stream: &mut BufReader<UnixStream>) -> Value {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).unwrap();
        serde_json::from_slice(line.strip_prefix(b"\xff").unwrap_or(&line)).unwrap()
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire::new(ours, "test").unwrap();
        let late = wire.call(b"", "slow", &json!({}), Duration::from_millis(10));
        assert!(matches!(late, Err(NoAnswer::Late)), "{late:?}");
        let other = std::thread::spawn(move || {
            let mut reader = BufReader::new(theirs);
            let (slow, quick) = (read_line(&mut reader), read_line(&mut reader));
            assert_eq!(
                (&slow["execute"], &quick["arguments"]["a"]),
                (&json!("slow"), &json!(1))
            );
            let answers = format!(
                "half an ans\u{0}\n{}\n{}\n{}\n",
                json!({"return": "slow", "id": slow["id"]}),
                json!({"event": "NEWER_THAN_WE_KNOW", "data": {}}),
                json!({"return": "quick", "id": quick["id"]}),
            );
            reader.get_mut().write_all(answers.as_bytes()).unwrap();
            reader
        });
        assert_eq!(
            wire.call(b"\xff", "quick", &json!({"a": 1}), SOON).unwrap(),
            json!("quick")
        );
        let event = wire
            .event(0, SOON, |event| event["event"] == "NEWER_THAN_WE_KNOW")
            .unwrap();
        assert_eq!(event["data"], json!({}));
        drop(other.join().unwrap());
        assert!(matches!(wire.event(1, SOON, |_| true), Err(NoAnswer::Closed)));
    }

    #[test]
    fn a_refusal_keeps_its_class_and_words() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire::new(ours, "test").unwrap();
        let other = std::thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            let id = read_line(&mut theirs)["id"].clone();
            let refusal = json!({"error": {"class": "DeviceNotFound", "desc": "no d9"}, "id": id});
            theirs.get_mut().write_all(format!("{refusal}\n").as_bytes()).unwrap();
        });
        match wire.call(b"", "device_del", &json!({"id": "d9"}), SOON) {
            Err(NoAnswer::Refused { class, description }) => {
                assert_eq!((class.as_str(), description.as_str()), ("DeviceNotFound", "no d9"));
            }
            unexpected => panic!("{unexpected:?}"),
        }
        other.join().unwrap();
    }
}
