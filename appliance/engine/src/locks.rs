//! Who works on what; on which name: `names`. Invariant: one LVM command at a time in a pool; nobody changes LVM while the
//! state is read as a whole. No lock but a name's own is held while a filesystem is made or unmounted.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cistern_model::PoolId;

use crate::EngineError;
use crate::names::{PATIENCE, Queues};

/// A command of LVM's that runs for longer is one that may take an hour: a check of a pool's metadata, the removal of a
/// volume of terabytes. Who waits to read the state then lets the changes of other pools go first.
const LONG: Duration = Duration::from_secs(5);
/// The longest that the host lets a command run, and what it takes to end it; but for moving all of a disk.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

thread_local! {
    static PATIENT: Cell<u32> = const { Cell::new(0) };
    /// How many operations are under way on this thread.
    static UNDER_WAY: Cell<u32> = const { Cell::new(0) };
    /// Whether they have changed something.
    static BEGUN: Cell<bool> = const { Cell::new(false) };
    /// The pools whose turn this thread has.
    static TURNS: RefCell<Vec<PoolId>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, this thread waits for a pool however long a command there takes: nobody waits for what it does, and it is not asked
/// again.
pub(crate) struct Patiently(());

impl Patiently {
    pub(crate) fn begin() -> Self {
        PATIENT.with(|depth| depth.set(depth.get() + 1));
        Patiently(())
    }
}

impl Drop for Patiently {
    fn drop(&mut self) {
        PATIENT.with(|depth| depth.set(depth.get() - 1));
    }
}

/// The right to change LVM's metadata.
#[derive(Default)]
pub(crate) struct LvmLocks {
    world: Mutex<World>,
    changed: Condvar,
}

#[derive(Default)]
struct World {
    /// Who is at a pool, and who waits for it.
    pools: Queues<PoolId>,
    /// The changes that are under way, each with its begin.
    changes: BTreeMap<PoolId, Instant>,
    readers_waiting: usize,
    reading: bool,
}

impl World {
    fn is_at_length(&self) -> bool {
        let long = |begun: &Instant| (LONG..LONGEST).contains(&begun.elapsed());
        self.changes.values().any(long)
    }

    /// For how long a command has been at a pool, if that is longer than a request waits for anything.
    fn is_kept(&self, pool: PoolId) -> Option<Duration> {
        let taken = self.changes.get(&pool)?.elapsed();
        (taken >= PATIENCE).then_some(taken)
    }
}

/// Nobody changes anything while this is held.
pub(crate) struct Still<'a>(&'a LvmLocks);

struct Changing<'a> {
    locks: &'a LvmLocks,
    /// None within a turn.
    pools: Vec<PoolId>,
    number: u64,
}

/// The turn at some pools: this thread's changes there come one after another, and nobody else's between them.
pub(crate) struct Turn<'a> {
    _changing: Changing<'a>,
    /// It is the thread's.
    _here: PhantomData<*const ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        TURNS.with_borrow_mut(Vec::clear);
    }
}

/// Whether this thread has a turn: then it may not wait for a moment at which nobody changes anything.
pub(crate) fn has_turn() -> bool {
    TURNS.with_borrow(|turns| !turns.is_empty())
}

