//! One call at a time for one thing: a second is told to come again (`ABORTED`), as CSI has it.
//!
//! Invariant: what was begun is done to its end, and nobody else works on it until then, also when the caller has gone or was told
//! that it takes too long: what an appliance or a kernel was asked for goes on all the same.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::{Response, Status};

/// What is being worked on.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Mutex<BTreeSet<String>>>);

/// While it lives, nobody else works on that.
#[derive(Debug)]
pub struct Working {
    on: String,
    all: InFlight,
}

impl InFlight {
    /// Begins to work on something.
    ///
    /// # Errors
    /// `ABORTED` if somebody does.
    pub fn begin(&self, on: &str) -> Result<Working, Status> {
        let begun = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(on.to_owned());
        match begun {
            true => Ok(Working {
                on: on.to_owned(),
                all: self.clone(),
            }),
            false => Err(Status::aborted(format!(
                "something is being done with {on}; ask again when that is done"
            ))),
        }
    }

    /// Works on something to the end, and answers what came of it, or within this time that it is not at its end.
    ///
    /// # Errors
    /// What the work says; `ABORTED` if somebody works on that; `DEADLINE_EXCEEDED` if it goes on.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        on: &str,
        within: Duration,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let working = self.begin(on)?;
        let task = tokio::spawn(async move {
            let _working = working;
            work.await
        });
        match tokio::time::timeout(within, task).await {
            Ok(Ok(done)) => done.map(Response::new),
            Ok(Err(error)) => Err(Status::internal(format!("the work on {on} ended badly: {error}"))),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the work on {on} is not at its end after {} s, and goes on; ask again",
                within.as_secs()
            ))),
        }
    }
}

/// What is only asked for, and answered within this time or not at all.
///
/// # Errors
/// What is answered; `DEADLINE_EXCEEDED` if nothing is.
pub async fn in_time<T>(
    within: Duration,
    asked: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s; ask again", within.as_secs()));
    tokio::time::timeout(within, asked)
        .await
        .map_err(late)?
        .map(Response::new)
}

impl Drop for Working {
    fn drop(&mut self) {
        self.all
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.on);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_works_on_it_until_it_is_done() {
        let all = InFlight::default();
        let working = all.begin("v").unwrap();
        assert!(all.begin("v").is_err() && all.begin("w").is_ok());
        drop(working);
        assert!(all.begin("v").is_ok());
    }

    #[tokio::test]
    async fn nobody_else_works_on_it_until_what_was_begun_has_ended() {
        let all = InFlight::default();
        let (go, wait) = oneshot::channel::<()>();
        let work = async move { wait.await.map_err(|_| Status::internal("lost")) };
        // The caller is told that it takes too long, or goes away.
        let late = all.to_its_end("v", SHORT, work).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let (go_too, wait_too) = oneshot::channel::<()>();
        let work = async move { wait_too.await.map_err(|_| Status::internal("lost")) };
        assert!(
            tokio::time::timeout(SHORT, all.to_its_end("w", LONG, work))
                .await
                .is_err()
        );
        for on in ["v", "w"] {
            let second = all.to_its_end(on, LONG, async { Ok(()) }).await.unwrap_err();
            assert_eq!(second.code(), Code::Aborted, "{on}");
        }
        go.send(()).unwrap();
        go_too.send(()).unwrap();
        for on in ["v", "w"] {
            while all.to_its_end(on, LONG, async { Ok(()) }).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    }
}
