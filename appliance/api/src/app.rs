//! What the handlers share, and the one way from an async handler to the blocking engine.
//!
//! Invariant: every call of the engine runs off the async threads and has a limit; a client that goes away, or a limit
//! that passes, does not stop a call that has begun. Whatever one token asks for, there are turns for the others, and for the appliance's
//! own root user.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cistern_engine::{Engine, EngineError};
use cistern_model::{ErrorKind, Owner, Principal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::extract::By;
use crate::health::Looks;
use crate::peer::PeerPolicy;
use crate::problem::Refusal;

/// How long an operation may keep its client waiting: mkfs and a mount on a slow disk fit in many times.
pub const OPERATION_LIMIT: Duration = Duration::from_secs(60);

/// How many operations run at one time; each holds a thread.
pub const OPERATIONS: usize = FOR_TOKENS + FOR_ONE;

/// How many of these are asked for with a token, by all together.
const FOR_TOKENS: usize = 32;

/// How many by one of them, and how many by the appliance itself: root and cistern-gate. As many as a cluster's plugin asks for at once
/// (`AT_ONCE` in csi/src/registry.rs): with fewer its nodes would wait behind the volumes that it has made and deleted.
const FOR_ONE: usize = 24;

/// How long an operation waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// How long one that makes a volume waits for its place: as many as a plugin asks for at once take less.
const PLACE_LIMIT: Duration = Duration::from_secs(30);

/// How many volumes are made in a pool at one time, by processors: more would not make them sooner, and the first as late as the last.
fn places() -> usize {
    std::thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 8))
}

/// Turns by a name, so many for each: who waits for those of one name keeps nobody waiting who goes by another.
#[derive(Clone)]
struct ByName {
    each: usize,
    turns: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl ByName {
    fn new(each: usize) -> Self {
        ByName {
            each,
            turns: Arc::default(),
        }
    }

    fn of(&self, name: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Where nobody is, or waits, nothing is to be known; and anything may have been named.
        turns.retain(|_, here| Arc::strong_count(here) > 1);
        let here = turns.entry(name.to_owned());
        Arc::clone(here.or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}

/// An operation's turn: the asker's own and, where it is asked for with a token, one of those of all tokens.
type Turn = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// What the handlers share. As a handler takes it, it is for who asks, whose turns its calls take.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Which users are whom.
    pub policy: PeerPolicy,
    /// Where cistern-gate answers root.
    pub gate_socket: PathBuf,
    pub(crate) health: Looks,
    /// By the tokens' names, which are as many owners; the appliance itself has none.
    own_turns: ByName,
    token_turns: Arc<Semaphore>,
    /// Where volumes are made, by the pool that was named.
    places: ByName,
    /// Whose token this is asked with; none: the appliance itself asks.
    asker: Option<Owner>,
    stopping: watch::Receiver<bool>,
}

impl FromRequestParts<App> for App {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let by = parts.extensions.get::<By>();
        // No token is called as root is. Without a principal it is cistern-gate that has something to tell.
        let token = by.filter(|By(by)| *by != Principal::local());
        Ok(App {
            asker: token.map(|By(by)| by.owner.clone()),
            ..app.clone()
        })
    }
}

impl App {
    /// Streams end when `stopping` is set.
    pub fn new(engine: Engine, policy: PeerPolicy, gate_socket: PathBuf, stopping: watch::Receiver<bool>) -> Self {
        App {
            engine,
            policy,
            gate_socket,
            health: Looks::default(),
            own_turns: ByName::new(FOR_ONE),
            token_turns: Arc::new(Semaphore::new(FOR_TOKENS)),
            places: ByName::new(places()),
            asker: None,
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
        let place = wait_for(&self.places.of(pool), Instant::now() + PLACE_LIMIT, others).await?;
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
        let turn = self.turn(what).await?;
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

    /// Waits for the asker's turn. For one of his own first: meanwhile he keeps none of all tokens' from the others.
    async fn turn(&self, what: &str) -> Result<Turn, Refusal> {
        let until = Instant::now() + TURN_LIMIT;
        let name = self.asker.as_ref().map(Owner::as_str);
        let yours = || format!("{what}: {FOR_ONE} operations that you asked for are under way; ask again");
        let own = wait_for(&self.own_turns.of(name.unwrap_or_default()), until, yours).await?;
        if name.is_none() {
            return Ok((own, None));
        }
        let others = || format!("{what}: {FOR_TOKENS} operations are under way; ask again");
        let shared = wait_for(&self.token_turns, until, others).await?;
        Ok((own, Some(shared)))
    }
}

/// Waits for one's turn, those who came before first; or tells why it has not come.
async fn wait_for(
    turns: &Arc<Semaphore>,
    until: Instant,
    others: impl FnOnce() -> String,
) -> Result<OwnedSemaphorePermit, Refusal> {
    match timeout_at(until, Arc::clone(turns).acquire_owned()).await {
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
