//! Since when servers do not answer. Invariant: a silence is a time in which its server was asked again and again and never answered; who
//! did not ask for long does not know what it did meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After how long without a question a silence is another one. A kubelet that asks for something until it is done leaves at most 2 minutes
/// and 2 s between (`maxDurationBeforeRetry` in its exponentialbackoff.go), after an answer that takes at most 100 s (node.rs).
const UNASKED: Duration = Duration::from_secs(5 * 60);

/// A server's, from when it was first asked in vain until when it was last.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    seen: Instant,
}

/// The silences of all servers that a node knows of.
#[derive(Debug, Clone, Default)]
pub(super) struct Silences(Arc<Mutex<BTreeMap<IpAddr, Silence>>>);

impl Silences {
    /// A server has answered.
    pub(super) fn heard(&self, server: IpAddr) {
        self.all().remove(&server);
    }

    /// A server was asked from then on until now, and did not answer.
    pub(super) fn unheard(&self, server: IpAddr, from: Instant, now: Instant) {
        let mut all = self.all();
        let silence = all.entry(server).or_insert(Silence { since: from, seen: now });
        if from.saturating_duration_since(silence.seen) > UNASKED {
            silence.since = from;
        }
        silence.seen = silence.seen.max(now);
    }

    /// Since when a server is silent; none if it is not.
    pub(super) fn since(&self, server: IpAddr) -> Option<Instant> {
        self.all().get(&server).map(|silence| silence.since)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Silence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a look at a server that is silent takes.
    const LOOK: Duration = Duration::from_secs(15);

    #[test]
    fn a_time_in_which_nobody_asked_is_no_silence() {
        let (silences, server) = (Silences::default(), IpAddr::from([10, 0, 0, 5]));
        let first = Instant::now();
        silences.unheard(server, first, first + LOOK);
        // As a kubelet asks again, at its slowest.
        let mut now = first + LOOK;
        for _ in 0..10 {
            now += Duration::from_secs(100 + 122);
            silences.unheard(server, now, now + LOOK);
            now += LOOK;
            assert_eq!(silences.since(server), Some(first));
        }
        // The pod came back to the node, and went away again weeks later.
        let later = now + Duration::from_secs(3 * 7 * 86_400);
        silences.unheard(server, later, later + LOOK);
        assert_eq!(silences.since(server), Some(later));
    }

    #[test]
    fn whoever_answers_is_silent_no_more() {
        let silences = Silences::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 5]), IpAddr::from([10, 0, 0, 6]));
        let first = Instant::now();
        for server in [one, other] {
            silences.unheard(server, first, first + LOOK);
        }
        silences.heard(one);
        assert_eq!((silences.since(one), silences.since(other)), (None, Some(first)));
        let again = first + Duration::from_secs(60);
        silences.unheard(one, again, again + LOOK);
        assert_eq!(silences.since(one), Some(again));
    }
}
