//! Flushing the kernel's caches of answers so that what they hold is let go of, and not only no longer believed.
//!
//! Invariant: a flush comes in a later second than the one before it. The kernel keeps the time of the last flush in whole
//! seconds, and moves it into the future where a second already had one; it then believes no answer any more, but removes none
//! before that second has come and its next round is due, which can be half a minute. Until then each answer holds its path, and
//! what is mounted there cannot be unmounted (net/sunrpc/cache.c, write_flush and cache_clean, 6.12).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::file;
use super::{CACHES, flush};
use crate::HostError;

/// How often it is looked whether the second has come.
const LOOK: Duration = Duration::from_millis(10);
/// The longest wait for it: a clock that was set back would be waited for without end.
const LONGEST: Duration = Duration::from_millis(1500);

/// Who asked for the caches to be cleaned, and for whom they were.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    asked: AtomicU64,
    /// Up to which of those they were cleaned; held by the one who cleans.
    cleaned: Mutex<u64>,
}

impl Cleaning {
    /// Has the caches cleaned after this was asked for: those that wait meanwhile share one flush, so that many who ask at once
    /// wait about a second and not one second each.
    pub(super) fn clean(&self, operation: &str) -> Result<(), HostError> {
        self.once_for_all(|| {
            wait_for_a_new_second(operation)?;
            flush(operation)
        })
    }

    fn once_for_all(&self, clean: impl FnOnce() -> Result<(), HostError>) -> Result<(), HostError> {
        let own = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        if *cleaned >= own {
            return Ok(());
        }
        // Who asks from here on may have come too late for it.
        let covers = self.asked.load(Ordering::SeqCst);
        clean()?;
        *cleaned = covers;
        Ok(())
    }
}

fn wait_for_a_new_second(operation: &str) -> Result<(), HostError> {
    let mut last = 0;
    for cache in CACHES {
        let text = file::read_if_there(operation, format!("/proc/net/rpc/{cache}/flush"))?;
        last = last.max(seconds(text.as_deref().unwrap_or_default()));
    }
    let begun = Instant::now();
    while now() <= last && begun.elapsed() < LONGEST {
        thread::sleep(LOOK);
    }
    Ok(())
}

/// The second of the last flush, as the kernel tells it: of the wall clock.
fn seconds(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_share_one_cleaning_and_one_who_comes_during_it_gets_another() {
        let cleaning = Cleaning::default();
        let count = AtomicU64::new(0);
        let (inside, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                cleaning
                    .once_for_all(|| {
                        inside.wait();
                        go.wait();
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
            });
            inside.wait();
            for _ in 0..20 {
                scope.spawn(|| {
                    let once = || {
                        count.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    };
                    cleaning.once_for_all(once).unwrap();
                });
            }
            // All twenty have asked, and wait for the one that cleans.
            while cleaning.asked.load(Ordering::SeqCst) < 21 {
                thread::yield_now();
            }
            go.wait();
        });
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_cleaning_that_failed_counts_for_nobody() {
        let cleaning = Cleaning::default();
        let failed = || {
            Err(HostError::TimedOut {
                operation: "flush".to_owned(),
                limit: Duration::ZERO,
            })
        };
        assert!(cleaning.once_for_all(failed).is_err());
        let mut again = false;
        cleaning
            .once_for_all(|| {
                again = true;
                Ok(())
            })
            .unwrap();
        assert!(again);
    }
}
