//! What the machine in memory holds. Invariant: what is on disks is in `disks` and `vgs`, all else is gone after a
//! restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cistern_model::{Bytes, DiskId, Percent, ServiceState, Signature};
use jiff::Timestamp;

use super::faults::Faults;
pub(super) use super::groups::{Kind, Lv, Plain, Pv, Segment, Vg, Xfs};
use super::layers::Laid;
use super::records::Record;
use crate::{BlockDevice, ExportEntry, FreePart, HostError, NfsSession, SelfReport, Service, SyncAction};

pub(super) const SYSTEM_ID: &str = "memory";
pub(super) const EXTENT: Bytes = Bytes::mib(4);
/// Where a physical volume's extents begin, as pvcreate with a metadata area of 64 MiB places them.
const FIRST_EXTENT: Bytes = Bytes::mib(65);

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) disks: Vec<DiskRecord>,
    pub(super) vgs: BTreeMap<String, Vg>,
    pub(super) records: BTreeMap<String, Record>,
    // From here on, volatile.
    /// Volumes, `vg/lv`, whose users wait.
    pub(super) suspended: BTreeSet<String>,
    pub(super) mounts: BTreeMap<PathBuf, PathBuf>,
    /// Of what was mounted before it got another name: the node that it had.
    pub(super) given: BTreeMap<PathBuf, PathBuf>,
    pub(super) exports: Vec<ExportEntry>,
    pub(super) services: HashMap<Service, ServiceState>,
    pub(super) held: BTreeSet<PathBuf>,
    pub(super) sessions: Vec<NfsSession>,
    pub(super) pinned: BTreeSet<PathBuf>,
    /// What is mounted so that nobody can write to it.
    pub(super) read_only: BTreeSet<PathBuf>,
    /// Filesystems to which writes are held back.
    pub(super) frozen: BTreeSet<PathBuf>,
    /// Mounted filesystems that the kernel has shut down.
    pub(super) shut_down: BTreeSet<PathBuf>,
    // From here on, the test's.
    pub(super) boot: u64,
    pub(super) dark: bool,
    pub(super) cut: Option<(usize, super::Cut)>,
    pub(super) midway: bool,
    pub(super) changes: usize,
    pub(super) calls: Vec<String>,
    /// The names of those that were done.
    pub(super) done: BTreeSet<String>,
    pub(super) faults: Faults,
    pub(super) appearing: Vec<(String, DiskId, Signature)>,
    pub(super) blocked: BTreeSet<String>,
    pub(super) waiting: Vec<String>,
    pub(super) violations: Vec<String>,
    pub(super) exports_at_nfs_start: Vec<Vec<ExportEntry>>,
    pub(super) metadata_percent: Percent,
    /// Whether the kernel has made thin pools read-only, and how many extents of metadata it has not taken up since.
    pub(super) thin_stuck: Option<u64>,
    pub(super) records_broken: bool,
    /// Which TPM the machine has.
    pub(super) tpm: Option<u32>,
    /// What LVM is kept from seeing.
    pub(super) hidden: BTreeSet<PathBuf>,
    pub(super) clock: Timestamp,
    /// When the image was made.
    pub(super) built: Timestamp,
    /// Nothing keeps the clock right.
    pub(super) clock_drifts: bool,
    pub(super) next_uuid: u32,
    /// How far what is being filled is; none if nothing is.
    pub(super) filling: Option<Percent>,
    /// The comparison that this is; none if it is none.
    pub(super) comparing: Option<SyncAction>,
    /// Whether filling takes time.
    pub(super) slow: bool,
    /// Sectors that differ between images, and that the last check found.
    pub(super) differ: BTreeMap<String, u64>,
    pub(super) mismatches: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
pub(super) struct DiskRecord {
    pub(super) device: BlockDevice,
    pub(super) attached: bool,
    pub(super) layers: Option<Laid>,
    pub(super) pv: Option<Pv>,
    pub(super) writes: Vec<String>,
    /// What is written to it fails.
    pub(super) errs: bool,
    /// Some of it cannot be read: nothing is filled from it to the end.
    pub(super) unreadable: bool,
    /// What it says of itself.
    pub(super) says: SelfReport,
    /// How many of its requests failed, and when the last of them did.
    pub(super) reported: Option<(u64, Timestamp)>,
}

