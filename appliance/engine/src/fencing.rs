//! Cutting a client off from a volume whose export it has lost. Invariant: nothing is revoked before the export is gone,
//! or the client would take it back at once; what is revoked is the least that frees the volume's locks, and what else
//! that touched is told; nothing is answered while a request of the client's that was let in before is under way.
//!
//! What each way touches was measured on this system's kernel; docs/storage.md has the table.

use cistern_host::{ExportEntry, ExportUsers, NfsSession};
use cistern_model::{
    Client, EventKind, FenceMethod, FenceReport, HeldState, Principal, Severity, Touched, VolumeId, VolumeName,
};

use crate::EngineError;
use crate::engine::Engine;
use crate::error::Doing as _;

/// How often it is looked again whether anything is held: what was on its way when the export went may arrive after.
const LOOKS: u32 = 3;

impl Engine {
    /// Cuts off all sessions of `client` on a volume that no other of its clients covers. Its export is gone.
    pub(crate) fn fence(
        &self,
        by: &Principal,
        id: VolumeId,
        name: &VolumeName,
        client: Client,
    ) -> Result<Vec<FenceReport>, EngineError> {
        self.let_settle(id, client)?;
        self.end_sessions(by, id, name, client)
    }

    /// Returns when nothing is under way any more that passed the check of this client's export before that was gone: it may be
    /// writing yet.
    pub(crate) fn let_settle(&self, id: VolumeId, client: Client) -> Result<(), EngineError> {
        let taken = ExportEntry {
            path: self.path_of(id),
            fsid: id.uuid(),
            clients: vec![client],
            users: ExportUsers::default(),
        };
        let settled = self.0.host.exports.settle(&taken);
        settled.doing(|| format!("wait for what {client} is doing on volume {id}"))
    }

    /// Revokes what sessions that began at `client` hold on a volume, where no other of its clients covers them. The kernel keeps the
    /// address with which a session began, wherever its client comes from by now.
    pub(crate) fn end_sessions(
        &self,
        by: &Principal,
        id: VolumeId,
        name: &VolumeName,
        client: Client,
    ) -> Result<Vec<FenceReport>, EngineError> {
        let mut reports: Vec<FenceReport> = Vec::new();
        for _ in 0..LOOKS {
            let sessions = self.sessions(id)?;
            let remaining = self.view().volume(id).map(|(_, volume)| volume.tags.peers());
            let remaining = remaining.unwrap_or_default();
            let is_cut_off = |session: &NfsSession| {
                client.contains(session.address) && !remaining.iter().any(|left| left.contains(session.address))
            };
            let mut revoked = false;
            for session in sessions.iter().filter(|session| is_cut_off(session)) {
                let held = self.held_on(session, id)?;
                if held == HeldState::default() {
                    continue;
                }
                let mut also_touched = self.at_stake(session, id);
                let method = choose(held, also_touched.is_empty());
                match method {
                    FenceMethod::None => also_touched.clear(),
                    FenceMethod::ExpireClient => {
                        let ended = self.0.host.exports.expire(&session.id);
                        ended.doing(|| format!("end the NFS session of {} on volume {id}", session.address))?;
                        revoked = true;
                    }
                }
                note(&mut reports, session, held, method, also_touched);
            }
            if !revoked {
                break;
            }
        }
        for report in &reports {
            self.tell_fence(by, id, name, report);
        }
        Ok(reports)
    }

    pub(crate) fn sessions(&self, id: VolumeId) -> Result<Vec<NfsSession>, EngineError> {
        let sessions = self.0.host.exports.sessions();
        sessions.doing(|| format!("ask who holds something on volume {id}"))
    }

    /// What a session holds on a volume. Fails if that cannot be read: then it is not known that it holds nothing.
    fn held_on(&self, session: &NfsSession, id: VolumeId) -> Result<HeldState, EngineError> {
        let unread = || {
            EngineError::Unavailable(format!(
                "what {} holds on volume {id} cannot be read now, so it is not known to be cut off; ask again",
                session.address
            ))
        };
        let path = self.path_of(id);
        let mut held = session.held.as_ref().ok_or_else(unread)?.iter();
        let there = held.find(|there| there.path == path);
        Ok(there.map_or_else(HeldState::default, |there| there.held))
    }

