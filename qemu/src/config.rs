//! The description of a machine: what `Vm::builder` gathers, and what a saved state keeps.
//!
//! Invariant: the same description gives the same devices at the same places, in every start and in every version of this
//! crate that can read it; only so can a saved state be resumed.
//!
//! Not here: how a description becomes arguments; see `args`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Backend, Bus, Cache, Disk};
use crate::error::{Error, Result};
use crate::nic::{Cable, Nic};
use crate::switch::Switch;
use crate::vm::Vm;

/// The chipset has six SATA ports.
pub(crate) const AHCI_PORTS: usize = 6;
/// virtio's SCSI controller has 256 targets, and QEMU takes the numbers below 255.
pub(crate) const TARGETS: usize = 255;
/// PCIe ports for disks that are added at run time.
const SPARE_PORTS: usize = 4;

/// How a machine starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// QEMU puts a kernel into memory.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its initial file system.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: String,
    },
    /// UEFI firmware looks for something to start.
    Ovmf,
    /// BIOS firmware looks for something to start.
    Bios,
}

/// The description of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) boot: Boot,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) agent: bool,
    pub(crate) second_serial: bool,
    pub(crate) vga: bool,
    pub(crate) watchdog: bool,
    #[serde(default)]
    pub(crate) tpm: bool,
    pub(crate) no_reboot: bool,
    pub(crate) extra: Vec<String>,
    /// PCIe ports, the spare ones for disks to come included; fixed at the first start.
    pub(crate) ports: usize,
    /// Controllers beside the chipset's; fixed at the first start.
    pub(crate) controllers: Vec<Bus>,
    /// The target after the last one that was used on virtio's SCSI controller.
    #[serde(default)]
    pub(crate) next_target: usize,
}

/// Gathers what a machine is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) config: Config,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Builder {
        let config = Config {
            name: name.into(),
            memory_mib: 1024,
            cpus: 2,
            boot: Boot::Bios,
            disks: Vec::new(),
            nics: Vec::new(),
            agent: false,
            second_serial: false,
            vga: false,
            watchdog: false,
            tpm: false,
            no_reboot: false,
            extra: Vec::new(),
            ports: 0,
            controllers: Vec::new(),
            next_target: 0,
        };
        Builder { config }
    }

    /// Its memory; 1024 MiB if nobody says.
    pub fn memory_mib(mut self, mib: u32) -> Builder {
        self.config.memory_mib = mib;
        self
    }

    /// Its processors; 2 if nobody says. Under software emulation it has one, whatever was said.
    pub fn cpus(mut self, count: u32) -> Builder {
        self.config.cpus = count;
        self
    }

    /// Starts this kernel, without firmware of its own choice.
    pub fn direct_kernel(
        mut self,
        kernel: impl Into<PathBuf>,
        initrd: impl Into<PathBuf>,
        cmdline: impl Into<String>,
    ) -> Builder {
        let (kernel, initrd) = (kernel.into(), Some(initrd.into()));
        self.config.boot = Boot::Kernel {
            kernel,
            initrd,
            cmdline: cmdline.into(),
        };
        self
    }

    /// Starts by UEFI firmware, from the disk that says [`Disk::boot`], or else the first that it finds.
    pub fn ovmf(mut self) -> Builder {
        self.config.boot = Boot::Ovmf;
        self
    }

    /// Starts by BIOS firmware.
    pub fn bios(mut self) -> Builder {
        self.config.boot = Boot::Bios;
        self
    }

    /// Adds a disk. One without an id is called `disk` and its place, from 0.
    pub fn disk(mut self, mut disk: Disk) -> Builder {
        if disk.id.is_empty() {
            disk.id = format!("disk{}", self.config.disks.len());
        }
        self.config.disks.push(disk);
        self
    }

    /// Gives it this controller, for disks that are added at run time, though it starts with none there.
    pub fn controller(mut self, bus: Bus) -> Builder {
        self.config.controllers.push(bus);
        self
    }

    /// Adds a network card.
    pub fn nic(mut self, nic: Nic) -> Builder {
        self.config.nics.push(nic);
        self
    }

    /// Plugs the links that a saved state knows by this switch's name into it.
    pub fn switch(mut self, switch: &Switch) -> Builder {
        for nic in &mut self.config.nics {
            if let Cable::Link { name, switch: slot } = &mut nic.cable
                && name == switch.name()
            {
                *slot = Some(switch.clone());
            }
        }
        self
    }

    /// Gives it the port on which `qemu-guest-agent` listens.
    pub fn guest_agent(mut self) -> Builder {
        self.config.agent = true;
        self
    }

    /// Gives it a second serial port.
    pub fn second_serial(mut self) -> Builder {
        self.config.second_serial = true;
        self
    }

    /// Gives it a screen, for [`Vm::screenshot`].
    pub fn vga(mut self) -> Builder {
        self.config.vga = true;
        self
    }

    /// Gives it a hardware watchdog (i6300esb) that resets it.
    pub fn watchdog(mut self) -> Builder {
        self.config.watchdog = true;
        self
    }

    /// Gives it a TPM 2 (swtpm); what that keeps is in the machine's directory, and outlives a power cut.
    pub fn tpm(mut self) -> Builder {
        self.config.tpm = true;
        self
    }

    /// Ends QEMU where the guest would restart.
    pub fn no_reboot(mut self) -> Builder {
        self.config.no_reboot = true;
        self
    }

    /// Adds an argument of QEMU's that this crate does not know.
    pub fn argument(mut self, argument: &str) -> Builder {
        self.config.extra.push(argument.into());
        self
    }

    /// Starts it, with everything that it writes in `dir`, which is made if it is not there. Its disks are made anew.
    pub fn start(self, dir: impl AsRef<Path>) -> Result<Vm> {
        Vm::create(self.config, dir.as_ref())
    }
}