impl State {
    pub(super) fn new(devices: Vec<BlockDevice>) -> Self {
        let node = |n: usize| {
            PathBuf::from(format!(
                "/dev/vd{}",
                char::from(b'a' + u8::try_from(n % 26).unwrap_or(0))
            ))
        };
        let placed = |n: usize, device: BlockDevice| match device.free {
            None => BlockDevice {
                node: node(n),
                ..device
            },
            // A part of the disk before it.
            Some(FreePart::Made) => device,
            Some(FreePart::Room { number, start, .. }) => {
                let disk = node(n.saturating_sub(1));
                BlockDevice {
                    node: PathBuf::from(format!("{}{number}", disk.display())),
                    free: Some(FreePart::Room { disk, number, start }),
                    ..device
                }
            }
        };
        let disks = devices.into_iter().enumerate().map(|(n, device)| DiskRecord {
            device: placed(n, device),
            attached: true,
            layers: None,
            pv: None,
            writes: Vec::new(),
            errs: false,
            unreadable: false,
            says: SelfReport::Silent,
            reported: None,
        });
        State {
            disks: disks.collect(),
            vgs: BTreeMap::new(),
            records: BTreeMap::new(),
            mounts: BTreeMap::new(),
            given: BTreeMap::new(),
            exports: Vec::new(),
            services: HashMap::new(),
            held: BTreeSet::new(),
            sessions: Vec::new(),
            pinned: BTreeSet::new(),
            read_only: BTreeSet::new(),
            frozen: BTreeSet::new(),
            suspended: BTreeSet::new(),
            shut_down: BTreeSet::new(),
            boot: 1,
            dark: false,
            cut: None,
            midway: false,
            changes: 0,
            calls: Vec::new(),
            done: BTreeSet::new(),
            faults: Faults::default(),
            appearing: Vec::new(),
            blocked: BTreeSet::new(),
            waiting: Vec::new(),
            violations: Vec::new(),
            exports_at_nfs_start: Vec::new(),
            metadata_percent: Percent::from(1.0),
            thin_stuck: None,
            records_broken: false,
            tpm: None,
            hidden: BTreeSet::new(),
            clock: Timestamp::UNIX_EPOCH,
            built: Timestamp::UNIX_EPOCH,
            clock_drifts: false,
            next_uuid: 0,
            filling: None,
            comparing: None,
            slow: false,
            differ: BTreeMap::new(),
            mismatches: BTreeMap::new(),
        }
    }

    pub(super) fn restart(&mut self) {
        self.boot += 1;
        self.dark = false;
        self.cut = None;
        self.mounts.clear();
        self.given.clear();
        self.exports.clear();
        self.services.clear();
        self.held.clear();
        self.sessions.clear();
        self.pinned.clear();
        self.read_only.clear();
        self.frozen.clear();
        self.suspended.clear();
        self.shut_down.clear();
        self.faults.disarm();
        self.blocked.clear();
        self.records.values_mut().for_each(Record::cut);
        for lv in self.vgs.values_mut().flat_map(|vg| vg.lvs.values_mut()) {
            lv.active = false;
            lv.plains_mut().into_iter().for_each(|plain| plain.dead.clear());
        }
        for disk in &mut self.disks {
            disk.layers.iter_mut().for_each(Laid::close);
        }
        self.filling = None;
        self.comparing = None;
        self.mismatches.clear();
        // Thin pools are checked before they are activated.
        self.thin_stuck = None;
        self.hidden.clear();
    }

    /// Whether a disk is there, and its group counts it as such.
    pub(super) fn there(&self, disk: usize) -> bool {
        self.readable(disk) && self.disks[disk].pv.as_ref().is_some_and(|pv| !pv.missing)
    }

    /// Of which disks something cannot be read.
    pub(super) fn unreadable(&self) -> Vec<bool> {
        self.disks.iter().map(|disk| disk.unreadable).collect()
    }

    /// A group's metadata is written: disks that are not there are marked in it.
    pub(super) fn note_missing(&mut self, vg: &str) {
        for disk in self.members(vg) {
            if !self.readable(disk)
                && let Some(pv) = &mut self.disks[disk].pv
            {
                pv.missing = true;
            }
        }
    }

