//! Saved states: a machine frozen with its memory and disks, from which any number of machines go on.
//!
//! A state is a directory: the machine's memory and devices, its disks (only read from then on, each resumed machine
//! writes to overlays), its firmware variables and its description. Memory is written with `mapped-ram`, each page at its
//! own place in a sparse file.
//!
//! Invariant: a state is resumed only with the QEMU, the acceleration and the files that it was made with; what does not
//! fit is refused as stale, because a guest on other disks or firmware than it remembers fails in ways that mislead.
//!
//! Not here: when a state is worth keeping; that is the caller's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use qapi::qmp::{migrate, migrate_incoming, quit, stop};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::accel::{Accel, Version, probe};
use crate::args::VARS;
use crate::config::{Boot, Builder, Config};
use crate::disk::{Backend, Bus, Format};
use crate::error::{Error, Result};
use crate::qmp::Qmp;
use crate::serial::Console;
use crate::switch::Switch;
use crate::vm::{Vm, lock};

/// The memory of a machine, in a state's directory.
const MEMORY: &str = "memory";
/// The description of the machine.
const DESCRIPTION: &str = "state.json";
/// Which form of the description this is.
const FORM: u32 = 1;
/// A machine of a few gigabytes is written well within that.
const LIMIT: Duration = Duration::from_secs(120);

/// A machine frozen in a directory.
#[derive(Clone, Debug)]
pub struct SavedState {
    dir: PathBuf,
    description: Description,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Description {
    form: u32,
    version: Version,
    accel: Accel,
    config: Config,
    inputs: Vec<Input>,
}

/// A file that the machine was made from, and how to see that it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    path: PathBuf,
    length: u64,
    modified: u128,
}

/// Gathers what a machine that goes on from a saved state may have different.
#[derive(Clone, Debug)]
pub struct Resume {
    state: SavedState,
    builder: Builder,
}

impl Vm {
    /// Freezes this machine in `dir`, which must be on the same file system for its disks to be moved there quickly. The
    /// machine ends.
    ///
    /// # Errors
    /// [`Config`](crate::Error::Config) for a machine with an NVMe disk, whose state QEMU cannot save, or with a file as a
    /// disk that it may write to, which would not stay frozen.
    pub fn save(self, dir: impl AsRef<Path>) -> Result<SavedState> {
        let dir = dir.as_ref();
        let config = lock(&self.config).clone();
        for disk in &config.disks {
            if disk.bus == Bus::Nvme {
                return Err(config.problem(format!("{} is on NVMe, whose state QEMU cannot save", disk.id)));
            }
            if matches!(disk.backend, Backend::Nbd { .. }) {
                return Err(config.problem(format!("{} is served by a block server, which does not stay", disk.id)));
            }
            if matches!(disk.backend, Backend::File { read_only: false, .. }) {
                return Err(config.problem(format!("{} is a file that is written in place", disk.id)));
            }
        }
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(Error::io("removing", dir))?;
        }
        fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::io("finding", dir))?;

        let qmp = self.qmp("saving its state")?;
        qmp.execute(&stop {})?;
        prepare(&qmp)?;
        let uri = Some(format!("file:{}", dir.join(MEMORY).display()));
        qmp.execute(&migrate {
            uri,
            channels: None,
            detach: None,
            resume: None,
        })?;
        wait(&qmp, self.console(), "saving its state")?;
        qmp.execute(&quit {})?;
        self.wait_off(LIMIT)?;

        let description = freeze(config, self.dir(), &dir, self.host().version, self.host().accel)?;
        let path = dir.join(DESCRIPTION);
        let text = serde_json::to_vec_pretty(&description).map_err(|e| stale(&dir, e))?;
        // Written last: a directory without it is no state.
        fs::write(&path, text).map_err(Error::io("writing", &path))?;
        Ok(SavedState { dir, description })
    }
}

/// Moves the disks into the state and describes a machine on overlays of them.
fn freeze(mut config: Config, from: &Path, to: &Path, version: Version, accel: Accel) -> Result<Description> {
    let mut inputs = Vec::new();
    for disk in &mut config.disks {
        match &disk.backend {
            Backend::Blank { .. } => {}
            Backend::Overlay { base, .. } => inputs.push(Input::of(base)?),
            Backend::File { path, .. } => {
                inputs.push(Input::of(path)?);
                continue;
            }
            // Refused before anything was frozen.
            Backend::Nbd { .. } => continue,
        }
        let base = to.join(format!("disk-{}.qcow2", disk.id));
        relocate(&disk.path(from), &base)?;
        disk.backend = Backend::Overlay {
            base,
            format: Format::Qcow2,
            size: None,
        };
    }
    match &config.boot {
        Boot::Kernel { kernel, initrd, .. } => {
            for path in [Some(kernel), initrd.as_ref()].into_iter().flatten() {
                inputs.push(Input::of(path)?);
            }
        }
        Boot::Ovmf => relocate(&from.join(VARS), &to.join(VARS))?,
        Boot::Bios => {}
    }
    Ok(Description {
        form: FORM,
        version,
        accel,
        config,
        inputs,
    })
}

