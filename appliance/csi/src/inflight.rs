//! One call at a time for one thing: a second is told to come again (`ABORTED`), as CSI has it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Begins to work on something; none if somebody does.
    pub fn begin(&self, on: &str) -> Option<Working> {
        let begun = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(on.to_owned());
        begun.then(|| Working {
            on: on.to_owned(),
            all: self.clone(),
        })
    }
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
    use super::*;

    #[test]
    fn one_works_on_it_until_it_is_done() {
        let all = InFlight::default();
        let working = all.begin("v").unwrap();
        assert!(all.begin("v").is_none() && all.begin("w").is_some());
        drop(working);
        assert!(all.begin("v").is_some());
    }
}
