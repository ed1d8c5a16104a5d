//! The places of the connections from the network. Invariant: no more are taken than the limits allow, and a connection whose
//! latest request showed a valid token never gives way to another.
//!
//! Not here: what a valid token is, and how a connection is served.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::limits::source_of;

/// How often it is told that all places are taken, which anybody can bring about any number of times.
const TELL_OF_FULL: Duration = Duration::from_secs(60);

/// All places.
pub(crate) struct Places {
    all: usize,
    per_source: usize,
    /// In the order in which they were taken. One that only this list still has is free again.
    taken: Vec<Arc<Place>>,
    told: Option<Instant>,
}

/// The place of one connection, which has it until it drops this.
pub(crate) struct Place {
    source: IpAddr,
    token_shown: AtomicBool,
    given_away: Notify,
}

impl Place {
    /// Whether the connection's latest request showed a valid token. Each says it anew, so that a token that was deleted keeps
    /// no place.
    pub(crate) fn shows_token(&self, valid: bool) {
        self.token_shown.store(valid, Ordering::Relaxed);
    }

    /// Ends when the place was given to another connection: this one is to end at once then.
    pub(crate) async fn given_away(&self) {
        self.given_away.notified().await;
    }
}

impl Places {
    /// So many at one time, and of these so many for one source.
    pub(crate) fn new(all: usize, per_source: usize) -> Self {
        Places {
            all,
            per_source,
            taken: Vec::new(),
            told: None,
        }
    }

    /// A place for a connection from this address. Where none is free, one that shows no token is given away for it; none if
    /// all show one.
    pub(crate) fn enter(&mut self, address: IpAddr) -> Option<Arc<Place>> {
        let source = source_of(address);
        self.taken.retain(|place| Arc::strong_count(place) > 1);
        let of_source = self.taken.iter().filter(|place| place.source == source).count();
        let full = if of_source >= self.per_source {
            Some((Some(source), "one source may have"))
        } else if self.taken.len() >= self.all {
            Some((None, "there may be"))
        } else {
            None
        };
        if let Some((only, limit)) = full {
            if self.told.is_none_or(|told| told.elapsed() >= TELL_OF_FULL) {
                self.told = Some(Instant::now());
                tracing::warn!(%address, "as many connections are open as {limit}; this is told once a minute");
            }
            let at = self.first_to_go(only)?;
            self.taken.remove(at).given_away.notify_one();
        }
        let place = Arc::new(Place {
            source,
            token_shown: AtomicBool::new(false),
            given_away: Notify::new(),
        });
        self.taken.push(Arc::clone(&place));
        Some(place)
    }

    /// Which one gives way, if `only` this source or any may: the oldest without a token, of the source that has the most of
    /// those. So a newcomer, who can show its token only after the handshake, is safe from sources that have more open than its
    /// own, however fast they connect: to keep token holders out takes as many sources as there are places. (A share kept for
    /// sources of which a token came lately would need a memory of them, and would shut out who is new or has moved.)
    fn first_to_go(&self, only: Option<IpAddr>) -> Option<usize> {
        let without: Vec<(usize, IpAddr)> = self
            .taken
            .iter()
            .enumerate()
            .filter(|(_, place)| only.is_none_or(|only| place.source == only))
            .filter(|(_, place)| !place.token_shown.load(Ordering::Relaxed))
            .map(|(at, place)| (at, place.source))
            .collect();
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        for (_, source) in &without {
            *of.entry(*source).or_insert(0) += 1;
        }
        // The first of equals is the oldest.
        let first = without.iter().min_by_key(|(_, source)| Reverse(of.get(source)));
        first.map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn gone(place: &Place) -> bool {
        place.given_away().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_without_a_token_gives_way_and_who_shows_one_does_not() {
        let mut places = Places::new(3, 3);
        let [first, second, third] = [1, 2, 3].map(|n| places.enter(address(n)).unwrap());
        first.shows_token(true);
        let fourth = places.enter(address(4)).unwrap();
        assert_eq!([&first, &second, &third].map(|p| gone(p)), [false, true, false]);
        third.shows_token(true);
        fourth.shows_token(true);
        assert!(places.enter(address(5)).is_none(), "all show a token");
        third.shows_token(false);
        assert!(places.enter(address(5)).is_some(), "one does so no longer");
        assert_eq!([&first, &third, &fourth].map(|p| gone(p)), [false, true, false]);
    }

    #[test]
    fn a_source_that_has_as_many_as_it_may_makes_room_for_itself() {
        let mut places = Places::new(9, 2);
        let other = places.enter(address(1)).unwrap();
        let [first, second] = [2, 2].map(|n| places.enter(address(n)).unwrap());
        let third = places.enter(address(2)).unwrap();
        assert_eq!([&other, &first, &second].map(|p| gone(p)), [false, true, false]);
        second.shows_token(true);
        third.shows_token(true);
        assert!(places.enter(address(2)).is_none());
        assert!(places.enter(address(3)).is_some());
        assert!(!gone(&other));
    }

    #[test]
    fn a_few_sources_do_not_displace_a_newcomer_however_often_they_connect() {
        let mut places = Places::new(8, 4);
        let mut held: Vec<_> = (0..8).map(|n| places.enter(address(n % 2)).unwrap()).collect();
        let newcomer = places.enter(address(9)).unwrap();
        held.extend((0..100).map(|n| places.enter(address(n % 2)).unwrap()));
        assert!(!gone(&newcomer));
        assert_eq!(places.taken.len(), 8);
    }

    #[test]
    fn the_place_of_a_connection_that_has_ended_is_free() {
        let mut places = Places::new(1, 1);
        let first = places.enter(address(1)).unwrap();
        first.shows_token(true);
        assert!(places.enter(address(2)).is_none());
        drop(first);
        assert!(places.enter(address(2)).is_some());
    }
}
