//! Disks that come and go while a machine runs.
//!
//! Invariant: the description says what the machine has at every moment, so that after a power cut it starts with the
//! disks that it had. A removed disk keeps its bytes and can be given back.
//!
//! Not here: a disk that stays and fails; that is for a back end that injects errors.

use std::time::Duration;

use qapi::qmp::{blockdev_del, device_del};

use crate::config::on_port;
use crate::disk::{Backend, Bus, Disk, Format};
use crate::error::Result;
use crate::tool::make_disk;
use crate::vm::{Vm, lock};

/// How long a guest may take to let a disk go. PCIe ports wait five seconds for a second press of their button.
const LET_GO: Duration = Duration::from_secs(30);

impl Vm {
    /// Takes a disk out and returns it; given to [`Vm::plug`] it is the same disk with the same bytes.
    ///
    /// virtio and NVMe disks leave when the guest's kernel lets them; SCSI and USB disks at once.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) for a disk that is not there or is on the chipset's SATA controller, which cannot
    /// lose disks in QEMU; [`Timeout`](crate::Error::Timeout) if the guest does not let it go.
    pub fn unplug(&self, id: &str) -> Result<Disk> {
        let disk = {
            let config = lock(&self.config);
            let disk = config.disks.iter().find(|disk| disk.id == id).cloned();
            let disk = disk.ok_or_else(|| config.problem(format!("it has no disk {id}")))?;
            if disk.bus == Bus::Ahci {
                return Err(config.problem(format!("{id} is on AHCI, where disks cannot come and go")));
            }
            disk
        };
        let qmp = self.qmp("removing a disk")?;
        let since = qmp.events();
        qmp.execute(&device_del { id: id.into() })?;
        qmp.event(since, &format!("the removal of disk {id}"), LET_GO, |event| {
            event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id
        })?;
        qmp.execute(&blockdev_del { node_name: disk.node() })?;
        lock(&self.config).disks.retain(|other| other.id != id);
        let path = disk.path(self.dir());
        let backend = match &disk.backend {
            Backend::Blank { .. } | Backend::Overlay { .. } => Backend::File {
                path,
                format: Format::Qcow2,
                read_only: false,
            },
            Backend::File { .. } | Backend::Nbd { .. } => disk.backend.clone(),
        };
        Ok(Disk {
            backend,
            place: None,
            ..disk
        })
    }

    /// Puts a disk in.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) on a bus for which the machine was started without a controller, and on the
    /// chipset's SATA controller.
    pub fn plug(&self, mut disk: Disk) -> Result<()> {
        let mut config = lock(&self.config);
        if disk.id.is_empty() {
            let free = (0..)
                .map(|n| format!("disk{n}"))
                .find(|id| config.disks.iter().all(|d| d.id != *id));
            disk.id = free.unwrap_or_default();
        }
        config.check_disk(&disk)?;
        if config.disks.iter().any(|other| other.id == disk.id) {
            return Err(config.problem(format!("it has a disk {} already", disk.id)));
        }
        let place = config.free_place(disk.bus);
        disk.place = Some(place);
        let room = if on_port(disk.bus) {
            place < config.ports
        } else {
            config.controllers.contains(&disk.bus)
        };
        if !room {
            return Err(config.problem(format!("there is no room for {} on {:?}", disk.id, disk.bus)));
        }
        let qmp = self.qmp("adding a disk")?;
        make_disk(&disk, self.dir())?;
        qmp.raw("blockdev-add", &disk.blockdev(self.dir()))?;
        if let Err(error) = qmp.raw("device_add", &disk.device()) {
            let _ = qmp.execute(&blockdev_del { node_name: disk.node() });
            return Err(error);
        }
        config.disks.push(disk);
        Ok(())
    }
}
