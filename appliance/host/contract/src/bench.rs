//! What the contracts work with: a machine's traits, names for what they make, and a way back to nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use cistern_host::{Ground, Host, HostError, HostErrorKind, LogicalVolume, RaidLevel, Service, VolumeGroup, XfsSpec};
use cistern_model::{Bytes, ServiceState};
use uuid::Uuid;

use crate::{Broken, Machine, told};

/// The group that contracts make.
pub(crate) const VG: &str = "contract";
/// Its thin pool.
pub(crate) const POOL: &str = "data";
/// Another group.
pub(crate) const OTHER: &str = "contract-other";
/// A record that contracts write.
pub(crate) const RECORD: &str = "contract";

/// A machine, for one contract.
pub struct Bench<'a> {
    pub(crate) machine: &'a dyn Machine,
    pub(crate) host: Host,
    pub(crate) nodes: Vec<PathBuf>,
}

/// An outcome that a contract asks for.
pub(crate) trait Promised<T> {
    /// It was to be done.
    fn done(self, what: &str) -> Result<T, Broken>;

    /// It was to be refused, with an error of this kind.
    fn refused(self, what: &str, kind: HostErrorKind) -> Result<(), Broken>;
}

impl<T: Debug> Promised<T> for Result<T, HostError> {
    fn done(self, what: &str) -> Result<T, Broken> {
        self.map_err(|error| format!("{what}: {}", told(&error)))
    }

    fn refused(self, what: &str, kind: HostErrorKind) -> Result<(), Broken> {
        match self {
            Ok(value) => Err(format!("{what}: it was done ({value:?}), and was to be refused")),
            Err(error) if error.kind() == kind => Ok(()),
            Err(error) => Err(format!("{what}: {:?} and not {kind:?}: {}", error.kind(), told(&error))),
        }
    }
}

/// A comparison that a contract asks for.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, found: T, promised: T) -> Result<(), Broken> {
    if found == promised {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, promised {promised:?}"))
    }
}

/// A condition that a contract asks for.
pub(crate) fn holds(what: &str, condition: bool) -> Result<(), Broken> {
    if condition {
        Ok(())
    } else {
        Err(format!("not so: {what}"))
    }
}

impl<'a> Bench<'a> {
    /// For one contract.
    pub fn new(machine: &'a dyn Machine) -> Self {
        Bench {
            machine,
            host: machine.host(),
            nodes: machine.nodes(),
        }
    }

