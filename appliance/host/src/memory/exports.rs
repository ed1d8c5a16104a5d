//! Exports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Running;
use super::state::{State, failed};
use crate::{ExportEntry, Exports, HostError, NfsSession};

/// An entry as it reads back.
fn settled(entry: &ExportEntry) -> Result<ExportEntry, HostError> {
    let mut entry = entry.clone();
    entry.clients.sort();
    entry.clients.dedup();
    let twice = entry.clients.windows(2).any(|pair| pair[0].is_same_peer(&pair[1]));
    if twice {
        return Err(failed("export", "a client is there twice"));
    }
    Ok(entry)
}

fn remove(state: &mut State, path: &Path) {
    state.exports.retain(|entry| entry.path != path);
}

fn revoke(state: &mut State, path: &Path) {
    for held in state.sessions.iter_mut().filter_map(|session| session.held.as_mut()) {
        held.retain(|there| there.path != path);
    }
}

impl Exports for Running {
    fn current(&self) -> Result<Vec<ExportEntry>, HostError> {
        self.look("exports.current", "", |state| Ok(state.exports.clone()))
    }

    fn replace(&self, entries: &[ExportEntry]) -> Result<(), HostError> {
        self.change("exports.replace", &entries.len().to_string(), |state| {
            let mut sorted: Vec<ExportEntry> = entries.iter().map(settled).collect::<Result<_, _>>()?;
            sorted.sort();
            let mut paths: Vec<&PathBuf> = sorted.iter().map(|entry| &entry.path).collect();
            paths.dedup();
            if paths.len() != sorted.len() {
                return Err(failed("replace", "a path is there twice"));
            }
            state.exports = sorted;
            Ok(())
        })
    }

    fn set(&self, entry: &ExportEntry) -> Result<(), HostError> {
        self.change("exports.set", &entry.path.display().to_string(), |state| {
            let entry = settled(entry)?;
            remove(state, &entry.path);
            state.exports.push(entry);
            state.exports.sort();
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        self.change("exports.remove", &path.display().to_string(), |state| {
            remove(state, path);
            Ok(())
        })
    }

    fn sessions(&self) -> Result<Vec<NfsSession>, HostError> {
        self.look("exports.sessions", "", |state| Ok(state.sessions.clone()))
    }

    fn expire(&self, session: &str) -> Result<(), HostError> {
        self.change("exports.expire", session, |state| {
            state.sessions.retain(|there| there.id != session);
            Ok(())
        })
    }

    fn settle(&self, entry: &ExportEntry) -> Result<(), HostError> {
        self.look("exports.settle", &entry.path.display().to_string(), |_| Ok(()))
    }

    fn answer_waiting(&self, unserved: &BTreeSet<PathBuf>) -> Result<(), HostError> {
        let paths: Vec<String> = unserved.iter().map(|path| path.display().to_string()).collect();
        self.look("exports.answer_waiting", &paths.join(" "), |_| Ok(()))
    }

    fn release(&self, path: &Path) -> Result<(), HostError> {
        self.change("exports.release", &path.display().to_string(), |state| {
            revoke(state, path);
            // What is still exported is opened again by the client at once.
            if !state.exports.iter().any(|entry| entry.path == path) {
                state.held.remove(path);
            }
            Ok(())
        })
    }
}
