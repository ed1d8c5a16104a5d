//! What the host's traits promise, as one suite: it is held against the machine in memory by `cargo test`, and against
//! Linux inside a virtual machine by `cistern-contract`. Where the two would differ, a test of the engine would prove
//! nothing about the appliance.
//!
//! Invariant: a contract begins on blank disks and no groups, and leaves them so whatever came of it. It asks only what
//! both machines can be asked; what a machine can do beside the traits (pull a disk, write a file) is in [`Machine`].
//!
//! Not here: what a pool or a volume is. That is the engine's.

mod bench;
mod disks;
mod exports;
mod filesystems;
mod growth;
mod layers;
mod linux;
mod lvm;
mod memory;
mod seals;
mod thin;

use std::path::{Path, PathBuf};

use cistern_host::{Host, HostError, RootSpec};
use cistern_model::Bytes;

pub use bench::Bench;
pub use linux::LinuxMachine;
pub use memory::MemoryMachine;

/// What was promised and did not hold.
pub type Broken = String;

/// What a machine can do that is no part of the traits.
pub trait Machine {
    /// Its traits.
    fn host(&self) -> Host;

    /// At least four blank disks of the same size, of at least 2 GiB, which the suite may use up.
    fn nodes(&self) -> Vec<PathBuf>;

    /// Where filesystems can be mounted.
    fn directory(&self) -> PathBuf;

    /// Writes a file of this size to a mounted filesystem, through to the disks.
    fn write(&self, target: &Path, name: &str, size: Bytes) -> Result<(), Broken>;

    /// The root directory of a mounted filesystem.
    fn root(&self, target: &Path) -> Result<RootSpec, Broken>;

    /// Holds a mounted filesystem, or lets it go.
    fn hold(&self, target: &Path, held: bool) -> Result<(), Broken>;

    /// Pulls a disk out, or puts it back in.
    fn attach(&self, node: &Path, attached: bool) -> Result<(), Broken>;
}

/// One promise.
pub struct Contract {
    /// What is promised, in words joined by underscores.
    pub name: &'static str,
    /// Tries it.
    pub hold: fn(&Bench<'_>) -> Result<(), Broken>,
}

/// Makes contracts of functions.
macro_rules! contracts {
    ($($name:ident),* $(,)?) => {
        /// The contracts of this part.
        pub(crate) const ALL: &[crate::Contract] = &[
            $(crate::Contract { name: stringify!($name), hold: $name }),*
        ];
    };
}
pub(crate) use contracts;

/// All of them, part by part.
pub fn all() -> impl Iterator<Item = &'static Contract> {
    [
        disks::ALL,
        layers::ALL,
        seals::ALL,
        lvm::ALL,
        thin::ALL,
        growth::ALL,
        filesystems::ALL,
        exports::ALL,
    ]
    .into_iter()
    .flatten()
}

/// Makes a machine ready for the first contract: its disks are blank, and nothing else is there.
pub fn prepare(machine: &dyn Machine) -> Result<(), Broken> {
    Bench::new(machine).clean()
}

/// Holds one contract on a machine that is ready, and makes it ready for the next.
pub fn hold(machine: &dyn Machine, contract: &Contract) -> Result<(), Broken> {
    let bench = Bench::new(machine);
    let outcome = (contract.hold)(&bench);
    let cleaned = bench.clean().map_err(|why| format!("afterwards: {why}"));
    outcome.and(cleaned)
}

/// An error of the host's, with its causes.
pub(crate) fn told(error: &HostError) -> Broken {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
