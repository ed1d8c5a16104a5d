//! Where labs are set up: the images, the folders, and the saved states that scenarios start from.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use cistern_qemu::{Host, Nic, SavedState, Switch, Vm};

use super::appliance::{Appliance, Machine, link_arguments, read};
use super::images::Images;
use super::peer::Peer;
use super::{APPLIANCE_ADDRESS, Lab, PEER_ADDRESS, START_LIMIT};
use crate::cli::Cli;

const PEER_MAC: &str = "52:54:00:77:00:02";
const LINK: &str = "link";
/// How many sites there were in this process.
static SITES: AtomicUsize = AtomicUsize::new(0);

/// What a scenario can start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// An appliance with four blank disks and a client beside it; the laptop is enrolled.
    Enrolled,
    /// The same, with the four disks in a mirrored pool named `tank`.
    Pooled,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Stage::Enrolled => "enrolled",
            Stage::Pooled => "pooled",
        }
    }
}

/// Images, folders and saved states.
pub struct Site {
    images: Images,
    scenarios: PathBuf,
    states: PathBuf,
    host: Host,
    made: RefCell<HashMap<Stage, ()>>,
    current: RefCell<Option<PathBuf>>,
}

impl Site {
    /// A site in the source tree at `top`, whose images were built.
    pub fn new(top: &Path) -> Result<Self> {
        let images = Images::new(top)?;
        let scenarios = top.join("target/test/scenarios");
        // Its own, so that two runs side by side, or two lanes of one, do not take each other's away.
        let number = SITES.fetch_add(1, Ordering::SeqCst);
        let states = top.join(format!("target/test/states-{}-{number}", std::process::id()));
        let host = cistern_qemu::probe()?;
        Ok(Site {
            images,
            scenarios,
            states,
            host,
            made: RefCell::default(),
            current: RefCell::default(),
        })
    }

    /// In a line, what the machines run on, and which image where it is not the one that was built here.
    pub fn describe(&self) -> String {
        let on = format!("QEMU {}, {}", self.host.version, self.host.accel);
        match self.images.is_foreign() {
            true => format!("{on}; the image in {}", self.images.folder().display()),
            false => on,
        }
    }

