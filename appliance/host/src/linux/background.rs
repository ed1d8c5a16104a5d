//! The thread on which the bus and netlink are spoken: both crates are asynchronous, the traits are not.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::HostError;

/// A runtime of one thread.
#[derive(Debug)]
pub(super) struct Background(Runtime);

impl Background {
    pub(super) fn start() -> Result<Self, HostError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("host")
            .enable_all()
            .build();
        runtime.map(Background).map_err(|source| HostError::Io {
            operation: "start the host's thread".to_owned(),
            source,
        })
    }

    /// Runs a future there and waits for its end here; may be called on any thread but the runtime's own.
    pub(super) fn wait<T, F>(&self, operation: &str, limit: Duration, future: F) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HostError>> + Send + 'static,
    {
        let (send, receive) = mpsc::sync_channel(1);
        self.0.spawn(async move {
            // Nobody waits any more only if the caller's thread is gone.
            let _ = send.send(tokio::time::timeout(limit, future).await);
        });
        match receive.recv() {
            Ok(Ok(result)) => result,
            Ok(Err(_elapsed)) => Err(HostError::TimedOut {
                operation: operation.to_owned(),
                limit,
            }),
            Err(_) => Err(HostError::Io {
                operation: operation.to_owned(),
                source: io::Error::other("the host's thread is gone"),
            }),
        }
    }

    /// Runs a future there for as long as it lasts.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostErrorKind;

    #[test]
    fn a_wait_has_a_limit() {
        let background = Background::start().unwrap();
        let never = std::future::pending::<Result<(), HostError>>();
        let error = background.wait("test", Duration::from_millis(10), never).unwrap_err();
        assert_eq!(error.kind(), HostErrorKind::TimedOut);
    }

    #[test]
    fn it_can_be_waited_for_from_a_blocking_task_of_another_runtime() {
        let background = std::sync::Arc::new(Background::start().unwrap());
        let runtime = Runtime::new().unwrap();
        let same = background.clone();
        let answer = runtime.block_on(async move {
            let ask = move || same.wait("test", Duration::from_secs(5), async { Ok(7) });
            tokio::task::spawn_blocking(ask).await.unwrap()
        });
        assert_eq!(answer.unwrap(), 7);
    }
}
