//! How the appliance is, for whoever asks. Invariant: it is looked at by one at a time and at most once a second, however many ask and
//! whether they wait for the answer or not: a look asks systemd, and who needs no token is limited by nothing else. No turn is needed for
//! it: an appliance with much to do is not ill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cistern_engine::{Engine, Health};
use cistern_model::ErrorKind;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::app::OPERATION_LIMIT;
use crate::problem::Refusal;

/// For how long a look holds.
const HOLDS: Duration = Duration::from_secs(1);

/// What the last look saw, and when it ended.
type Seen = Option<(Instant, Health)>;

/// The looks at the health.
#[derive(Clone)]
pub(crate) struct Looks {
    seen: watch::Sender<Seen>,
    /// Who looks has it.
    eye: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Looks {
            seen: watch::Sender::default(),
            eye: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Looks {
    /// How the appliance is, as of a second ago at most.
    pub(crate) async fn now(&self, engine: &Engine) -> Result<Health, Refusal> {
        let asked = Instant::now();
        let mut seen = self.seen.subscribe();
        let known = holds(&seen.borrow(), asked);
        // Else another one looks, and what he sees is as good.
        if !known && let Ok(eye) = Arc::clone(&self.eye).try_acquire_owned() {
            let (engine, sender) = (engine.clone(), self.seen.clone());
            tokio::task::spawn_blocking(move || {
                let health = engine.health();
                sender.send_replace(Some((Instant::now(), health)));
                drop(eye);
            });
        }
        let seen = timeout(OPERATION_LIMIT, seen.wait_for(|seen| holds(seen, asked))).await;
        let health = seen.ok().and_then(|seen| Some(seen.ok()?.as_ref()?.1.clone()));
        health.ok_or_else(|| {
            let limit = OPERATION_LIMIT.as_secs();
            let detail = format!("looking at the health takes longer than {limit} s and goes on; ask again");
            Refusal::new(ErrorKind::TimedOut, detail)
        })
    }
}

/// Whether what was seen is good enough for who asks at this time.
fn holds(seen: &Seen, asked: Instant) -> bool {
    let age = |at: Instant| asked.saturating_duration_since(at);
    seen.as_ref().is_some_and(|(at, _)| age(*at) < HOLDS)
}
