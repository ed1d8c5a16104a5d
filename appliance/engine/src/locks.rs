//! Who works on what. Invariant: one operation at a time on a name; one LVM command at a time in a pool; nobody changes
//! LVM while the state is read as a whole. No lock but a name's own is held while a filesystem is made or unmounted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use cistern_model::PoolId;

use crate::EngineError;

/// How long a request waits for another one on the same name.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Names that are being worked on.
#[derive(Default)]
pub(crate) struct Names {
    held: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// A name that is held until this is dropped.
pub(crate) struct Held<'a> {
    names: &'a Names,
    name: String,
}

impl Names {
    fn locked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the name, with a limit.
    pub(crate) fn hold(&self, name: String) -> Result<Held<'_>, EngineError> {
        let deadline = Instant::now() + PATIENCE;
        let mut held = self.locked();
        while held.contains(&name) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(EngineError::Conflict(format!(
                    "{name} is still being worked on by another request; ask again later"
                )));
            }
            held = self
                .freed
                .wait_timeout(held, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        held.insert(name.clone());
        Ok(Held { names: self, name })
    }

    /// The name, unless somebody has it.
    pub(crate) fn try_hold(&self, name: String) -> Option<Held<'_>> {
        let fresh = self.locked().insert(name.clone());
        fresh.then_some(Held { names: self, name })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.names.locked().remove(&self.name);
        self.names.freed.notify_all();
    }
}

/// The right to change LVM's metadata.
#[derive(Default)]
pub(crate) struct LvmLocks {
    world: RwLock<()>,
    pools: Mutex<HashMap<PoolId, Arc<Mutex<()>>>>,
}

impl LvmLocks {
    /// Runs `body` while nobody else changes this pool, and nobody reads the state as a whole.
    pub(crate) fn change<T>(&self, pool: PoolId, body: impl FnOnce() -> T) -> T {
        let _world: RwLockReadGuard<'_, ()> = self.world.read().unwrap_or_else(PoisonError::into_inner);
        let lock = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools.entry(pool).or_default().clone()
        };
        let _pool = lock.lock().unwrap_or_else(PoisonError::into_inner);
        body()
    }

    /// Nobody changes anything while this is held.
    pub(crate) fn still(&self) -> RwLockWriteGuard<'_, ()> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, pool: PoolId) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(&pool);
    }
}

/// What is under way, for the watchdog: each call of the host's has a limit, so an operation that is far beyond the sum
/// of its steps' limits has met a deadlock.
#[derive(Default)]
pub(crate) struct Operations {
    running: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

/// An operation that runs until this is dropped.
pub(crate) struct Operation<'a> {
    operations: &'a Operations,
    number: u64,
}

impl Operations {
    fn locked(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins that must end within `limit`.
    pub(crate) fn begin(&self, limit: Duration) -> Operation<'_> {
        let mut running = self.locked();
        running.0 += 1;
        let number = running.0;
        running.1.insert(number, Instant::now() + limit);
        Operation {
            operations: self,
            number,
        }
    }

    /// Whether all are within their limits.
    pub(crate) fn in_time(&self) -> bool {
        let now = Instant::now();
        self.locked().1.values().all(|deadline| *deadline > now)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.operations.locked().1.remove(&self.number);
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
    fn an_operation_beyond_its_limit_is_noticed_until_it_ends() {
        let operations = Operations::default();
        let _good = operations.begin(Duration::from_secs(60));
        assert!(operations.in_time());
        let stuck = operations.begin(Duration::ZERO);
        assert!(!operations.in_time());
        drop(stuck);
        assert!(operations.in_time());
    }
}