impl LvmLocks {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` while nobody else changes this pool, and nobody reads the state as a whole.
    ///
    /// # Errors
    /// `Unavailable`, and nothing was run, if a command has been at this pool for longer than a request waits for anything, such as one
    /// that removes terabytes: who waits for it would keep others from their turn. Not for a thread that is [`Patiently`] at work, nor
    /// within an operation that has changed something: what was begun is not to be broken off for that.
    pub(crate) fn change<T>(&self, pool: PoolId, body: impl FnOnce() -> T) -> Result<T, EngineError> {
        let _changing = match TURNS.with_borrow(|turns| turns.contains(&pool)) {
            true => Changing {
                locks: self,
                pools: Vec::new(),
                number: 0,
            },
            false => self.begin(vec![pool])?,
        };
        Ok(body())
    }

    /// Has the turn at all of these pools, for as long as what this gives back lives. Nothing that reads the state as a whole may be
    /// called meanwhile, nor a turn be asked for: two that have one would wait for each other.
    ///
    /// # Errors
    /// As [`LvmLocks::change`].
    pub(crate) fn turn(&self, pools: BTreeSet<PoolId>) -> Result<Turn<'_>, EngineError> {
        let changing = self.begin(pools.into_iter().collect())?;
        TURNS.with_borrow_mut(|turns| turns.extend(&changing.pools));
        Ok(Turn {
            _changing: changing,
            _here: PhantomData,
        })
    }

    fn begin(&self, pools: Vec<PoolId>) -> Result<Changing<'_>, EngineError> {
        let patient = PATIENT.with(Cell::get) > 0 || BEGUN.with(Cell::get);
        let mut world = self.world();
        let number = world.pools.join_all(&pools);
        loop {
            let behind = pools.iter().find(|pool| !world.pools.is_first(pool, number));
            if behind.is_none() && !world.reading && (world.readers_waiting == 0 || world.is_at_length()) {
                break;
            }
            if let Some(pool) = behind
                && !patient
                && let Some(taken) = world.is_kept(*pool)
            {
                pools.iter().for_each(|pool| world.pools.leave(pool, number));
                drop(world);
                self.changed.notify_all();
                return Err(EngineError::Unavailable(format!(
                    "a command that takes long has been at {pool} for {} s; ask again when it has ended",
                    taken.as_secs()
                )));
            }
            // With a limit: that something is long already is told by nobody.
            let waited = self.changed.wait_timeout(world, LONG / 5);
            world = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = Instant::now();
        world.changes.extend(pools.iter().map(|pool| (*pool, now)));
        drop(world);
        BEGUN.set(UNDER_WAY.get() > 0);
        Ok(Changing {
            locks: self,
            pools,
            number,
        })
    }

    /// Nobody changes anything while what this gives back is held.
    pub(crate) fn still(&self) -> Still<'_> {
        let mut world = self.world();
        world.readers_waiting += 1;
        while world.reading || !world.changes.is_empty() {
            world = self.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        world.readers_waiting -= 1;
        world.reading = true;
        Still(self)
    }

    /// Whether a command runs that has taken long and may take longer: whoever waits for it is not stuck.
    pub(crate) fn is_at_length(&self) -> bool {
        self.world().is_at_length()
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.world().reading = false;
        self.0.changed.notify_all();
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut world = self.locks.world();
        for pool in &self.pools {
            world.changes.remove(pool);
            world.pools.leave(pool, self.number);
        }
        drop(world);
        self.locks.changed.notify_all();
    }
}

/// What is under way, for the watchdog: each call of the host's has a limit, so an operation that is far beyond the sum
/// of its steps' limits has met a deadlock. What a command of LVM's takes that is at length counts for nobody: it may be
/// an hour, and anybody may have waited for it.
#[derive(Default)]
pub(crate) struct Operations {
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    number: u64,
    deadlines: BTreeMap<u64, Instant>,
    /// When it was last asked whether all are in time.
    looked: Option<Instant>,
}

/// An operation that runs until this is dropped, on the thread that began it.
pub(crate) struct Operation<'a> {
    operations: &'a Operations,
    number: u64,
    _here: PhantomData<*const ()>,
}

impl Operations {
    fn locked(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins that must end within `limit`.
    pub(crate) fn begin(&self, limit: Duration) -> Operation<'_> {
        let mut running = self.locked();
        running.number += 1;
        let number = running.number;
        running.deadlines.insert(number, Instant::now() + limit);
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        Operation {
            operations: self,
            number,
            _here: PhantomData,
        }
    }

    /// Whether all are within their limits. With `standing` the time since this was asked last counts for nobody.
    pub(crate) fn in_time(&self, standing: bool) -> bool {
        let now = Instant::now();
        let mut running = self.locked();
        let last = running.looked.replace(now).unwrap_or(now);
        if standing {
            let since = now.duration_since(last).max(LONG);
            running.deadlines.values_mut().for_each(|deadline| *deadline += since);
        }
        standing || running.deadlines.values().all(|deadline| *deadline > now)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.operations.locked().deadlines.remove(&self.number);
        UNDER_WAY.set(UNDER_WAY.get() - 1);
        if UNDER_WAY.get() == 0 {
            BEGUN.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn pool(number: u128) -> PoolId {
        PoolId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn nothing_changes_while_the_state_is_read_and_one_change_at_a_time_is_at_a_pool() {
        let (locks, inside) = (LvmLocks::default(), AtomicU32::new(0));
        let pools = [pool(1), pool(2)];
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (locks, inside, id) = (&locks, &inside, pools[n % 2]);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let changed = locks.change(id, || {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                        changed.unwrap();
                        let _still = locks.still();
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                    }
                });
            }
        });
    }

    #[test]
    fn while_a_command_takes_long_other_pools_are_changed_and_nobody_counts_as_stuck() {
        let (locks, operations) = (LvmLocks::default(), Operations::default());
        let _waiting = operations.begin(LONG / 5);
        let (begun, other) = (Instant::now(), Mutex::new(None));
        let ending = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| locks.change(pool(1), || ending.wait()).map(drop));
            while locks.world().changes.is_empty() {
                std::thread::yield_now();
            }
            scope.spawn(|| drop(locks.still()));
            while locks.world().readers_waiting == 0 {
                std::thread::yield_now();
            }
            let changed = locks.change(pool(2), || {
                *other.lock().unwrap() = Some(begun.elapsed());
                assert!(operations.in_time(locks.is_at_length()));
            });
            changed.unwrap();
            // A request does not wait for it, and who does what nobody asked for does.
            let request = scope.spawn(|| {
                assert!(locks.change(pool(1), || ()).is_err());
                assert!(locks.turn(BTreeSet::from([pool(1), pool(3)])).is_err());
            });
            request.join().unwrap();
            // Nor does one that is in the middle give up.
            scope.spawn(|| {
                let _operation = operations.begin(LONG);
                locks.change(pool(3), || ()).unwrap();
                locks.change(pool(1), || ()).unwrap();
            });
            scope.spawn(|| {
                let _patiently = Patiently::begin();
                locks.change(pool(1), || ()).unwrap();
            });
            while locks.world().pools.of[&pool(1)].len() < 3 {
                std::thread::yield_now();
            }
            ending.wait();
        });
        let taken = other.lock().unwrap().unwrap();
        assert!((LONG..LONG * 3).contains(&taken), "{taken:?}");
        // What it took is counted for nobody.
        assert!(operations.in_time(locks.is_at_length()));
    }

    #[test]
    fn within_a_turn_nobody_else_changes_its_pools() {
        let (locks, steps) = (LvmLocks::default(), Mutex::new(Vec::new()));
        let (both, pools) = (BTreeSet::from([pool(1), pool(2)]), [pool(1), pool(2)]);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (locks, steps, both) = (&locks, &steps, both.clone());
                scope.spawn(move || {
                    for _ in 0..20 {
                        let turn = locks.turn(both.clone()).unwrap();
                        assert!(has_turn());
                        for id in pools {
                            locks.change(id, || steps.lock().unwrap().push(n)).unwrap();
                            std::thread::yield_now();
                        }
                        drop(turn);
                        assert!(!has_turn());
                        locks.change(pools[n % 2], || ()).unwrap();
                        drop(locks.still());
                    }
                });
            }
        });
        let steps = steps.into_inner().unwrap();
        assert!(
            steps.len() == 160 && steps.chunks(2).all(|pair| pair[0] == pair[1]),
            "{steps:?}"
        );
        assert!(locks.world().pools.of.is_empty() && locks.world().changes.is_empty());
    }

    #[test]
    fn an_operation_beyond_its_limit_is_noticed_until_it_ends() {
        let operations = Operations::default();
        let _good = operations.begin(Duration::from_secs(60));
        assert!(operations.in_time(false));
        let stuck = operations.begin(Duration::ZERO);
        assert!(!operations.in_time(false));
        drop(stuck);
        assert!(operations.in_time(false));
    }
}