impl SavedState {
    /// The state in `dir`.
    ///
    /// # Errors
    /// [`Error::Stale`] if there is none, or if it was made with another QEMU, acceleration or image.
    pub fn open(dir: impl AsRef<Path>) -> Result<SavedState> {
        let dir = dir.as_ref();
        let text = fs::read(dir.join(DESCRIPTION)).map_err(|e| stale(dir, e))?;
        let description: Description = serde_json::from_slice(&text).map_err(|e| stale(dir, e))?;
        let state = SavedState {
            dir: fs::canonicalize(dir).map_err(Error::io("finding", dir))?,
            description,
        };
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<()> {
        let host = probe()?;
        let description = &self.description;
        if (description.form, description.version, description.accel) != (FORM, host.version, host.accel) {
            let was = format!("it was made with QEMU {}, {}", description.version, description.accel);
            return Err(stale(&self.dir, was));
        }
        for input in &description.inputs {
            if Input::of(&input.path).ok().as_ref() != Some(input) {
                return Err(stale(&self.dir, format!("{} has changed since", input.path.display())));
            }
        }
        Ok(())
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins a machine that goes on from here. Links are plugged into nothing until [`Resume::switch`].
    pub fn builder(&self) -> Resume {
        Resume {
            state: self.clone(),
            builder: Builder {
                config: self.description.config.clone(),
            },
        }
    }
}

impl Resume {
    /// Plugs the links that the state knows by this switch's name into it.
    pub fn switch(mut self, switch: &Switch) -> Resume {
        self.builder = self.builder.switch(switch);
        self
    }

    /// Starts it, with everything that it writes in `dir`. It runs from where it was frozen when this returns; its
    /// forwarded ports are other ones.
    pub fn start(self, dir: impl AsRef<Path>) -> Result<Vm> {
        self.state.check()?;
        let vars = self.state.dir.join(VARS);
        let vm = Vm::prepare(self.builder.config, dir.as_ref(), Some(&vars))?;
        crate::launch::choose_ports(&mut lock(&vm.config), true)?;
        vm.launch(true)?;
        let qmp = vm.qmp("resuming its saved state")?;
        prepare(&qmp)?;
        let uri = Some(format!("file:{}", self.state.dir.join(MEMORY).display()));
        qmp.execute(&migrate_incoming {
            uri,
            channels: None,
            exit_on_error: Some(false),
        })?;
        wait(&qmp, vm.console(), "resuming its saved state")?;
        vm.resume()?;
        Ok(vm)
    }
}

/// What both ends of a state must agree on.
fn prepare(qmp: &Qmp) -> Result<()> {
    let capabilities = json!({ "capabilities": [{ "capability": "mapped-ram", "state": true }] });
    qmp.raw("migrate-set-capabilities", &capabilities)?;
    // Without it QEMU saves at the pace of a network.
    qmp.raw("migrate-set-parameters", &json!({ "max-bandwidth": 1_u64 << 40 }))
        .map(drop)
}

fn wait(qmp: &Qmp, console: &Console, operation: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer = qmp.raw("query-migrate", &json!({}))?;
        match answer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let description = answer["error-desc"].as_str().unwrap_or("QEMU does not say why").into();
                return Err(Error::Refused {
                    vm: console.vm().into(),
                    command: operation.into(),
                    class: "migration".into(),
                    description,
                    evidence: Box::new(console.evidence()),
                });
            }
            _ if began.elapsed() > LIMIT => {
                let (vm, awaited) = (console.vm().into(), operation.into());
                return Err(Error::Timeout {
                    vm,
                    awaited,
                    after: LIMIT,
                    evidence: Box::new(console.evidence()),
                });
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Input {
    fn of(path: &Path) -> Result<Input> {
        let path = fs::canonicalize(path).map_err(Error::io("finding", path))?;
        let data = fs::metadata(&path).map_err(Error::io("reading", &path))?;
        let modified = data.modified().map_err(Error::io("reading the time of", &path))?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Ok(Input {
            path,
            length: data.len(),
            modified,
        })
    }
}

fn stale(dir: &Path, problem: impl ToString) -> Error {
    Error::Stale {
        path: dir.into(),
        problem: problem.to_string(),
    }
}

/// Moves a file, or copies it to another file system.
fn relocate(from: &Path, to: &Path) -> Result<()> {
    if fs::rename(from, to).is_err() {
        fs::copy(from, to).map_err(Error::io("copying", from))?;
        fs::remove_file(from).map_err(Error::io("removing", from))?;
    }
    Ok(())
}
