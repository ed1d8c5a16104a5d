//! A block server for a machine's disks that records every write, and gives back the disks of any moment as a power cut
//! would have left them.
//!
//! ```no_run
//! use cistern_model::Bytes;
//! use cistern_qemu::{Medium, BlockServer, Cut, Survivors, Vm};
//!
//! # fn main() -> cistern_qemu::Result<()> {
//! let server = BlockServer::start("target/vm/blocks")?;
//! let disks = server.record([Medium::blank("D1", Bytes::gib(4)), Medium::blank("D2", Bytes::gib(4))])?;
//! let mut builder = Vm::builder("appliance").ovmf();
//! for disk in disks.disks() {
//!     builder = builder.disk(disk);
//! }
//! let vm = builder.start("target/vm/appliance")?;
//! let sent = disks.mark("request sent: POST /v1/volumes");
//! // ... the request, and the answer to it ...
//! let answered = disks.mark("answer got");
//! for at in disks.events(sent, answered) {
//!     let cut = disks.cut(&Cut::at(at.at).survivors(Survivors::Random(7)).without("D2"))?;
//!     // ... attach cut.disks() to a machine, and see what it makes of them ...
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A guest's disk is served over a Unix socket to QEMU, which announces a volatile cache to the guest and passes each
//! flush on. Nothing that is written is ever overwritten in the server: it is appended to one file, and a map for each
//! disk says what is where. A past moment is another map into the same file.
//!
//! Invariant: one order of events for all disks of a machine, so that every cut is a state in which its disks could
//! really have been together.
//!
//! Not here: what a test does with the disks.

mod cut;
mod extent;
mod fault;
mod handshake;
mod history;
mod recording;
mod serve;
mod server;
mod tape;

pub use cut::{Cut, Survivors};
pub use fault::Fault;
pub use history::{Action, Event, Position};
pub use recording::Recording;
pub use server::{BlockServer, Medium};

#[cfg(test)]
mod cut_tests;
