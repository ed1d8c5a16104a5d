//! How often a source may fail. Invariant: memory is bounded however many sources there are, and who holds a valid token
//! is never kept out by the failures of others behind the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// More sources than this at one time are counted together.
const MOST_SOURCES: usize = 4096;

/// A number of failures at once, and then one in each interval.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// After that, one in each of these.
    pub every: Duration,
}

/// Counts failures by source.
pub struct Limiter {
    rate: Rate,
    sources: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// When all of it will have flowed off, as in the generic cell rate algorithm.
    empty_at: Instant,
}

/// A source has failed too often: how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// In whole seconds, at least 1.
    pub seconds: u64,
}

impl Limiter {
    /// With this rate for each source.
    pub fn new(rate: Rate) -> Self {
        Limiter {
            rate,
            sources: Mutex::new(HashMap::new()),
        }
    }

    /// Whether the source may try now; changes nothing.
    pub fn check(&self, source: IpAddr, now: Instant) -> Result<(), Wait> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.get(&counted_as(&sources, source)) {
            Some(bucket) => self.judge(*bucket, now),
            None => Ok(()),
        }
    }

    /// Counts a failure.
    pub fn failed(&self, source: IpAddr, now: Instant) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= MOST_SOURCES {
            sources.retain(|_, b| b.empty_at > now);
        }
        let key = counted_as(&sources, source);
        let bucket = sources.entry(key).or_insert(Bucket { empty_at: now });
        bucket.empty_at = bucket.empty_at.max(now) + self.rate.every;
    }

    fn judge(&self, bucket: Bucket, now: Instant) -> Result<(), Wait> {
        let filled = bucket.empty_at.saturating_duration_since(now);
        let room = self.rate.every * self.rate.burst.saturating_sub(1);
        match filled.checked_sub(room) {
            Some(over) if !over.is_zero() => Err(Wait {
                seconds: over.as_secs().max(1) + u64::from(over.subsec_nanos() > 0 && over.as_secs() > 0),
            }),
            _ => Ok(()),
        }
    }
}

/// Under what a source is counted: itself, or all that there is no room for together.
fn counted_as(sources: &HashMap<IpAddr, Bucket>, source: IpAddr) -> IpAddr {
    match source_of(source) {
        key if sources.len() < MOST_SOURCES || sources.contains_key(&key) => key,
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// What one subscriber has: an IPv4 address, or the /64 network of an IPv6 one.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !(u128::from(u64::MAX)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(Rate {
            burst: 3,
            every: Duration::from_secs(10),
        })
    }

    #[test]
    fn after_the_burst_a_source_waits_and_others_do_not() {
        let (limiter, now) = (limiter(), Instant::now());
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(limiter.check(one, now), Ok(()));
            limiter.failed(one, now);
        }
        assert_eq!(limiter.check(one, now), Err(Wait { seconds: 10 }));
        assert_eq!(limiter.check(two, now), Ok(()));
        assert_eq!(limiter.check(one, now + Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let same = |a: &str, b: &str| source_of(a.parse().unwrap()) == source_of(b.parse().unwrap());
        assert!(same("fd00::1", "fd00::ffff:2"));
        assert!(!same("fd00::1", "fd00:0:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
    }

    #[test]
    fn many_sources_take_bounded_memory_and_are_still_counted() {
        let (limiter, now) = (limiter(), Instant::now());
        let nth = |n: u32| IpAddr::from(n.to_be_bytes());
        let all = MOST_SOURCES as u32 + 5000;
        for n in 0..all {
            limiter.failed(nth(n), now);
        }
        assert!(limiter.sources.lock().unwrap().len() <= MOST_SOURCES + 1);
        assert_eq!(limiter.check(nth(0), now), Ok(()));
        assert!(limiter.check(nth(all - 1), now).is_err());
    }
}
