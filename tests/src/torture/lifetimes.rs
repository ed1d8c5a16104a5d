//! When things are owed: requests with the moments of their sending and of their answer.
//!
//! Invariant: a thing is owed from the moment at which its answer was there, until the moment at which its end was asked
//! for; it is excluded before it was asked for, and after its end was answered. Between these it may be there, and then it
//! must be whole.
//!
//! Not here: what the things are.

/// A moment, as a count of events of all disks.
pub type Moment = u64;

/// When something was asked for, and when that was answered; [`Moment::MAX`] if it never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The mark before it was sent.
    pub asked: Moment,
    /// The mark after its answer was read.
    pub answered: Moment,
}

impl Request {
    /// Whether a cut at this moment falls between the two.
    pub fn under_way(&self, at: Moment) -> bool {
        at > self.asked && at < self.answered
    }
}

/// What a cut must have left of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It must be there.
    Owed,
    /// It may be there, whole, or not.
    Open,
    /// It must not be there.
    Excluded,
}

/// A thing that was asked for, and perhaps taken away, and had back: each request with whether the thing is there when it
/// is answered. In their order, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Life(Vec<(bool, Request)>);

impl Life {
    /// Something that was made.
    pub fn made(request: Request) -> Self {
        Life(vec![(true, request)])
    }

    /// It was taken away, or given back.
    pub fn then(&mut self, there: bool, request: Request) {
        self.0.push((there, request));
    }

    /// What a cut at this moment must have left of it.
    pub fn due(&self, at: Moment) -> Due {
        self.0.iter().fold(Due::Excluded, |due, (there, request)| {
            if at >= request.answered {
                if *there { Due::Owed } else { Due::Excluded }
            } else if request.under_way(at) {
                Due::Open
            } else {
                due
            }
        })
    }
}

/// What something was in turn: what it was made as, and what it was after each request that changed it.
#[derive(Debug, Clone)]
pub struct Versions<T>(Vec<(T, Request)>);

impl<T> Versions<T> {
    /// Something that was made as this.
    pub fn of(first: T, request: Request) -> Self {
        Versions(vec![(first, request)])
    }

    /// When it was made.
    pub fn made(&self) -> Option<Request> {
        self.0.first().map(|(_, request)| *request)
    }

    /// It became this.
    pub fn then(&mut self, next: T, request: Request) {
        self.0.push((next, request));
    }

    /// What it is by now.
    pub fn last(&self) -> Option<&T> {
        self.0.last().map(|(version, _)| version)
    }

    /// What it may be at a moment: what was answered last, or one that was asked for since.
    pub fn possible(&self, at: Moment) -> Vec<&T> {
        let mut possible = Vec::new();
        for (version, request) in &self.0 {
            if at >= request.answered {
                possible.clear();
            }
            if at > request.asked {
                possible.push(version);
            }
        }
        possible
    }

    /// Whether a request for it was under way.
    pub fn under_way(&self, at: Moment) -> bool {
        self.0.iter().any(|(_, request)| request.under_way(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn request(asked: Moment, answered: Moment) -> Request {
        Request { asked, answered }
    }

    #[test]
    fn a_thing_is_owed_from_its_answer_until_its_end_is_asked_for_and_again_when_it_is_had_back() {
        let mut life = Life::made(request(10, 20));
        life.then(false, request(40, 50));
        life.then(true, request(60, 70));
        for (at, due) in [
            (10, Due::Excluded),
            (11, Due::Open),
            (19, Due::Open),
            (20, Due::Owed),
            (40, Due::Owed),
            (41, Due::Open),
            (50, Due::Excluded),
            (60, Due::Excluded),
            (61, Due::Open),
            (70, Due::Owed),
        ] {
            assert_eq!(life.due(at), due, "{at}");
        }
    }

    #[test]
    fn a_change_may_be_there_from_its_request_and_must_be_from_its_answer() {
        let mut versions = Versions::of('a', request(10, 20));
        versions.then('b', request(30, 40));
        for (at, possible) in [(10, ""), (15, "a"), (25, "a"), (30, "a"), (31, "ab"), (40, "b")] {
            assert_eq!(versions.possible(at).into_iter().collect::<String>(), possible, "{at}");
        }
        assert!(versions.under_way(35) && !versions.under_way(40));
    }
}
