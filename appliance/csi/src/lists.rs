//! Lists over several appliances, page by page. Invariant: a mark of where to go on names its appliance; one that nobody can
//! follow (any more) is `ABORTED`, and the caller begins anew.

use cistern_client::ClientError;
use cistern_model::ErrorKind;
use tonic::Status;

use crate::handle::shown;
use crate::refusal::{Asked, invalid, status};
use crate::registry::Appliance;

/// The most that an appliance gives at once.
const MOST: usize = 1000;

/// A page that is being filled.
pub struct Page<'a, T> {
    appliances: &'a [Appliance],
    at: usize,
    from: Option<String>,
    /// How many it may have; none: all that there are.
    room: Option<usize>,
    entries: Vec<T>,
}

impl<'a, T> Page<'a, T> {
    /// From a request's `max_entries` and `starting_token`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a negative number, `ABORTED` for a mark that is none.
    pub fn begin(max_entries: i32, token: &str, appliances: &'a [Appliance]) -> Result<Self, Status> {
        let most = usize::try_from(max_entries).map_err(|_| invalid(format!("max_entries is {max_entries}")))?;
        let (at, from) = match token.split_once('|') {
            None if token.is_empty() => (0, None),
            Some((id, from)) => {
                let at = appliances.iter().position(|appliance| appliance.id.as_str() == id);
                let at = at.ok_or_else(|| lost(token))?;
                (at, Some(from.to_owned()).filter(|from| !from.is_empty()))
            }
            None => return Err(lost(token)),
        };
        Ok(Page {
            appliances,
            at,
            from,
            room: (most > 0).then_some(most),
            entries: Vec::new(),
        })
    }

    /// What is to be asked next: of whom, how many, from where. None when the page is full or there is no more.
    pub fn next_part(&self) -> Option<(&'a Appliance, usize, Option<String>)> {
        let appliance = self.appliances.get(self.at)?;
        let room = self
            .room
            .map_or(MOST, |room| room.saturating_sub(self.entries.len()).min(MOST));
        (room > 0).then(|| (appliance, room, self.from.clone()))
    }

    /// Takes what came, and where that appliance goes on.
    pub fn add(&mut self, entries: impl IntoIterator<Item = T>, next: Option<String>) {
        self.entries.extend(entries);
        self.at += usize::from(next.is_none());
        self.from = next;
    }

    /// The entries, and the mark of where to go on; empty at the end.
    pub fn end(self) -> (Vec<T>, String) {
        let next = self
            .appliances
            .get(self.at)
            .map(|appliance| format!("{}|{}", appliance.id, self.from.unwrap_or_default()));
        (self.entries, next.unwrap_or_default())
    }
}

/// A page of one appliance; one that says that the mark is none of its own aborts the list.
pub fn answered<T>(appliance: &Appliance, from: Option<&str>, got: Result<T, ClientError>) -> Result<T, Status> {
    got.map_err(|error| match (from, error.kind()) {
        (Some(from), ErrorKind::Invalid) => lost(from),
        _ => status(Asked::Other, &appliance.id, &error),
    })
}

fn lost(token: &str) -> Status {
    Status::aborted(format!(
        "starting_token {} leads nowhere; list from the beginning",
        shown(token)
    ))
}
