//! What the handlers share, and the one way from an async handler to the blocking engine.
//!
//! Invariant: every call of the engine runs off the async threads and has a limit; a client that goes away, or a limit
//! that passes, does not stop a call that has begun.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cistern_engine::{Engine, EngineError};
use cistern_model::ErrorKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::peer::PeerPolicy;
use crate::problem::Refusal;

/// How long an operation may keep its client waiting: mkfs and a mount on a slow disk fit in many times.
pub const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// How many operations run at one time; each holds a thread.
pub const OPERATIONS: usize = 32;

/// How long an operation waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// How long one that makes a volume waits for its place: as many as a plugin asks for at once take less.
const PLACE_LIMIT: Duration = Duration::from_secs(30);

/// How many volumes are made in a pool at one time, by processors: more would not make them sooner, and the first as late as the last.
fn places() -> usize {
    std::thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 8))
}

/// Where volumes are made, by the pool that was named: what holds one pool up keeps no other's volumes waiting.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<String, Arc<Semaphore>>>>);

impl Places {
    fn of(&self, pool: &str) -> Arc<Semaphore> {
        let mut of = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nobody is, or waits, nothing is to be known; and anything may have been named.
        of.retain(|_, places| Arc::strong_count(places) > 1);
        let here = of.entry(pool.to_owned());
        Arc::clone(here.or_insert_with(|| Arc::new(Semaphore::new(places()))))
    }
}

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Which users are whom.
    pub policy: PeerPolicy,
    /// Where cistern-gate answers root.
    pub gate_socket: PathBuf,
    turns: Arc<Semaphore>,
    places: Places,
    stopping: watch::Receiver<bool>,
}

impl App {
    /// Streams end when `stopping` is set.
    pub fn new(engine: Engine, policy: PeerPolicy, gate_socket: PathBuf, stopping: watch::Receiver<bool>) -> Self {
        App {
            engine,
            policy,
            gate_socket,
            turns: Arc::new(Semaphore::new(OPERATIONS)),
            places: Places::default(),
            stopping,
        }
    }

    /// Becomes ready when the daemon stops.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Runs one operation that makes a volume in a pool, when those that came before have been made there but for a few. As
    /// [`App::call`] otherwise.
    pub(crate) async fn make<T, F>(&self, what: &str, pool: &str, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    {
        let others = || format!("{what}: others that came before are being made; ask again");
        let place = wait_for(&self.places.of(pool), PLACE_LIMIT, others).await?;
        self.call(what, move |engine| {
            let outcome = operation(engine);
            drop(place);
            outcome
        })
        .await
    }

    /// Runs one operation of the engine. `what` says it, for the message if its limit passes.
    pub(crate) async fn call<T, F>(&self, what: &str, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    {
        let others = || format!("{what}: {OPERATIONS} operations are under way; ask again");
        let turn = wait_for(&self.turns, TURN_LIMIT, others).await?;
        let engine = self.engine.clone();
        let running = tokio::task::spawn_blocking(move || {
            let outcome = operation(&engine);
            drop(turn);
            outcome
        });
        match timeout(OPERATION_LIMIT, running).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => {
                let problem = error.problem();
                if problem.kind == ErrorKind::Internal {
                    tracing::error!(error = %with_causes(&error), "{what}");
                }
                Err(problem.into())
            }
            Ok(Err(broken)) => {
                tracing::error!(error = %broken, "{what}");
                let detail = format!("{what} broke off; the journal of cisternd says where");
                Err(Refusal::new(ErrorKind::Internal, detail))
            }
            Err(_) => {
                tracing::error!("{what} takes longer than {} s", OPERATION_LIMIT.as_secs());
                let detail = format!(
                    "{what} takes longer than {} s and goes on; ask again",
                    OPERATION_LIMIT.as_secs()
                );
                Err(Refusal::new(ErrorKind::TimedOut, detail))
            }
        }
    }
}

/// Waits for one's turn, those who came before first; or tells why it has not come.
async fn wait_for(
    turns: &Arc<Semaphore>,
    limit: Duration,
    others: impl FnOnce() -> String,
) -> Result<OwnedSemaphorePermit, Refusal> {
    match timeout(limit, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(Refusal::new(ErrorKind::Unavailable, others()).retry_after(5)),
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