impl Config {
    pub(crate) fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Config {
            vm: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// Gives every disk its place, and fixes what the machine has room for. Done once in a machine's life.
    pub(crate) fn settle(&mut self) {
        for index in 0..self.disks.len() {
            if self.disks[index].place.is_none() {
                self.disks[index].place = Some(self.free_place(self.disks[index].bus));
            }
        }
        if self.ports == 0 {
            let last = self
                .disks
                .iter()
                .filter(|d| on_port(d.bus))
                .filter_map(|d| d.place)
                .max();
            self.ports = last.map_or(0, |place| place + 1) + SPARE_PORTS;
            self.next_target = self.disks.iter().filter(|d| d.bus == Bus::VirtioScsi).count();
            let wanted = [Bus::Megasas, Bus::Pvscsi, Bus::VirtioScsi, Bus::Usb];
            let asked = std::mem::take(&mut self.controllers);
            self.controllers = wanted
                .into_iter()
                .filter(|bus| asked.contains(bus) || self.disks.iter().any(|d| d.bus == *bus))
                .collect();
        }
    }

    /// The lowest place on this bus that no disk has.
    pub(crate) fn free_place(&self, bus: Bus) -> usize {
        let same = |other: Bus| other == bus || (on_port(other) && on_port(bus));
        let taken: HashSet<usize> = self
            .disks
            .iter()
            .filter(|d| same(d.bus))
            .filter_map(|d| d.place)
            .collect();
        (0..).find(|place| !taken.contains(place)).unwrap_or(0)
    }

    /// Where a disk goes that is added at run time.
    ///
    /// On virtio's SCSI controller every disk gets a target that was not used for long: Linux carries out what it hears
    /// of removals and additions in any order, so that a disk in the place of one that has just left may be taken for
    /// that one, and be lost with it (drivers/scsi/virtio_scsi.c queues each event as work of its own).
    pub(crate) fn place_to_plug(&mut self, bus: Bus) -> usize {
        if bus != Bus::VirtioScsi {
            return self.free_place(bus);
        }
        let taken = |place: &usize| self.disks.iter().any(|d| d.bus == bus && d.place == Some(*place));
        let first = self.next_target % TARGETS;
        let place = (first..TARGETS).chain(0..first).find(|place| !taken(place));
        let place = place.unwrap_or(TARGETS);
        self.next_target = place + 1;
        place
    }

    /// Refuses what QEMU would refuse with less clear words.
    pub(crate) fn check(&self) -> Result<()> {
        let mut ids = HashSet::new();
        for disk in &self.disks {
            self.check_disk(disk)?;
            if !ids.insert(&disk.id) {
                return Err(self.problem(format!("two disks are called {}", disk.id)));
            }
        }
        if self.disks.iter().filter(|d| d.bus == Bus::Ahci).count() > AHCI_PORTS {
            return Err(self.problem("the chipset has six SATA ports"));
        }
        if let Some(disk) = self
            .disks
            .iter()
            .find(|d| d.boot && self.boot == Boot::Ovmf && !known_to_firmware(d.bus))
        {
            let problem = format!(
                "the firmware has no driver for {:?}, so it cannot start from {}",
                disk.bus, disk.id
            );
            return Err(self.problem(problem));
        }
        let unplugged = self.nics.iter().find_map(|nic| match &nic.cable {
            Cable::Link { name, switch: None } => Some(name),
            Cable::Link { switch: Some(_), .. } | Cable::User { .. } => None,
        });
        match unplugged {
            Some(name) => Err(self.problem(format!("its link {name} is plugged into no switch"))),
            None => Ok(()),
        }
    }

    /// Refuses one disk.
    pub(crate) fn check_disk(&self, disk: &Disk) -> Result<()> {
        let mut letters = disk.id.chars();
        let valid = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        // A node's name has 31 bytes in QEMU, and ours begins with `node-`.
        if !valid || disk.id.len() > 26 {
            return Err(self.problem(format!(
                "{:?} is no id of a disk: a letter, then at most 25 of A-Z a-z 0-9 - _ .",
                disk.id
            )));
        }
        // What the drive's interface has room for.
        if disk.bus == Bus::Virtio && disk.serial.as_ref().is_some_and(|s| s.len() > 20) {
            return Err(self.problem(format!("the serial of {} is longer than virtio's 20 bytes", disk.id)));
        }
        if matches!(disk.backend, Backend::Nbd { .. }) && disk.cache == Cache::Unsafe {
            return Err(self.problem(format!("{}: its flushes would be kept from the block server", disk.id)));
        }
        if disk.wwn.is_some() && matches!(disk.bus, Bus::Virtio | Bus::Usb | Bus::Nvme) {
            return Err(self.problem(format!("{}: a disk on {:?} has no world wide name", disk.id, disk.bus)));
        }
        Ok(())
    }
}

/// Whether disks on this bus have a PCIe port each.
pub(crate) fn on_port(bus: Bus) -> bool {
    match bus {
        Bus::Virtio | Bus::Nvme => true,
        Bus::Ahci | Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi | Bus::Usb => false,
    }
}

/// Whether Debian's OVMF can start from a disk on this bus; it is built without the drivers of the others.
fn known_to_firmware(bus: Bus) -> bool {
    match bus {
        Bus::Virtio | Bus::Nvme | Bus::Ahci | Bus::VirtioScsi | Bus::Usb => true,
        Bus::Megasas | Bus::Pvscsi => false,
    }
}
