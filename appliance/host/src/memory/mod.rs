//! A machine that exists only in memory, for running the engine with every fault and every power cut.
//!
//! Invariant: it behaves as Linux does where the engine could tell. What is on disks (signatures, LVM with its tags,
//! filesystems and their files) outlives a restart; mounts, exports, services and which volumes are active do not. A call
//! that fails has changed nothing, except where a test asked for it.
//!
//! Not here: time that passes, bytes of files, NFS itself.

mod exports;
mod faults;
mod files;
mod health;
mod layers;
mod lvm;
mod machine;
mod moving;
mod raid;
mod records;
mod seals;
mod seen;
mod state;
mod takeover;
mod thin;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cistern_model::{Bytes, DiskId, DiskTransport, HeldState, Percent, Signature};

pub use self::faults::Traced;
pub use self::layers::AllRead;
use self::state::{DiskRecord, State, failed, lv_of_node};
use crate::{BlockDevice, ExportEntry, FreePart, HeldThere, Host, HostError, NfsSession, RootSpec};

/// When the power goes, seen from a call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before it does anything.
    Before,
    /// In its midst: a filesystem is half made; a disk that was to be joined has LVM's label and is in no group, or has a partition for layers and nothing in it; anything
    /// else, being one commit, was not done.
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
        size,
        model: Some("Memory".to_owned()),
        serial: Some(serial.to_owned()),
        wwn: None,
        rotational: false,
        read_only: false,
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

    /// All calls so far.
    pub fn calls(&self) -> Trace {
        self.lock().calls.clone()
    }

    /// Calls of this name wait until [`MemoryHost::unblock`].
    pub fn block(&self, call: &str) {
        self.lock().blocked.insert(call.to_owned());
    }

    /// Lets the calls of this name go on.
    pub fn unblock(&self, call: &str) {
        self.lock().blocked.remove(call);
        self.inner.changed.notify_all();
    }

    /// Waits until a call of this name waits. False if none does within the limit.
    pub fn wait_until_blocked(&self, call: &str, limit: Duration) -> bool {
        let state = self.lock();
        let waits = |state: &mut State| !state.waiting.iter().any(|waiting| waiting == call);
        let waited = self.inner.changed.wait_timeout_while(state, limit, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What should never have been tried: writing to a disk or a device with something unknown on it, or changing a group
    /// of another machine.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// What was written to a disk, call by call.
    pub fn writes(&self, disk: &DiskId) -> Vec<String> {
        self.lock().disk(disk).map(|d| d.writes.clone()).unwrap_or_default()
    }

    /// Pulls a disk out.
    pub fn detach(&self, disk: &DiskId) {
        self.change_disk(disk, |disk| {
            disk.attached = false;
            disk.reported = None;
            disk.layers.iter_mut().for_each(layers::Laid::close);
        });
        self.fail_images_on(disk);
    }

    /// From now on what is written to a disk fails: the kernel ceases to use the images on it, whenever it is asked to.
    pub fn let_writes_fail(&self, disk: &DiskId) {
        self.change_disk(disk, |disk| disk.errs = true);
        self.fail_images_on(disk);
    }

    /// A disk gives errors: the kernel ceases to use the images on it.
    pub fn fail_images_on(&self, disk: &DiskId) {
        let mut state = self.lock();
        let number = state.disks.iter().position(|record| record.device.id == *disk);
        if let Some(number) = number {
            state.drop_images_on(number);
        }
    }

    /// Something else changes a group: disks that are not there are marked in it as missing.
    pub fn mark_missing(&self, vg: &str) {
        self.lock().note_missing(vg);
    }

    /// From now on new images are filled only by [`MemoryHost::fill_to`].
    pub fn fill_slowly(&self) {
        self.lock().slow = true;
    }

    /// How far what is being filled is; ends at 100.
    pub fn fill_to(&self, percent: Percent) {
        let mut state = self.lock();
        state.filling = (percent < Percent::FULL).then_some(percent);
        state.comparing &= state.filling.is_some();
        drop(state);
        self.inner.changed.notify_all();
    }

    /// So many sectors differ between the images of a volume (`data_tdata`), which a scrub finds.
    pub fn let_images_differ(&self, vg: &str, lv: &str, sectors: u64) {
        self.lock().differ.insert(format!("{vg}/{lv}"), sectors);
    }

    /// Puts it back in.
    pub fn attach(&self, disk: &DiskId) {
        self.change_disk(disk, |disk| disk.attached = true);
        self.lock().take_unused_back();
    }

    /// Puts something on a disk, or changes what it says of itself.
    pub fn change_device(&self, disk: &DiskId, change: impl FnOnce(&mut BlockDevice)) {
        self.change_disk(disk, |record| change(&mut record.device));
    }

    /// After the next call of this name that only looks, something is on the disk.
    pub fn put_on_disk_after(&self, call: &str, disk: &DiskId, found: Signature) {
        self.lock().appearing.push((call.to_owned(), disk.clone(), found));
    }

    fn change_disk(&self, disk: &DiskId, change: impl FnOnce(&mut DiskRecord)) {
        if let Some(disk) = self.lock().disk_mut(disk) {
            change(disk);
        }
    }

    /// Makes a group as another machine, with this system ID, would have made it. An empty one belongs to nobody.
    pub fn add_foreign_group(&self, vg: &str, system_id: &str, disks: &[DiskId], tags: &[&str]) {
        self.lock().add_group(vg, system_id, disks, tags);
    }

    /// Adds a volume that nobody can explain to a group; a thin one if the group has a thin pool.
    pub fn add_strange_volume(&self, vg: &str, lv: &str, tags: &[&str]) {
        self.lock().add_strange_volume(vg, lv, tags);
    }

    /// Groups and volumes, without what they hold: `vg`, `vg/lv`.
    pub fn objects(&self) -> Vec<String> {
        self.lock().objects()
    }

    /// The tags of a volume, sorted.
    pub fn tags(&self, vg: &str, lv: &str) -> Vec<String> {
        let state = self.lock();
        let lv = state.vgs.get(vg).and_then(|vg| vg.lvs.get(lv));
        lv.map(|lv| lv.tags.iter().cloned().collect()).unwrap_or_default()
    }

    /// The disks on which copies of a volume lie, segment by segment.
    pub fn copies(&self, vg: &str, lv: &str) -> Vec<Vec<DiskId>> {
        self.lock().copies(vg, lv)
    }

    /// How full a thin pool's metadata is from now on.
    pub fn set_metadata_percent(&self, percent: Percent) {
        self.lock().metadata_percent = percent;
    }

    /// Makes a volume's filesystem one that cannot be mounted.
    pub fn damage(&self, vg: &str, lv: &str) {
        if let Some(xfs) = self.lock().xfs_mut(vg, lv) {
            xfs.damaged = true;
        }
    }

    /// Writes a file of `size` to a mounted filesystem, as a client would.
    pub fn write_file(&self, path: &Path, name: &str, size: Bytes) -> Result<(), HostError> {
        let mut state = self.lock();
        let operation = format!("write {name} below {}", path.display());
        let (vg, lv) = state
            .mounts
            .get(path)
            .and_then(|source| lv_of_node(source))
            .ok_or_else(|| failed(&operation, "nothing is mounted there"))?;
        if state.frozen.contains(path) || state.read_only.contains(path) {
            return Err(failed(&operation, "it is frozen or read-only"));
        }
        state.write_file(&operation, &vg, &lv, name, size)
    }

    /// Deletes a file from a mounted filesystem, as a client would. What it took stays taken until a trim.
    pub fn remove_file(&self, path: &Path, name: &str) {
        let mut state = self.lock();
        let source = state.mounts.get(path).and_then(|source| lv_of_node(source));
        if let Some(xfs) = source.and_then(|(vg, lv)| state.xfs_mut(&vg, &lv))
            && let Some(size) = xfs.files.remove(name)
        {
            let piece = (format!("{}/{name}", xfs.uuid), size);
            xfs.deleted.insert(piece);
        }
    }

    /// Lets time pass.
    pub fn pass(&self, time: jiff::SignedDuration) {
        let mut state = self.lock();
        if let Ok(later) = state.clock.checked_add(time) {
            state.clock = later;
        }
    }

    /// Filesystems to which writes are held back.
    pub fn frozen(&self) -> Vec<PathBuf> {
        self.lock().frozen.iter().cloned().collect()
    }

    /// The supervisor breaks off: its handles find the power gone, and all that the kernel has stays: mounts, exports,
    /// what is active, what is frozen.
    pub fn break_off(&self) {
        let mut state = self.lock();
        state.boot += 1;
        state.dark = false;
        state.cut = None;
        state.blocked.clear();
        drop(state);
        self.inner.changed.notify_all();
    }

    /// The files of a mounted filesystem, with their sizes; none if nothing is mounted there.
    pub fn files(&self, path: &Path) -> Option<Vec<(String, Bytes)>> {
        let state = self.lock();
        let (vg, lv) = lv_of_node(state.mounts.get(path)?)?;
        let xfs = state.xfs(&vg, &lv)?;
        Some(xfs.files.iter().map(|(name, size)| (name.clone(), *size)).collect())
    }

    /// The UUID and size of a volume's filesystem, if it was made to its end, and whether its root was given to somebody.
    pub fn filesystem(&self, vg: &str, lv: &str) -> Option<(uuid::Uuid, Bytes, bool)> {
        let state = self.lock();
        let xfs = state.xfs(vg, lv)?;
        xfs.complete.then_some((xfs.uuid, xfs.size, xfs.root.is_some()))
    }

    /// Whom the root directory of a volume's filesystem was given to.
    pub fn root(&self, vg: &str, lv: &str) -> Option<RootSpec> {
        self.lock().xfs(vg, lv)?.root
    }

    /// What is mounted, sorted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.lock().mounts.keys().cloned().collect()
    }

    /// What is exported.
    pub fn exports(&self) -> Vec<ExportEntry> {
        self.lock().exports.clone()
    }

    /// What was exported each time that the NFS server started.
    pub fn exports_at_nfs_start(&self) -> Vec<Vec<ExportEntry>> {
        self.lock().exports_at_nfs_start.clone()
    }

    /// Whether nothing can be written to the state partition from now on.
    pub fn break_records(&self, broken: bool) {
        self.lock().records_broken = broken;
    }

    /// A record's text, as it would be read now.
    pub fn record(&self, name: &str) -> Option<String> {
        let state = self.lock();
        let record = state.records.get(name)?;
        Some(format!("{}{}", record.durable, record.volatile))
    }

    /// A client holds files open there: unmounting is busy until they are released after the export was taken away.
    pub fn hold(&self, path: &Path) {
        self.lock().held.insert(path.to_owned());
    }

    /// A client at this address opens and locks files there; a number is a sum, and replaces what it held.
    pub fn client_holds(&self, address: &str, path: &Path, held: HeldState) {
        let Ok(address) = address.parse::<std::net::IpAddr>() else {
            return;
        };
        let mut state = self.lock();
        let there = HeldThere {
            path: path.to_owned(),
            held,
        };
        match state.sessions.iter_mut().find(|session| session.address == address) {
            Some(session) => {
                session.held.retain(|there| there.path != path);
                session.held.push(there);
            }
            None => {
                let session = NfsSession {
                    id: address.to_string(),
                    address,
                    held: vec![there],
                };
                state.sessions.push(session);
            }
        }
    }

    /// Something on the machine itself holds the mount; `false` lets it go.
    pub fn pin(&self, path: &Path, pinned: bool) {
        let mut state = self.lock();
        if pinned {
            state.pinned.insert(path.to_owned());
        } else {
            state.pinned.remove(path);
        }
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
        let in_parts = ["filesystems.make_xfs", "raids.extend_vg", "layers.make"].contains(&call);
        if cut == Some(Cut::Before) || (cut == Some(Cut::Midway) && !in_parts) {
            return Err(state.go_dark());
        }
        if let Some(error) = state.failure(call, false) {
            return Err(error);
        }
        state.midway = cut == Some(Cut::Midway);
        let outcome = body(&mut state);
        state.midway = false;
        if cut.is_some() {
            return Err(state.go_dark());
        }
        match state.failure(call, true) {
            Some(error) if outcome.is_ok() => Err(error),
            Some(_) | None => outcome,
        }
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