    /// What would be lost on other volumes if a session were ended: not what is only open, which its client opens again;
    /// a delegated file may have locks that only the client knows of.
    fn at_stake(&self, session: &NfsSession, id: VolumeId) -> Vec<Touched> {
        let path = self.path_of(id);
        let elsewhere = session.held.iter().flatten().filter(|there| there.path != path);
        let lost = elsewhere.filter(|there| there.held.locks > 0 || there.held.delegations > 0);
        let touched = lost.filter_map(|there| {
            let name = there.path.strip_prefix(&self.0.config.volumes_dir).ok()?;
            Some(Touched {
                client: session.address,
                volume: name.to_str()?.parse().ok()?,
                held: there.held,
            })
        });
        touched.collect()
    }

    fn tell_fence(&self, by: &Principal, id: VolumeId, name: &VolumeName, report: &FenceReport) {
        let FenceReport {
            client,
            held,
            method,
            also_touched,
        } = report;
        let how = match method {
            FenceMethod::None if held.delegations > 0 => "others may wait once for a file that was delegated to it",
            FenceMethod::None => "nothing had to be revoked",
            FenceMethod::ExpireClient => "its NFS session was ended",
        };
        let touched: Vec<String> = also_touched
            .iter()
            .map(|t| format!("{} of {} on {}", told(&t.held), t.client, t.volume))
            .collect();
        let (severity, also) = if touched.is_empty() {
            (Severity::Info, String::new())
        } else {
            (Severity::Warning, format!("; that also touched {}", touched.join(", ")))
        };
        let message = format!(
            "{client} was cut off from volume {name}, where it held {}: {how}{also}",
            told(held)
        );
        self.record(
            EventKind::ClientFenced,
            severity,
            Some(id.to_string()),
            Some(by),
            message,
        );
    }
}

/// The gentlest way that suffices.
///
/// - Opens alone are in nobody's way: without an export the session cannot use them.
/// - A lock keeps others out for as long as the session is renewed, which its other volumes see to: it must go, and there
///   is no way to revoke it alone. Ending the session costs that node its locks on its other volumes; revoking all that is
///   held on the volume (unlock_filesystem) costs it the same, because its client takes that for a loss of everything, and
///   the other nodes on the volume too. So that is never the gentler one.
/// - A delegation is recalled when somebody else opens its file. That cannot be answered, and after a lease the server
///   takes it back by itself: one wait, against locks that would be lost for good.
fn choose(held: HeldState, nothing_at_stake: bool) -> FenceMethod {
    let delegated = held.delegations > 0 && nothing_at_stake;
    if held.locks > 0 || delegated {
        FenceMethod::ExpireClient
    } else {
        FenceMethod::None
    }
}

/// A session that was seen before is told once, with the most that was done.
fn note(
    reports: &mut Vec<FenceReport>,
    session: &NfsSession,
    held: HeldState,
    method: FenceMethod,
    also_touched: Vec<Touched>,
) {
    match reports.iter_mut().find(|report| report.client == session.address) {
        Some(report) if method != FenceMethod::None => {
            report.method = method;
            report.also_touched.extend(also_touched);
        }
        Some(_) => {}
        None => reports.push(FenceReport {
            client: session.address,
            held,
            method,
            also_touched,
        }),
    }
}

fn told(held: &HeldState) -> String {
    let counted = [
        (held.opens, "open file(s)"),
        (held.locks, "lock(s)"),
        (held.delegations, "delegation(s)"),
    ];
    let said: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() {
        "nothing".to_owned()
    } else {
        said.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gentlest_way_that_suffices_is_taken() {
        let held = |opens, locks, delegations| HeldState {
            opens,
            locks,
            delegations,
        };
        for (held, nothing_at_stake, method) in [
            (held(0, 0, 0), true, FenceMethod::None),
            (held(9, 0, 0), true, FenceMethod::None),
            (held(9, 0, 0), false, FenceMethod::None),
            (held(1, 1, 0), true, FenceMethod::ExpireClient),
            (held(1, 1, 0), false, FenceMethod::ExpireClient),
            (held(1, 0, 1), true, FenceMethod::ExpireClient),
            (held(1, 0, 1), false, FenceMethod::None),
        ] {
            assert_eq!(choose(held, nothing_at_stake), method, "{held:?} {nothing_at_stake}");
        }
    }
}
