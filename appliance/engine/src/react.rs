//! What is done when something around the engine changes. Invariant: the caller is never kept; changes that come in a
//! burst are looked at once; LVM is asked only if a disk really came, went or changed its size.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use cistern_host::Change;
use cistern_model::{Bytes, DiskId, EventKind, Interface, ServiceState, ServiceStatus, Severity};

use crate::engine::{Engine, Inner, locked};

/// How long nothing must have come for a burst to be over.
const QUIET: Duration = Duration::from_millis(300);
/// The longest that a burst is waited for.
const LONGEST: Duration = Duration::from_secs(3);

/// What was last seen around the engine.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    disks: BTreeMap<DiskId, (PathBuf, Bytes)>,
    services: Vec<ServiceStatus>,
    interfaces: Vec<Interface>,
}

impl Engine {
    /// Something changed. Returns at once; what is to be done is done on a thread of the engine's.
    pub fn react(&self, change: Change) {
        let sender = self.0.changes.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let engine = Arc::downgrade(&self.0);
            std::thread::spawn(move || work(&engine, &receiver));
            sender
        });
        // The thread lives as long as the engine.
        let _ = sender.send(change);
    }

    pub(crate) fn remember_surroundings(&self) {
        let services = self.services();
        let interfaces = self.0.host.network.interfaces().unwrap_or_default();
        let disks = self.disks_seen();
        *locked(&self.0.surroundings) = Surroundings {
            disks,
            services,
            interfaces,
        };
    }

    fn disks_seen(&self) -> BTreeMap<DiskId, (PathBuf, Bytes)> {
        let devices = locked(&self.0.devices);
        devices
            .iter()
            .map(|d| (d.id.clone(), (d.node.clone(), d.size)))
            .collect()
    }

    fn look_at(&self, changes: &HashSet<Change>) {
        if changes.contains(&Change::Disks) {
            self.disks_changed();
        }
        if changes.contains(&Change::Services) {
            let new = self.services();
            let old = std::mem::replace(&mut locked(&self.0.surroundings).services, new.clone());
            for status in new.iter().filter(|status| !old.contains(status)) {
                let (severity, what) = match status.state {
                    ServiceState::Active => (Severity::Info, "runs"),
                    ServiceState::Changing => (Severity::Info, "starts or stops"),
                    ServiceState::Inactive => (Severity::Warning, "does not run"),
                    ServiceState::Failed => (Severity::Error, "has failed"),
                };
                let message = format!("service {} {what}", status.name);
                self.record(
                    EventKind::ServiceChanged,
                    severity,
                    Some(status.name.clone()),
                    None,
                    message,
                );
            }
            self.review_alerts();
        }
        if changes.contains(&Change::Network)
            && let Ok(new) = self.0.host.network.interfaces()
        {
            let old = std::mem::replace(&mut locked(&self.0.surroundings).interfaces, new.clone());
            for interface in new.iter().filter(|interface| !old.contains(interface)) {
                let state = if interface.up { "up" } else { "down" };
                let addresses = interface.addresses.join(", ");
                let message = format!("interface {} is {state}, with {addresses}", interface.name);
                self.record(
                    EventKind::NetworkChanged,
                    Severity::Info,
                    Some(interface.name.clone()),
                    None,
                    message,
                );
            }
            for interface in old.iter().filter(|old| !new.iter().any(|new| new.name == old.name)) {
                let message = format!("interface {} is gone", interface.name);
                let object = Some(interface.name.clone());
                self.record(EventKind::NetworkChanged, Severity::Warning, object, None, message);
            }
        }
    }

    fn disks_changed(&self) {
        if let Err(error) = self.devices() {
            tracing::warn!(%error, "the disks changed and cannot be listed");
            return;
        }
        let new = self.disks_seen();
        let old = std::mem::replace(&mut locked(&self.0.surroundings).disks, new.clone());
        if old == new {
            return;
        }
        self.forget_attempts();
        for (id, (_, size)) in new.iter().filter(|(id, _)| !old.contains_key(*id)) {
            let message = format!("disk {id} of {size} appeared");
            self.record(
                EventKind::DiskAdded,
                Severity::Info,
                Some(id.to_string()),
                None,
                message,
            );
        }
        for (id, _) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
            let message = format!("disk {id} is gone");
            self.record(
                EventKind::DiskRemoved,
                Severity::Warning,
                Some(id.to_string()),
                None,
                message,
            );
        }
        if let Err(error) = self.reconcile() {
            tracing::error!(
                error = error.problem().detail,
                "the disks changed and not all could be reconciled"
            );
        }
    }
}

fn work(engine: &Weak<Inner>, receiver: &mpsc::Receiver<Change>) {
    while let Ok(first) = receiver.recv() {
        let mut changes = HashSet::from([first]);
        let begun = Instant::now();
        while begun.elapsed() < LONGEST
            && let Ok(change) = receiver.recv_timeout(QUIET)
        {
            changes.insert(change);
        }
        let Some(engine) = engine.upgrade() else { return };
        Engine(engine).look_at(&changes);
    }
}

#[cfg(test)]
mod tests {
    use cistern_host::memory::{MemoryHost, disk};

    use super::*;
    use crate::Config;
    use crate::reconcile::RECONCILING;

    #[test]
    fn disks_that_changed_while_all_was_being_reconciled_are_looked_at_afterwards() {
        let machine = MemoryHost::new(vec![disk("a", Bytes::gib(10))]);
        let engine = Engine::new(machine.host(), Config::default());
        engine.start().unwrap();
        machine.detach(&DiskId::from_serial("a"));
        {
            let _long = engine.0.names.hold(RECONCILING.to_owned()).unwrap();
            engine.disks_changed();
        }
        let reconciled = || {
            let before = machine.calls().len();
            engine.tick();
            let calls = machine.calls().split_off(before);
            calls.iter().any(|call| call.starts_with("lvm.state"))
        };
        assert!(reconciled());
        assert!(!reconciled(), "once is enough");
    }
}
