//! What a test does to the machine and asks of it, beside the traits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use cistern_model::{Bytes, DiskId, HeldState, Percent, Signature};

use super::layers;
use super::state::{DiskRecord, State, failed, lv_of_node};
use super::{MemoryHost, Trace};
use crate::{BlockDevice, ExportEntry, HeldThere, HostError, NfsSession, RootSpec, SyncAction};

impl MemoryHost {
    /// All calls so far.
    pub fn calls(&self) -> Trace {
        self.lock().calls.clone()
    }

    /// The names of the calls so far that were done, and not only refused.
    pub fn done(&self) -> BTreeSet<String> {
        self.lock().done.clone()
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

    /// A command that was cut short leaves a volume suspended: whoever asks something of what is mounted from it waits,
    /// which a call here cannot and fails in place of.
    pub fn leave_suspended(&self, vg: &str, lv: &str) {
        self.lock().suspended.insert(format!("{vg}/{lv}"));
    }

    /// Somebody else lets it go on.
    pub fn let_go_on(&self, vg: &str, lv: &str) {
        self.lock().suspended.remove(&format!("{vg}/{lv}"));
    }

    /// What made a volume of images was cut short before it was done.
    pub fn leave_unfinished(&self, vg: &str, lv: &str) {
        let mut state = self.lock();
        let lv = state.vgs.get_mut(vg).and_then(|group| group.lvs.get_mut(lv));
        let Some(lv) = lv else { return };
        lv.skipped = true;
        lv.plains_mut().into_iter().for_each(|plain| plain.unfinished = true);
    }

    /// The volumes, `vg/lv`, that are suspended.
    pub fn suspended(&self) -> Vec<String> {
        self.lock().suspended.iter().cloned().collect()
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

    /// A disk that was pulled out never comes back; a blank one is put in its place, and says the same of itself.
    pub fn lose(&self, disk: &DiskId) {
        let mut state = self.lock();
        let Some(record) = state.disk_mut(disk) else { return };
        let vg = record.pv.take().and_then(|pv| pv.vg);
        (record.layers, record.attached) = (None, true);
        record.device.signatures.clear();
        if let Some(group) = vg.and_then(|vg| state.vgs.get_mut(&vg)) {
            group.lost += 1;
        }
    }

    /// From now on what is written to a disk fails: the kernel ceases to use the images on it, whenever it is asked to.
    pub fn let_writes_fail(&self, disk: &DiskId) {
        self.change_disk(disk, |disk| disk.errs = true);
        self.fail_images_on(disk);
    }

    /// A sector of a disk cannot be read, or can again: the kernel breaks off filling another image from it, and goes on
    /// using it.
    pub fn let_sector_fail(&self, disk: &DiskId, fails: bool) {
        self.change_disk(disk, |disk| disk.unreadable = fails);
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
        if state.filling.is_none() {
            state.comparing = None;
        }
        drop(state);
        self.inner.changed.notify_all();
    }

    /// The kernel makes all images even, until [`MemoryHost::fill_to`] says that it has.
    pub fn make_even_slowly(&self) {
        let mut state = self.lock();
        (state.filling, state.comparing) = (Some(Percent::from(0.0)), Some(SyncAction::Resync));
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

    pub(super) fn change_disk(&self, disk: &DiskId, change: impl FnOnce(&mut DiskRecord)) {
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

    /// The kernel makes all thin pools read-only, because their metadata is full: until they are activated anew.
    pub fn let_metadata_be_full(&self) {
        let mut state = self.lock();
        (state.metadata_percent, state.thin_stuck) = (Percent::FULL, Some(0));
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
        if !state.serves(&vg) {
            // Its log cannot be written.
            state.shut_down.insert(path.to_owned());
        }
        if state.shut_down.contains(path) {
            return Err(failed(&operation, "Input/output error"));
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
                let held = session.held.get_or_insert_with(Vec::new);
                held.retain(|there| there.path != path);
                held.push(there);
            }
            None => {
                let session = NfsSession {
                    id: address.to_string(),
                    address,
                    held: Some(vec![there]),
                };
                state.sessions.push(session);
            }
        }
    }

    /// What the client at this address holds cannot be read, until it is said anew.
    pub fn let_holdings_be_unreadable(&self, address: &str) {
        let mut state = self.lock();
        let sessions = state.sessions.iter_mut();
        sessions
            .filter(|session| session.address.to_string() == address)
            .for_each(|session| session.held = None);
    }

    /// All services are stopped.
    pub fn stop_services(&self) {
        self.lock().services.clear();
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
