//! One call at a time for one thing: a second is told to come again (`ABORTED`), as CSI has it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

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
        assert!(all.begin("v").is_err() && all.begin("w").is_ok());
        drop(working);
        assert!(all.begin("v").is_ok());
    }
}