    /// The kernel ceases to use the images on a disk.
    pub(super) fn drop_images_on(&mut self, disk: usize) {
        for lv in self.vgs.values_mut().flat_map(|vg| vg.lvs.values_mut()) {
            if !lv.active {
                continue;
            }
            for plain in lv.plains_mut() {
                let images = plain
                    .segments
                    .iter()
                    .filter_map(|segment| segment.disks.iter().position(|n| *n == disk));
                let images: Vec<usize> = images.collect();
                plain.dead.extend(images);
            }
        }
    }

    /// Who asks something of a filesystem on a suspended volume does not come back. A test cannot wait for ever.
    pub(super) fn note_hang(&mut self, call: &str, node: Option<PathBuf>) {
        let Some((vg, lv)) = node.as_deref().and_then(lv_of_node) else {
            return;
        };
        if self.suspended.contains(&format!("{vg}/{lv}")) {
            self.violations.push(format!("{call} hangs: {vg}/{lv} is suspended"));
        }
    }

    pub(super) fn go_dark(&mut self) -> HostError {
        self.dark = true;
        HostError::PowerLost
    }

    /// Puts on the disks what was to appear after this call.
    pub(super) fn appear(&mut self, call: &str) {
        let (now, later) = std::mem::take(&mut self.appearing)
            .into_iter()
            .partition(|(after, ..)| after == call);
        self.appearing = later;
        let now: Vec<(String, DiskId, Signature)> = now;
        for (_, id, found) in now {
            if let Some(disk) = self.disk_mut(&id) {
                disk.device.signatures.push(found);
            }
        }
    }

    pub(super) fn disk(&self, id: &DiskId) -> Option<&DiskRecord> {
        self.disks.iter().find(|disk| disk.device.id == *id)
    }

    pub(super) fn disk_mut(&mut self, id: &DiskId) -> Option<&mut DiskRecord> {
        self.disks.iter_mut().find(|disk| disk.device.id == *id)
    }

    /// The number of the disk that LVM finds at a node.
    pub(super) fn at(&self, operation: &str, node: &Path) -> Result<usize, HostError> {
        let at = (0..self.disks.len()).find(|n| self.readable(*n) && self.lvm_node(*n) == node);
        at.ok_or_else(|| failed(operation, &format!("no device {}", node.display())))
    }

    /// The number of the disk at a node of its own.
    pub(super) fn raw_at(&self, operation: &str, node: &Path) -> Result<usize, HostError> {
        let at = self
            .disks
            .iter()
            .position(|disk| disk.attached && !disk.device.is_unmade() && disk.device.node == node);
        at.ok_or_else(|| failed(operation, &format!("no device {}", node.display())))
    }

    /// What is on a disk itself: what was there, and LVM's label or the table with the partition of its layers.
    pub(super) fn signatures(&self, disk: usize) -> Vec<Signature> {
        // What lies where a partition will be is nobody's.
        let Some(record) = self.disks.get(disk).filter(|record| !record.device.is_unmade()) else {
            return Vec::new();
        };
        let ours = match record.layers {
            None => self.label(disk),
            Some(_) => Some(super::signature("gpt")),
        };
        record.device.signatures.iter().cloned().chain(ours).collect()
    }

    /// LVM's label, if it is on a disk or in its layers.
    pub(super) fn label(&self, disk: usize) -> Option<Signature> {
        self.disks[disk].pv.as_ref().map(|_| Signature {
            kind: "LVM2_member".to_owned(),
            offset: Bytes::new(536),
            label: None,
        })
    }

    pub(super) fn extents_of(&self, disk: usize) -> u64 {
        let pv = self.disks[disk].pv.as_ref();
        let size = pv.map_or_else(|| self.lvm_size(disk), |pv| pv.size);
        size.saturating_sub(FIRST_EXTENT).get() / EXTENT.get()
    }

    pub(super) fn free_extents_of(&self, disk: usize) -> u64 {
        let lvs = self.vgs.values().flat_map(|vg| vg.lvs.values());
        let taken: u64 = lvs.flat_map(Lv::plains).map(|plain| plain.taken_on(disk)).sum();
        self.extents_of(disk).saturating_sub(taken)
    }

