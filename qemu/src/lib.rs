//! Starts, wires, watches and breaks virtual machines.
//!
//! Blocking on purpose, so that a scenario reads like the steps an operator takes:
//!
//! ```no_run
//! use std::time::Duration;
//! use cistern_model::Bytes;
//! use cistern_qemu::{Bus, Disk, Nic, Switch, Vm};
//!
//! # fn main() -> cistern_qemu::Result<()> {
//! let lan = Switch::new("lan");
//! let vm = Vm::builder("appliance")
//!     .memory_mib(768)
//!     .direct_kernel("target/image/vmlinuz", "target/image/initrd", "console=ttyS0")
//!     .disk(Disk::blank(Bytes::gib(4)).serial("D1"))
//!     .disk(Disk::blank(Bytes::gib(4)).bus(Bus::Nvme).serial("D2"))
//!     .nic(Nic::user().forward(443))
//!     .nic(Nic::link(&lan))
//!     .start("target/vm/appliance")?;
//! let code = vm.console().expect(r"code: ([0-9-]+)", Duration::from_secs(60))?;
//! println!("enrol at {} with {}", vm.forwarded(443)?, code.first());
//! vm.power_cut()?;
//! vm.start()?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: everything this crate starts dies with the process that uses it, however that ends; and an error tells
//! enough to understand it, the end of the machine's serial log included.
//!
//! What a power cut is here: QEMU is killed at once. What the guest wrote and did not flush may or may not be on the
//! disks, as QEMU's own caches decide; the host's page cache survives, so what reached it is not lost. A [`BlockServer`]
//! loses unflushed writes on purpose, and at any moment of the past.
//!
//! Saved states: a machine's memory and disks are frozen with [`Vm::save`], and [`SavedState::builder`] starts any number
//! of machines from there, each on overlays of its own. Guest time goes on from where it stopped; the guest's hardware
//! clock and [`Vm::set_guest_time`] tell the host's.
//!
//! Not here: anything about Cistern. What the guests are is the business of `tests/`.

mod accel;
mod agent;
mod ansi;
mod args;
mod block;
mod config;
mod disk;
mod error;
mod hotplug;
mod launch;
mod nic;
mod qmp;
mod savestate;
mod serial;
mod spawn;
mod switch;
mod tool;
mod tpm;
mod vm;
mod wire;

pub use accel::{Accel, Host, Version, installed, probe};
pub use agent::Output;
pub use block::{Action, BlockServer, Cut, Event, Fault, Medium, Position, Recording, Survivors};
pub use config::{Boot, Builder};
pub use disk::{Backend, Bus, Cache, Disk, Format};
pub use error::{Error, ErrorKind, Evidence, Result};
pub use nic::{Nic, NicModel};
pub use savestate::{Resume, SavedState};
pub use serial::{Console, Found};
pub use spawn::spawn;
pub use switch::Switch;
pub use vm::{Report, Vm};
