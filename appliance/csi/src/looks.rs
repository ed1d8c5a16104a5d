//! Looks into filesystems whose server may be gone. Invariant: of each filesystem there is at most one look at a time, in a thread of
//! its own: with the server gone it hangs until that is back, and a kubelet asks again every minute.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use tokio::sync::oneshot;

/// How soon it is looked whether the one before has its answer.
const AGAIN: Duration = Duration::from_millis(20);

/// The filesystems that are being looked into, by their devices' numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<HashSet<String>>>);

impl Looks {
    /// How full the filesystem at a path is; none if it does not say so within this time, or has
    /// not said yet what it was asked before.
    pub(crate) async fn at(&self, device: &str, path: PathBuf, within: Duration) -> Option<Result<Statvfs, Errno>> {
        self.look(device, within, move || statvfs(&path)).await
    }

    async fn look<T: Send + 'static>(
        &self,
        device: &str,
        within: Duration,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let began = Instant::now();
        while !self.running().insert(device.to_owned()) {
            if began.elapsed() > within {
                return None;
            }
            tokio::time::sleep(AGAIN).await;
        }
        let (sender, answer) = oneshot::channel();
        let (all, own) = (self.clone(), device.to_owned());
        let started = thread::Builder::new().name("look".to_owned()).spawn(move || {
            let seen = look();
            all.running().remove(&own);
            // Nobody may be waiting any more.
            let _ = sender.send(seen);
        });
        if started.is_err() {
            self.running().remove(device);
            return None;
        }
        tokio::time::timeout(within.saturating_sub(began.elapsed()), answer)
            .await
            .ok()?
            .ok()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_asked_once_and_keeps_no_other_from_being_asked() {
        let looks = Looks::default();
        let (go, wait) = mpsc::channel::<()>();
        let short = Duration::from_millis(50);
        assert_eq!(looks.look("0:57", short, move || wait.recv().is_ok()).await, None);
        for _ in 0..5 {
            assert_eq!(looks.look("0:57", short, || ()).await, None);
        }
        assert_eq!(looks.look("0:58", Duration::from_secs(5), || 5).await, Some(5));
        go.send(()).unwrap();
        while looks.look("0:57", Duration::from_secs(5), || ()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
