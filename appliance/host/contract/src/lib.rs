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
mod machine;
mod memory;
mod mounts;
mod moving;
mod raids;
mod records;
mod seals;
mod snapshots;
mod takeover;
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

    /// Pulls a disk out, or puts it back in. Back in while something has it open still, it may come at another node.
    fn attach(&self, node: &Path, attached: bool) -> Result<(), Broken>;

    /// All disks are back in, each at its own node. Only while nothing has one open.
    fn seat(&self) -> Result<(), Broken>;

    /// The files in the root directory of a mounted filesystem, sorted.
    fn files(&self, target: &Path) -> Result<Vec<String>, Broken>;

    /// Deletes a file of a mounted filesystem, through to the disks.
    fn delete(&self, target: &Path, name: &str) -> Result<(), Broken>;

    /// Tries to write to a mounted filesystem, and says whether that is held back.
    fn held_back(&self, target: &Path, name: &str) -> Result<bool, Broken>;

    /// Gives a group, of which nothing is active, to another machine.
    fn give_group(&self, vg: &str, system_id: &str) -> Result<(), Broken>;

    /// Leaves an inactive volume of images as a power cut does that comes while it is made, before the images' own metadata is
    /// cleared.
    fn leave_unfinished(&self, vg: &str, lv: &str) -> Result<(), Broken>;

    /// Leaves the device of an active volume as a command does that is cut short between suspending and resuming it, or lets it go
    /// on.
    fn suspend(&self, vg: &str, lv: &str, suspended: bool) -> Result<(), Broken>;

    /// Stops the NFS server, and what was started with it, if they run.
    fn stop_server(&self) -> Result<(), Broken>;
}

/// Methods of the host's traits of which nothing is held here, and why.
pub const NOT_HELD: &[(&str, &str)] = &[
    (
        "Machine::power",
        "the machine would be gone; the scenarios of restarts do it",
    ),
    (
        "Disks::watch",
        "it is heard after the call, by a thread; the scenarios of pulled disks wait for it",
    ),
    ("Services::watch", "as of disks"),
    ("Network::watch", "as of disks; and no contract changes a link"),
];

/// One promise.
pub struct Contract {
    /// What is promised, in words joined by underscores.
    pub name: &'static str,
    /// The methods of which it is promised: `Lvm::create_vg`.
    pub methods: &'static [&'static str],
    /// Tries it.
    pub hold: fn(&Bench<'_>) -> Result<(), Broken>,
}

/// Makes contracts of functions, each with the methods of which it holds something. A method that no trait has does not
/// compile.
macro_rules! contracts {
    ($($name:ident: $($of:ident::$method:ident),+;)*) => {
        /// The contracts of this part.
        pub(crate) const ALL: &[crate::Contract] = &[
            $(crate::Contract {
                name: stringify!($name),
                methods: &[$({
                    let _ = <dyn cistern_host::$of>::$method;
                    concat!(stringify!($of), "::", stringify!($method))
                }),+],
                hold: $name,
            }),*
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
        snapshots::ALL,
        growth::ALL,
        raids::ALL,
        moving::ALL,
        takeover::ALL,
        filesystems::ALL,
        mounts::ALL,
        exports::ALL,
        records::ALL,
        machine::ALL,
    ]
    .into_iter()
    .flatten()
}

/// Makes a machine ready for the first contract: its disks are blank, and nothing else is there.
pub fn prepare(machine: &dyn Machine) -> Result<(), Broken> {
    Bench::new(machine).clean()
}

/// Tries one contract on a machine that is ready, and leaves it as it is then.
pub fn attempt(machine: &dyn Machine, contract: &Contract) -> Result<(), Broken> {
    (contract.hold)(&Bench::new(machine))
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
