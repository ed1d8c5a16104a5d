//! Disks, services, links and the machine itself.

use std::path::Path;

use cistern_model::{Bytes, Enrolment, Interface, Load, Memory, PowerAction, ServiceState, Signature};
use jiff::{SignedDuration, Timestamp};

use super::Running;
use super::state::{SYSTEM_ID, busy, failed};
use crate::{BlockDevice, ChangeSink, Disks, FreePart, HostError, Machine, MachineFacts, Network, Service, Services};

impl Disks for Running {
    fn list(&self) -> Result<Vec<BlockDevice>, HostError> {
        self.look("disks.list", "", |state| {
            let there = (0..state.disks.len()).filter(|n| state.disks[*n].attached);
            Ok(there
                .map(|n| BlockDevice {
                    signatures: state.signatures(n),
                    layers: state.found_layers(n),
                    ..state.disks[n].device.clone()
                })
                .collect())
        })
    }

    fn part_line(&self, part: &BlockDevice) -> Vec<String> {
        crate::linux::disks::part::line(part)
    }

    fn make_part(&self, part: &BlockDevice) -> Result<(), HostError> {
        self.change("disks.make_part", part.id.as_str(), |state| {
            let found = state.disk_mut(&part.id).filter(|disk| disk.attached);
            let disk = found.ok_or_else(|| failed("make_part", "no room for it"))?;
            if disk.device.is_unmade() {
                disk.device.free = Some(FreePart::Made);
                disk.writes.push("partition".to_owned());
            }
            Ok(())
        })
    }

    fn signatures(&self, node: &Path) -> Result<Vec<Signature>, HostError> {
        self.look("disks.signatures", &node.display().to_string(), |state| {
            let at = state.raw_at("signatures", node)?;
            Ok(state.signatures(at))
        })
    }

    fn wipe(&self, node: &Path) -> Result<(), HostError> {
        self.change("disks.wipe", &node.display().to_string(), |state| {
            let at = state.raw_at("wipe", node)?;
            let vg = state.disks[at].pv.as_ref().and_then(|pv| pv.vg.clone());
            let group = vg.as_ref().and_then(|vg| state.vgs.get_mut(vg));
            let active = group
                .as_ref()
                .is_some_and(|group| group.lvs.values().any(|lv| lv.active));
            let open = state.disks[at].layers.as_ref().is_some_and(|laid| laid.open);
            if active || open || state.disks[at].device.busy {
                return Err(busy("wipe", &node.display().to_string()));
            }
            if let Some(group) = group {
                group.lost += 1;
            }
            let midway = state.midway;
            let disk = &mut state.disks[at];
            disk.pv = None;
            match &mut disk.layers {
                // What is in the partition goes first.
                Some(laid) if midway => laid.empty(),
                layers => *layers = None,
            }
            let found = &mut disk.device.signatures;
            match midway && found.len() > 1 {
                true => drop(found.remove(0)),
                false => found.clear(),
            }
            disk.writes.push("wipe".to_owned());
            if let Some(vg) = vg
                && state.members(&vg).is_empty()
            {
                state.vgs.remove(&vg);
            }
            Ok(())
        })
    }

    fn watch(&self, _: ChangeSink) -> Result<(), HostError> {
        Ok(())
    }
}

impl Services for Running {
    fn state(&self, service: Service) -> Result<ServiceState, HostError> {
        self.look("services.state", service.name(), |state| {
            Ok(state.services.get(&service).copied().unwrap_or(ServiceState::Inactive))
        })
    }

    fn ensure_started(&self, service: Service) -> Result<bool, HostError> {
        self.change("services.ensure_started", service.name(), |state| {
            if state.services.get(&service) == Some(&ServiceState::Active) {
                return Ok(false);
            }
            let mut starting = vec![service];
            if service == Service::NfsServer {
                starting.extend([Service::NfsMountd, Service::NfsdCld]);
                let exports = state.exports.clone();
                state.exports_at_nfs_start.push(exports);
            }
            for service in starting {
                state.services.insert(service, ServiceState::Active);
            }
            Ok(true)
        })
    }

    fn watch(&self, _: ChangeSink) -> Result<(), HostError> {
        Ok(())
    }
}

impl Network for Running {
    fn interfaces(&self) -> Result<Vec<Interface>, HostError> {
        self.look("network.interfaces", "", |_| {
            Ok(vec![Interface {
                name: "eth0".to_owned(),
                mac: Some("52:54:00:00:00:01".to_owned()),
                up: true,
                mtu: 1500,
                addresses: vec!["192.0.2.10/24".to_owned(), "fe80::1/64".to_owned()],
            }])
        })
    }

    fn watch(&self, _: ChangeSink) -> Result<(), HostError> {
        Ok(())
    }
}

impl Machine for Running {
    fn facts(&self) -> Result<MachineFacts, HostError> {
        self.look("machine.facts", "", |state| {
            Ok(MachineFacts {
                kernel: "6.12.0-memory".to_owned(),
                machine_id: SYSTEM_ID.to_owned(),
                booted: Timestamp::UNIX_EPOCH,
                live: false,
                built: state.built,
            })
        })
    }

    fn hostname(&self) -> Result<String, HostError> {
        self.look("machine.hostname", "", |_| Ok("memory".to_owned()))
    }

    fn load(&self) -> Result<Load, HostError> {
        self.look("machine.load", "", |_| {
            Ok(Load {
                one: 0.1,
                five: 0.2,
                fifteen: 0.3,
                cpus: 2,
            })
        })
    }

    fn memory(&self) -> Result<Memory, HostError> {
        self.look("machine.memory", "", |_| {
            Ok(Memory {
                total: Bytes::gib(2),
                available: Bytes::gib(1),
            })
        })
    }

    fn enrolment(&self) -> Result<Option<Enrolment>, HostError> {
        self.look("machine.enrolment", "", |_| {
            Ok(Some(Enrolment {
                fingerprint: "0".repeat(64),
                port: 8443,
                code: Some("ABCD-EFGH".to_owned()),
            }))
        })
    }

    fn power(&self, action: PowerAction) -> Result<(), HostError> {
        self.look("machine.power", &format!("{action:?}"), |_| Ok(()))
    }

    fn now(&self) -> Timestamp {
        let mut state = self
            .inner
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // A little over a second passes from call to call, so that the order of things can be seen, and a fraction of a
        // second that is not kept.
        if let Ok(later) = state.clock.checked_add(SignedDuration::from_millis(1_003)) {
            state.clock = later;
        }
        state.clock
    }

    fn clock_is_kept(&self) -> Result<bool, HostError> {
        self.look("machine.clock_is_kept", "", |state| Ok(!state.clock_drifts))
    }
}
