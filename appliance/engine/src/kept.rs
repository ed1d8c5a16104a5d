//! Small records on the state partition, which are in memory too once they were read.
//!
//! Invariant: memory has what stands there; one change at a time, each of what stands there then. A text that is none is set aside
//! and told, and what it said is not known any more: an appliance that waited for somebody to mend it would serve nobody.

use std::sync::Mutex;

use cistern_host::HostError;
use cistern_model::{EventKind, Severity};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{Engine, locked};

/// What a record says.
pub(crate) trait Record: Clone + Default + PartialEq + Serialize + DeserializeOwned {
    /// Its file's name.
    const NAME: &'static str;
    /// What is to be done where it is not known, for people.
    const WITHOUT: &'static str;

    /// What its text says; none if it is no text of such a record.
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// A record, once it was read.
#[derive(Debug)]
pub(crate) struct Kept<T>(Mutex<Option<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept(Mutex::new(None))
    }
}

impl Engine {
    /// What a record says; nothing, where there is none.
    pub(crate) fn kept<T: Record>(&self, kept: &Kept<T>) -> Result<T, HostError> {
        self.read_kept(&mut locked(&kept.0))
    }

    /// Changes what a record says, for good.
    pub(crate) fn change_kept<T: Record>(&self, kept: &Kept<T>, change: impl FnOnce(&mut T)) -> Result<(), HostError> {
        let mut known = locked(&kept.0);
        let before = self.read_kept(&mut known)?;
        let mut now = before.clone();
        change(&mut now);
        if now != before {
            // Records are plain data: their JSON cannot fail.
            let text = serde_json::to_string(&now).unwrap_or_default();
            self.0.host.records.replace(T::NAME, &text)?;
            *known = Some(now);
        }
        Ok(())
    }

    fn read_kept<T: Record>(&self, known: &mut Option<T>) -> Result<T, HostError> {
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let text = self.0.host.records.read(T::NAME)?;
        let read = match text.as_deref().map(|text| (text, T::parse(text))) {
            None => T::default(),
            Some((_, Some(read))) => read,
            Some((text, None)) => {
                self.set_aside(T::NAME, T::WITHOUT, text)?;
                T::default()
            }
        };
        *known = Some(read.clone());
        Ok(read)
    }

    fn set_aside(&self, name: &str, without: &str, text: &str) -> Result<(), HostError> {
        let aside = format!("{name}.unreadable");
        self.0.host.records.replace(&aside, text)?;
        self.0.host.records.remove(name)?;
        let message = format!(
            "{name} on the state partition is not what this version writes there, and was set aside as {aside}; what it said is not known \
             any more: {without}"
        );
        self.record(EventKind::RecordUnreadable, Severity::Error, None, None, message);
        Ok(())
    }
}