    /// What its machines start from.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Begins a scenario: its folder is emptied.
    pub fn begin(&self, name: &str) -> Result<()> {
        let directory = self.scenarios.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
        }
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        self.current.replace(Some(directory));
        Ok(())
    }

    /// Ends a scenario. What is large is removed from its folder if it went well.
    pub fn end(&self, result: Result<()>) -> Result<()> {
        let directory = self.current.replace(None);
        if let (Ok(()), Some(directory)) = (&result, directory) {
            remove_disks(&directory);
        }
        result
    }

    /// The folder of the scenario that was begun.
    pub fn directory(&self) -> Result<PathBuf> {
        self.current.borrow().clone().context("no scenario was begun")
    }

    /// An appliance alone, started from nothing.
    pub fn boot(&self, machine: Machine) -> Result<Lab> {
        let directory = self.directory()?;
        self.set_up(&directory, &machine, false)
    }

    /// A machine alone, started from nothing, in a folder of this name in the scenario's: beside those that it has.
    pub fn boot_beside(&self, name: &str, machine: Machine) -> Result<Lab> {
        self.set_up(&self.directory()?.join(name), &machine, false)
    }

    /// An appliance and a client beside it, started from nothing.
    pub fn boot_pair(&self, machine: Machine) -> Result<Lab> {
        let directory = self.directory()?;
        let lab = self.set_up(&directory, &machine, true)?;
        lab.peer.vm()?.wait_for_agent(START_LIMIT)?;
        Ok(lab)
    }

    /// An appliance and a client as they were at this stage, which is made if it has not been.
    pub fn resume(&self, stage: Stage) -> Result<Lab> {
        self.make(stage)?;
        self.resume_in(stage, &self.directory()?)
    }

    fn set_up(&self, directory: &Path, machine: &Machine, with_peer: bool) -> Result<Lab> {
        let switch = Switch::new(LINK);
        let vm = machine
            .builder(&self.images, &switch)?
            .start(directory.join("appliance"))?;
        let peer = match with_peer {
            true => Some(peer(&self.images, &switch, "peer", PEER_MAC, PEER_ADDRESS)?.start(directory.join("peer"))?),
            false => None,
        };
        self.lab(directory, vm, peer, switch)
    }

    fn lab(&self, directory: &Path, vm: Vm, peer: Option<Vm>, switch: Switch) -> Result<Lab> {
        let appliance = Appliance::new(vm);
        let cli = Cli::new(&directory.join("laptop"), &appliance.url()?)?;
        Ok(Lab {
            appliance,
            peer: Peer::new(peer),
            cli,
            address: APPLIANCE_ADDRESS,
            directory: directory.to_owned(),
            images: self.images.clone(),
            switch,
        })
    }

    fn resume_in(&self, stage: Stage, directory: &Path) -> Result<Lab> {
        let state = self.states.join(stage.name());
        let switch = Switch::new(LINK);
        let start = |name: &str| -> Result<Vm> {
            let saved = SavedState::open(state.join(name))?;
            Ok(saved.builder().switch(&switch).start(directory.join(name))?)
        };
        let (vm, peer) = (start("appliance")?, start("peer")?);
        copy_tree(&state.join("laptop"), &directory.join("laptop"))?;
        self.lab(directory, vm, Some(peer), switch)
    }

    /// Makes a stage, on top of the one before it.
    fn make(&self, stage: Stage) -> Result<()> {
        if self.made.borrow().contains_key(&stage) {
            return Ok(());
        }
        let directory = self.states.join(format!("making-{}", stage.name()));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let lab = match stage {
            Stage::Enrolled => {
                let lab = self.set_up(&directory, &Machine::default(), true)?;
                lab.check(|lab| {
                    lab.peer.vm()?.wait_for_agent(START_LIMIT)?;
                    lab.enrol(&lab.banner()?)
                })?;
                lab
            }
            Stage::Pooled => {
                self.make(Stage::Enrolled)?;
                let lab = self.resume_in(Stage::Enrolled, &directory)?;
                lab.check(|lab| lab.create_tank().map(drop))?;
                lab
            }
        };
        // What is not written back is part of the memory that is saved; syncing only makes that smaller.
        lab.peer.sh("sync")?;
        let state = self.states.join(stage.name());
        fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
        lab.appliance.into_vm().save(state.join("appliance"))?;
        lab.peer.into_vm()?.save(state.join("peer"))?;
        copy_tree(&directory.join("laptop"), &state.join("laptop"))?;
        let _ = fs::remove_dir_all(&directory);
        self.made.borrow_mut().insert(stage, ());
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.states);
    }
}

/// A client's description for QEMU, with this address on the private link.
pub(super) fn peer(
    images: &Images,
    switch: &Switch,
    name: &str,
    mac: &str,
    address: &str,
) -> Result<cistern_qemu::Builder> {
    let cmdline = format!(
        "{} {}",
        read(&images.peer("cmdline"))?.trim(),
        link_arguments(mac, address)
    );
    Ok(Vm::builder(name)
        .memory_mib(768)
        .direct_kernel(images.peer("vmlinuz"), images.peer("initrd"), cmdline)
        .nic(Nic::link(switch).mac(mac))
        .guest_agent())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp")
        .arg("-a")
        .arg("-T")
        .arg(from)
        .arg(to)
        .status()
        .context("running cp")?;
    ensure!(
        copied.success(),
        "copying {} to {} failed",
        from.display(),
        to.display()
    );
    Ok(())
}

/// Removes disks and memory below a folder, and leaves logs.
fn remove_disks(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_disks(&path);
        } else if path
            .extension()
            .is_some_and(|e| e == "qcow2" || e == "raw" || e == "fd")
        {
            let _ = fs::remove_file(&path);
        }
    }
}
