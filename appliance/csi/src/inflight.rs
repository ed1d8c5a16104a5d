//! One call at a time for one thing: a second is told to come again (`ABORTED`), as CSI has it. One that comes when the first was answered
//! that its work goes on waits for that work, and has its outcome if it asks the same: a sidecar that is sent away comes back later each time,
//! and what it asks for anew is behind all that was asked for meanwhile.
//!
//! Invariant: what was begun is done to its end, and nobody else works on it until then, also when the caller has gone or was told
//! that it takes too long: what an appliance or a kernel was asked for goes on all the same.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

/// What is being worked on.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Mutex<BTreeMap<String, Work>>>);

/// What somebody asked for, or what came of it.
type Something = Arc<dyn Any + Send + Sync>;

/// Work on one thing.
#[derive(Debug)]
struct Work {
    asked: Something,
    /// Whether a call waits for it.
    attended: Arc<AtomicBool>,
    /// Closed when it ends; if that is well, with what came of it.
    ended: watch::Receiver<Option<Something>>,
}

/// While it lives, nobody else works on that.
#[derive(Debug)]
struct Working {
    on: String,
    all: InFlight,
    done: Option<Something>,
    ends: watch::Sender<Option<Something>>,
}

/// While it lives, a call waits for a work.
#[derive(Debug)]
struct Attending(Arc<AtomicBool>);

/// Why nobody can begin to work on something.
enum Busy {
    /// A call waits for the work on it.
    Attended,
    /// None did, and whoever asked does now.
    Left(Attending, Left),
}

/// Work that nobody waited for.
struct Left {
    asked: Something,
    ended: watch::Receiver<Option<Something>>,
}

impl Left {
    /// When it has ended: what came of it, if it ended well and was asked for in the same words.
    async fn outcome<Q: PartialEq + 'static, T: Clone + 'static>(mut self, asked: &Q) -> Option<T> {
        let done = self.ended.wait_for(Option::is_some).await.ok()?.clone()?;
        let same = self.asked.downcast_ref::<Q>()? == asked;
        done.downcast_ref::<T>().filter(|_| same).cloned()
    }
}

