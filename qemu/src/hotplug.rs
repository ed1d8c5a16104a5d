//! Disks that come and go while a machine runs.
//!
//! Invariant: the description says what the machine has at every moment, so that after a power cut it starts with the
//! disks that it had. A removed disk keeps its bytes and can be given back.
//!
//! Not here: a disk that stays and fails; a block server's does ([`Recording::fail`](crate::Recording::fail)).

use std::time::Duration;

use cistern_model::Bytes;
use qapi::qmp::{block_resize, blockdev_del, device_del};

use crate::block::Recording;
use crate::config::{TARGETS, on_port};
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
        self.let_go(std::slice::from_ref(&disk))?;
        Ok(self.handed_on(&disk))
    }

    /// The disks of a machine that does not run, for another machine: it works on the same bytes, and is to have ended before
    /// this one starts again.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) while it runs.
    pub fn lend(&self) -> Result<Vec<Disk>> {
        let running = self.is_running();
        let config = lock(&self.config);
        if running {
            return Err(config.problem("its disks cannot be lent while it runs"));
        }
        // What the other one starts from is its own matter.
        let lent = |disk: &Disk| Disk {
            boot: false,
            ..self.handed_on(disk)
        };
        Ok(config.disks.iter().map(lent).collect())
    }

    /// A disk as the next one to have it gets it: the same bytes, in any place.
    fn handed_on(&self, disk: &Disk) -> Disk {
        let path = disk.path(self.dir());
        let backend = match &disk.backend {
            Backend::Blank { .. } | Backend::Overlay { .. } => Backend::File {
                path,
                format: Format::Qcow2,
                read_only: false,
            },
            Backend::File { .. } | Backend::Nbd { .. } => disk.backend.clone(),
        };
        Disk {
            backend,
            place: None,
            ..disk.clone()
        }
    }

    /// Makes a disk of a running machine larger, as a hypervisor's operator does. A virtio, virtio-scsi or NVMe guest is told.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) for a disk that is not there; QEMU's own for a size that the disk cannot have.
    pub fn resize(&self, id: &str, size: Bytes) -> Result<()> {
        let node = {
            let config = lock(&self.config);
            let disk = config.disks.iter().find(|disk| disk.id == id);
            disk.ok_or_else(|| config.problem(format!("it has no disk {id}")))?
                .node()
        };
        let resized = block_resize {
            device: None,
            node_name: Some(node),
            size: i64::try_from(size.get()).unwrap_or(i64::MAX),
        };
        self.qmp("making a disk larger")?.execute(&resized).map(drop)
    }

    /// Takes disks out, all at once.
    fn let_go(&self, disks: &[Disk]) -> Result<()> {
        let qmp = self.qmp("removing a disk")?;
        let since = qmp.events();
        for disk in disks {
            qmp.execute(&device_del { id: disk.id.clone() })?;
        }
        for disk in disks {
            qmp.event(since, &format!("the removal of disk {}", disk.id), LET_GO, |event| {
                event["event"] == "DEVICE_DELETED" && event["data"]["device"] == disk.id.as_str()
            })?;
            qmp.execute(&blockdev_del { node_name: disk.node() })?;
            lock(&self.config).disks.retain(|other| other.id != disk.id);
        }
        Ok(())
    }

    /// Puts all disks of a recording in, on this bus, and tells their ids. Their serial numbers are their names, as they
    /// were for the machine that wrote them.
    ///
    /// [`Bus::VirtioScsi`] is the quickest; [`Builder::controller`](crate::Builder::controller) makes room for it.
    ///
    /// # Errors
    /// As [`Vm::plug`]; then none of them is in.
    pub fn attach(&self, recording: &Recording, bus: Bus) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for name in recording.names() {
            // Of its own, so that the disks of another moment can be in beside them.
            let id = recording.export(name).replace('/', "-");
            let plugged = recording.disk(name).and_then(|disk| self.plug(disk.id(&id).bus(bus)));
            if let Err(error) = plugged {
                let _ = self.detach(recording);
                return Err(error);
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// Gives a machine that does not run the disks of another moment: each disk of a recording is replaced by the disk of
    /// its name in this one, and is gone if this one has none. [`Vm::start`] then starts it after the power cut.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) while it runs.
    pub fn exchange(&self, recording: &Recording) -> Result<()> {
        let running = self.is_running();
        let mut config = lock(&self.config);
        if running {
            return Err(config.problem("its disks cannot be exchanged while it runs"));
        }
        config.disks.retain_mut(|disk| match &mut disk.backend {
            Backend::Nbd { socket, export } => match recording.counterpart(socket, export) {
                Some(Some(other)) => {
                    *export = other;
                    true
                }
                Some(None) => false,
                None => true,
            },
            Backend::Blank { .. } | Backend::Overlay { .. } | Backend::File { .. } => true,
        });
        Ok(())
    }

    /// Takes all disks of a recording out that are in.
    pub fn detach(&self, recording: &Recording) -> Result<()> {
        let exports: Vec<String> = recording
            .names()
            .into_iter()
            .map(|name| recording.export(name))
            .collect();
        let served = |disk: &&Disk| match &disk.backend {
            Backend::Nbd { socket, export } => socket == recording.socket() && exports.contains(export),
            Backend::Blank { .. } | Backend::Overlay { .. } | Backend::File { .. } => false,
        };
        let disks: Vec<Disk> = lock(&self.config).disks.iter().filter(served).cloned().collect();
        self.let_go(&disks)
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
        let place = config.place_to_plug(disk.bus);
        disk.place = Some(place);
        let room = if on_port(disk.bus) {
            place < config.ports
        } else {
            config.controllers.contains(&disk.bus) && place < TARGETS
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
