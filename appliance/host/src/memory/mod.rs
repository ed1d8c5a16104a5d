//! A machine that exists only in memory, for running the engine with every fault and every power cut.
//!
//! Invariant: it behaves as Linux does where the engine could tell. What is on disks (signatures, LVM with its tags,
//! filesystems and their files) outlives a restart; mounts, exports, services and which volumes are active do not. A call
//! that fails has changed nothing, except where a test asked for it.
//!
//! Not here: time that passes, bytes of files, NFS itself.

mod allocation;
mod contents;
mod exports;
mod faults;
mod files;
mod groups;
mod guards;
mod halves;
mod health;
mod knobs;
mod layers;
mod lvm;
mod lvm_report;
mod machine;
mod moving;
mod raid;
mod records;
mod seals;
mod seen;
mod state;
mod takeover;
mod thin;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cistern_model::{Bytes, DiskId, DiskTransport, Signature};

pub use self::faults::Traced;
use self::halves::Half;
pub use self::layers::AllRead;
use self::state::State;
use crate::{BlockDevice, FreePart, Host, HostError};

/// When the power goes, seen from a call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before it does anything.
    Before,
    /// In its midst: what is left of each call is in `halves`.
    Midway,
    /// After it was done, before the caller hears of it.
    After,
}

/// What was called, in order: `lvm.create_thin vg/lv`.
pub type Trace = Vec<String>;

/// A machine in memory, and the knobs that a test has on it. Clones are the same machine.
#[derive(Clone)]
pub struct MemoryHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

/// The machine as it is until the next restart: a handle from before finds the power gone.
#[derive(Clone, Debug)]
struct Running {
    inner: Arc<Inner>,
    boot: u64,
}

/// A blank disk that is known by its serial number.
pub fn disk(serial: &str, size: Bytes) -> BlockDevice {
    BlockDevice {
        id: DiskId::from_serial(serial),
        node: PathBuf::new(),
        other_nodes: Vec::new(),
        size,
        model: Some("Memory".to_owned()),
        serial: Some(serial.to_owned()),
        wwn: None,
        rotational: false,
        read_only: false,
        discards: true,
        transport: DiskTransport::Virtio,
        signatures: Vec::new(),
        busy: false,
        boot: false,
        layers: None,
        free: None,
    }
}

/// What is free of a disk from which the system started: room for a partition, to stand behind that disk in the list of
/// all. What is on it is seen once the partition is made.
pub fn free_part(boot: &BlockDevice, size: Bytes) -> BlockDevice {
    BlockDevice {
        id: DiskId::free_part_of(&boot.id),
        model: Some(crate::FREE_PART_MODEL.to_owned()),
        serial: None,
        boot: false,
        busy: false,
        signatures: Vec::new(),
        size,
        free: Some(FreePart::Room {
            disk: PathBuf::new(),
            number: FREE_NUMBER,
            start: Bytes::mib(1536),
        }),
        ..boot.clone()
    }
}

/// The number of a free part's partition: EFI, the other slot and the state are before it.
const FREE_NUMBER: u32 = 4;

/// Something found on a disk.
pub fn signature(kind: &str) -> Signature {
    Signature {
        kind: kind.to_owned(),
        offset: Bytes::ZERO,
        label: None,
    }
}

impl MemoryHost {
    /// A machine with these disks; their nodes are given out in this order: `/dev/vda`, `/dev/vdb` ...
    pub fn new(disks: Vec<BlockDevice>) -> Self {
        MemoryHost {
            inner: Arc::new(Inner {
                state: Mutex::new(State::new(disks)),
                changed: Condvar::new(),
            }),
        }
    }

    /// The machine's traits, until the next restart.
    pub fn host(&self) -> Host {
        let running = Arc::new(Running {
            inner: self.inner.clone(),
            boot: self.lock().boot,
        });
        Host {
            disks: running.clone(),
            layers: running.clone(),
            lvm: running.clone(),
            raids: running.clone(),
            thin: running.clone(),
            takeover: running.clone(),
            filesystems: running.clone(),
            exports: running.clone(),
            services: running.clone(),
            network: running.clone(),
            machine: running.clone(),
            health: running.clone(),
            records: running.clone(),
            seals: running,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power, if that has not been done, and starts again with what is on the disks. Handles from before stay
    /// without power.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.restart();
        drop(state);
        self.inner.changed.notify_all();
    }
}

impl Running {
    /// A call that only looks.
    fn look<T>(
        &self,
        call: &str,
        object: &str,
        body: impl FnOnce(&mut State) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let mut state = self.enter(call, object)?;
        if let Some(error) = state.failure(call, false) {
            return Err(error);
        }
        let outcome = body(&mut state);
        state.appear(call);
        note_done(&mut state, call, &outcome);
        outcome
    }

    /// A call that changes something: where the power can go.
    fn change<T>(
        &self,
        call: &str,
        object: &str,
        body: impl FnOnce(&mut State) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let mut state = self.enter(call, object)?;
        state.changes += 1;
        state.faults.note_change();
        let cut = state.cut.filter(|(at, _)| *at == state.changes).map(|(_, cut)| cut);
        if cut.is_some() {
            state.faults.hit = Some(call.to_owned());
        }
        let half = halves::half(call);
        if half.is_none() {
            state.violations.push(format!(
                "what a power cut in the midst of {call} leaves was not decided"
            ));
        }
        let nothing = match half {
            Some(Half::Nothing | Half::Volatile) | None => true,
            Some(Half::Own | Half::All) => false,
        };
        if cut == Some(Cut::Before) || (cut == Some(Cut::Midway) && nothing) {
            return Err(state.go_dark());
        }
        if let Some(error) = state.failure(call, false) {
            return Err(error);
        }
        state.midway = cut == Some(Cut::Midway) && half == Some(Half::Own);
        let outcome = body(&mut state);
        state.midway = false;
        if cut.is_some() {
            return Err(state.go_dark());
        }
        let outcome = match state.failure(call, true) {
            Some(error) if outcome.is_ok() => Err(error),
            Some(_) | None => outcome,
        };
        note_done(&mut state, call, &outcome);
        outcome
    }

    fn enter(&self, call: &str, object: &str) -> Result<MutexGuard<'_, State>, HostError> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.boot == self.boot && state.blocked.contains(call) {
            state.waiting.push(call.to_owned());
            self.inner.changed.notify_all();
            let wait = |state: &mut State| state.boot == self.boot && state.blocked.contains(call);
            state = self
                .inner
                .changed
                .wait_while(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = state.waiting.iter().position(|waiting| waiting == call) {
                state.waiting.remove(at);
            }
        }
        if state.dark || state.boot != self.boot {
            return Err(HostError::PowerLost);
        }
        state.calls.push(format!("{call} {object}").trim_end().to_owned());
        state.faults.note_call(call);
        Ok(state)
    }
}

fn note_done<T>(state: &mut State, call: &str, outcome: &Result<T, HostError>) {
    if outcome.is_ok() && !state.done.contains(call) {
        state.done.insert(call.to_owned());
    }
}
