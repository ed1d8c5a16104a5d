//! Names that are worked on, one operation at a time on each, and queues in which who came first is first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::EngineError;

/// How long a request waits for another one on the same name.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Names that are being worked on, and who waits for each, in their order.
#[derive(Default)]
pub(crate) struct Names {
    queues: Mutex<Queues<String>>,
    freed: Condvar,
}

/// Who waits for what, in the order of coming.
pub(crate) struct Queues<K> {
    number: u64,
    /// Who is first has it.
    pub(crate) of: HashMap<K, VecDeque<u64>>,
}

impl<K> Default for Queues<K> {
    fn default() -> Self {
        Queues {
            number: 0,
            of: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queues<K> {
    fn join(&mut self, what: &K) -> u64 {
        self.join_all(std::slice::from_ref(what))
    }

    /// In all of them at once, and so before or behind another one in all of them.
    pub(crate) fn join_all(&mut self, what: &[K]) -> u64 {
        self.number += 1;
        for what in what {
            self.of.entry(what.clone()).or_default().push_back(self.number);
        }
        self.number
    }

    pub(crate) fn is_first(&self, what: &K, number: u64) -> bool {
        self.of.get(what).and_then(VecDeque::front) == Some(&number)
    }

    pub(crate) fn leave(&mut self, what: &K, number: u64) {
        if let Some(queue) = self.of.get_mut(what) {
            queue.retain(|waiting| *waiting != number);
            if queue.is_empty() {
                self.of.remove(what);
            }
        }
    }
}

/// A name that is held until this is dropped.
pub(crate) struct Held<'a> {
    names: &'a Names,
    name: String,
    number: u64,
}

impl Names {
    fn locked(&self) -> MutexGuard<'_, Queues<String>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the name, with a limit; who came first has it first.
    pub(crate) fn hold(&self, name: String) -> Result<Held<'_>, EngineError> {
        let deadline = Instant::now() + PATIENCE;
        let mut queues = self.locked();
        let number = queues.join(&name);
        while !queues.is_first(&name, number) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                queues.leave(&name, number);
                // Not a conflict: what the other request comes to may be just what this one wants.
                return Err(EngineError::Unavailable(format!(
                    "{name} is still being worked on by another request; ask again later"
                )));
            }
            queues = self
                .freed
                .wait_timeout(queues, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(Held {
            names: self,
            name,
            number,
        })
    }

    /// The name, unless somebody has it.
    pub(crate) fn try_hold(&self, name: String) -> Option<Held<'_>> {
        let mut queues = self.locked();
        if queues.of.contains_key(&name) {
            return None;
        }
        let number = queues.join(&name);
        Some(Held {
            names: self,
            name,
            number,
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.names.locked().leave(&self.name, self.number);
        self.names.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_at_a_time_holds_a_name() {
        let (names, inside) = (Names::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _held = names.hold("a".into()).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        let first = names.try_hold("a".into());
        assert!(first.is_some() && names.try_hold("a".into()).is_none() && names.try_hold("b".into()).is_some());
        drop(first);
        assert!(names.try_hold("a".into()).is_some());
    }

    #[test]
    fn who_waits_for_a_name_has_it_in_the_order_of_coming_and_is_told_to_ask_again_when_it_takes_too_long() {
        let (names, order) = (Names::default(), Mutex::new(Vec::new()));
        let first = names.hold("a".into()).unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (names, order) = (&names, &order);
                scope.spawn(move || {
                    let _held = names.hold("a".into()).unwrap();
                    order.lock().unwrap().push(n);
                });
                while names.locked().of["a"].len() < n + 2 {
                    std::thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
        let held = names.hold("a".into()).unwrap();
        let late = names.hold("a".into()).err().unwrap();
        assert_eq!(late.kind(), cistern_model::ErrorKind::Unavailable);
        drop(held);
        assert!(names.locked().of.is_empty() && names.try_hold("a".into()).is_some());
    }
}