    /// LVM ceases by itself to count a disk as missing that is there again, if nothing lies on it.
    pub(super) fn take_unused_back(&mut self) {
        for disk in 0..self.disks.len() {
            let unused = self.readable(disk) && self.free_extents_of(disk) == self.extents_of(disk);
            if let Some(pv) = self.disks[disk].pv.as_mut().filter(|_| unused) {
                pv.missing = false;
            }
        }
    }

    /// The numbers of a group's disks.
    pub(super) fn members(&self, vg: &str) -> Vec<usize> {
        let of = |disk: &DiskRecord| disk.pv.as_ref().and_then(|pv| pv.vg.clone());
        (0..self.disks.len())
            .filter(|n| of(&self.disks[*n]).as_deref() == Some(vg))
            .collect()
    }

    pub(super) fn missing(&self, vg: &str) -> u32 {
        let lost = self.vgs.get(vg).map_or(0, |vg| vg.lost);
        let gone = self.members(vg).into_iter().filter(|n| !self.there(*n)).count();
        lost + u32::try_from(gone).unwrap_or(u32::MAX)
    }

    /// What a volume lies on; of a thin one, what its pool lies on.
    fn under<'a>(&'a self, vg: &str, lv: &'a Lv) -> Vec<&'a Plain> {
        match &lv.kind {
            Kind::Plain(_) | Kind::Pool { .. } => lv.plains(),
            Kind::Thin { .. } => {
                let lvs = self.vgs.get(vg).into_iter().flat_map(|vg| vg.lvs.values());
                lvs.filter(|lv| matches!(lv.kind, Kind::Pool { .. }))
                    .flat_map(Lv::plains)
                    .collect()
            }
        }
    }

    /// Whether a disk under a volume is missing.
    pub(super) fn partial(&self, vg: &str, lv: &Lv) -> bool {
        let segments = self.under(vg, lv).into_iter().flat_map(|plain| &plain.segments);
        segments
            .flat_map(|segment| &segment.disks)
            .any(|disk| !self.there(*disk))
    }

    /// Whether enough of what a volume lies on is there.
    pub(super) fn has_all_data(&self, vg: &str, lv: &Lv) -> bool {
        self.under(vg, lv)
            .into_iter()
            .all(|plain| plain.level.has_all_data(&self.images_there(plain)))
    }

    /// Which images of a volume are there whole: one that lacks a disk under any of its parts is lost, as LVM has it.
    pub(super) fn images_there(&self, plain: &Plain) -> Vec<bool> {
        let there = |image: usize| {
            let mut disks = plain.segments.iter().filter_map(|segment| segment.disks.get(image));
            disks.all(|disk| self.there(*disk))
        };
        (0..plain.level.images() as usize).map(there).collect()
    }

    pub(super) fn copies(&self, vg: &str, lv: &str) -> Vec<Vec<DiskId>> {
        let lv = self.vgs.get(vg).and_then(|vg| vg.lvs.get(lv));
        let ids = |segment: &Segment| segment.disks.iter().map(|n| self.disks[*n].device.id.clone()).collect();
        lv.into_iter()
            .flat_map(Lv::plains)
            .flat_map(|plain| &plain.segments)
            .map(ids)
            .collect()
    }

    pub(super) fn objects(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, vg) in &self.vgs {
            all.push(name.clone());
            all.extend(vg.lvs.keys().map(|lv| format!("{name}/{lv}")));
        }
        all
    }

    pub(super) fn fresh_uuid(&mut self) -> String {
        self.next_uuid += 1;
        format!("{:06}-0000-0000-0000-0000-0000-000000", self.next_uuid)
    }
}

/// The volume that a node belongs to.
pub(super) fn lv_of_node(node: &Path) -> Option<(String, String)> {
    let (vg, lv) = node.to_str()?.strip_prefix("/dev/")?.split_once('/')?;
    Some((vg.to_owned(), lv.to_owned()))
}

pub(super) fn failed(operation: &str, why: &str) -> HostError {
    HostError::Failed {
        operation: operation.to_owned(),
        program: "memory".to_owned(),
        status: "exit status: 5".to_owned(),
        stderr: why.to_owned(),
    }
}

pub(super) fn busy(operation: &str, object: &str) -> HostError {
    HostError::Busy {
        operation: operation.to_owned(),
        object: object.to_owned(),
    }
}
