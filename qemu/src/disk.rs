//! What a machine's disks are: where their bytes are kept, how they are attached, and by what they are known.
//!
//! Invariant: whatever a guest writes to a disk that is neither [`Disk::file`] nor [`Disk::nbd`] goes to a file in the
//! machine's own directory; a base is only read. Every disk passes trims on, and gives trimmed space back to the host, unless it is to
//! take none.
//!
//! Not here: how a disk becomes arguments (`args`), or comes and goes at run time (`hotplug`).

use std::path::{Path, PathBuf};

use cistern_model::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// virtio-blk, as most clouds have it.
    #[default]
    Virtio,
    /// NVMe. QEMU cannot save the state of a machine that has one.
    Nvme,
    /// The chipset's SATA controller, six disks at most. They cannot come and go at run time.
    Ahci,
    /// A MegaRAID controller, one for all its disks.
    Megasas,
    /// VMware's SCSI controller, one for all its disks.
    Pvscsi,
    /// virtio's SCSI controller, one for all its disks. They come and go quickly.
    #[serde(rename = "virtio-scsi")]
    VirtioScsi,
    /// A USB stick.
    Usb,
}

/// What becomes of a write before the guest asks for it to be flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// It is in the host's page cache; a flush goes to the host's disk.
    #[default]
    Writeback,
    /// It goes round the host's page cache, to the host's disk.
    None,
    /// As `Writeback`, and a flush does nothing: quick, and right for what a scenario throws away. A killed QEMU may lose
    /// what the guest had flushed.
    Unsafe,
}

/// Where a disk's bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A fresh sparse qcow2 in the machine's directory.
    Blank {
        /// The size that the guest sees.
        size: Bytes,
    },
    /// A qcow2 in the machine's directory on top of a file that is only read.
    Overlay {
        /// The file beneath.
        base: PathBuf,
        /// Its format.
        format: Format,
        /// The size that the guest sees, if it is to be larger than the base.
        size: Option<Bytes>,
    },
    /// A file that is written as it is, and outlives the machine.
    File {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// Whether the guest may only read it.
        read_only: bool,
    },
    /// Elsewhere, served over a Unix socket; by a [`BlockServer`](crate::BlockServer), for instance.
    Nbd {
        /// The socket.
        socket: PathBuf,
        /// The name of the disk there.
        export: String,
    },
}

/// The format of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl Format {
    /// By the file's name: `.qcow2`, and all else is raw. Never by its content, which a guest may have written.
    pub fn of(path: &Path) -> Format {
        if path.extension().is_some_and(|e| e == "qcow2") {
            Format::Qcow2
        } else {
            Format::Raw
        }
    }

    /// What QEMU calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }
}

/// One disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// By what it is removed; given when it is added, if nobody said.
    pub(crate) id: String,
    pub(crate) backend: Backend,
    pub(crate) bus: Bus,
    pub(crate) cache: Cache,
    pub(crate) serial: Option<String>,
    pub(crate) wwn: Option<u64>,
    pub(crate) boot: bool,
    pub(crate) cdrom: bool,
    /// Whether the guest may discard what it holds.
    pub(crate) discards: bool,
    /// Its place on its bus: a port or a target. Given once, so that a machine is the same in every start.
    pub(crate) place: Option<usize>,
}

impl Disk {
    fn new(backend: Backend) -> Disk {
        let (bus, cache) = (Bus::default(), Cache::default());
        Disk {
            id: String::new(),
            backend,
            bus,
            cache,
            serial: None,
            wwn: None,
            boot: false,
            cdrom: false,
            discards: true,
            place: None,
        }
    }

    /// An empty disk, on virtio and without a serial number unless said otherwise.
    pub fn blank(size: Bytes) -> Disk {
        Disk::new(Backend::Blank { size })
    }

    /// A disk that begins as the file `base`, which is not changed.
    pub fn overlay(base: impl Into<PathBuf>) -> Disk {
        let base = base.into();
        let format = Format::of(&base);
        Disk::new(Backend::Overlay {
            base,
            format,
            size: None,
        })
    }

    /// The file itself, written by the guest.
    pub fn file(path: impl Into<PathBuf>) -> Disk {
        let path = path.into();
        let format = Format::of(&path);
        Disk::new(Backend::File {
            path,
            format,
            read_only: false,
        })
    }

    /// A disk that a block server serves under the name `export`, and that outlives the machine.
    pub fn nbd(socket: impl Into<PathBuf>, export: &str) -> Disk {
        let (socket, export) = (socket.into(), export.into());
        Disk::new(Backend::Nbd { socket, export })
    }

    /// A CD in a SATA drive.
    pub fn cdrom(image: impl Into<PathBuf>) -> Disk {
        let backend = Backend::File {
            path: image.into(),
            format: Format::Raw,
            read_only: true,
        };
        Disk {
            cdrom: true,
            bus: Bus::Ahci,
            ..Disk::new(backend)
        }
    }

    /// How it is attached.
    pub fn bus(mut self, bus: Bus) -> Disk {
        self.bus = bus;
        self
    }

    /// What becomes of a write before a flush.
    pub fn cache(mut self, cache: Cache) -> Disk {
        self.cache = cache;
        self
    }

