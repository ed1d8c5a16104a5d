//! What a test lets go wrong: calls that fail, by their name or by their number, and power cuts. Invariant: what was asked
//! for happens once; a restart forgets it.

use std::sync::{Arc, Condvar, Mutex};

use super::state::{State, failed};
use super::{Cut, Inner, MemoryHost};
use crate::HostError;

/// A call that was made while calls were traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Its name: `lvm.tag_lv`.
    pub call: String,
    /// Whether it is one that changes something: where the power can go, and that can be done and fail all the same.
    pub changes: bool,
}

/// What is asked for and has not happened.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// By name; whether only after it was done.
    named: Vec<(String, bool, HostError)>,
    /// By its number among all calls.
    numbered: Option<(usize, bool)>,
    calls: usize,
    /// The call at which the last one happened that goes by a number.
    pub(super) hit: Option<String>,
    traced: Option<Vec<Traced>>,
}

/// A copy of a machine is one at which nothing goes wrong yet.
impl Clone for Faults {
    fn clone(&self) -> Self {
        Faults::default()
    }
}

impl Faults {
    pub(super) fn disarm(&mut self) {
        self.named.clear();
        self.numbered = None;
    }

    pub(super) fn note_call(&mut self, call: &str) {
        self.calls += 1;
        if let Some(traced) = &mut self.traced {
            traced.push(Traced {
                call: call.to_owned(),
                changes: false,
            });
        }
    }

    /// The call that was noted last is one that changes something.
    pub(super) fn note_change(&mut self) {
        if let Some(last) = self.traced.as_mut().and_then(|traced| traced.last_mut()) {
            last.changes = true;
        }
    }
}

impl State {
    /// Whether the call that is under way is to fail now.
    pub(super) fn failure(&mut self, call: &str, after: bool) -> Option<HostError> {
        let faults = &mut self.faults;
        if faults.numbered == Some((faults.calls, after)) {
            faults.numbered = None;
            faults.hit = Some(call.to_owned());
            return Some(MemoryHost::failure(call));
        }
        let at = faults
            .named
            .iter()
            .position(|(name, when, _)| name == call && *when == after)?;
        Some(faults.named.remove(at).2)
    }
}

impl MemoryHost {
    /// The next call of this name (`filesystems.make_xfs`) fails, having done nothing.
    pub fn fail_next(&self, call: &str, error: HostError) {
        self.lock().faults.named.push((call.to_owned(), false, error));
    }

    /// The next call of this name is done, and fails all the same: its outcome is unknown to the caller.
    pub fn fail_after_next(&self, call: &str, error: HostError) {
        self.lock().faults.named.push((call.to_owned(), true, error));
    }

    /// The `n`th call from now fails, the first being 1, having done nothing; or, if it changes something and `done` says
    /// so, having been done.
    pub fn fail_at(&self, n: usize, done: bool) {
        let mut state = self.lock();
        let at = state.faults.calls + n;
        state.faults.numbered = Some((at, done));
        state.faults.hit = None;
    }

    /// A failure, as a program's.
    pub fn failure(call: &str) -> HostError {
        failed(call, "asked for by a test")
    }

    /// Cuts the power at the `n`th call from now that changes something, the first being 1. Every later call fails with
    /// [`HostError::PowerLost`] until [`MemoryHost::restart`].
    pub fn cut_power_at(&self, n: usize, cut: Cut) {
        let mut state = self.lock();
        state.cut = Some((state.changes + n, cut));
        state.faults.hit = None;
    }

    /// The call at which what was last asked for by a number happened; none if it has not happened.
    pub fn fault_hit(&self) -> Option<String> {
        self.lock().faults.hit.clone()
    }

    /// What was asked for and has not happened does not happen any more.
    pub fn disarm(&self) {
        let mut state = self.lock();
        state.faults.disarm();
        if !state.dark {
            state.cut = None;
        }
    }

    /// Whether the power is gone.
    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// How many calls changed something, or tried to.
    pub fn changes(&self) -> usize {
        self.lock().changes
    }

    /// From now on calls are traced, from the beginning.
    pub fn trace(&self) {
        self.lock().faults.traced = Some(Vec::new());
    }

    /// What was traced; tracing ends.
    pub fn traced(&self) -> Vec<Traced> {
        self.lock().faults.traced.take().unwrap_or_default()
    }

    /// A second machine that is as this one is now, running; what was to go wrong here does not there.
    pub fn copy(&self) -> MemoryHost {
        let state = self.lock().clone();
        MemoryHost {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }
}
