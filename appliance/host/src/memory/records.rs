//! Small files. Invariant: what was appended and not synced is gone after a power cut, but for a part of its first line.
//!
//! Writing here is no place where the power goes by a test's count: nothing on the disks depends on it.

use super::Running;
use super::state::failed;
use crate::{HostError, Records};

/// A file: what is durable of it, and what is not yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) durable: String,
    pub(super) volatile: String,
}

impl Record {
    /// What a power cut leaves: the torn beginning of what was not durable.
    pub(super) fn cut(&mut self) {
        let volatile = std::mem::take(&mut self.volatile);
        let torn = volatile.lines().next().unwrap_or_default();
        self.durable.extend(torn.chars().take(torn.chars().count() / 2));
    }
}

impl Running {
    fn keep<T>(&self, call: &str, name: &str, body: impl FnOnce(&mut Record) -> T) -> Result<T, HostError> {
        self.look(call, name, |state| {
            if state.records_broken {
                return Err(failed(call, "No space left on device"));
            }
            Ok(body(state.records.entry(name.to_owned()).or_default()))
        })
    }
}

impl Records for Running {
    fn read(&self, name: &str) -> Result<Option<String>, HostError> {
        self.look("records.read", name, |state| {
            let record = state.records.get(name);
            Ok(record.map(|record| format!("{}{}", record.durable, record.volatile)))
        })
    }

    fn replace(&self, name: &str, text: &str) -> Result<(), HostError> {
        self.keep("records.replace", name, |record| {
            *record = Record {
                durable: text.to_owned(),
                volatile: String::new(),
            };
        })
    }

    fn remove(&self, name: &str) -> Result<(), HostError> {
        self.look("records.remove", name, |state| {
            if state.records_broken {
                return Err(failed("records.remove", "Read-only file system"));
            }
            state.records.remove(name);
            Ok(())
        })
    }

    fn append(&self, name: &str, text: &str) -> Result<(), HostError> {
        self.keep("records.append", name, |record| record.volatile.push_str(text))
    }

    fn sync(&self, name: &str) -> Result<(), HostError> {
        self.look("records.sync", name, |state| {
            if state.records_broken {
                return Err(failed("records.sync", "Input/output error"));
            }
            // Of one that is not there, nothing is made.
            if let Some(record) = state.records.get_mut(name) {
                let volatile = std::mem::take(&mut record.volatile);
                record.durable.push_str(&volatile);
            }
            Ok(())
        })
    }
}