    /// Its serial number, and its id too unless that is given.
    pub fn serial(mut self, serial: &str) -> Disk {
        self.serial = Some(serial.into());
        if self.id.is_empty() {
            self.id = serial.into();
        }
        self
    }

    /// Its world wide name: for SATA and SCSI only.
    pub fn wwn(mut self, wwn: u64) -> Disk {
        self.wwn = Some(wwn);
        self
    }

    /// By what it is removed.
    pub fn id(mut self, id: &str) -> Disk {
        self.id = id.into();
        self
    }

    /// The firmware tries it first.
    pub fn boot(mut self) -> Disk {
        self.boot = true;
        self
    }

    /// Makes the guest see a larger size than the base of an overlay has, or another size of a blank disk.
    pub fn size(mut self, bytes: Bytes) -> Disk {
        match &mut self.backend {
            Backend::Blank { size } => *size = bytes,
            Backend::Overlay { size, .. } => *size = Some(bytes),
            Backend::File { .. } | Backend::Nbd { .. } => {}
        }
        self
    }

    /// It takes no discards, as most disks that turn: on virtio, and on SCSI controllers.
    pub fn without_discards(mut self) -> Disk {
        self.discards = false;
        self
    }

    /// Its id.
    pub fn name(&self) -> &str {
        &self.id
    }

    /// The name of its block node in QEMU.
    pub(crate) fn node(&self) -> String {
        format!("node-{}", self.id)
    }

    /// The file or socket that QEMU opens, when the machine's files are in `dir`.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        match &self.backend {
            Backend::Blank { .. } | Backend::Overlay { .. } => dir.join(format!("disk-{}.qcow2", self.id)),
            Backend::File { path, .. } => path.clone(),
            Backend::Nbd { socket, .. } => socket.clone(),
        }
    }

    /// The block node: the same document serves `-blockdev` and `blockdev-add`.
    pub(crate) fn blockdev(&self, dir: &Path) -> Value {
        let cache = json!({ "direct": self.cache == Cache::None, "no-flush": self.cache == Cache::Unsafe });
        let (format, read_only) = match &self.backend {
            Backend::Blank { .. } | Backend::Overlay { .. } => (Format::Qcow2, false),
            Backend::File { format, read_only, .. } => (*format, *read_only),
            Backend::Nbd { socket, export } => {
                return json!({
                    "driver": "nbd",
                    "node-name": self.node(),
                    "server": { "type": "unix", "path": socket },
                    "export": export,
                    "cache": cache,
                    "discard": "unmap",
                    "detect-zeroes": "unmap",
                });
            }
        };
        let mut node = json!({
            "driver": format.name(),
            "node-name": self.node(),
            "read-only": read_only,
            "cache": cache,
            "file": { "driver": "file", "filename": self.path(dir), "cache": cache, "read-only": read_only },
        });
        if !read_only {
            node["discard"] = json!("unmap");
            node["detect-zeroes"] = json!("unmap");
            node["file"]["discard"] = json!("unmap");
        }
        node
    }

    /// The device: the same document serves `-device` and `device_add`.
    pub(crate) fn device(&self) -> Value {
        let place = self.place.unwrap_or(0);
        let bus = match self.bus {
            Bus::Virtio | Bus::Nvme => format!("port{place}"),
            Bus::Ahci => format!("ide.{place}"),
            Bus::Megasas => "megasas.0".into(),
            Bus::Pvscsi => "pvscsi.0".into(),
            Bus::VirtioScsi => "virtio-scsi.0".into(),
            Bus::Usb => "usb.0".into(),
        };
        let driver = match (self.bus, self.cdrom) {
            (Bus::Virtio, _) => "virtio-blk-pci",
            (Bus::Nvme, _) => "nvme",
            (Bus::Ahci, false) => "ide-hd",
            (Bus::Ahci, true) => "ide-cd",
            (Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi, false) => "scsi-hd",
            (Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi, true) => "scsi-cd",
            (Bus::Usb, _) => "usb-storage",
        };
        let mut device = json!({ "driver": driver, "id": self.id, "drive": self.node(), "bus": bus });
        match self.bus {
            Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi => device["scsi-id"] = json!(place),
            Bus::Usb => device["removable"] = json!(true),
            Bus::Virtio | Bus::Nvme | Bus::Ahci => {}
        }
        if let Some(serial) = &self.serial {
            device["serial"] = json!(serial);
        } else if self.bus == Bus::Nvme {
            // NVMe must say one; a blank one is what careless firmware says.
            device["serial"] = json!("");
        }
        if let Some(wwn) = self.wwn {
            match self.bus {
                Bus::Ahci | Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi => device["wwn"] = json!(wwn),
                Bus::Nvme | Bus::Virtio | Bus::Usb => {}
            }
        }
        if !self.discards {
            match self.bus {
                Bus::Virtio => device["discard"] = json!(false),
                Bus::Megasas | Bus::Pvscsi | Bus::VirtioScsi => device["discard_granularity"] = json!(0),
                Bus::Nvme | Bus::Ahci | Bus::Usb => {}
            }
        }
        if self.boot {
            device["bootindex"] = json!(0);
        }
        device
    }
}
