//! Looks into filesystems whose server may be gone. Invariant: of each filesystem there is at most one look at a time: with the server
//! gone it waits, perhaps also when it was ended, and a kubelet asks again every minute.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mount::{Mounted, Mounts, Room};

/// How soon it is looked whether the one before has its answer.
const AGAIN: Duration = Duration::from_millis(20);

/// The filesystems that are being looked into, by their devices' numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<HashSet<String>>>);

/// While it lives, a filesystem is being looked into.
struct Looking {
    device: String,
    all: Looks,
}

impl Looks {
    /// How full the filesystem is that is mounted there; none if it does not say so within this time, or has
    /// not said yet what it was asked before.
    pub(crate) async fn at(&self, mounts: &Mounts, there: &Mounted, within: Duration) -> Option<io::Result<Room>> {
        let (mounts, target) = (mounts.clone(), there.target.clone());
        let seen = self.look(&there.device, within, async move { mounts.room(&target, within).await });
        seen.await
            .filter(|seen| !matches!(seen, Err(error) if error.kind() == io::ErrorKind::TimedOut))
    }

    async fn look<T: Send + 'static>(
        &self,
        device: &str,
        within: Duration,
        look: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let began = Instant::now();
        while !self.running().insert(device.to_owned()) {
            if began.elapsed() > within {
                return None;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let looking = Looking {
            device: device.to_owned(),
            all: self.clone(),
        };
        // It goes on when nobody waits for it any more.
        let answer = tokio::spawn(async move {
            let seen = look.await;
            drop(looking);
            seen
        });
        tokio::time::timeout(within.saturating_sub(began.elapsed()), answer)
            .await
            .ok()?
            .ok()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.all.running().remove(&self.device);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_asked_once_and_keeps_no_other_from_being_asked() {
        let looks = Looks::default();
        let (go, wait) = oneshot::channel::<()>();
        let short = Duration::from_millis(50);
        assert_eq!(looks.look("0:57", short, async move { wait.await.is_ok() }).await, None);
        for _ in 0..5 {
            assert_eq!(looks.look("0:57", short, async {}).await, None);
        }
        assert_eq!(looks.look("0:58", Duration::from_secs(5), async { 5 }).await, Some(5));
        go.send(()).unwrap();
        while looks.look("0:57", Duration::from_secs(5), async {}).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