impl InFlight {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, on: &str, asked: &Something) -> Result<(Attending, Working), Busy> {
        let mut all = self.all();
        if let Some(work) = all.get(on) {
            return Err(match work.attended.swap(true, Ordering::SeqCst) {
                true => Busy::Attended,
                false => {
                    let left = Left {
                        asked: work.asked.clone(),
                        ended: work.ended.clone(),
                    };
                    Busy::Left(Attending(work.attended.clone()), left)
                }
            });
        }
        let (ends, ended) = watch::channel(None);
        let attended = Arc::new(AtomicBool::new(true));
        let work = Work {
            asked: asked.clone(),
            attended: attended.clone(),
            ended,
        };
        all.insert(on.to_owned(), work);
        let working = Working {
            on: on.to_owned(),
            all: self.clone(),
            done: None,
            ends,
        };
        Ok((Attending(attended), working))
    }

    /// Works on something to the end, and answers what came of it, or within this time that it is not at its end. What is being worked on
    /// for nobody any more is waited for first; if that was `asked` for in the same words and ends well, its outcome is the answer.
    ///
    /// # Errors
    /// What the work says; `ABORTED` if a call waits for work on that; `DEADLINE_EXCEEDED` if it goes on.
    pub async fn to_its_end<Q: PartialEq + Send + Sync + 'static, T: Clone + Send + Sync + 'static>(
        &self,
        on: &str,
        within: Duration,
        asked: Q,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let until = Instant::now() + within;
        let late = |_| {
            Status::deadline_exceeded(format!(
                "the work on {on} is not at its end after {} s, and goes on; ask again",
                within.as_secs()
            ))
        };
        let asked = Arc::new(asked);
        let something: Something = asked.clone();
        let (_attending, mut working) = loop {
            match self.begin(on, &something) {
                Ok(begun) => break begun,
                Err(Busy::Left(_attending, left)) => {
                    if let Some(done) = timeout_at(until, left.outcome(&*asked)).await.map_err(late)? {
                        return Ok(Response::new(done));
                    }
                }
                Err(Busy::Attended) => {
                    return Err(Status::aborted(format!(
                        "something is being done with {on}; ask again when that is done"
                    )));
                }
            }
        };
        let task = tokio::spawn(async move {
            let outcome = work.await;
            if let Ok(done) = &outcome {
                let done: Something = Arc::new(T::clone(done));
                working.done = Some(done);
            }
            drop(working);
            outcome
        });
        match timeout_at(until, task).await.map_err(late)? {
            Ok(done) => done.map(Response::new),
            Err(error) => Err(Status::internal(format!("the work on {on} ended badly: {error}"))),
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
        // Whoever waits for it finds it gone.
        self.all.all().remove(&self.on);
        self.ends.send_replace(self.done.take());
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tonic::Code;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);

    async fn until(go: oneshot::Receiver<()>) -> Result<(), Status> {
        go.await.map_err(|_| Status::internal("lost"))
    }

    #[tokio::test]
    async fn one_call_at_a_time_works_on_it() {
        let all = InFlight::default();
        let (go, wait) = oneshot::channel();
        let it = all.clone();
        let first = tokio::spawn(async move { it.to_its_end("v", LONG, (), until(wait)).await });
        while all.all().is_empty() {
            tokio::task::yield_now().await;
        }
        let second = all.to_its_end("v", LONG, (), async { Ok(()) }).await.unwrap_err();
        assert_eq!(second.code(), Code::Aborted);
        all.to_its_end("w", LONG, (), async { Ok(()) }).await.unwrap();
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        all.to_its_end("v", LONG, (), async { Ok(()) }).await.unwrap();
        assert!(all.all().is_empty());
    }

    #[tokio::test]
    async fn what_goes_on_for_nobody_is_waited_for_by_one_call() {
        let all = InFlight::default();
        let (go, wait) = oneshot::channel();
        // One caller is told that it takes too long, the other goes away.
        let late = all.to_its_end("v", SHORT, (), until(wait)).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let (go_too, wait_too) = oneshot::channel();
        let gone = tokio::time::timeout(SHORT, all.to_its_end("w", LONG, (), until(wait_too))).await;
        assert!(gone.is_err());
        let mut ends = Vec::new();
        for on in ["v", "w"] {
            let done = Arc::new(AtomicBool::new(false));
            let noted = done.clone();
            let again = all.to_its_end(on, SHORT, (), async move {
                noted.store(true, Ordering::SeqCst);
                Ok(())
            });
            assert_eq!(again.await.unwrap_err().code(), Code::DeadlineExceeded, "{on}");
            assert!(!done.load(Ordering::SeqCst), "{on} was worked on by two");
            let it = all.clone();
            ends.push(tokio::spawn(async move {
                it.to_its_end(on, LONG, (), async { Ok(()) }).await
            }));
            while !all.all()[on].attended.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            let third = all.to_its_end(on, LONG, (), async { Ok(()) }).await.unwrap_err();
            assert_eq!(third.code(), Code::Aborted, "{on}");
        }
        go.send(()).unwrap();
        go_too.send(()).unwrap();
        for end in ends {
            end.await.unwrap().unwrap();
        }
        assert!(all.all().is_empty());
    }

    #[tokio::test]
    async fn who_asks_again_in_the_same_words_has_the_outcome_of_what_went_on_and_anybody_else_his_own() {
        for (asked, ends_well, expected) in [("size 1", true, 1), ("size 2", true, 2), ("size 1", false, 2)] {
            let all = InFlight::default();
            let (go, wait) = oneshot::channel();
            let work = async move {
                until(wait).await?;
                ends_well.then_some(1).ok_or_else(|| Status::internal("it failed"))
            };
            all.to_its_end("v", SHORT, "size 1", work).await.unwrap_err();
            let again = all.to_its_end("v", LONG, asked, async { Ok(2) });
            let (answer, ()) = tokio::join!(again, async { go.send(()).unwrap() });
            assert_eq!(answer.unwrap().into_inner(), expected, "{asked} {ends_well}");
        }
    }
}