    /// Where a filesystem of this name is mounted.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.machine.directory().join(name)
    }

    /// Makes the group of these disks, by their numbers.
    pub(crate) fn group(&self, disks: &[usize]) -> Result<(), Broken> {
        let nodes: Vec<PathBuf> = disks.iter().map(|n| self.nodes[*n].clone()).collect();
        let tags = ["contract=1".to_owned()];
        self.host.lvm.create_vg(VG, &nodes, &tags).done("making a group")
    }

    /// Makes the group with a thin pool of so many extents of 4 MiB, on one disk or mirrored on two.
    pub(crate) fn pool(&self, disks: &[usize], extents: u64) -> Result<(), Broken> {
        self.group(disks)?;
        let nodes: Vec<PathBuf> = disks.iter().map(|n| self.nodes[*n].clone()).collect();
        let level = if disks.len() > 1 {
            RaidLevel::Mirror { copies: 2 }
        } else {
            RaidLevel::Linear
        };
        let lvm = &self.host.lvm;
        lvm.create_lv(VG, POOL, level, extents, &nodes, &[])
            .done("making the data")?;
        lvm.create_lv(VG, "meta", level, 2, &nodes, &[])
            .done("making the metadata")?;
        let chunk = Bytes::new(64 << 10);
        lvm.convert_to_thin_pool(VG, POOL, "meta", chunk)
            .done("making the thin pool")
    }

    /// Makes a thin volume.
    pub(crate) fn thin(&self, name: &str, size: Bytes) -> Result<PathBuf, Broken> {
        let lvm = &self.host.lvm;
        lvm.create_thin(VG, POOL, name, size, &[])
            .done("making a thin volume")?;
        Ok(lvm.node(VG, name))
    }

    /// Makes a thin volume with an XFS of the same size and mounts it.
    pub(crate) fn mounted(&self, name: &str, size: Bytes) -> Result<PathBuf, Broken> {
        let node = self.thin(name, size)?;
        let filesystems = &self.host.filesystems;
        filesystems
            .make_xfs(&node, &spec(size), Ground::Zeroes)
            .done("making a filesystem")?;
        let target = self.target(name);
        filesystems.mount(&node, &target).done("mounting it")?;
        Ok(target)
    }

    pub(crate) fn vg(&self, name: &str) -> Result<Option<VolumeGroup>, Broken> {
        let state = self.host.lvm.state().done("reading LVM's state")?;
        Ok(state.vgs.into_iter().find(|vg| vg.name == name))
    }

    pub(crate) fn lv(&self, name: &str) -> Result<Option<LogicalVolume>, Broken> {
        let state = self.host.lvm.state().done("reading LVM's state")?;
        Ok(state.lvs.into_iter().find(|lv| lv.vg == VG && lv.name == name))
    }

    /// A volume that is there.
    pub(crate) fn known(&self, name: &str) -> Result<LogicalVolume, Broken> {
        self.lv(name)?.ok_or_else(|| format!("there is no volume {name}"))
    }

    /// Back to blank disks and nothing else.
    pub(crate) fn clean(&self) -> Result<(), Broken> {
        let (lvm, filesystems) = (&self.host.lvm, &self.host.filesystems);
        lvm.hide(BTreeSet::new());
        for node in &self.nodes {
            self.machine.attach(node, true)?;
        }
        let server = self.host.services.state(Service::NfsServer);
        if server.done("asking how the server is")? != ServiceState::Inactive {
            self.machine.stop_server()?;
        }
        self.host.exports.replace(&[]).done("taking all exports away")?;
        self.host.records.remove(RECORD).done("removing a record")?;
        let directory = self.machine.directory();
        for mount in filesystems.mounts_below(&directory).done("listing mounts")? {
            self.machine.hold(&mount.target, false)?;
            // One that is shut down is not frozen.
            if filesystems.is_up(&mount.target).done("looking whether it is up")? {
                filesystems.thaw(&mount.target).done("thawing")?;
            }
            filesystems.unmount(&mount.target).done("unmounting")?;
        }
        for vg in [VG, OTHER] {
            if self.vg(vg)?.is_some_and(|vg| vg.ours) {
                lvm.deactivate_vg(vg).done("deactivating a group")?;
            }
        }
        self.machine.seat()?;
        for vg in [VG, OTHER] {
            self.remove_group(vg)?;
        }
        for node in &self.nodes {
            self.host.layers.close(node).done("closing a disk's layers")?;
            self.host.disks.wipe(node).done("wiping a disk")?;
        }
        Ok(())
    }

    /// Removes a group with all that is in it, whosever it is, if it is there.
    fn remove_group(&self, name: &str) -> Result<(), Broken> {
        let (lvm, takeover) = (&self.host.lvm, &self.host.takeover);
        let Some(vg) = self.vg(name)? else { return Ok(()) };
        if vg.exported {
            takeover.import_group(name).done("importing a group")?;
        } else if !vg.ours {
            takeover.take_group(name, &vg.system_id).done("taking a group over")?;
        }
        let state = lvm.state().done("reading LVM's state")?;
        // A group that was changed without a disk takes no other change before that disk is taken back.
        let returned = state.pvs.iter().filter(|pv| pv.vg.as_deref() == Some(name));
        for node in returned.filter_map(|pv| pv.returned.as_ref()) {
            self.host.raids.restore_pv(name, node).done("taking a disk back")?;
        }
        // A thin pool takes with it what lies in it.
        let own = state.lvs.iter().filter(|lv| lv.vg == name);
        for lv in own.filter(|lv| !lv.attributes.thin_volume) {
            lvm.remove_lv(name, &lv.name).done("removing a volume")?;
        }
        lvm.remove_vg(name).done("removing a group")
    }
}

/// A filesystem of this size.
pub(crate) fn spec(size: Bytes) -> XfsSpec {
    XfsSpec {
        uuid: Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e),
        size,
    }
}
