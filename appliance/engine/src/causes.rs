//! What is alerted of pools, disks, volumes, services and the state partition. Invariant: it follows from the state as it is
//! now, so that it can be looked at as often as one likes; what another alert explains has none of its own.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use cistern_host::Service;
use cistern_model::{AlertKind, DiskId, PoolState, ServiceState, Severity, VolumeState};

use crate::alerts::Subject;
use crate::engine::{Engine, locked};

impl Engine {
    /// Raises what is the matter, and clears what is over.
    pub(crate) fn review_alerts(&self) {
        self.review_pools();
        self.review_volumes();
        self.review_services();
        self.review_state();
        self.review_disks();
    }

    fn review_pools(&self) {
        // Before any pool was looked for, of none can be said that it is well, or gone.
        if !self.0.failures.looked.load(Ordering::SeqCst) {
            return;
        }
        let there: BTreeSet<DiskId> = locked(&self.0.devices).iter().map(|device| device.id.clone()).collect();
        let (mut known, mut missing) = (BTreeSet::new(), BTreeSet::new());
        let pools: Vec<_> = {
            let view = self.view();
            let pools = view.pools.values();
            pools
                .map(|pool| {
                    known.insert(pool.id.to_string());
                    if pool.missing > 0 {
                        let members = pool.tags.groups.iter().flatten().filter(|disk| !there.contains(disk));
                        missing.extend(members.map(|disk| (disk.clone(), pool.tags.name.clone())));
                    }
                    let why = pool.trouble.clone().or_else(|| pool.missing_reason());
                    let subject = Subject::named(pool.id, &pool.tags.name);
                    (subject, pool.state(), why)
                })
                .collect()
        };
        for pool in self.locked_pools() {
            let message = format!("{}; its volumes are not served", pool.why);
            let subject = Subject::object(&pool.object);
            self.raise_alert(AlertKind::PoolIncomplete, &subject, Severity::Error, message);
            known.insert(pool.object);
        }
        let away = self.away_and_why().unwrap_or_else(|error| {
            tracing::warn!(%error, "which pools are away cannot be read");
            Vec::new()
        });
        let awaited = !away.is_empty() && self.disks_awaited().is_some();
        for (id, name, why) in &away {
            let subject = Subject::named(id, name);
            // Whoever waits on purpose raises no alarm; one that was raised lasts.
            if known.insert(id.to_string()) && !awaited {
                let message = format!("{why}; its volumes are not served");
                self.raise_alert(AlertKind::PoolIncomplete, &subject, Severity::Error, message);
            }
            self.clear_alert(AlertKind::PoolDegraded, &subject);
        }
        for (subject, state, why) in pools {
            // One that is not active for no known reason was not yet settled: it is judged when it is.
            let (degraded, incomplete) = match state {
                PoolState::Degraded => (why.map(|why| (Severity::Warning, why)), None),
                PoolState::Incomplete => (None, why.map(|why| (Severity::Error, why))),
                PoolState::Creating | PoolState::Ready | PoolState::Deleting => (None, None),
            };
            self.set_alert(AlertKind::PoolDegraded, &subject, degraded);
            self.set_alert(AlertKind::PoolIncomplete, &subject, incomplete);
        }
        // What a scrub found lasts until another one finds nothing; a pool that was deleted or released has no other one.
        for kind in [
            AlertKind::PoolDegraded,
            AlertKind::PoolIncomplete,
            AlertKind::ScrubMismatches,
        ] {
            self.clear_alerts_but(kind, |pool| known.contains(pool));
        }
        for (disk, pool) in &missing {
            let message = format!("disk {disk} of pool {pool} cannot be found");
            self.raise_alert(
                AlertKind::DiskMissing,
                &Subject::object(disk),
                Severity::Warning,
                message,
            );
        }
        self.clear_alerts_but(AlertKind::DiskMissing, |disk| {
            // Which disks a pool had of which none is here is not known.
            let may_be_its = !away.is_empty() && !there.iter().any(|there| there.as_str() == disk);
            may_be_its || missing.iter().any(|(missing, _)| missing.as_str() == disk)
        });
    }

    /// Volumes that fail by themselves; those of a pool that is not served are explained by its alert.
    fn review_volumes(&self) {
        let mut failed = BTreeSet::new();
        let mut troubles = Vec::new();
        for pool in self.view().pools.values() {
            if pool.state() == PoolState::Incomplete {
                continue;
            }
            for (id, volume) in &pool.volumes {
                if let (VolumeState::Failed, Some(why)) = (volume.state(), &volume.trouble) {
                    failed.insert(id.to_string());
                    troubles.push((Subject::named(id, &volume.tags.name), why.clone()));
                }
            }
        }
        for (subject, why) in troubles {
            self.raise_alert(AlertKind::VolumeFailed, &subject, Severity::Error, why);
        }
        self.clear_alerts_but(AlertKind::VolumeFailed, |volume| failed.contains(volume));
    }

    /// A service that is just starting or stopping, or is to start when the disks have been waited for, is judged when that is over.
    fn review_services(&self) {
        let trouble = match self.0.host.services.state(Service::NfsServer) {
            Ok(ServiceState::Active) => None,
            Ok(ServiceState::Changing) => return,
            Ok(ServiceState::Inactive) if self.nfs_is_to_start() => return,
            Ok(ServiceState::Inactive) => Some("the NFS server does not run".to_owned()),
            Ok(ServiceState::Failed) => Some("the NFS server has failed".to_owned()),
            Err(error) => Some(format!("how the NFS server is cannot be asked: {error}")),
        };
        let trouble = trouble.map(|why| (Severity::Error, why));
        self.set_alert(AlertKind::NfsDown, &Subject::appliance(), trouble);
    }

    /// It is looked at before it is mounted, and so again at the next start.
    fn review_state(&self) {
        let trouble = self.0.config.state_damage.as_ref().map(|found| {
            let message = format!("the state partition has damage that is not repaired without being asked: {found}");
            (Severity::Error, message)
        });
        self.set_alert(AlertKind::StateDamaged, &Subject::appliance(), trouble);
    }
}
