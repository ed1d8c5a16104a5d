//! The real machine.
//!
//! Invariant: each concern is a file or folder of its own, split into pure pieces (arguments, parsing), which are tested
//! with captured output, and few impure lines. Programs are run in [`run`] only.

mod background;
mod direct;
pub(crate) mod disks;
mod exports;
mod file;
mod filesystems;
mod frozen;
mod growing;
mod health;
mod kernel_log;
pub(crate) mod layers;
pub(crate) mod lvm;
mod machine;
mod mounts;
mod network;
mod own_log;
mod records;
mod run;
mod seals;
mod signatures;
mod sparse;
mod systemd;
mod within;

use std::sync::Arc;

use self::background::Background;
use crate::{Host, HostError};

/// This machine. Starts a thread; talks to nobody yet.
pub fn host() -> Result<Host, HostError> {
    let background = Arc::new(Background::start()?);
    let systemd = systemd::Systemd::new(background.clone());
    let lvm = Arc::new(lvm::LinuxLvm::default());
    Ok(Host {
        disks: Arc::new(disks::LinuxDisks),
        layers: Arc::new(layers::LinuxLayers),
        lvm: lvm.clone(),
        raids: lvm.clone(),
        thin: lvm.clone(),
        takeover: lvm,
        filesystems: Arc::new(filesystems::LinuxFilesystems),
        exports: Arc::new(exports::LinuxExports::default()),
        services: Arc::new(systemd.clone()),
        network: Arc::new(network::LinuxNetwork::new(background)),
        machine: Arc::new(machine::LinuxMachine::new(systemd)),
        health: Arc::new(health::LinuxHealth::default()),
        records: Arc::new(records::LinuxRecords::default()),
        seals: Arc::new(seals::LinuxSeals),
    })
}

/// A fixture without its first line, which says what printed it.
#[cfg(test)]
fn fixture(text: &'static str) -> &'static str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}
